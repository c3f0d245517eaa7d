//! A model API server beneath a `kube::Client`: tests of a controller that need no cluster and no time.
//!
//! [`Server`] keeps objects as an API server does: one counter of versions, preconditions, server-side apply with field
//! managers, status apart from the spec, finalizers, watches that tell changes in order. What other controllers of a cluster
//! do, it does when a test asks: [`Server::collect_garbage`], [`Server::compact`], [`Server::replay`].
//!
//! [`Network`] is one client's way to it, a `tower` service: `Client::new(network, "default")`. What goes wrong there is
//! drawn from a seed ([`Weather`]) or said request by request ([`Sky::intercept`]); also that the client is dead from then on.
//!
//! [`in_virtual_time`] runs a test with Tokio's clock paused: hours cost nothing, and times come out the same on every run.
//!
//! ```
//! use k8s_openapi::api::core::v1::ConfigMap;
//! use kube::{Api, Client, api::PostParams};
//! use kube_sharding_sim::{Network, Server, Sky, in_virtual_time};
//!
//! in_virtual_time(1, async {
//!     let (server, sky) = (Server::new(), Sky::new(1));
//!     let client = Client::new(Network::new(&server, &sky, 0), "default");
//!     let maps: Api<ConfigMap> = Api::namespaced(client, "default");
//!     let map = serde_json::from_value(serde_json::json!({"metadata": {"name": "a"}})).unwrap();
//!     let made = maps.create(&PostParams::default(), &map).await.unwrap();
//!     assert!(made.metadata.uid.is_some());
//! });
//! ```
#![allow(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    clippy::significant_drop_in_scrutinee,
    reason = "a part of tests: what cannot be is a failure"
)]

mod apply;
mod call;
mod garbage;
mod network;
mod patch;
mod schema;
mod selector;
mod server;
mod steps;
mod store;
mod virtual_time;
mod watch;

pub use call::{BY_HAND, Call, Place};
pub use network::{AnswerBody, Fault, Faults, Network, Sky, Weather};
pub use server::{Answer, Server};
pub use store::{Asked, Change, Written};
pub use virtual_time::{VirtualClock, in_virtual_time};
