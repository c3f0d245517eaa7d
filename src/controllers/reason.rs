//! What the reasons of every kind have in common.

use std::fmt;

/// What a reason says of the object that has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// It is as it should be.
    Done,
    /// Something of it is being made, changed or removed.
    Working,
    /// It waits for something that comes by itself, or was told to wait.
    Waiting,
    /// It stays as it is until a user changes something.
    Refused,
    /// Something was tried and failed.
    Failed,
}

/// The fixed word of a condition or Event. Its name is what users and tools read.
pub trait Reason: Copy + Eq + fmt::Debug + fmt::Display {
    /// What it says of the object that has it.
    fn class(self) -> Class;

    /// Whether a user should look at it.
    fn is_warning(self) -> bool {
        matches!(self.class(), Class::Refused | Class::Failed)
    }
}
