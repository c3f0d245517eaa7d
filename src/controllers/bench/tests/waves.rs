//! Canary and waves: who may move when, what stops a rollout, and what continues it.

use k8s_openapi::jiff::SignedDuration;

use super::{
    super::{
        placed::PlacedSite,
        waves::{Release, Sight, again_after, next, rank},
    },
    *,
};
use frappe_crds::bench::{PauseReason, Rollout, RolloutPhase};

const TO: i32 = 2;

/// A bench with sites on revision 1, whose rollout to revision 2 goes on by what is decided.
struct Course {
    bench: FrappeBench,
    sites: Vec<PlacedSite>,
    now: Timestamp,
}

impl Course {
    fn new(count: usize, strategy: Value) -> Self {
        let site = |number: usize| PlacedSite {
            key: Key::new("default", format!("site-{number}")),
            uid: format!("uid-{number}"),
            labels: if number % 10 == 3 {
                [("tier".to_owned(), "internal".to_owned())].into()
            } else {
                BTreeMap::new()
            },
            revision: 1,
            failed: None,
            broken: false,
            goes_to: None,
            undone: None,
            held: false,
        };
        let bench = bench(json!({"updateStrategy": strategy}));
        Self { bench, sites: (0..count).map(site).collect(), now: Timestamp::UNIX_EPOCH }
    }

    /// Decides once.
    fn decide(&mut self) -> Rollout {
        let sight = Sight { bench: &self.bench, complete: true, sites: Some(&self.sites), now: self.now };
        let (rollout, handled) = next(&sight, TO);
        let status = self.bench.status.get_or_insert_default();
        (status.rollout, status.last_handled_promote) = (Some(rollout.clone()), handled);
        rollout
    }

    /// The sites that may move and have not.
    fn free(&self) -> Vec<usize> {
        let rollout = self.bench.status.as_ref().and_then(|it| it.rollout.clone()).expect("a rollout");
        let canary = self.bench.spec.update_strategy.as_ref().and_then(|it| it.canary.as_ref());
        let release = Release::of(TO, &rollout.released, canary);
        let may = |it: &PlacedSite| it.revision != TO && release.includes(&it.uid, &it.labels);
        (0..self.sites.len()).filter(|number| may(&self.sites[*number])).collect()
    }

    /// All sites that may move do so; returns their number.
    fn move_all(&mut self) -> usize {
        let mut free = self.free();
        free.retain(|number| self.sites[*number].failed.is_none());
        for number in &free {
            self.sites[*number].revision = TO;
        }
        free.len()
    }

    fn wait(&mut self, minutes: i64) {
        self.now = self.now.checked_add(SignedDuration::from_mins(minutes)).expect("a time");
    }

    fn annotate(&mut self, name: &str, value: &str) {
        self.bench.annotations_mut().insert(name.to_owned(), value.to_owned());
    }

    fn is(&mut self, phase: RolloutPhase, reason: Option<PauseReason>) -> Rollout {
        let rollout = self.decide();
        assert_eq!((rollout.phase, rollout.reason), (phase, reason), "{rollout:?}");
        assert_eq!(self.decide(), rollout, "an unchanged world decides the same");
        rollout
    }
}

/// Exact, whatever the number of sites.
#[test]
fn a_wave_has_exactly_its_share_of_the_sites() {
    for count in (1..50).chain([1_000, 10_000]) {
        let mut course = Course::new(count, json!({"waves": ["10%", "50%", "100%"]}));
        let mut moved = 0;
        for (wave, share) in [(1, 10), (2, 50), (3, 100)] {
            // A share that adds no site is no wave.
            if moved == (share * count).div_ceil(100) {
                continue;
            }
            course.is(RolloutPhase::Progressing, None);
            moved += course.move_all();
            assert_eq!(moved, (share * count).div_ceil(100), "{count} sites, wave {wave}");
            let rollout = course.decide();
            assert_eq!(usize::try_from(rollout.updated), Ok(moved));
            course.wait(10);
        }
        let rollout = course.is(RolloutPhase::Completed, None);
        assert_eq!((usize::try_from(rollout.updated), rollout.wave), (Ok(count), rollout.waves));
    }
}

#[test]
fn between_waves_it_waits() {
    let mut course = Course::new(100, json!({"minSuccessTime": "30m"}));
    course.is(RolloutPhase::Progressing, None);
    assert_eq!(course.move_all(), 10);
    let rollout = course.is(RolloutPhase::Soaking, None);
    assert_eq!(course.free().len(), 0);
    assert_eq!(super::super::waves::again_after(&course.bench, course.now), Some(std::time::Duration::from_mins(30)));
    course.wait(29);
    assert_eq!(course.is(RolloutPhase::Soaking, None).soak_until, rollout.soak_until);
    course.wait(1);
    assert_eq!(course.is(RolloutPhase::Progressing, None).wave, 2);
    assert_eq!(course.move_all(), 40);
    course.is(RolloutPhase::Soaking, None);
    // A user does not want to wait.
    course.annotate(labels::PROMOTE, "2");
    assert_eq!(course.is(RolloutPhase::Progressing, None).wave, 3);
}

#[test]
fn few_sites_move_in_one_wave() {
    let mut course = Course::new(20, json!({}));
    assert_eq!(course.is(RolloutPhase::Progressing, None).waves, 1);
    assert_eq!(course.move_all(), 20);
    assert!(course.is(RolloutPhase::Completed, None).finished_at.is_some());
    let mut more = Course::new(21, json!({}));
    assert_eq!(more.is(RolloutPhase::Progressing, None).waves, 3);
    let mut none = Course::new(0, json!({}));
    none.is(RolloutPhase::Completed, None);
}

#[test]
fn a_canary_moves_first_and_waits_for_its_promotion() {
    let canary = json!({"canary": {"selector": {"matchLabels": {"tier": "internal"}}, "promotion": "Manual"}});
    let mut course = Course::new(100, canary);
    assert_eq!(course.is(RolloutPhase::Progressing, None).wave, 0);
    assert_eq!(course.free(), (3..100).step_by(10).collect::<Vec<_>>(), "those of the selector, and no other");
    course.move_all();
    course.is(RolloutPhase::Paused, Some(PauseReason::AwaitingPromotion));
    course.wait(600);
    course.is(RolloutPhase::Paused, Some(PauseReason::AwaitingPromotion));
    course.annotate(labels::PROMOTE, "1");
    course.is(RolloutPhase::Paused, Some(PauseReason::AwaitingPromotion));
    course.annotate(labels::PROMOTE, "2");
    course.is(RolloutPhase::Progressing, None);
    assert!(!course.free().is_empty());
    // By number, with a time of its own.
    let mut course = Course::new(100, json!({"canary": {"sites": 5, "minSuccessTime": "1h"}}));
    course.is(RolloutPhase::Progressing, None);
    assert_eq!(course.move_all(), 5);
    course.wait(59);
    course.is(RolloutPhase::Soaking, None);
    course.wait(60);
    course.is(RolloutPhase::Progressing, None);
    // All at once.
    course.annotate(labels::PROMOTE, "2/full");
    course.decide();
    assert_eq!(course.free().len(), 95);
}

#[test]
fn failures_stop_it_until_a_user_decides() {
    let mut course = Course::new(100, json!({"maxFailures": "2%", "canary": {"sites": 2}}));
    course.decide();
    let first = course.free()[0];
    course.sites[first].failed = Some((TO, "patch x".to_owned()));
    let rollout = course.is(RolloutPhase::Paused, Some(PauseReason::FailuresExceeded));
    assert_eq!((rollout.failed, rollout.failures[0].message.as_str()), (1, "patch x"), "of the canary none may fail");
    course.annotate(labels::PROMOTE, "2");
    course.is(RolloutPhase::Progressing, None);
    course.move_all();
    course.is(RolloutPhase::Soaking, None);
    course.wait(10);
    course.is(RolloutPhase::Progressing, None);
    for number in course.free().into_iter().filter(|it| *it != first).take(2).collect::<Vec<_>>() {
        course.sites[number].failed = Some((TO, "patch y".to_owned()));
    }
    course.is(RolloutPhase::Progressing, None);
    let third = course.free().into_iter().find(|it| course.sites[*it].failed.is_none()).expect("another");
    course.sites[third].failed = Some((TO, "patch z".to_owned()));
    assert_eq!(course.is(RolloutPhase::Paused, Some(PauseReason::FailuresExceeded)).tolerated, 1);
    course.annotate(labels::PROMOTE, "2/full/again");
    course.decide();
    course.move_all();
    course.sites.iter_mut().filter(|it| it.failed.is_some()).for_each(|it| it.revision = 1);
    let rollout = course.is(RolloutPhase::Completed, None);
    assert_eq!((rollout.updated, rollout.failed, rollout.failures.len()), (96, 4, 4));
    // An earlier revision's failure does not count.
    let mut course = Course::new(3, json!({}));
    course.sites[0].failed = Some((1, "long ago".to_owned()));
    assert_eq!(course.is(RolloutPhase::Progressing, None).failed, 0);
}

#[test]
fn a_pause_an_abort_and_a_held_site() {
    let mut course = Course::new(30, json!({}));
    course.decide();
    course.bench.spec.update_strategy.as_mut().expect("a strategy").paused = Some(true);
    course.is(RolloutPhase::Paused, Some(PauseReason::PausedByUser));
    course.bench.spec.update_strategy.as_mut().expect("a strategy").paused = None;
    course.is(RolloutPhase::Progressing, None);
    course.move_all();
    course.annotate(labels::ABORT, "1");
    course.is(RolloutPhase::Soaking, None);
    course.annotate(labels::ABORT, "2");
    course.is(RolloutPhase::Aborted, None);
    assert!(course.free().is_empty());
    course.bench.annotations_mut().remove(labels::ABORT);
    course.wait(60);
    course.decide();
    course.wait(60);
    course.decide();
    // A site that must not move holds up no wave.
    course.sites.iter_mut().find(|it| it.revision == 1).expect("a site").held = true;
    for _ in 0..4 {
        course
            .free()
            .into_iter()
            .filter(|it| !course.sites[*it].held)
            .collect::<Vec<_>>()
            .into_iter()
            .for_each(|it| course.sites[it].revision = TO);
        course.wait(60);
        course.decide();
    }
    let rollout = course.is(RolloutPhase::Completed, None);
    assert_eq!((rollout.updated, rollout.held), (29, 1));
}

/// Nothing is released before the pods run and all sites are known.
#[test]
fn nothing_moves_before_everything_is_known() {
    let course = Course::new(3, json!({}));
    for (complete, sites) in [(false, Some(course.sites.as_slice())), (true, None)] {
        let sight = Sight { bench: &course.bench, complete, sites, now: course.now };
        let (rollout, _) = next(&sight, TO);
        assert_eq!((rollout.phase, rollout.released.up_to), (RolloutPhase::Preparing, None));
    }
}

/// Another order in each rollout: it is not always the same sites that go first.
#[test]
fn each_revision_has_an_order_of_its_own() {
    let first = |to: i32| {
        let mut all: Vec<usize> = (0..1000).collect();
        all.sort_by_key(|it| rank(to, &format!("uid-{it}")));
        all.into_iter().take(50).collect::<std::collections::BTreeSet<_>>()
    };
    let both = first(2).intersection(&first(3)).count();
    assert!(both < 12, "{both} of 50 go first both times");
}

/// Sites wait for a window; until when, the bench says.
#[test]
fn outside_its_windows_it_says_when_the_next_one_opens() {
    let windows = json!([{"schedule": "0 1 * * *", "duration": "2h"}]);
    let mut course = Course::new(10, json!({"waves": ["50%", "100%"], "windows": windows, "minSuccessTime": "30m"}));
    let opens = |course: &mut Course| {
        course.is(RolloutPhase::Progressing, None).window_opens_at.map(|it| it.0.as_second() / 60)
    };
    let again = |course: &Course| again_after(&course.bench, course.now).map(|it| it.as_secs() / 60);
    assert_eq!(opens(&mut course), Some(60));
    assert_eq!(again(&course), Some(60), "exactly then");
    course.wait(60);
    assert_eq!((opens(&mut course), again(&course)), (None, Some(120)), "open, until it closes");
    course.wait(120);
    assert_eq!(opens(&mut course), Some(25 * 60), "sites that did not move wait for the next one");
    course.wait(22 * 60);
    course.move_all();
    let rollout = course.is(RolloutPhase::Soaking, None);
    assert_eq!((rollout.window_opens_at, again(&course)), (None, Some(30)));
    course.wait(150);
    assert_eq!(opens(&mut course), Some(49 * 60), "the next wave");
}

/// However many sites may fail: nothing automatic goes on beside it.
#[test]
fn a_database_that_is_neither_stops_the_rollout() {
    let mut course = Course::new(40, json!({"waves": ["50%", "100%"], "maxFailures": "20%"}));
    course.is(RolloutPhase::Progressing, None);
    let broken = course.free()[0];
    course.sites[broken].failed = Some((TO, "no dump".to_owned()));
    course.is(RolloutPhase::Progressing, None);
    course.sites[broken].broken = true;
    course.is(RolloutPhase::Paused, Some(PauseReason::FailuresExceeded));
    course.annotate(labels::PROMOTE, "2");
    course.is(RolloutPhase::Progressing, None);
}
