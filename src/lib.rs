//! A Kubernetes operator that runs Frappe and ERPNext: the modules of the binary `frappe-operator`.
//!
//! Start at [`controllers`]: its table says what is watched and what a change leads to.

pub mod admin;
pub mod admission;
pub mod cli;
pub mod config;
pub mod controllers;
pub mod domain;
pub mod fence;
pub mod io;
pub mod lanes;
pub mod metrics;
pub mod operator;
pub mod runner;
pub mod shards;
pub mod telemetry;
pub mod tool;
pub mod transfer;
