//! Conditions: built with the time of their last change kept, and found by type.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// Longest message that is written; the API server allows 32,768.
const MESSAGE_MAX_CHARACTERS: usize = 1024;

/// Collects the conditions of a new status beside those of the old one.
pub struct Conditions<'a> {
    former: &'a [Condition],
    generation: Option<i64>,
    now: Timestamp,
    list: Vec<Condition>,
}

impl<'a> Conditions<'a> {
    /// Conditions of a status that follows one with `former`, for a spec of `generation`.
    pub fn new(former: &'a [Condition], generation: Option<i64>, now: Timestamp) -> Self {
        Self { former, generation, now, list: Vec::new() }
    }

    /// Adds a condition; `state` is true, false, or unknown. The time changes only when the state does.
    pub fn set(&mut self, kind: &str, state: Option<bool>, reason: &str, message: impl Into<String>) {
        let status = match state {
            Some(true) => "True",
            Some(false) => "False",
            None => "Unknown",
        };
        let message: String = message.into().chars().take(MESSAGE_MAX_CHARACTERS).collect();
        let since = find(self.former, kind)
            .filter(|former| former.status == status)
            .map_or_else(|| Time(self.now), |former| former.last_transition_time.clone());
        self.list.push(Condition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message,
            observed_generation: self.generation,
            last_transition_time: since,
        });
    }

    /// Adds a condition as it was.
    pub fn keep(&mut self, condition: &Condition) {
        self.list.push(condition.clone());
    }

    /// The conditions, in the order in which they were set.
    pub fn finish(self) -> Vec<Condition> {
        self.list
    }
}

/// The condition of a type.
pub fn find<'a>(conditions: &'a [Condition], kind: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == kind)
}

/// Whether the condition of a type is True.
pub fn is_true(conditions: &[Condition], kind: &str) -> bool {
    find(conditions, kind).is_some_and(|condition| condition.status == "True")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_transition_time_changes_only_with_the_status() {
        let early = Timestamp::UNIX_EPOCH;
        let late = Timestamp::MAX;
        let mut first = Conditions::new(&[], Some(1), early);
        first.set("Ready", Some(false), "A", "a");
        let first = first.finish();
        let mut second = Conditions::new(&first, Some(2), late);
        second.set("Ready", Some(false), "B", "b");
        let second = second.finish();
        assert_eq!(second[0].last_transition_time.0, early);
        let mut third = Conditions::new(&second, Some(2), late);
        third.set("Ready", Some(true), "C", "c");
        assert_eq!(third.finish()[0].last_transition_time.0, late);
    }
}
