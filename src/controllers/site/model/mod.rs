//! What the rules and phases of a site are about, as data: nothing here decides, reads or writes.
//!
//! [`Observed`] is what is known of the world, [`Input`] what the builders make objects of, [`Plan`] what is to be done.

pub mod decided;
mod input;
mod plan;
mod world;

pub use decided::*;
pub use input::*;
pub use plan::*;
pub use world::*;
