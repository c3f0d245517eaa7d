//! Reasons of conditions and Events, for every kind.

use std::fmt;

/// Class of a reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// The object is in its desired state.
    Done,
    /// Something is being created, changed or removed.
    Working,
    /// The object waits for something that happens by itself, or is suspended.
    Waiting,
    /// A user must change something.
    Refused,
    /// An attempt failed.
    Failed,
}

/// A reason of a condition or Event. Its name is shown to users and tools.
pub trait Reason: Copy + Eq + fmt::Debug + fmt::Display {
    /// Its class.
    fn class(self) -> Class;

    /// Whether its Events are warnings.
    fn is_warning(self) -> bool {
        matches!(self.class(), Class::Refused | Class::Failed)
    }
}
