//! The primitives of the gate's doors, which the test of its threads replaces.

pub(crate) use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering, fence};
