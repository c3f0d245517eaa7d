//! Why an edit waited: for the API server, an owner, the owner's process, or something else.

use std::collections::{BTreeMap, HashSet};

use jiff::{SignedDuration, Timestamp};

use super::checker::{Edit, Findings, pod};

/// Resolution of a wait.
const STEP: SignedDuration = SignedDuration::from_millis(100);
/// How long members may need to recover from an outage: lists and backoff.
const AFTER_OUTAGE: SignedDuration = SignedDuration::from_secs(10);
/// How long a new owner may take to list its new slots.
const AFTER_CHANGE: SignedDuration = SignedDuration::from_secs(2);

/// Start and end.
pub type Span = (Timestamp, Timestamp);

/// The end of a member's process, or of its Lease.
#[derive(Clone, Debug)]
pub struct Death {
    /// uid of its pod.
    pub pod: String,
    /// When.
    pub at: Timestamp,
    /// Whether the pod continues, as another incarnation.
    pub joins_again: bool,
}

/// The injected faults, with the wall clock of the same machine.
#[derive(Clone, Debug, Default)]
pub struct Journal {
    /// Times without the API server.
    pub outages: Vec<Span>,
    /// Times in which a pod's process was paused.
    pub stops: Vec<(String, Span)>,
    /// Ends of members.
    pub deaths: Vec<Death>,
}

/// For each slot, times without a live owner.
pub struct Unowned(Vec<Vec<(Timestamp, Option<Timestamp>)>>);

/// Dead members.
#[derive(Default)]
struct Dead {
    pods: HashSet<String>,
    incarnations: HashSet<String>,
}

impl Dead {
    fn owns(&self, owner: &str) -> bool {
        !owner.is_empty() && !self.incarnations.contains(owner) && !self.pods.contains(pod(owner))
    }
}

impl Unowned {
    /// Processes versions of the map and deaths in order.
    pub fn of(found: &Findings, journal: &Journal) -> Self {
        let slots = found.maps.first().map_or(0, |map| map.owners.len());
        let mut spans: Vec<Vec<(Timestamp, Option<Timestamp>)>> = vec![Vec::new(); slots];
        let mut times: Vec<Timestamp> = found.maps.iter().map(|map| map.at).collect();
        times.extend(journal.deaths.iter().map(|death| death.at));
        times.sort();
        let mut dead = Dead::default();
        for at in times {
            for death in journal.deaths.iter().filter(|death| death.at == at) {
                if !death.joins_again {
                    dead.pods.insert(death.pod.clone());
                }
                let known = found.maps.iter().filter(|map| map.at <= at).flat_map(|map| &map.owners);
                dead.incarnations.extend(known.filter(|owner| pod(owner) == death.pod).cloned());
            }
            let Some(map) = found.map_at(at) else { continue };
            for (slot, owner) in map.owners.iter().enumerate() {
                let open = spans[slot].last_mut().filter(|(_, end)| end.is_none());
                match (dead.owns(owner), open) {
                    (true, Some((_, end))) => *end = Some(at),
                    (false, None) => spans[slot].push((at, None)),
                    _ => {}
                }
            }
        }
        Self(spans)
    }

    /// How long slots were unowned, in seconds and in order, for times that started between two times.
    pub fn seconds(&self, (since, until): Span) -> Vec<f64> {
        let slots = self.0.iter().take(256).flatten().filter(|(begun, _)| *begun >= since && *begun < until);
        let ended = slots.filter_map(|(begun, end)| Some(end.as_ref()?.duration_since(*begun).as_secs_f64()));
        let mut seconds: Vec<f64> = ended.collect();
        seconds.sort_by(f64::total_cmp);
        seconds
    }

    /// Number of unowned slots, including the coordinator's entry, at a time.
    pub fn count_at(&self, at: Timestamp) -> usize {
        (0..self.0.len()).filter(|slot| self.at(*slot, at)).count()
    }

    fn at(&self, slot: usize, at: Timestamp) -> bool {
        let spans = self.0.get(slot).into_iter().flatten();
        spans.into_iter().any(|(begun, end)| *begun <= at && end.is_none_or(|end| at < end))
    }
}

/// Seconds that an edit waited, by cause.
pub fn causes(edit: &Edit, found: &Findings, journal: &Journal, unowned: &Unowned) -> BTreeMap<&'static str, f64> {
    let mut seconds = BTreeMap::new();
    let Some(observed) = edit.observed else { return seconds };
    let mut at = edit.at;
    while at < observed {
        *seconds.entry(cause(edit.slot, at, found, journal, unowned)).or_insert(0.0) += STEP.as_secs_f64();
        at += STEP;
    }
    seconds
}

fn cause(slot: usize, at: Timestamp, found: &Findings, journal: &Journal, unowned: &Unowned) -> &'static str {
    let within = |span: &Span, after: SignedDuration| span.0 <= at && at < span.1 + after;
    if journal.outages.iter().any(|outage| within(outage, SignedDuration::ZERO)) {
        return "the API server was unavailable";
    }
    if unowned.at(slot, at) {
        return "the slot had no live owner";
    }
    let Some(map) = found.map_at(at) else { return "no map" };
    let owner = map.owners.get(slot).map_or("", String::as_str);
    let stood = |(stopped, span): &(String, Span)| stopped == pod(owner) && within(span, SignedDuration::ZERO);
    if journal.stops.iter().any(stood) {
        return "the owner's process was paused";
    }
    if journal.outages.iter().any(|outage| within(outage, AFTER_OUTAGE)) {
        return "the API server had just recovered";
    }
    let former = found.maps.iter().rfind(|map| map.owners.get(slot).is_some_and(|it| it != owner) && map.at <= at);
    let since = former.and_then(|former| found.maps.iter().find(|map| map.version > former.version));
    if since.is_some_and(|since| at < since.at + AFTER_CHANGE) {
        return "the slot had just got its owner";
    }
    "other: the owner's queue, lists and backoff"
}
