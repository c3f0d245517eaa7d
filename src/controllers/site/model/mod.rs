//! What the rules and phases of a site are about, as data: nothing here decides, reads or writes.
//!
//! [`Observed`] is what is known of the world, [`Validated`] what the spec means in it, [`Plan`] what is to be done.

mod decided;
mod plan;
mod world;

pub use decided::*;
pub use plan::*;
pub use world::*;
