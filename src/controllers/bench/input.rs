//! What the builders need to know of a bench, from what is observed of it. Pure.

use super::{
    model::{Input, Observed},
    protection,
};

impl Observed {
    /// What the builders need to know.
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
