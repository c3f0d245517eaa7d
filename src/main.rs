//! The binary `frappe-operator`.

use clap::Parser;
use frappe_operator::{cli, operator, telemetry};

#[tokio::main]
async fn main() -> std::process::ExitCode {
    let cli::Command::Run(arguments) = cli::Cli::parse().command;
    telemetry::init(&arguments);
    match operator::run(arguments).await {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "the operator ends");
            std::process::ExitCode::FAILURE
        }
    }
}
