//! A Kubernetes operator for Frappe and ERPNext: the program `frappe-operator`.
//!
//! Start at `controllers`. The crate exports only [`main`], and [`parts`] for this repository's tests, so that the compiler
//! reports unused code.

#![allow(
    unreachable_pub,
    reason = "`pub` says that another module uses it: nothing of this crate is reached from outside"
)]

mod admin;
mod admission;
mod admission_policy;
mod cli;
mod commands;
mod config;
mod controllers;
mod domain;
mod fleet_report;
mod io;
mod metrics;
mod operator;
mod runner;
mod telemetry;
mod transfer;

use std::process::ExitCode;

use clap::Parser;

/// Parts that the tests and benchmarks of this repository use.
pub mod parts {
    pub use kube_sharding::lanes::{Lanes, Priority};

    pub use crate::{
        admission::{Named, REFERENCES, SECRETS_MAX},
        config::OperatorConfig,
        domain::{
            capabilities::{Api, Capabilities, KnownBy},
            diff::first_difference,
            labels::SLOT,
            names::{database, hex},
            object::{Desired, Kind},
            rights::{Place, Rights, Rule, grants},
            watches::{Narrowing, Wakes},
        },
        fleet_report::names,
        metrics::METRICS,
    };

    /// One replica of the operator, which a test runs on an API server of its own.
    pub mod replica {
        use clap::Parser;

        pub use kube_sharding::client::Connection;

        pub use crate::operator::Surroundings;

        /// Runs it with these arguments of the command `run`, until it is stopped: everything that the program does, but signals,
        /// the HTTP server and metrics.
        pub async fn run(arguments: &[&str], surroundings: Surroundings) -> anyhow::Result<()> {
            let words = ["frappe-operator", "run"].iter().chain(arguments);
            match crate::cli::Cli::try_parse_from(words)?.command {
                crate::cli::Command::Run(arguments) => crate::operator::replica(*arguments, surroundings).await,
                other => anyhow::bail!("the command is run, not {other:?}"),
            }
        }
    }

    /// Parts of the controller of benches.
    pub mod bench {
        pub use crate::controllers::bench::{build::render, model::Input};
    }

    /// Parts of the controller of sites.
    pub mod site {
        pub use crate::controllers::site::{
            hosts::resolve,
            model::{Adoptable, Claim, Fresh, Holder, Observed, Plan, Routes, Step},
            plan::plan,
        };
    }
}

/// Runs the command of the command line and returns the exit code.
pub async fn main() -> ExitCode {
    let cli::Cli { command, target } = cli::Cli::parse();
    let ended = match command {
        cli::Command::Run(arguments) => {
            telemetry::init(&arguments);
            operator::run(*arguments).await.inspect_err(|error| {
                tracing::error!(error = format!("{error:#}"), "operator failed");
            })
        }
        cli::Command::Shards(arguments) => commands::shards(arguments, &target).await,
        cli::Command::Status(arguments) => commands::fleet::status(arguments, &target).await,
        cli::Command::Rollout(arguments) => commands::rollout::rollout(arguments, &target).await,
        cli::Command::Update(arguments) => commands::update::update(arguments, &target).await,
        cli::Command::Migrate(arguments) => commands::update::migrate(arguments, &target).await,
        cli::Command::Exec(arguments) => commands::exec::exec(arguments, &target).await,
        cli::Command::Backup(arguments) => commands::backup::backup(arguments, &target).await,
        cli::Command::Restore(arguments) => commands::backup::restore(arguments, &target).await,
        cli::Command::Logs(arguments) => commands::logs::print_logs(arguments, &target).await,
        cli::Command::Why(arguments) => commands::why::why(arguments, &target).await,
        cli::Command::Check(arguments) => commands::check::check(arguments, &target).await,
        cli::Command::Render(arguments) => commands::manifests::render(&arguments),
        cli::Command::Crds => commands::manifests::crds(),
        cli::Command::AdmissionFence(arguments) => commands::manifests::admission_fence(&arguments),
        cli::Command::AdmissionReferences => commands::manifests::admission_references(),
        cli::Command::Transfer(arguments) => transfer::command(&arguments).await,
        cli::Command::Completions { shell } => commands::manifests::completions(shell),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("Error: {}", commands::output::told(&error));
            ExitCode::FAILURE
        }
    }
}
