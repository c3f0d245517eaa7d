//! Integration tests: the operator's own binary against a real kube-apiserver.
//!
//! Each test starts its own cluster and removes it, also if the test fails.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, clippy::disallowed_methods, reason = "tests")]

mod admission;
mod backups;
mod bench;
mod bench_defaults;
mod chart;
mod clusters;
mod commands;
mod contents;
mod controllers;
mod crash;
mod crds;
mod discovery;
mod examples;
mod fence;
mod fields;
mod image;
mod install;
mod jobs;
mod journey;
mod logs;
mod memory;
mod migration;
mod permissions;
mod published;
mod redis;
mod refusals;
mod removal;
mod scaling;
mod sharding;
mod site_fields;
mod sites;
mod support;
mod tenancy;
mod transcripts;
