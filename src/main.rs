//! The binary `frappe-operator`.

use clap::Parser;
use frappe_operator::{cli, inspect, operator, telemetry};

/// Lists of thousands come and go beside a cache of small objects: this allocator gives back what they took
/// (settings: `.cargo/config.toml`).
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

#[tokio::main]
async fn main() -> std::process::ExitCode {
    let ended = match cli::Cli::parse().command {
        cli::Command::Run(arguments) => {
            telemetry::init(&arguments);
            operator::run(*arguments).await.inspect_err(|error| {
                tracing::error!(error = format!("{error:#}"), "the operator ends");
            })
        }
        cli::Command::Shards(arguments) => inspect::shards(arguments).await,
        cli::Command::AdmissionFence(arguments) => inspect::admission_fence(&arguments),
    };
    match ended {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("Error: {error:#}");
            std::process::ExitCode::FAILURE
        }
    }
}
