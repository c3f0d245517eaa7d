//! Input of the builders of a bench's objects, from the observed state. Pure.

use super::{
    model::{Input, Observed, Pods},
    protection,
};

impl Observed {
    /// Input of the builders.
    pub fn input(&self) -> Input<'_> {
        let recorded = Input {
            bench: &self.bench,
            config: &self.config,
            capabilities: self.capabilities,
            redis_secret_version: self.redis_secret_version.as_deref(),
            digest: None,
            open_servers: protection::open_servers(self),
            pods: Pods::newest(&self.bench),
        };
        match &self.inspection {
            Some(found) => Input { digest: found.digest.as_deref(), ..recorded },
            None => recorded.with_recorded_digest(),
        }
    }
}
