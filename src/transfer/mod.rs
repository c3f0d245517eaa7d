//! Uploads and downloads backups. It runs in the Jobs of backups and restores, never in the operator itself; the site runner
//! (`runner/runner_backup.py`) creates and loads the parts.
//!
//! A backup NAME is the folder `FOLDER/NAME` with the parts and `manifest.json`. The manifest is written last, after every
//! part was read back and verified: without a manifest there is no backup. It may be killed at any point and run again.

pub mod answer;
pub mod connect;
pub mod fetch;
pub mod manifest;
pub mod objects;
pub mod report;
pub mod request;
pub mod retention;
pub mod secrecy;
pub mod service_code;
pub mod staging;
pub mod store;
pub mod upload;
pub mod volume;

use anyhow::Context as _;
use jiff::Timestamp;
use serde_json::{Value, json};

use self::{report::Failure, secrecy::Key, store::Store};
use crate::{
    cli::TransferArguments,
    commands::output::print,
    transfer::request::{Folders, Request},
};

/// The command `transfer`: writes its result to the termination message, and prints it.
pub async fn command(arguments: &TransferArguments) -> anyhow::Result<()> {
    // The clients of object stores take the process's own.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let request = serde_json::from_str(&arguments.request).context("the request")?;
    let folders = Folders {
        staging: arguments.staging.clone(),
        credentials: arguments.credentials.clone(),
        volume: arguments.volume.clone(),
    };
    #[expect(clippy::disallowed_methods, reason = "the age of a backup depends on the wall clock")]
    let now = Timestamp::now();
    let ended = run(&request, &folders, now).await;
    let text = match &ended {
        Ok(done) => json!({"result": done}),
        Err(failure) => failure.left(),
    };
    // Outside of a pod there is none.
    let _ = std::fs::write(&arguments.termination_log, text.to_string());
    print(&format!("{text}\n"))?;
    ended.map(|_| ()).map_err(|failure| anyhow::anyhow!("{}: {failure}", failure.step))
}

/// Executes the request and returns the result.
pub async fn run(request: &Request, folders: &Folders, now: Timestamp) -> Result<Value, Failure> {
    request.check_credentials(&folders.credentials)?;
    let store = Store::open(&request.place, folders)?;
    let key = Key::read(&folders.credentials)?;
    let mut done = json!({});
    if let Some(storing) = &request.store {
        let manifest = upload::upload(&store, &request.folder, storing, &folders.staging, key.as_ref(), now).await?;
        done["name"] = json!(manifest.name);
        done["bytes"] = json!(manifest.contents.bytes());
    }
    if let Some(rule) = &request.retention {
        let kept = request.store.as_ref().map(|it| it.name.as_str());
        done["removed"] = json!(retention::retain(&store, &request.folder, rule, kept, now).await?);
    }
    if let Some(name) = &request.fetch {
        let folder = request.fetch_folder.as_ref().unwrap_or(&request.folder);
        let trust = fetch::Trust { key: key.as_ref(), unauthenticated: request.unauthenticated };
        let manifest = fetch::fetch(&store, folder, name, &folders.staging, trust).await?;
        done["fetched"] = json!(manifest.name);
    }
    if let Some(maker) = &request.removal {
        done["removed"] = json!(retention::remove_all(&store, &request.folder, maker).await?);
    }
    Ok(done)
}
