//! What a member needs.

use std::sync::Arc;

use crate::{clock::Clock, member::Incarnation, timing::Timing, wire::Names};

/// What a member needs.
#[derive(Clone)]
pub struct Settings {
    /// Names that the fleet shares.
    pub names: Names,
    /// Name of this member, such as the pod's name: unique in the namespace.
    pub member: String,
    /// Who it is; new at every start and whenever it was fenced.
    pub incarnation: Incarnation,
    /// Which build it is, such as the pod-template-hash; may be empty.
    pub template: String,
    /// Times of the protocol.
    pub timing: Timing,
    /// The clock.
    pub clock: Arc<dyn Clock>,
}
