//! The words of the domain: names, labels, images, quantities, conditions. Pure.

pub mod capabilities;
pub mod code;
pub mod condition;
pub mod content;
pub mod diff;
pub mod foreign;
pub mod image;
pub mod kinds;
pub mod labels;
pub mod live;
pub mod metadata;
pub mod names;
pub mod network;
pub mod object;
pub mod owner;
pub mod pod;
pub mod quantity;
pub mod rights;
pub mod site_config;
pub mod typed;
pub mod watches;
pub mod wire;

pub use kube_sharding::{key, uid};
