//! Single rules of the protocol, one test each; their interplay is explored in `tests/model` and `tests/sim`.

mod late;
mod rules;

use super::*;
use crate::{
    map::{Content, Holding},
    member::Version,
    timing::Timing,
};

const ME: &str = "me_1";

fn at(seconds: u64) -> Now {
    Now { certain: Duration::from_secs(seconds), possible: Duration::from_secs(seconds) }
}

fn incarnation(text: &str) -> Incarnation {
    Incarnation::parse(text).unwrap()
}

fn new_member() -> Member {
    Member::new(Setup {
        incarnation: incarnation(ME),
        lease_name: "lease-me".into(),
        template: String::new(),
        slots: 2,
        timing: Timing::default(),
    })
}

fn lease(name: &str, holder: Option<&str>, attempt: u64, number: u64) -> LeaseRecord {
    LeaseRecord {
        name: format!("lease-{name}").into(),
        version: Version { uid: format!("uid-{name}").into(), number },
        created_seconds: 0,
        duration_seconds: 15,
        holder: holder.map(incarnation),
        attempt,
        ended: None,
        facts: Facts { readiness: Readiness::Ready, ..Facts::default() },
    }
}

/// A map with these owners of two slots and the coordinator's place.
fn map(number: u64, owners: [&str; 3]) -> SlotMap {
    let holding = |owner: &&str| Holding { owner: Incarnation::parse(owner), epoch: i64::try_from(number).unwrap() };
    SlotMap {
        version: Version { uid: "map".into(), number },
        created_seconds: 0,
        content: Content { generation: number, holdings: owners.iter().map(holding).collect() },
    }
}

/// A read of the map that was sent then, when this version was known.
fn asked(sent: u64, known: Option<u64>) -> MapRequest {
    MapRequest { sent: Duration::from_secs(sent), known }
}

/// A read of the member's own Lease that was sent then, after so many attempts.
fn looked(sent: u64, attempt: u64, joined: bool) -> LeaseRequest {
    LeaseRequest { sent: Duration::from_secs(sent), attempt, joined }
}

/// A member that joined at second 0 and owns everything; another is seen, ready.
fn owner() -> Member {
    let mut member = new_member();
    member.step(Input::Synced, at(0));
    member.step(Input::LeaseRead(looked(0, 0, false), Ok(None)), at(0));
    member.step(Input::Tick, at(3));
    member.step(Input::Renewed(1, Ok(lease("me", Some(ME), 1, 1))), at(3));
    member.step(Input::MapRead(asked(3, None), Ok(Some(map(10, [ME, ME, ME])))), at(3));
    member.step(Input::LeasesListed(vec![lease("me", Some(ME), 1, 1)]), at(3));
    assert!(member.acts(at(4)) && member.open().len() == 3);
    member
}

/// A member renews and reads the map in time at this second; answers what it wants done.
fn keep(member: &mut Member, second: u64, seen: &SlotMap) -> Vec<Effect> {
    let mut done = Vec::new();
    for effect in member.step(Input::Tick, at(second)) {
        let answer = match &effect {
            Effect::Renew { attempt, .. } => {
                Some(Input::Renewed(*attempt, Ok(lease("me", Some(ME), *attempt, 100 + second))))
            }
            Effect::ReadMap(request) => Some(Input::MapRead(request.clone(), Ok(Some(seen.clone())))),
            _ => None,
        };
        done.push(effect);
        done.extend(answer.into_iter().flat_map(|answer| member.step(answer, at(second))));
    }
    done
}

fn drain_of(effects: &[Effect]) -> Option<(u64, usize)> {
    effects.iter().find_map(|effect| match effect {
        Effect::Drain(drain, entries) => Some((*drain, entries.len())),
        _ => None,
    })
}

fn swap_of(effects: &[Effect]) -> Option<&Content> {
    effects.iter().find_map(|effect| match effect {
        Effect::WriteMap { content, .. } => Some(content),
        _ => None,
    })
}

/// S-2 (O-2): closed, drained, swapped, in this order.
#[test]
fn a_slot_is_given_only_after_its_work_has_ended() {
    let mut member = owner();
    member.step(Input::LeaseSeen(lease("other", Some("other_1"), 1, 2)), at(4));
    let effects = member.step(Input::Tick, at(6));
    let (drain, entries) = drain_of(&effects).expect("a newcomer is given its share");
    assert_eq!(entries, 1);
    assert_eq!((member.open().len(), swap_of(&effects)), (2, None), "closed, and not given yet");
    let effects = member.step(Input::Drained(drain), at(7));
    let content = swap_of(&effects).expect("what was drained is given");
    assert_eq!(content.holdings.iter().filter(|it| it.owner == Some(incarnation("other_1"))).count(), 1);
    assert_eq!(member.open().len(), 2);
}

/// Mutation: a confirmation that does not name its drain. One of an earlier drain must count for nothing.
#[test]
fn a_stale_confirmation_counts_for_nothing() {
    let mut member = owner();
    member.step(Input::LeaseSeen(lease("other", Some("other_1"), 1, 2)), at(4));
    let (first, _) = drain_of(&member.step(Input::Tick, at(6))).unwrap();
    // The slot went and came back before the answer to the first drain: its epoch is another.
    member.step(Input::MapSeen(map(20, ["other_1", "other_1", ME])), at(6));
    let (second, _) = drain_of(&member.step(Input::MapSeen(map(30, [ME, ME, ME])), at(7))).expect("it is given again");
    assert_ne!(first, second);
    assert_eq!(swap_of(&member.step(Input::Drained(first), at(8))), None);
    assert!(swap_of(&member.step(Input::Drained(second), at(8))).is_some());
}

/// O-2: a swap whose answer is lost counts as given until the map has passed the version it replaced.
#[test]
fn a_swap_without_an_answer_keeps_its_slots_closed() {
    let mut member = owner();
    member.step(Input::LeaseSeen(lease("other", Some("other_1"), 1, 2)), at(4));
    let (drain, _) = drain_of(&member.step(Input::Tick, at(6))).unwrap();
    member.step(Input::MapRead(asked(6, Some(10)), Ok(Some(map(10, [ME, ME, ME])))), at(6));
    assert!(swap_of(&member.step(Input::Drained(drain), at(6))).is_some());
    let effects = member.step(Input::MapWritten(Err(Failure::Unknown)), at(7));
    assert!(effects.contains(&Effect::ReadMap(asked(7, Some(10)))), "{effects:?}");
    assert_eq!(member.open().len(), 2);
    // The map stands where it stood: the swap may land yet. It is sent again, on the same version.
    let effects = member.step(Input::MapRead(asked(7, Some(10)), Ok(Some(map(10, [ME, ME, ME])))), at(7));
    assert!(swap_of(&effects).is_some());
    assert_eq!(member.open().len(), 2);
    member.step(Input::MapSeen(map(11, [ME, ME, ME])), at(8));
    let closed = member.handover().map_or(0, |it| it.entries.len());
    assert_eq!(member.open().len() + closed, 3, "another change came first: that swap can never land");
}

/// M-1: an answer that is late by much still counts, from when the renewal was sent; nobody is fenced by slowness.
#[test]
fn a_slow_store_suspends_at_most() {
    let mut member = owner();
    let sent = member.step(Input::Tick, at(6));
    assert!(sent.iter().any(|it| matches!(it, Effect::Renew { attempt: 2, .. })), "{sent:?}");
    let effects = member.step(Input::Tick, at(8));
    assert!(effects.contains(&Effect::ReadLease(looked(8, 2, true))), "no answer: it is asked for another way");
    member.step(Input::LeaseRead(looked(8, 2, true), Ok(Some(lease("me", Some(ME), 1, 1)))), at(8));
    member.step(Input::MapRead(asked(6, Some(10)), Ok(Some(map(10, [ME, ME, ME])))), at(8));
    assert!(!member.acts(at(15)), "12 s after the last renewal that is known");
    member.step(Input::Renewed(2, Ok(lease("me", Some(ME), 2, 2))), at(16));
    assert!(member.acts(at(16)), "it was sent at second 6");
    assert!(!member.acts(at(18)));
    assert_eq!(member.open().len(), 3, "what is suspended keeps what it has");
}

/// M-1: the holder decides, not the error.
#[test]
fn a_conflict_alone_fences_nobody_and_another_holder_does() {
    let mut member = owner();
    member.step(Input::Tick, at(6));
    member.step(Input::Renewed(2, Err(Failure::Conflict)), at(6));
    member.step(Input::LeaseRead(looked(6, 2, true), Ok(Some(lease("me", Some(ME), 2, 2)))), at(6));
    member.step(Input::MapRead(asked(6, Some(10)), Ok(Some(map(10, [ME, ME, ME])))), at(6));
    assert!(member.acts(at(17)), "its own renewal came through");
    member.step(Input::Tick, at(9));
    member.step(Input::Renewed(3, Err(Failure::Conflict)), at(9));
    let effects = member.step(Input::LeaseRead(looked(9, 3, true), Ok(Some(lease("me", None, 2, 3)))), at(9));
    assert!(effects.contains(&Effect::End(End::Fenced)));
    assert!(!member.acts(at(9)) && member.open().is_empty());
}

/// M-1: what was sent before it joined and is not there may have been there and have been fenced: others hold this
/// incarnation dead for good, so it must not come back (found by the simulation).
#[test]
fn an_incarnation_that_may_have_been_fenced_before_it_joined_never_joins() {
    let sent = || {
        let mut member = new_member();
        member.step(Input::Synced, at(0));
        let effects = member.step(Input::LeaseRead(looked(0, 0, false), Ok(None)), at(0));
        assert!(effects.iter().any(|it| matches!(it, Effect::Renew { attempt: 1, .. })), "nothing to wait for");
        assert!(!member.step(Input::Tick, at(3)).iter().any(|it| matches!(it, Effect::Renew { .. })), "one at a time");
        member
    };
    let fenced = LeaseRecord { ended: Some(incarnation(ME)), ..lease("me", None, 1, 9) };
    for found in [None, Some(fenced), Some(lease("me", Some("me_0"), 1, 9))] {
        let effects = sent().step(Input::LeaseRead(looked(3, 1, false), Ok(found)), at(20));
        assert!(effects.contains(&Effect::End(End::Fenced)));
    }
    let mut member = sent();
    member.step(Input::LeaseRead(looked(3, 1, false), Ok(Some(lease("me", Some(ME), 1, 9)))), at(4));
    assert!(member.joined(), "its answer was lost");
    let mut member = sent();
    member.step(Input::Renewed(1, Err(Failure::Conflict)), at(4));
    let effects = member.step(Input::LeaseRead(looked(3, 1, false), Ok(None)), at(4));
    assert!(!effects.contains(&Effect::End(End::Fenced)), "it did not happen");
}

/// M-3: who learns that another held it dead ends, however it learns it.
#[test]
fn an_incarnation_that_was_held_dead_ends() {
    let mut member = owner();
    let fenced = LeaseRecord { ended: Some(incarnation(ME)), ..lease("me", None, 1, 9) };
    assert!(member.step(Input::LeaseSeen(fenced), at(5)).contains(&Effect::End(End::Fenced)));
}

/// M-2: without a fresh look at the map there is no right, however well the Lease is renewed.
#[test]
fn the_right_needs_the_map_too() {
    let mut member = owner();
    for second in [6, 9, 12, 15] {
        member.step(Input::Tick, at(second));
        let attempt = second / 3;
        member.step(Input::Renewed(attempt, Ok(lease("me", Some(ME), attempt, attempt))), at(second));
        member.step(Input::MapRead(asked(second, Some(10)), Err(Failure::Unknown)), at(second));
    }
    assert!(!member.acts(at(16)));
}

/// M-3: who is not renewed for a lease's duration is fenced on the very version that was seen.
#[test]
fn a_silent_member_is_fenced_and_its_slots_are_taken() {
    let mut member = owner();
    member.step(Input::MapSeen(map(12, ["other_1", ME, ME])), at(4));
    member.step(Input::LeaseSeen(lease("other", Some("other_1"), 1, 7)), at(4));
    let keep = |member: &mut Member, second: u64| {
        let effects = member.step(Input::Tick, at(second));
        let attempt = second / 3;
        member.step(Input::Renewed(attempt, Ok(lease("me", Some(ME), attempt, attempt))), at(second));
        member.step(Input::MapRead(asked(second, Some(12)), Ok(Some(map(12, ["other_1", ME, ME])))), at(second));
        effects
    };
    for second in [6, 9, 12, 15, 18] {
        assert!(!keep(&mut member, second).iter().any(|it| matches!(it, Effect::Fence(_))), "{second}");
    }
    let fence = member.step(Input::Tick, at(19)).into_iter().find(|it| matches!(it, Effect::Fence(_)));
    let Some(Effect::Fence(seen)) = fence else { panic!("no fence") };
    assert_eq!(seen.version.number, 7);
    let fenced = LeaseRecord { ended: Some(incarnation("other_1")), ..lease("other", None, 1, 8) };
    let effects = member.step(Input::Fenced(Arc::clone(&seen.name), Ok(fenced)), at(19));
    let content = swap_of(&effects).expect("its slot is taken");
    assert!(content.holdings.iter().all(|it| it.owner == Some(incarnation(ME))));
    assert!(content.holdings[0].epoch > 12);
}

/// M-3: that a watch shows no Lease proves nothing. Only a consistent list, and a lease's duration after it, do.
#[test]
fn an_owner_that_is_not_seen_is_asked_for_before_it_is_held_dead() {
    let mut member = owner();
    let effects = member.step(Input::MapSeen(map(12, ["unseen_1", ME, ME])), at(4));
    let request = LeasesRequest { sent: at(4).certain, missing: [incarnation("unseen_1")].into(), went: 0 };
    assert!(effects.contains(&Effect::ReadLeases(request.clone())), "{effects:?}");
    let found = lease("unseen", Some("unseen_1"), 3, 9);
    member.step(Input::LeasesRead(request, Ok(vec![lease("me", Some(ME), 1, 1), found])), at(4));
    for second in [6, 9, 12, 15, 18] {
        member.step(Input::Tick, at(second));
        let attempt = second / 3;
        member.step(Input::Renewed(attempt, Ok(lease("me", Some(ME), attempt, attempt))), at(second));
        let effects =
            member.step(Input::MapRead(asked(second, Some(12)), Ok(Some(map(12, ["unseen_1", ME, ME])))), at(second));
        assert_eq!(swap_of(&effects), None, "{second}");
    }
}

/// A store that went back in time makes everything that is known worthless.
#[test]
fn an_older_map_than_was_known_when_it_was_asked_for_ends_the_incarnation() {
    let mut member = owner();
    assert!(member.step(Input::Tick, at(6)).contains(&Effect::ReadMap(asked(6, Some(10)))));
    let effects = member.step(Input::MapRead(asked(6, Some(10)), Ok(Some(map(9, [ME, ME, ME])))), at(6));
    assert!(effects.contains(&Effect::End(End::WentBack)));
}

/// A map that nothing was granted in yet may be one that replaces a lost one: rights under that end first.
#[test]
fn a_new_map_grants_nothing_for_a_leases_duration() {
    let mut member = owner();
    let fresh =
        SlotMap { version: Version { uid: "new".into(), number: 50 }, created_seconds: 0, content: Content::free(2) };
    member.step(Input::MapGone(40), at(4));
    assert!(member.open().is_empty(), "all stop at once");
    member.step(Input::MapSeen(fresh.clone()), at(4));
    for second in [6, 9, 12, 15, 18] {
        member.step(Input::Tick, at(second));
        let attempt = second / 3;
        member.step(Input::Renewed(attempt, Ok(lease("me", Some(ME), attempt, attempt))), at(second));
        let effects = member.step(Input::MapRead(asked(second, Some(50)), Ok(Some(fresh.clone()))), at(second));
        assert_eq!(swap_of(&effects), None, "{second}");
    }
    assert!(swap_of(&member.step(Input::Tick, at(19))).is_some());
}

/// A member that stops gives everything, to nobody where there is no other, and ends when it owns nothing.
#[test]
fn a_member_that_stops_leaves_nothing_behind() {
    let mut member = owner();
    let (drain, entries) = drain_of(&member.step(Input::Stop, at(4))).expect("at once");
    assert_eq!(entries, 3);
    let effects = member.step(Input::Drained(drain), at(5));
    assert!(swap_of(&effects).unwrap().holdings.iter().all(|it| it.owner.is_none()));
    let free = map(11, ["", "", ""]);
    assert!(member.step(Input::MapWritten(Ok(free)), at(5)).contains(&Effect::End(End::Stopped)));
}

#[test]
fn a_member_that_never_joined_ends_at_once() {
    let mut member = new_member();
    member.step(Input::LeaseRead(looked(0, 0, false), Err(Failure::Unknown)), at(1));
    assert!(member.step(Input::Stop, at(2)).contains(&Effect::End(End::Stopped)));
}
