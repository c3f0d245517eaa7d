//! Reasons of Events that are about the operator itself.

/// Reason of the Event about a value of the ConfigMap that is not taken.
pub const INVALID_VALUE: &str = "InvalidValue";

/// Reason of the Event about a handover.
pub const SLOTS_TAKEN_OVER: &str = "SlotsTakenOver";
