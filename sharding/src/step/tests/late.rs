//! Responses that are late, lost, or overtake each other: each is interpreted by its own request, and only costs time.

use super::*;

fn list_of(effects: &[Effect]) -> Option<LeasesRequest> {
    effects.iter().find_map(|effect| match effect {
        Effect::ReadLeases(request) => Some(request.clone()),
        _ => None,
    })
}

/// M-1: a slow response has a map that was the newest when the request was sent. It does not prove an earlier state.
#[test]
fn a_late_read_of_the_map_does_not_end_the_incarnation() {
    let mut member = owner();
    assert!(member.step(Input::Tick, at(6)).contains(&Effect::ReadMap(asked(6, Some(10)))));
    member.step(Input::MapSeen(map(11, [ME, ME, ME])), at(7));
    assert!(member.step(Input::Tick, at(9)).contains(&Effect::ReadMap(asked(9, Some(11)))));
    let effects = member.step(Input::MapRead(asked(6, Some(10)), Ok(Some(map(10, [ME, ME, ME])))), at(9));
    assert!(!effects.iter().any(|it| matches!(it, Effect::End(_))), "{effects:?}");
    assert_eq!(member.map().unwrap().version.number, 11);
    let effects = member.step(Input::MapRead(asked(9, Some(11)), Ok(Some(map(10, [ME, ME, ME])))), at(9));
    assert!(effects.contains(&Effect::End(End::WentBack)), "this response does");
}

/// M-2: a read counts from when it was sent.
#[test]
fn a_late_read_of_the_map_counts_from_when_it_was_sent() {
    let mut member = owner();
    for second in [6, 9, 12] {
        let effects = member.step(Input::Tick, at(second));
        assert!(effects.contains(&Effect::ReadMap(asked(second, Some(10)))));
        let attempt = second / 3;
        member.step(Input::Renewed(attempt, Ok(lease("me", Some(ME), attempt, attempt))), at(second));
    }
    member.step(Input::MapRead(asked(6, Some(10)), Ok(Some(map(10, [ME, ME, ME])))), at(13));
    assert!(member.acts(at(17)));
    assert!(!member.acts(at(18)), "12 s after it was sent, not after a later one was");
    member.step(Input::MapRead(asked(12, Some(10)), Ok(Some(map(10, [ME, ME, ME])))), at(14));
    assert!(member.acts(at(23)) && !member.acts(at(24)));
    member.step(Input::MapRead(asked(9, Some(10)), Ok(Some(map(10, [ME, ME, ME])))), at(15));
    assert!(member.acts(at(23)), "an older one takes nothing away");
}

/// M-1: a renewal counts from when it was sent.
#[test]
fn a_late_renewal_counts_from_when_it_was_sent() {
    let mut member = owner();
    for second in [6, 9, 12] {
        let attempt = second / 3;
        assert!(
            member
                .step(Input::Tick, at(second))
                .iter()
                .any(|it| matches!(it, Effect::Renew { attempt: number, .. } if *number == attempt))
        );
        member.step(Input::MapRead(asked(second, Some(10)), Ok(Some(map(10, [ME, ME, ME])))), at(second));
    }
    member.step(Input::Renewed(2, Ok(lease("me", Some(ME), 2, 2))), at(13));
    assert!(member.acts(at(17)));
    assert!(!member.acts(at(18)), "others may fence it from second 21 on");
}

/// M-3: a list that was sent before a Lease was missing proves nothing about it, whenever the response arrives.
#[test]
fn a_late_list_proves_no_death_of_a_newer_member() {
    let mut member = owner();
    let first = list_of(&member.step(Input::MapSeen(map(12, ["gone_1", ME, ME])), at(4))).unwrap();
    // Another member joins and gets a slot; the watch of the Leases is stalled.
    let both = map(13, ["gone_1", "joined_1", ME]);
    assert_eq!(list_of(&member.step(Input::MapSeen(both.clone()), at(5))), None, "a list is pending");
    let second = list_of(&keep(&mut member, 6, &both)).expect("the first has no response: it is sent again");
    assert_eq!(second.missing, [incarnation("gone_1"), incarnation("joined_1")].into());
    member.step(Input::LeasesRead(first, Ok(vec![lease("me", Some(ME), 1, 1)])), at(6));
    let shown = vec![lease("me", Some(ME), 2, 2), lease("joined", Some("joined_1"), 1, 3)];
    member.step(Input::LeasesRead(second, Ok(shown)), at(6));
    for second in [9, 12, 15, 18] {
        assert_eq!(swap_of(&keep(&mut member, second, &both)), None, "{second}");
    }
    let effects = keep(&mut member, 21, &both);
    let content = swap_of(&effects).expect("the dead member's slots are taken over");
    assert_eq!(content.holdings[0].owner, Some(incarnation(ME)));
    assert_eq!(content.holdings[1].owner, Some(incarnation("joined_1")), "it renews its Lease all the time");
}

/// M-3: the same if the response to the list for it is lost.
#[test]
fn a_late_list_proves_no_death_if_the_next_is_lost() {
    let mut member = owner();
    let first = list_of(&member.step(Input::MapSeen(map(12, ["gone_1", ME, ME])), at(4))).unwrap();
    let both = map(13, ["gone_1", "joined_1", ME]);
    member.step(Input::MapSeen(both.clone()), at(5));
    let second = list_of(&keep(&mut member, 6, &both)).expect("the first has no response: it is sent again");
    member.step(Input::LeasesRead(first, Ok(vec![lease("me", Some(ME), 1, 1)])), at(6));
    member.step(Input::LeasesRead(second, Err(Failure::Unknown)), at(6));
    let mut asked_again = 0;
    for second in [9, 12, 15, 18] {
        let effects = keep(&mut member, second, &both);
        asked_again += usize::from(list_of(&effects).is_some());
        assert_eq!(swap_of(&effects), None, "{second}");
    }
    assert_eq!(asked_again, 4, "nothing is known yet about the new member");
    let effects = keep(&mut member, 21, &both);
    let content = swap_of(&effects).expect("the dead member's slots are taken over");
    assert_eq!(content.holdings[0].owner, Some(incarnation(ME)));
    assert_eq!(content.holdings[1].owner, Some(incarnation("joined_1")), "no list proved that it has no Lease");
}

/// M-3: a dead member may have renewed until the list was served: the duration counts from the arrival of the response.
#[test]
fn the_service_time_of_a_list_is_not_counted() {
    let mut member = owner();
    let gone = map(12, ["gone_1", ME, ME]);
    let request = list_of(&member.step(Input::MapSeen(gone.clone()), at(4))).unwrap();
    keep(&mut member, 6, &gone);
    member.step(Input::LeasesRead(request, Ok(vec![lease("me", Some(ME), 1, 1)])), at(6));
    for second in [9, 12, 15, 18] {
        assert_eq!(swap_of(&keep(&mut member, second, &gone)), None);
    }
    assert_eq!(swap_of(&member.step(Input::Tick, at(20))), None, "16 s after it was sent, 14 s after it was answered");
    assert!(swap_of(&member.step(Input::Tick, at(21))).is_some());
}

/// S-4: a Lease in a late list may have been deleted since. It must not be restored: no member could fence it.
#[test]
fn a_late_list_restores_no_lease() {
    let mut member = owner();
    member.step(Input::LeaseSeen(lease("ghost", Some("ghost_1"), 1, 5)), at(4));
    let request = list_of(&member.step(Input::MapSeen(map(12, ["gone_1", ME, ME])), at(4))).unwrap();
    member.step(Input::LeaseGone("lease-ghost".into()), at(5));
    let shown = vec![lease("me", Some(ME), 1, 1), lease("ghost", Some("ghost_1"), 1, 5)];
    member.step(Input::LeasesRead(request, Ok(shown)), at(5));
    assert_eq!(member.members().count(), 1, "only its own");
    // Recreated by another incarnation in the same pod: the older one does not replace it.
    let mut anew = lease("ghost", Some("ghost_2"), 1, 9);
    anew.version.uid = "another".into();
    member.step(Input::LeaseSeen(anew), at(6));
    let request = list_of(&member.step(Input::MapSeen(map(13, ["gone_1", "gone_2", ME])), at(7))).unwrap();
    let shown = vec![lease("me", Some(ME), 1, 1), lease("ghost", Some("ghost_1"), 1, 5)];
    member.step(Input::LeasesRead(request, Ok(shown)), at(7));
    assert!(member.members().any(|(lease, _)| lease.holder == Some(incarnation("ghost_2"))));
}

/// A list without a response is sent again, but not at once.
#[test]
fn a_lost_list_is_sent_again() {
    let mut member = owner();
    let request = list_of(&member.step(Input::MapSeen(map(12, ["gone_1", ME, ME])), at(4))).unwrap();
    assert_eq!(list_of(&member.step(Input::LeasesRead(request, Err(Failure::Unknown)), at(5))), None);
    assert!(list_of(&member.step(Input::Tick, at(6))).is_some());
}

/// M-1: a read of the Lease that was sent before this member joined proves nothing about its current holder.
#[test]
fn a_read_from_before_joining_does_not_fence() {
    let mut member = new_member();
    member.step(Input::Synced, at(0));
    assert!(member.step(Input::Tick, at(2)).contains(&Effect::ReadLease(looked(2, 0, false))), "the first is slow");
    let effects = member.step(Input::LeaseRead(looked(2, 0, false), Ok(None)), at(3));
    assert!(effects.iter().any(|it| matches!(it, Effect::Renew { attempt: 1, .. })), "{effects:?}");
    let effects = member.step(Input::LeaseRead(looked(0, 0, false), Ok(None)), at(4));
    assert!(!effects.iter().any(|it| matches!(it, Effect::End(_))), "the Lease was read before the attempt was sent");
    assert!(member.step(Input::Tick, at(5)).contains(&Effect::ReadLease(looked(5, 1, false))));
    member.step(Input::Renewed(1, Ok(lease("me", Some(ME), 1, 1))), at(6));
    assert!(member.joined());
    // Served before the attempt arrived, or after it was fenced: the Lease must be read again.
    let effects = member.step(Input::LeaseRead(looked(5, 1, false), Ok(None)), at(6));
    assert!(!effects.iter().any(|it| matches!(it, Effect::End(_))), "{effects:?}");
    assert!(effects.contains(&Effect::ReadLease(looked(6, 2, true))), "{effects:?}");
    let effects = member.step(Input::LeaseRead(looked(6, 2, true), Ok(None)), at(7));
    assert!(effects.contains(&Effect::End(End::Fenced)));
}

/// M-1: a member joins even if every response takes longer than its timeout.
#[test]
fn a_member_joins_with_a_slow_api_server() {
    let mut member = new_member();
    let mut flights: Vec<(u64, Effect)> = Vec::new();
    for second in 0..40 {
        let due: Vec<Effect> = flights.extract_if(.., |(arrives, _)| *arrives <= second).map(|(_, it)| it).collect();
        let mut inputs = vec![Input::Tick];
        inputs.extend(due.into_iter().filter_map(|effect| match effect {
            Effect::ReadLease(request) => Some(Input::LeaseRead(request, Ok(None))),
            Effect::Renew { attempt, .. } => Some(Input::Renewed(attempt, Ok(lease("me", Some(ME), attempt, attempt)))),
            _ => None,
        }));
        for input in inputs {
            // Reads of the existing Lease are omitted: they could only confirm.
            let sent = member.step(input, at(second));
            let effects =
                sent.into_iter().filter(|it| !matches!(it, Effect::ReadLease(request) if request.attempt > 0));
            flights.extend(effects.map(|it| (second + 5, it)));
        }
        if member.joined() {
            return;
        }
    }
    panic!("it never joined");
}

/// O-2: a handover whose response is lost keeps its slots closed, also if the receiver has expired.
#[test]
fn a_pending_handover_keeps_its_slots_closed_if_the_receiver_expires() {
    let mut member = owner();
    member.step(Input::LeaseSeen(lease("other", Some("other_1"), 1, 2)), at(4));
    let (drain, _) = drain_of(&keep(&mut member, 6, &map(10, [ME, ME, ME]))).unwrap();
    assert!(swap_of(&member.step(Input::Drained(drain), at(7))).is_some(), "its response is late");
    for second in [9, 12, 15] {
        // The receiver does not renew: it gets nothing more, and the map is unchanged.
        keep(&mut member, second, &map(10, [ME, ME, ME]));
        assert_eq!(member.open().len(), 2, "{second}");
    }
    member.step(Input::MapSeen(map(11, ["other_1", ME, ME])), at(16));
    assert_eq!(member.open().len(), 2, "it arrived");
}
