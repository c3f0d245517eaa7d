//! When the sites of a bench may move to its newest revision: canary and waves. Pure.
//!
//! The coordinator counts the bench's sites and publishes who may move, by a rank that everybody can compute: a wave costs one write, however many
//! sites it has. Each member moves those of its own sites that may. What is decided depends only on the status, the sites and the time.

use std::{collections::BTreeMap, time::Duration};

use frappe_crds::{
    FrappeBench,
    bench::{Canary, FailedSite, PauseReason, Promotion, Released, Rollout, RolloutPhase, UpdateStrategy},
};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::{apis::meta::v1::Time, util::intstr::IntOrString};
use kube::{
    ResourceExt,
    core::{Selector, SelectorExt},
};
use kube_sharding::hash::fnv1a64;

use crate::{
    controllers::{
        duration,
        windows::{Opening, Windows},
    },
    domain::{key::Key, labels},
};

use super::placed::{PlacedSite, Way};

/// Default time between two waves.
const MIN_SUCCESS_TIME: Duration = Duration::from_mins(10);
/// Up to so many sites move in one wave by default; more in these shares.
const ONE_WAVE_MAX: usize = 20;
const WAVES: [u32; 3] = [10, 50, 100];
/// Failed sites that are named.
const FAILURES_MAX: usize = 10;
/// Characters of the message of one.
const MESSAGE_CHARACTERS_MAX: usize = 300;
/// Rank up to which every site may move, also one that is counted later.
const EVERY: u64 = u64::MAX;

/// What decides about a rollout.
pub struct Sight<'a> {
    /// The bench.
    pub bench: &'a FrappeBench,
    /// Whether the pods of the newest revision have run.
    pub complete: bool,
    /// Its sites; None while they are not known.
    pub sites: Option<&'a [PlacedSite]>,
    /// The time.
    pub now: Timestamp,
}

/// The rollout to this revision, as it goes on; and the value of the annotation promote that it handles.
pub fn next(sight: &Sight, to: i32) -> (Rollout, Option<String>) {
    let status = sight.bench.status.clone().unwrap_or_default();
    let former = status.rollout.filter(|it| it.to == to);
    let handled = status.last_handled_promote;
    let mut rollout = former.unwrap_or_else(|| Rollout { to, started_at: Some(Time(sight.now)), ..Rollout::default() });
    let Some(sites) = sight.sites.filter(|_| sight.complete) else { return (rollout, handled) };
    let strategy = sight.bench.spec.update_strategy.clone().unwrap_or_default();
    let promote = asked(sight.bench, labels::PROMOTE).filter(|it| handled.as_ref() != Some(it));
    let promoted = promote.as_deref().and_then(|it| Promoted::parse(it, to));
    let handled = if promoted.is_some() { promote.clone() } else { handled };
    count(&mut rollout, sites);
    let aborted = asked(sight.bench, labels::ABORT).is_some_and(|it| it.split('/').next() == Some(&to.to_string()));
    if aborted {
        (rollout.phase, rollout.reason, rollout.released) = (RolloutPhase::Aborted, None, Released::default());
        rollout.window_opens_at = None;
        return (rollout, handled);
    }
    Course { strategy: &strategy, sites, promoted, now: sight.now }.go_on(&mut rollout);
    let waits = rollout.phase == RolloutPhase::Progressing;
    rollout.window_opens_at =
        opening(sight.bench, sight.now).filter(|it| waits && it.is_closed()).and_then(Opening::changes_at).map(Time);
    (rollout, handled)
}

/// Value of an annotation of the bench.
fn asked(bench: &FrappeBench, name: &str) -> Option<String> {
    bench.annotations().get(name).cloned()
}

/// Counts the sites by how far they are.
fn count(rollout: &mut Rollout, sites: &[PlacedSite]) {
    let to = rollout.to;
    let of = |way: fn(&Way) -> bool| sites.iter().filter(|it| way(&it.way(to))).count();
    let number = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
    rollout.total = number(sites.len());
    rollout.updated = number(of(|way| matches!(way, Way::Moved)));
    rollout.failed = number(of(|way| matches!(way, Way::Failed(_))));
    rollout.held = number(of(|way| matches!(way, Way::Held)));
    let failure = |site: &PlacedSite| match site.way(to) {
        Way::Failed(message) => {
            let message = message.chars().take(MESSAGE_CHARACTERS_MAX).collect();
            Some(FailedSite { site: site.key.to_string(), message })
        }
        Way::Moved | Way::Held | Way::Waiting => None,
    };
    rollout.failures = sites.iter().filter_map(failure).take(FAILURES_MAX).collect();
    rollout.failures.sort_by(|one, other| one.site.cmp(&other.site));
}

/// What a user requests by the annotation promote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Promoted {
    /// The next wave, whatever has failed so far.
    Next,
    /// All sites.
    Full,
}

impl Promoted {
    /// Parses the annotation's value; None if it names another revision.
    fn parse(value: &str, to: i32) -> Option<Self> {
        let mut parts = value.split('/');
        let names = parts.next().is_some_and(|it| it == to.to_string());
        names.then(|| if parts.next() == Some("full") { Self::Full } else { Self::Next })
    }
}

/// What leads a rollout further.
struct Course<'a> {
    strategy: &'a UpdateStrategy,
    sites: &'a [PlacedSite],
    promoted: Option<Promoted>,
    now: Timestamp,
}

impl Course<'_> {
    fn go_on(&self, rollout: &mut Rollout) {
        let waves = self.waves();
        rollout.waves = i32::try_from(waves.len()).unwrap_or(i32::MAX);
        if self.promoted.is_some() {
            rollout.tolerated = rollout.failed;
        }
        let last = waves.len();
        let mut wave = usize::try_from(rollout.wave).unwrap_or_default().min(last);
        let has_canary = self.canary().is_some();
        let is_new = rollout.phase == RolloutPhase::Preparing || rollout.phase == RolloutPhase::Aborted;
        if is_new {
            wave = usize::from(!has_canary);
        }
        if self.promoted == Some(Promoted::Full) {
            wave = last;
        }
        rollout.reason = None;
        if self.sites.iter().all(|site| !matches!(site.way(rollout.to), Way::Waiting)) {
            wave = last;
        }
        loop {
            rollout.wave = i32::try_from(wave).unwrap_or(i32::MAX);
            rollout.released = self.released(rollout.to, wave, &waves);
            if let Some(reason) = self.pauses(rollout, wave) {
                (rollout.phase, rollout.reason) = (RolloutPhase::Paused, Some(reason));
                return;
            }
            if self.is_moving(rollout, wave, last) {
                (rollout.phase, rollout.soak_until, rollout.finished_at) = (RolloutPhase::Progressing, None, None);
                return;
            }
            if wave == last {
                rollout.phase = RolloutPhase::Completed;
                rollout.soak_until = None;
                rollout.finished_at = rollout.finished_at.take().or(Some(Time(self.now)));
                return;
            }
            if self.soaks(rollout, wave) {
                return;
            }
            // A promotion is for one wave.
            (wave, rollout.soak_until) = (wave + 1, None);
        }
    }

    /// Shares of the sites that have moved after each wave, each with at least one more site.
    fn waves(&self) -> Vec<u32> {
        let asked: Vec<u32> = self.strategy.waves.iter().map(frappe_crds::bench::Percentage::number).collect();
        let mut waves = match asked.as_slice() {
            [] if self.sites.len() <= ONE_WAVE_MAX => vec![100],
            [] => WAVES.to_vec(),
            _ => asked,
        };
        if waves.last() != Some(&100) {
            waves.push(100);
        }
        // A wave that adds no site is none.
        waves.dedup_by_key(|percent| share(*percent, self.sites.len()));
        waves
    }

    /// Who may move in this wave and those before.
    fn released(&self, to: i32, wave: usize, waves: &[u32]) -> Released {
        let canary = self.canary();
        let by_selector = canary.is_some_and(|it| it.selector.is_some());
        let count = match wave {
            0 if by_selector => 0,
            0 => usize::try_from(canary.and_then(|it| it.sites).unwrap_or(1)).unwrap_or(1),
            _ => share(waves[wave - 1], self.sites.len()),
        };
        let up_to = if wave == waves.len() { Some(EVERY) } else { self.rank_of(to, count) };
        Released { canary: by_selector, up_to: up_to.map(|it| format!("{it:016x}")) }
    }

    /// Rank of the last one of so many sites; None for no site.
    fn rank_of(&self, to: i32, count: usize) -> Option<u64> {
        let mut ranks: Vec<u64> = self.sites.iter().map(|it| rank(to, &it.uid)).collect();
        ranks.sort_unstable();
        count.checked_sub(1).and_then(|it| ranks.get(it).copied())
    }

    /// Why no further site may move.
    fn pauses(&self, rollout: &Rollout, wave: usize) -> Option<PauseReason> {
        if self.strategy.paused == Some(true) && self.promoted.is_none() {
            return Some(PauseReason::PausedByUser);
        }
        // A database that could not be restored needs a user, however many sites may fail.
        let broken = self.sites.iter().any(|site| site.broken && matches!(site.way(rollout.to), Way::Failed(_)));
        let most = if wave == 0 || broken { 0 } else { self.failures_max() };
        (rollout.failed - rollout.tolerated > most).then_some(PauseReason::FailuresExceeded)
    }

    fn failures_max(&self) -> i32 {
        let of_all =
            |percent: u32| i32::try_from(u64::from(percent) * self.sites.len() as u64 / 100).unwrap_or(i32::MAX);
        match &self.strategy.max_failures {
            None => 0,
            Some(IntOrString::Int(number)) => *number,
            Some(IntOrString::String(text)) => text.strip_suffix('%').and_then(|it| it.parse().ok()).map_or(0, of_all),
        }
    }

    /// Whether sites that may move have not done so. The sites that the last wave waits for are all of them.
    fn is_moving(&self, rollout: &Rollout, wave: usize, last: usize) -> bool {
        let release = Release::of(rollout.to, &rollout.released, self.canary());
        let may = |site: &&PlacedSite| wave == last || release.includes(&site.uid, &site.labels);
        self.sites.iter().filter(may).any(|site| matches!(site.way(rollout.to), Way::Waiting))
    }

    fn canary(&self) -> Option<&Canary> {
        self.strategy.canary.as_ref()
    }

    /// Whether the next wave waits. Records until when.
    fn soaks(&self, rollout: &mut Rollout, wave: usize) -> bool {
        let canary = self.canary().filter(|_| wave == 0);
        let promoted = self.promoted.is_some() && rollout.phase != RolloutPhase::Preparing;
        if promoted {
            return false;
        }
        if canary.and_then(|it| it.promotion) == Some(Promotion::Manual) {
            (rollout.phase, rollout.reason) = (RolloutPhase::Paused, Some(PauseReason::AwaitingPromotion));
            return true;
        }
        let own = canary.and_then(|it| it.min_success_time.as_ref());
        let time = duration::of(own.or(self.strategy.min_success_time.as_ref()), MIN_SUCCESS_TIME);
        let until = rollout.soak_until.get_or_insert_with(|| Time(self.now.checked_add(time).unwrap_or(self.now)));
        let waits = self.now < until.0;
        if waits {
            rollout.phase = RolloutPhase::Soaking;
        }
        waits
    }
}

/// Whether a window of the bench is open; None if it has no windows.
fn opening(bench: &FrappeBench, now: Timestamp) -> Option<Opening> {
    let windows = &bench.spec.update_strategy.as_ref().filter(|it| !it.windows.is_empty())?.windows;
    Some(Windows::opening(windows, &Key::of(bench).to_string(), now))
}

/// The number of sites of a share, rounded up: never none of some.
fn share(percent: u32, sites: usize) -> usize {
    (percent as usize * sites).div_ceil(100)
}

/// Time until the rollout goes on by itself.
pub fn again_after(bench: &FrappeBench, now: Timestamp) -> Option<Duration> {
    let rollout = bench.status.as_ref()?.rollout.as_ref()?;
    let until = match rollout.phase {
        RolloutPhase::Soaking => rollout.soak_until.as_ref().map(|it| it.0),
        RolloutPhase::Progressing => opening(bench, now).and_then(Opening::changes_at),
        _ => None,
    };
    Some(Duration::try_from(until?.duration_since(now)).unwrap_or_default())
}

/// Rank of a site among those of a rollout, even and another one for each revision: FNV-1a with 64 bits.
pub fn rank(to: i32, uid: &str) -> u64 {
    fnv1a64(format!("{to}/{uid}").as_bytes())
}

/// Which sites may move to a revision.
pub struct Release {
    to: i32,
    selector: Option<Selector>,
    up_to: Option<u64>,
}

impl Release {
    /// Reads what was published for a revision.
    pub fn of(to: i32, released: &Released, canary: Option<&Canary>) -> Self {
        let selector = canary.and_then(|it| it.selector.clone()).filter(|_| released.canary);
        let up_to = released.up_to.as_deref().and_then(|it| u64::from_str_radix(it, 16).ok());
        Self { to, selector: selector.and_then(|it| it.try_into().ok()), up_to }
    }

    /// Whether a site may move.
    pub fn includes(&self, uid: &str, labels: &BTreeMap<String, String>) -> bool {
        let selects = self.selector.as_ref().is_some_and(|it| it.matches(labels));
        selects || self.up_to.is_some_and(|it| rank(self.to, uid) <= it)
    }
}
