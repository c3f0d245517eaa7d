//! One test for each rule of the protocol; their combination is tested in `tests/model` and `tests/sim`.

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

/// A map with these owners of two slots and of the coordinator's entry.
fn map(number: u64, owners: [&str; 3]) -> SlotMap {
    let holding = |owner: &&str| Holding { owner: Incarnation::parse(owner), epoch: i64::try_from(number).unwrap() };
    SlotMap {
        version: Version { uid: "map".into(), number },
        created_seconds: 0,
        content: Content { generation: number, holdings: owners.iter().map(holding).collect() },
    }
}

/// A read of the map, sent at this time when this version was known.
fn asked(sent: u64, known: Option<u64>) -> MapRequest {
    MapRequest { sent: Duration::from_secs(sent), known }
}

/// A read of the member's own Lease, sent at this time after so many attempts.
fn looked(sent: u64, attempt: u64, joined: bool) -> LeaseRequest {
    LeaseRequest { sent: Duration::from_secs(sent), attempt, joined }
}

/// A member that joined at second 0 and owns everything; another member is ready.
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

/// At this second, the member renews its Lease and reads the map in time; returns the effects.
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

/// S-2 (O-2): a slot is closed, drained and handed over, in this order.
#[test]
fn a_slot_is_handed_over_only_after_its_work_has_ended() {
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

/// The confirmation of an earlier drain has no effect: a confirmation names its drain.
#[test]
fn a_stale_confirmation_has_no_effect() {
    let mut member = owner();
    member.step(Input::LeaseSeen(lease("other", Some("other_1"), 1, 2)), at(4));
    let (first, _) = drain_of(&member.step(Input::Tick, at(6))).unwrap();
    // The slot was handed over and returned before the confirmation of the first drain: it has another epoch.
    member.step(Input::MapSeen(map(20, ["other_1", "other_1", ME])), at(6));
    let (second, _) = drain_of(&member.step(Input::MapSeen(map(30, [ME, ME, ME])), at(7))).expect("it is given again");
    assert_ne!(first, second);
    assert_eq!(swap_of(&member.step(Input::Drained(first), at(8))), None);
    assert!(swap_of(&member.step(Input::Drained(second), at(8))).is_some());
}

/// O-2: a handover whose response is lost keeps its slots closed until the map has a later version than the one it replaces.
#[test]
fn a_handover_without_a_response_keeps_its_slots_closed() {
    let mut member = owner();
    member.step(Input::LeaseSeen(lease("other", Some("other_1"), 1, 2)), at(4));
    let (drain, _) = drain_of(&member.step(Input::Tick, at(6))).unwrap();
    member.step(Input::MapRead(asked(6, Some(10)), Ok(Some(map(10, [ME, ME, ME])))), at(6));
    assert!(swap_of(&member.step(Input::Drained(drain), at(6))).is_some());
    let effects = member.step(Input::MapWritten(Err(Failure::Unknown)), at(7));
    assert!(effects.contains(&Effect::ReadMap(asked(7, Some(10)))), "{effects:?}");
    assert_eq!(member.open().len(), 2);
    // The map is unchanged: the write may still arrive. It is sent again, based on the same version.
    let effects = member.step(Input::MapRead(asked(7, Some(10)), Ok(Some(map(10, [ME, ME, ME])))), at(7));
    assert!(swap_of(&effects).is_some());
    assert_eq!(member.open().len(), 2);
    member.step(Input::MapSeen(map(11, [ME, ME, ME])), at(8));
    let closed = member.handover().map_or(0, |it| it.entries.len());
    assert_eq!(member.open().len() + closed, 3, "another change came first: the write can never succeed");
}

/// M-1: a very late response still counts, from when the renewal was sent; slowness fences no member.
#[test]
fn a_slow_api_server_only_suspends() {
    let mut member = owner();
    let sent = member.step(Input::Tick, at(6));
    assert!(sent.iter().any(|it| matches!(it, Effect::Renew { attempt: 2, .. })), "{sent:?}");
    let effects = member.step(Input::Tick, at(8));
    assert!(effects.contains(&Effect::ReadLease(looked(8, 2, true))), "no response: the Lease is read");
    member.step(Input::LeaseRead(looked(8, 2, true), Ok(Some(lease("me", Some(ME), 1, 1)))), at(8));
    member.step(Input::MapRead(asked(6, Some(10)), Ok(Some(map(10, [ME, ME, ME])))), at(8));
    assert!(!member.acts(at(15)), "12 s after the last known renewal");
    member.step(Input::Renewed(2, Ok(lease("me", Some(ME), 2, 2))), at(16));
    assert!(member.acts(at(16)), "it was sent at second 6");
    assert!(!member.acts(at(18)));
    assert_eq!(member.open().len(), 3, "a suspended member keeps its slots");
}

/// M-1: the Lease's holder decides, not the error.
#[test]
fn another_holder_fences_and_a_conflict_alone_does_not() {
    let mut member = owner();
    member.step(Input::Tick, at(6));
    member.step(Input::Renewed(2, Err(Failure::Conflict)), at(6));
    member.step(Input::LeaseRead(looked(6, 2, true), Ok(Some(lease("me", Some(ME), 2, 2)))), at(6));
    member.step(Input::MapRead(asked(6, Some(10)), Ok(Some(map(10, [ME, ME, ME])))), at(6));
    assert!(member.acts(at(17)), "its own renewal succeeded");
    member.step(Input::Tick, at(9));
    member.step(Input::Renewed(3, Err(Failure::Conflict)), at(9));
    let effects = member.step(Input::LeaseRead(looked(9, 3, true), Ok(Some(lease("me", None, 2, 3)))), at(9));
    assert!(effects.contains(&Effect::End(End::Fenced)));
    assert!(!member.acts(at(9)) && member.open().is_empty());
}

/// M-1: if a Lease that was sent before joining does not exist, it may have existed and been fenced: other members then regard this
/// incarnation as dead permanently, so it must not join.
#[test]
fn an_incarnation_that_may_have_been_fenced_before_it_joined_never_joins() {
    let sent = || {
        let mut member = new_member();
        member.step(Input::Synced, at(0));
        let effects = member.step(Input::LeaseRead(looked(0, 0, false), Ok(None)), at(0));
        assert!(effects.iter().any(|it| matches!(it, Effect::Renew { attempt: 1, .. })), "it need not wait");
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
    assert!(member.joined(), "its response was lost");
    let mut member = sent();
    member.step(Input::Renewed(1, Err(Failure::Conflict)), at(4));
    let effects = member.step(Input::LeaseRead(looked(3, 1, false), Ok(None)), at(4));
    assert!(!effects.contains(&Effect::End(End::Fenced)), "it did not happen");
}

/// M-3: an incarnation that learns that it was fenced ends.
#[test]
fn a_fenced_incarnation_ends() {
    let mut member = owner();
    let fenced = LeaseRecord { ended: Some(incarnation(ME)), ..lease("me", None, 1, 9) };
    assert!(member.step(Input::LeaseSeen(fenced), at(5)).contains(&Effect::End(End::Fenced)));
}

/// M-2: without a recent read of the map, a member may not act, even if it renews its Lease.
#[test]
fn a_member_acts_only_with_a_recent_read_of_the_map() {
    let mut member = owner();
    for second in [6, 9, 12, 15] {
        member.step(Input::Tick, at(second));
        let attempt = second / 3;
        member.step(Input::Renewed(attempt, Ok(lease("me", Some(ME), attempt, attempt))), at(second));
        member.step(Input::MapRead(asked(second, Some(10)), Err(Failure::Unknown)), at(second));
    }
    assert!(!member.acts(at(16)));
}

/// M-3: a member that does not renew its Lease for a lease duration is fenced, at the observed version.
#[test]
fn an_expired_member_is_fenced_and_its_slots_are_taken_over() {
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
    let content = swap_of(&effects).expect("its slot is taken over");
    assert!(content.holdings.iter().all(|it| it.owner == Some(incarnation(ME))));
    assert!(content.holdings[0].epoch > 12);
}

/// M-3: a missing Lease in a watch proves nothing: a consistent list without it, and a lease duration, do.
#[test]
fn an_owner_without_a_lease_is_dead_only_after_a_list() {
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

/// If the API server was restored to an earlier state, the incarnation ends.
#[test]
fn a_read_older_than_the_known_map_ends_the_incarnation() {
    let mut member = owner();
    assert!(member.step(Input::Tick, at(6)).contains(&Effect::ReadMap(asked(6, Some(10)))));
    let effects = member.step(Input::MapRead(asked(6, Some(10)), Ok(Some(map(9, [ME, ME, ME])))), at(6));
    assert!(effects.contains(&Effect::End(End::WentBack)));
}

/// A map without owners may replace a lost one: ownership under the lost map must end first.
#[test]
fn a_new_map_grants_nothing_for_a_lease_duration() {
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

/// A member that stops hands over everything, or leaves it unowned if there is no other member, and ends when it owns nothing.
#[test]
fn a_member_that_stops_hands_over_everything() {
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
