//! All access to the API server: client, gate, caches, watches, writes, Events.

mod bound;
pub mod cache;
pub mod cached;
pub mod client;
pub mod clock;
pub mod compact;
pub mod decision;
pub mod departures;
pub mod events;
pub mod jobs;
pub mod live;
pub mod logs;
pub mod made;
pub mod random;
pub mod tally;
mod unread;
mod weight;
pub mod writer;
