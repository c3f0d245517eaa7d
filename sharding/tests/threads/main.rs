//! Concurrent use of the gate's doors, in every order that the memory model allows: the real code of `src/doors.rs` with loom's
//! atomics.
//!
//! S-2: if a handover finds that no work is in flight, none is, and it finds all work that started before.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, reason = "tests")]

#[path = "../../src/doors.rs"]
mod doors;

/// The atomics of the doors: those of loom.
mod sync {
    pub(crate) use loom::sync::atomic::{AtomicU64, AtomicUsize, Ordering, fence};
}

use doors::{Door, settle};
use loom::{cell::UnsafeCell, sync::Arc, thread};

/// A door, and an object that only a thread with permission may access: loom fails if two threads access it at the same time.
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

/// New work on one thread, a handover on another: if the handover found no work, no work started.
#[test]
fn new_work_and_a_handover_detect_each_other() {
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

/// Running work writes while its slot is drained: the write is either allowed and awaited, or rejected.
#[test]
fn a_write_is_awaited_or_rejected() {
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
            assert_eq!(place.door.enter(Door::write_epoch), 0, "no more writes are allowed");
        }
        worker.join().unwrap();
    });
}

/// Running work is not rejected between open and draining.
#[test]
fn running_work_may_write_while_its_slot_starts_draining() {
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
