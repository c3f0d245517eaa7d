//! What a backup consists of.

use std::collections::BTreeMap;

use jiff::Timestamp;
use object_store::path::Path;
use serde::{Deserialize, Serialize};

use super::{report::Failure, store::Store};

/// Version of the manifest's form.
pub const FORMAT: u32 = 1;
/// Name of the manifest.
pub const FILE_NAME: &str = "manifest.json";
/// Name of the file by which the site runner tells what it made.
pub const CONTENTS: &str = "contents.json";

/// One part, as it was made.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
pub struct Part {
    /// Its file.
    pub file: String,
    /// Its size.
    pub bytes: u64,
    /// Its SHA-256, in hex.
    pub sha256: String,
    /// As what it is stored, where it is encrypted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encrypted: Option<Stored>,
}

/// A file as it is stored.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
pub struct Stored {
    /// Its name.
    pub file: String,
    /// Its size.
    pub bytes: u64,
    /// Its SHA-256, in hex.
    pub sha256: String,
}

impl Part {
    /// The file that is stored.
    pub fn stored(&self) -> Stored {
        let plain = || Stored { file: self.file.clone(), bytes: self.bytes, sha256: self.sha256.clone() };
        self.encrypted.clone().unwrap_or_else(plain)
    }
}

/// What the site runner made.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
pub struct Contents {
    /// The site's name on its bench.
    pub site: String,
    /// mariadb or postgres.
    pub engine: String,
    /// Version of Frappe.
    pub frappe: String,
    /// Apps that the site had.
    pub apps: Vec<String>,
    /// The parts.
    pub parts: BTreeMap<String, Part>,
}

impl Contents {
    /// Size of all parts.
    pub fn bytes(&self) -> u64 {
        self.parts.values().map(|part| part.bytes).sum()
    }
}

/// A backup that was found to be whole where it is kept.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Version of this form.
    pub format: u32,
    /// Name of the backup.
    pub name: String,
    /// The SiteBackup that asked for it.
    pub site_backup: String,
    /// The site: namespace/name.
    pub site: String,
    /// The site's identity.
    pub identity: String,
    /// When it was due.
    pub scheduled_at: Timestamp,
    /// When it was found to be whole.
    pub finished_at: Timestamp,
    /// Whether it is being removed: its parts may be gone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub removing: bool,
    /// What it consists of.
    pub contents: Contents,
}

/// Folder of a backup.
pub fn folder(site_folder: &str, name: &str) -> Path {
    Path::from(format!("{site_folder}/{name}"))
}

/// A file of a backup.
pub fn file(site_folder: &str, name: &str, file: &str) -> Path {
    folder(site_folder, name).join(file)
}

impl Manifest {
    /// The manifest of a backup, if there is one.
    pub async fn read(store: &Store, site_folder: &str, name: &str) -> Result<Option<Self>, Failure> {
        let Some(text) = store.read(&file(site_folder, name, FILE_NAME)).await? else { return Ok(None) };
        let parsed = serde_json::from_slice(&text);
        let broken = |error| Failure::broken("read", format!("the manifest of {name} is not one: {error}"));
        parsed.map(Some).map_err(broken)
    }
}

/// Names of everything that lies in a site's folder.
pub async fn names(store: &Store, site_folder: &str) -> Result<Vec<String>, Failure> {
    let listed = store.objects().list_with_delimiter(Some(&Path::from(site_folder))).await;
    let listed = listed.map_err(|error| Failure::of_store("list", &error))?;
    let names = listed.common_prefixes.iter().filter_map(|it| it.filename().map(str::to_owned));
    Ok(names.collect())
}
