//! Input of the builders of a bench's objects, from the observed state. Pure.

use super::{
    model::{Input, Observed},
    protection,
};

impl Observed {
    /// Input of the builders.
    pub fn input(&self) -> Input<'_> {
        Input {
            bench: &self.bench,
            config: &self.config,
            capabilities: self.capabilities,
            redis_secret_version: self.redis_secret_version.as_deref(),
            open_servers: protection::open_servers(self),
        }
    }
}
