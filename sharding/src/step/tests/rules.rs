//! Rules whose violation only matters in a rare history: each has a deterministic test.

use super::*;

fn fences(effects: &[Effect]) -> usize {
    effects.iter().filter(|it| matches!(it, Effect::Fence(_))).count()
}

/// A member that finds a Lease of its name with another pod as holder.
fn meets(holder: &str, second: u64) -> (Member, Vec<Effect>) {
    let mut member = new_member();
    member.step(Input::Synced, at(0));
    let effects =
        member.step(Input::LeaseRead(looked(0, 0, false), Ok(Some(lease("me", Some(holder), 7, 5)))), at(second));
    (member, effects)
}

fn takes(effects: &[Effect]) -> Option<(u64, Incarnation)> {
    effects.iter().find_map(|effect| match effect {
        Effect::Renew { on: Some(on), ended: Some(ended), .. } => Some((on.number, ended.clone())),
        _ => None,
    })
}

/// M-3: two pods of one name (a StatefulSet's pod that was deleted by force): the other may be alive, so its Lease is taken only
/// after it was not renewed for its duration.
#[test]
fn another_pods_lease_of_this_name_is_taken_only_after_its_duration() {
    let (mut member, effects) = meets("pod-a_1", 0);
    assert_eq!(takes(&effects), None, "{effects:?}");
    let mut asked_at = 0;
    for second in 1..15 {
        for effect in member.step(Input::Tick, at(second)) {
            assert!(!matches!(effect, Effect::Renew { .. }), "{second}");
            if let Effect::ReadLease(request) = effect {
                asked_at = second;
                let found = lease("me", Some("pod-a_1"), 7, 5);
                member.step(Input::LeaseRead(request, Ok(Some(found))), at(second));
            }
        }
    }
    assert!(asked_at > 10, "it keeps reading the Lease");
    let mut taken = None;
    for second in 15..20 {
        for effect in member.step(Input::Tick, at(second)) {
            if let Effect::ReadLease(request) = effect {
                let found = lease("me", Some("pod-a_1"), 7, 5);
                let effects = member.step(Input::LeaseRead(request, Ok(Some(found))), at(second));
                taken = taken.or(takes(&effects));
            } else {
                taken = taken.or(takes(&[effect]));
            }
        }
    }
    assert_eq!(taken, Some((5, incarnation("pod-a_1"))));
}

/// M-3: while the other pod renews its Lease, it is not taken.
#[test]
fn another_pods_renewed_lease_is_not_taken() {
    let (mut member, _) = meets("pod-a_1", 0);
    let mut version = 5;
    for second in 1..60 {
        version += u64::from(second % 3 == 0);
        for effect in member.step(Input::Tick, at(second)) {
            assert!(!matches!(effect, Effect::Renew { .. }), "{second}");
            if let Effect::ReadLease(request) = effect {
                let found = lease("me", Some("pod-a_1"), 7, version);
                member.step(Input::LeaseRead(request, Ok(Some(found))), at(second));
            }
        }
    }
}

/// A former incarnation in the same pod is dead: the kubelet restarts a container only after its process ended.
#[test]
fn the_lease_of_a_former_incarnation_is_taken_over_at_once() {
    let (_, effects) = meets("me_0", 0);
    assert_eq!(takes(&effects), Some((5, incarnation("me_0"))));
}

/// O-1: slots of a former incarnation of this pod are not open until they are taken over, with another epoch.
#[test]
fn the_slots_of_a_former_incarnation_are_not_open() {
    let mut member = owner();
    member.step(Input::MapSeen(map(12, ["me_0", ME, ME])), at(4));
    assert_eq!(member.open().iter().map(|(entry, _)| entry.0).collect::<Vec<_>>(), [1, 2]);
}

/// A member whose caches are not synced gets no slots.
#[test]
fn a_member_that_is_not_ready_gets_nothing() {
    for readiness in [Readiness::Joining, Readiness::Leaving] {
        let mut member = owner();
        for second in [6, 9, 12, 15, 18] {
            let facts = Facts { readiness, ..Facts::default() };
            let other = LeaseRecord { facts, ..lease("other", Some("other_1"), second, second + 1) };
            let mut effects = member.step(Input::LeaseSeen(other), at(second));
            effects.extend(keep(&mut member, second, &map(10, [ME, ME, ME])));
            assert_eq!(drain_of(&effects), None, "{readiness:?} at {second}");
        }
    }
}

/// A member whose caches are not synced takes over nothing.
#[test]
fn a_member_that_is_not_synced_takes_nothing() {
    let mut member = new_member();
    member.step(Input::LeaseRead(looked(0, 0, false), Ok(None)), at(0));
    member.step(Input::Renewed(1, Ok(lease("me", Some(ME), 1, 1))), at(0));
    let free = map(10, ["", "", ""]);
    member.step(Input::MapRead(asked(0, None), Ok(Some(free.clone()))), at(0));
    member.step(Input::LeasesListed(vec![lease("me", Some(ME), 1, 1)]), at(0));
    assert_eq!(swap_of(&keep(&mut member, 6, &free)), None);
    assert!(swap_of(&member.step(Input::Synced, at(7))).is_some());
}

/// O-2: a member that may be dead gets no slots.
#[test]
fn an_expired_receiver_gets_nothing() {
    let mut member = owner();
    member.step(Input::LeaseSeen(lease("other", Some("other_1"), 1, 2)), at(4));
    let (drain, _) = drain_of(&keep(&mut member, 6, &map(10, [ME, ME, ME]))).unwrap();
    keep(&mut member, 9, &map(10, [ME, ME, ME]));
    let effects = member.step(Input::Drained(drain), at(12));
    assert_eq!(swap_of(&effects), None, "its Lease is 8 s old");
    assert_eq!(member.open().len(), 3, "slots without a receiver are open again");
}

/// M-3: a renewed Lease is not fenced, however old it is.
#[test]
fn a_member_that_renews_is_not_fenced() {
    let mut member = owner();
    for second in (6..60).step_by(3) {
        let mut effects = keep(&mut member, second, &map(10, [ME, ME, ME]));
        let renewed = lease("other", Some("other_1"), second, second);
        effects.extend(member.step(Input::LeaseSeen(renewed), at(second + 1)));
        assert_eq!((fences(&effects), member.acts(at(second + 1))), (0, true), "{second}");
    }
}

/// M-3: only a successful fence proves that an incarnation is dead; a lost response or a conflict does not.
#[test]
fn a_fence_without_a_response_takes_nothing() {
    for answer in [Failure::Unknown, Failure::Conflict, Failure::NotFound] {
        let mut member = owner();
        let owned = map(12, ["other_1", ME, ME]);
        member.step(Input::MapSeen(owned.clone()), at(4));
        member.step(Input::LeaseSeen(lease("other", Some("other_1"), 1, 7)), at(4));
        for second in [6, 9, 12, 15, 18] {
            keep(&mut member, second, &owned);
        }
        assert_eq!(fences(&member.step(Input::Tick, at(19))), 1);
        let effects = member.step(Input::Fenced("lease-other".into(), Err(answer)), at(19));
        assert_eq!(swap_of(&effects), None, "{answer:?}");
        let again = fences(&keep(&mut member, 21, &owned));
        assert_eq!(
            again,
            usize::from(answer == Failure::Unknown),
            "{answer:?}: the wait starts again for another version"
        );
    }
}

/// M-3: an owner without a Lease is not dead at once, even if a list proves it.
#[test]
fn an_absent_owner_is_waited_for() {
    let mut member = owner();
    let owned = map(12, ["gone_1", ME, ME]);
    let effects = member.step(Input::MapSeen(owned.clone()), at(4));
    let request = LeasesRequest { sent: at(4).certain, missing: [incarnation("gone_1")].into(), went: 0 };
    assert!(effects.contains(&Effect::ReadLeases(request.clone())));
    let effects = member.step(Input::LeasesRead(request, Ok(vec![lease("me", Some(ME), 1, 1)])), at(4));
    assert_eq!(swap_of(&effects), None);
    for second in [6, 9, 12, 15, 18] {
        assert_eq!(swap_of(&keep(&mut member, second, &owned)), None, "{second}");
    }
    assert!(swap_of(&member.step(Input::Tick, at(19))).is_some());
}

/// S-1: the coordinator's entry is taken only from a member that is proven dead.
#[test]
fn the_coordinators_entry_is_kept_for_its_owner() {
    let mut member = owner();
    let owned = map(12, [ME, ME, "other_1"]);
    member.step(Input::MapSeen(owned.clone()), at(4));
    member.step(Input::LeaseSeen(lease("other", Some("other_1"), 1, 7)), at(4));
    member.step(Input::Preferred(Some("lease-me".into())), at(4));
    for second in [6, 9, 12, 15, 18] {
        let effects = keep(&mut member, second, &owned);
        let place = swap_of(&effects).map(|content| content.holdings[2].owner.clone());
        assert!(place.is_none_or(|owner| owner == Some(incarnation("other_1"))), "{second}");
    }
}

/// The higher of two versions of the map is used, in whatever order they arrive.
#[test]
fn an_older_version_of_the_map_has_no_effect() {
    let mut member = owner();
    member.step(Input::MapSeen(map(12, ["other_1", ME, ME])), at(4));
    member.step(Input::MapSeen(map(11, [ME, ME, ME])), at(4));
    member.step(Input::MapWritten(Ok(map(11, [ME, ME, ME]))), at(4));
    assert_eq!((member.map().unwrap().version.number, member.open().len()), (12, 2));
    member.step(Input::MapGone(11), at(4));
    assert!(member.map().is_some(), "another map was created since");
}

/// O-2: a handover ends when its slot has another epoch.
#[test]
fn a_handover_does_not_outlive_its_epoch() {
    let mut member = owner();
    member.step(Input::LeaseSeen(lease("other", Some("other_1"), 1, 2)), at(4));
    let (first, _) = drain_of(&member.step(Input::Tick, at(6))).unwrap();
    // The slot was handed over and returned between two observed versions.
    let (second, _) =
        drain_of(&member.step(Input::MapSeen(map(30, [ME, ME, ME])), at(7))).expect("it is drained again");
    assert_ne!(first, second);
    assert_eq!(swap_of(&member.step(Input::Drained(first), at(7))), None);
}

/// M-2: an event of a watch does not count as a read: the connection may be dead, and the map may have been recreated.
#[test]
fn a_watch_is_not_a_read() {
    let mut member = owner();
    for second in [6, 9, 12] {
        member.step(Input::Tick, at(second));
        let attempt = second / 3;
        member.step(Input::Renewed(attempt, Ok(lease("me", Some(ME), attempt, attempt))), at(second));
        member.step(Input::MapSeen(map(10 + second, [ME, ME, ME])), at(second));
        member.step(Input::MapWritten(Ok(map(11 + second, [ME, ME, ME]))), at(second));
    }
    assert!(!member.acts(at(15)), "12 s after the last read was sent");
}

/// M-2: a read counts from when it was sent, not from its response.
#[test]
fn a_read_counts_from_when_it_was_sent() {
    let mut member = owner();
    for second in [6, 9, 12] {
        member.step(Input::Tick, at(second));
        let attempt = second / 3;
        member.step(Input::Renewed(attempt, Ok(lease("me", Some(ME), attempt, attempt))), at(second));
    }
    member.step(Input::MapRead(asked(12, Some(10)), Ok(Some(map(10, [ME, ME, ME])))), at(14));
    assert!(member.acts(at(23)) && !member.acts(at(24)));
}

/// M-3: a member that was suspended restarts its timers: an outage must not end in mutual fencing.
#[test]
fn a_member_fences_none_at_once_after_an_outage() {
    let mut member = owner();
    let owned = map(12, ["other_1", ME, ME]);
    member.step(Input::MapSeen(owned.clone()), at(4));
    member.step(Input::LeaseSeen(lease("other", Some("other_1"), 1, 7)), at(4));
    assert!(!member.acts(at(40)));
    for second in [42, 45, 48, 51, 54] {
        assert_eq!(fences(&keep(&mut member, second, &owned)), 0, "{second}");
    }
    assert_eq!(fences(&keep(&mut member, 57, &owned)), 1);
}

/// M-3: it also waits again for members whose Leases were missing before.
#[test]
fn a_member_waits_again_for_absent_members_after_an_outage() {
    let mut member = owner();
    let owned = map(12, ["gone_1", ME, ME]);
    member.step(Input::MapSeen(owned.clone()), at(4));
    let request = LeasesRequest { sent: at(4).certain, missing: [incarnation("gone_1")].into(), went: 0 };
    member.step(Input::LeasesRead(request, Ok(vec![lease("me", Some(ME), 1, 1)])), at(4));
    assert!(!member.acts(at(40)));
    for second in [42, 45, 48, 51, 54] {
        assert_eq!(swap_of(&keep(&mut member, second, &owned)), None, "{second}");
    }
    assert!(swap_of(&keep(&mut member, 57, &owned)).is_some());
}

/// M-1: another Lease with the same name and holder was created after the known one was deleted: others may have regarded the member
/// as dead in between.
#[test]
fn a_recreated_lease_ends_the_incarnation() {
    let mut member = owner();
    let mut anew = lease("me", Some(ME), 1, 9);
    anew.version.uid = "another".into();
    let effects = member.step(Input::LeaseRead(looked(3, 1, true), Ok(Some(anew))), at(4));
    assert!(effects.contains(&Effect::End(End::Fenced)), "{effects:?}");
}

/// S-4: a member that stops waits for a pending write that may give it slots, which would otherwise have a dead owner.
#[test]
fn a_member_that_stops_waits_for_its_pending_write() {
    let ends = |effects: &[Effect]| effects.iter().any(|it| matches!(it, Effect::End(_)));
    let mut member = owner();
    assert!(swap_of(&member.step(Input::MapSeen(map(12, ["", "", ""])), at(4))).is_some());
    assert!(!ends(&member.step(Input::Stop, at(4))), "its write is pending");
    let effects = member.step(Input::MapWritten(Ok(map(13, [ME, ME, ""]))), at(5));
    assert!(drain_of(&effects).is_some() && !ends(&effects), "it releases the slots that it got: {effects:?}");
}

/// O-2: a write without a response is sent again only after a later read of the map.
#[test]
fn a_write_is_not_sent_again_before_the_map_was_read() {
    let mut member = owner();
    member.step(Input::LeaseSeen(lease("other", Some("other_1"), 1, 2)), at(4));
    let (drain, _) = drain_of(&member.step(Input::Tick, at(6))).unwrap();
    assert!(swap_of(&member.step(Input::Drained(drain), at(7))).is_some());
    let effects = member.step(Input::Tick, at(9));
    assert!(effects.contains(&Effect::ReadMap(asked(9, Some(10)))), "{effects:?}");
    assert_eq!(swap_of(&effects), None);
    // The response to an earlier read proves nothing about the write.
    let effects = member.step(Input::MapRead(asked(6, Some(10)), Ok(Some(map(10, [ME, ME, ME])))), at(9));
    assert_eq!(swap_of(&effects), None);
    let effects = member.step(Input::MapRead(asked(9, Some(10)), Ok(Some(map(10, [ME, ME, ME])))), at(10));
    assert!(swap_of(&effects).is_some());
}

/// A map is created once: the member waits for the response.
#[test]
fn a_map_is_not_created_twice() {
    let mut member = new_member();
    member.step(Input::LeaseRead(looked(0, 0, false), Ok(None)), at(0));
    member.step(Input::Renewed(1, Ok(lease("me", Some(ME), 1, 1))), at(0));
    let made = |effects: &[Effect]| effects.iter().any(|it| matches!(it, Effect::WriteMap { on: None, .. }));
    assert!(made(&member.step(Input::MapRead(asked(0, None), Ok(None)), at(0))));
    assert!(!made(&member.step(Input::Synced, at(1))));
}

/// A member that stops takes over nothing, and hands over nothing before its work has ended.
#[test]
fn a_member_that_stops_takes_nothing_and_waits_for_its_work() {
    let mut member = owner();
    member.step(Input::LeaseSeen(lease("other", Some("other_1"), 1, 2)), at(4));
    let effects = member.step(Input::Stop, at(4));
    assert_eq!(swap_of(&effects), None, "its work continues");
    let effects = member.step(Input::MapSeen(map(12, ["", ME, ME])), at(5));
    assert!(swap_of(&effects).is_none_or(|content| content.holdings[0].owner.is_none()), "{effects:?}");
}

/// Moves for balance wait until the members have not changed for a second.
#[test]
fn a_new_member_gets_slots_when_no_other_has_joined_for_a_second() {
    let mut member = owner();
    let effects = member.step(Input::LeaseSeen(lease("other", Some("other_1"), 1, 2)), at(4));
    assert_eq!(drain_of(&effects), None);
    assert!(drain_of(&member.step(Input::Tick, at(5))).is_some());
}

/// A coordinator keeps its role for a minimum time, whoever is elected.
#[test]
fn the_coordinators_role_does_not_flap() {
    let place = Entry(2);
    let mut member = owner();
    let owned = map(12, ["other_1", ME, ME]);
    member.step(Input::MapSeen(owned.clone()), at(4));
    member.step(Input::Preferred(Some("lease-other".into())), at(4));
    for second in (6..33).step_by(3) {
        member.step(Input::LeaseSeen(lease("other", Some("other_1"), second, second)), at(second));
        keep(&mut member, second, &owned);
        assert!(member.open().iter().any(|(entry, _)| *entry == place), "{second}");
    }
    member.step(Input::LeaseSeen(lease("other", Some("other_1"), 33, 33)), at(32));
    let effects = keep(&mut member, 33, &owned);
    assert_eq!(drain_of(&effects).map(|(_, entries)| entries), Some(1), "30 s after it gained the role: {effects:?}");
}

/// A fenced Lease is kept while its incarnation owns something: a joining member learns from it that the incarnation is dead.
#[test]
fn a_fenced_lease_is_kept_while_its_incarnation_owns_slots() {
    let deletes = |effects: &[Effect]| effects.iter().any(|it| matches!(it, Effect::DeleteLease(..)));
    let mut member = owner();
    let fenced = LeaseRecord { ended: Some(incarnation("other_1")), ..lease("other", None, 1, 7) };
    member.step(Input::LeaseSeen(fenced), at(4));
    let owned = map(12, ["other_1", ME, ME]);
    assert!(swap_of(&member.step(Input::MapSeen(owned.clone()), at(4))).is_some());
    for second in (6..30).step_by(3) {
        assert!(!deletes(&keep(&mut member, second, &owned)), "{second}");
    }
    assert!(deletes(&keep(&mut member, 30, &map(13, [ME, ME, ME]))));
}
