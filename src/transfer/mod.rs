//! Carries backups between the folder where a site's pod has them and where they are kept. It runs in the Jobs of backups
//! and restores, never in the operator itself; the site runner (`runner/runner_backup.py`) makes and reads what is carried.
//!
//! A backup NAME is the folder `FOLDER/NAME` with the parts and `manifest.json`. The manifest is written last, after every
//! part was read back and had its checksum: without one there is no backup. It may be killed anywhere and run again.

pub mod answer;
pub mod connect;
pub mod fetch;
pub mod manifest;
pub mod report;
pub mod retention;
pub mod secrecy;
pub mod staging;
pub mod store;
pub mod upload;
pub mod volume;

use std::path::PathBuf;

use anyhow::Context as _;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use self::{
    report::Failure,
    secrecy::Key,
    store::{Place, Store},
};
use crate::{cli::TransferArguments, tool};

/// Folder of the backup on its way, in the Job's pod.
pub const STAGING: &str = "/run/frappe-backup";
/// Folder with `accessKey`, `secretKey`, `sessionToken`, `ca.crt` and `identity`, as far as they are given.
pub const CREDENTIALS: &str = "/run/frappe-storage";
/// Where the volume that backups are kept on is mounted.
pub const VOLUME: &str = "/run/frappe-backups";

/// What is to be done, in this order: a backup is stored, old ones are removed, one is fetched; or all of a SiteBackup are
/// removed. Has no secret.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Request {
    /// Where backups are kept.
    pub place: Place,
    /// Folder of the site's backups there.
    pub folder: String,
    /// What is stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store: Option<Storing>,
    /// What is removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention: Option<Retention>,
    /// Name of the backup that is fetched, or the beginning of its name: then the newest of those.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fetch: Option<String>,
    /// Folder that it is fetched from, where it is another site's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fetch_folder: Option<String>,
    /// Whether an encrypted backup is fetched whose manifest the key does not authenticate.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unauthenticated: bool,
    /// Whose backups are removed, all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub removal: Option<Maker>,
}

/// Who made backups: a SiteBackup, of a site.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Maker {
    /// The SiteBackup.
    pub site_backup: String,
    /// The site's identity.
    pub identity: String,
}

/// A backup that is stored.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Storing {
    /// Its name.
    pub name: String,
    /// The SiteBackup that asks for it.
    pub site_backup: String,
    /// The site: namespace/name.
    pub site: String,
    /// The site's identity.
    pub identity: String,
    /// When it was due.
    pub scheduled_at: Timestamp,
    /// Whether the pod may have made none because the backup is stored already.
    #[serde(default)]
    pub may_be_stored: bool,
}

/// Which backups of a SiteBackup go.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Retention {
    /// Who made them.
    #[serde(flatten)]
    pub maker: Maker,
    /// Days that one is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub days: Option<i32>,
    /// How many of the newest are kept in any case.
    pub keep_last: usize,
}

/// Folders of the pod.
#[derive(Clone, Debug)]
pub struct Folders {
    /// Of the backup on its way.
    pub staging: PathBuf,
    /// Of keys.
    pub credentials: PathBuf,
    /// Of the volume that backups are kept on.
    pub volume: PathBuf,
}

/// The command `transfer`: leaves its result where the kubelet finds it, and prints it.
pub async fn command(arguments: &TransferArguments) -> anyhow::Result<()> {
    // The clients of object stores take the process's own.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let request = serde_json::from_str(&arguments.request).context("the request")?;
    let folders = Folders {
        staging: arguments.staging.clone(),
        credentials: arguments.credentials.clone(),
        volume: arguments.volume.clone(),
    };
    #[expect(clippy::disallowed_methods, reason = "how old a backup is, is judged by the clock")]
    let now = Timestamp::now();
    let ended = run(&request, &folders, now).await;
    let text = match &ended {
        Ok(done) => json!({"result": done}),
        Err(failure) => failure.left(),
    };
    // Outside of a pod there is none.
    let _ = std::fs::write(&arguments.termination_log, text.to_string());
    tool::print(&format!("{text}\n"))?;
    ended.map(|_| ()).map_err(|failure| anyhow::anyhow!("{}: {failure}", failure.step))
}

/// Does what the request asks for; answers what was done.
pub async fn run(request: &Request, folders: &Folders, now: Timestamp) -> Result<Value, Failure> {
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
