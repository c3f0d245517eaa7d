//! Data of the rules and phases of a site: nothing here decides, reads or writes.
//!
//! [`Observed`] is the observed state, [`Input`] the input of the builders, [`Plan`] the result.

pub mod decided;
mod input;
mod plan;
mod world;

pub use decided::*;
pub use input::*;
pub use plan::*;
pub use world::*;
