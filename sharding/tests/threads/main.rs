//! Threads that meet at a door of the gate, in every order that memory allows: the real code of `src/doors.rs`, with
//! loom's atomics.
//!
//! S-2: what a handover saw end has ended, and what began meanwhile was seen.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, reason = "tests")]

#[path = "../../src/doors.rs"]
mod doors;

/// What the doors are made of here.
mod sync {
    pub(crate) use loom::sync::atomic::{AtomicU64, AtomicUsize, Ordering, fence};
}

use doors::{Door, settle};
use loom::{cell::UnsafeCell, sync::Arc, thread};

/// A door, and what only who may act touches: loom fails where two touch it at one time.
struct Place {
    door: Door,
    object: UnsafeCell<u32>,
}

fn place() -> Arc<Place> {
    let place = Place { door: Door::new(), object: UnsafeCell::new(0) };
    place.door.set(1, false);
    Arc::new(place)
}

fn touch(place: &Place) {
    place.object.with_mut(|_| ());
}

/// New work on one thread, a handover on another: if the handover saw nobody, nobody began.
#[test]
fn work_that_begins_is_seen_by_a_handover_or_sees_it() {
    loom::model(|| {
        let place = place();
        let worker = thread::spawn({
            let place = Arc::clone(&place);
            move || {
                if place.door.enter(Door::epoch) != 0 {
                    touch(&place);
                }
                place.door.leave();
            }
        });
        place.door.set(0, true);
        if settle(&[&place.door].into_iter()) {
            touch(&place);
        }
        worker.join().unwrap();
    });
}

/// Work that has begun writes while its slot is drained: a write is let through and awaited, or refused.
#[test]
fn a_write_is_awaited_or_refused() {
    loom::model(|| {
        let place = place();
        let worker = thread::spawn({
            let place = Arc::clone(&place);
            move || {
                if place.door.enter(Door::write_epoch) != 0 {
                    touch(&place);
                }
                place.door.leave();
            }
        });
        place.door.set(0, true);
        if settle(&[&place.door].into_iter()) {
            touch(&place);
            assert_eq!(place.door.enter(Door::write_epoch), 0, "nothing writes any more");
        }
        worker.join().unwrap();
    });
}

/// Work that has begun is not refused in the moment between open and draining.
#[test]
fn work_that_has_begun_meets_no_closed_door() {
    loom::model(|| {
        let place = place();
        assert_eq!(place.door.enter(Door::epoch), 1);
        let worker = thread::spawn({
            let place = Arc::clone(&place);
            move || {
                let epoch = place.door.enter(Door::write_epoch);
                place.door.leave();
                place.door.leave();
                assert_eq!(epoch, 1);
            }
        });
        place.door.set(0, true);
        worker.join().unwrap();
    });
}
