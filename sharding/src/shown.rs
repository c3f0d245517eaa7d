//! Shows what a member owns and sees, as metrics.

use metrics::{counter, gauge};

use crate::{changes::Changes, session::Session};

fn number(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

/// Shows what this member owns and sees, until the incarnation ends.
pub(crate) async fn show(session: Session) {
    let (gate, names, mut changes) = (session.gate(), session.metrics, Changes::of(&session));
    while let Some(seen) = changes.next().await {
        let opening = gate.opening().borrow().clone();
        gauge!(names.slots).set(number(opening.slots().len()));
        gauge!(names.objects).set(number(usize::try_from(session.handle.objects()).unwrap_or(usize::MAX)));
        gauge!(names.draining_slots).set(number(seen.view.draining.len()));
        gauge!(names.acting).set(f64::from(u8::from(gate.acts())));
        gauge!(names.coordinator).set(f64::from(u8::from(opening.coordinates())));
        gauge!(names.members).set(number(seen.fleet.alive()));
        gauge!(names.unowned_slots).set(number(seen.fleet.unowned_slots));
        counter!(names.gained_slots).increment(seen.moved.map_or(0, |it| it.gained) as u64);
    }
}
