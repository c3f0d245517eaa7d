//! Which optional APIs can be used: those that exist and of which what is not shared by slots is listed.

use kube_sharding::{
    SlotSet,
    readiness::{Awaits, Source},
};
use tokio::sync::watch;

use super::apis::Present;
use crate::domain::{
    capabilities::{Api, Capabilities, Reader},
    kinds::Kind,
    watches::Watch,
};

/// A watch of the table, and what it has listed.
pub(super) struct Watched {
    /// The API that its kind needs.
    needs: Option<Api>,
    /// Whether it follows the slots.
    is_by_slot: bool,
    pub(super) source: Source,
}

impl Watched {
    /// A watch of the table. If its kind needs an API, `present` says whether that exists: where it is half known, a bench would
    /// take from it what it holds.
    pub(super) fn of(
        kind: Kind,
        watch: &Watch,
        synced: watch::Receiver<SlotSet>,
        present: Option<watch::Receiver<bool>>,
    ) -> Self {
        let awaits = watch.awaited_by.iter().map(|reader| match reader {
            Reader::Sites => Awaits::Slots,
            Reader::Benches => Awaits::Coordinator,
            Reader::Replica => Awaits::Member,
        });
        let source = Source::new(synced, awaits);
        let source = match present {
            Some(present) => source.while_present(present),
            None => source,
        };
        Self { needs: kind.row().needs, is_by_slot: watch.narrowing.is_by_slot(), source }
    }
}

/// The APIs that can be used. Of slots, each waits for its own.
pub(super) fn offered(present: &Present, watched: &[Watched]) -> Capabilities {
    let exists = |api: Api| present.get(&api).is_some_and(|it| *it.borrow());
    let is_listed = |api: Api| {
        watched.iter().filter(|it| it.needs == Some(api)).all(|it| it.is_by_slot || it.source.synced() == SlotSet::ALL)
    };
    Capabilities::of(|api| exists(api) && is_listed(api))
}

/// Whether something that they depend on came or went.
pub(super) fn concerns(reader: Reader, before: Capabilities, now: Capabilities) -> bool {
    let mut read = Api::ALL.iter().filter(|api| api.row().reader == reader);
    read.any(|api| before.has(*api) != now.has(*api))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use kube_sharding::{ownership::Ownership, readiness::Readiness};

    use super::*;

    /// The watches of a kind, with what they have listed.
    fn watched(kind: Kind, listed: SlotSet, present: &Present) -> impl Iterator<Item = Watched> {
        let present = kind.row().needs.map(|api| present[&api].clone());
        let watch = move |watch| Watched::of(kind, watch, watch::channel(listed).1, present.clone());
        kind.row().watches.iter().map(watch)
    }

    /// The slots and whether the benches are ready, and what is offered, of two kinds of which the first is listed.
    fn seen(kinds: [Kind; 2], listed: SlotSet, exists: &[Api]) -> (SlotSet, bool, Capabilities) {
        let is_present = |api: &Api| (*api, watch::channel(exists.contains(api)).1);
        let present: Present = Api::ALL.iter().map(is_present).collect();
        let first = watched(kinds[0], SlotSet::ALL, &present);
        let all: Vec<Watched> = first.chain(watched(kinds[1], listed, &present)).collect();
        let everything = || watch::channel(SlotSet::ALL).1;
        let ownership = Ownership {
            held: everything(),
            open: everything(),
            coordinating: everything(),
            coordinates: everything(),
            others: watch::channel(Vec::new()).1,
        };
        let sources = all.iter().map(|it| it.source.clone()).collect();
        let step = Readiness::new(sources, &ownership, watch::channel(Arc::default()).1).look();
        (step.ready, step.coordinates, offered(&present, &all))
    }

    #[test]
    fn kinds_of_an_api_are_waited_for_where_it_exists() {
        let (all, none) = (SlotSet::ALL, SlotSet::NONE);
        let gateway = |listed, exists: &[Api]| {
            let (ready, _, offered) = seen([Kind::Ingress, Kind::HttpRoute], listed, exists);
            (ready, offered.gateway)
        };
        assert_eq!(gateway(none, &[]), (all, false));
        assert_eq!(gateway(none, &[Api::Gateway]), (none, true), "each slot waits for its own");
        assert_eq!(gateway(all, &[Api::Gateway]), (all, true));
        let mariadb = |listed, exists: &[Api]| {
            let (ready, _, offered) = seen([Kind::Database, Kind::MariaDb], listed, exists);
            (ready, offered.mariadb)
        };
        assert_eq!(mariadb(none, &[Api::Keda]), (all, false));
        assert_eq!(mariadb(none, &[Api::MariaDb]), (none, false), "which servers there are is not known");
        assert_eq!(mariadb(all, &[Api::MariaDb]), (all, true));
        let keda = |listed, exists: &[Api]| {
            let (_, benches, offered) = seen([Kind::Deployment, Kind::ScaledObject], listed, exists);
            (benches, offered.keda)
        };
        assert_eq!(keda(none, &[]), (true, false));
        assert_eq!(keda(none, &[Api::Keda]), (false, false), "a bench would take from KEDA what it holds");
        assert_eq!(keda(all, &[Api::Keda]), (true, true));
    }

    #[test]
    fn an_api_triggers_only_affected_reconciles() {
        let with = |api: Api| Capabilities::of(|it| it == api);
        for api in Api::ALL {
            let woken = [Reader::Sites, Reader::Benches].map(|it| concerns(it, Capabilities::default(), with(*api)));
            assert_eq!(woken, [api.row().reader == Reader::Sites, api.row().reader == Reader::Benches], "{api:?}");
            assert!(!concerns(api.row().reader, with(*api), with(*api)));
        }
    }
}
