//! The binary `frappe-operator`.

use clap::Parser;
use frappe_operator::{cli, operator, telemetry, tool, transfer};

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
                tracing::error!(error = format!("{error:#}"), "operator failed");
            })
        }
        cli::Command::Shards(arguments) => tool::shards(arguments).await,
        cli::Command::Status(arguments) => tool::fleet::status(arguments).await,
        cli::Command::Why(arguments) => tool::why::why(arguments).await,
        cli::Command::Check(arguments) => tool::check::check(arguments).await,
        cli::Command::Render(arguments) => tool::manifests::render(&arguments),
        cli::Command::Crds => tool::manifests::crds(),
        cli::Command::AdmissionFence(arguments) => tool::manifests::admission_fence(&arguments),
        cli::Command::AdmissionReferences => tool::manifests::admission_references(),
        cli::Command::Transfer(arguments) => transfer::command(&arguments).await,
        cli::Command::Completions { shell } => tool::manifests::completions(shell),
    };
    match ended {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("Error: {error:#}");
            std::process::ExitCode::FAILURE
        }
    }
}
