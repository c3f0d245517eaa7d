//! A model API server for a `kube::Client`: tests of a controller that need no cluster and no real time.
//!
//! [`Server`] stores objects as an API server does: one counter of versions, preconditions, server-side apply with field
//! managers, a status subresource, finalizers, watches that send changes in order. What happens in a cluster without a request, a
//! test triggers: [`Server::collect_garbage`], [`Server::compact`], [`Server::replay`].
//!
//! [`Network`] is one client's connection to it, a `tower` service: `Client::new(network, "default")`. Its faults are random, from a
//! seed ([`LinkFaults`]), or chosen for each request ([`FaultInjector::intercept`]); one of them is the death of the client.
//!
//! [`in_virtual_time`] runs a test with Tokio's clock paused: hours pass at once, and times are the same in every run.
//!
//! ```
//! use k8s_openapi::api::core::v1::ConfigMap;
//! use kube::{Api, Client, api::PostParams};
//! use kube_sharding_sim::{Network, Server, FaultInjector, in_virtual_time};
//!
//! in_virtual_time(1, async {
//!     let (server, injector) = (Server::new(), FaultInjector::new(1));
//!     let client = Client::new(Network::new(&server, &injector, 0), "default");
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
    reason = "part of tests: an unexpected state is a failure"
)]

mod apply;
mod call;
mod fleet;
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
pub use fleet::{Fleet, Misfortune};
pub use network::{AnswerBody, Fault, FaultInjector, Faults, LinkFaults, Network};
pub use server::{Answer, Server};
pub use store::{Change, Requested, Written};
pub use virtual_time::{VirtualClock, in_virtual_time};
