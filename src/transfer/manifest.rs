//! Manifest of a backup.

use std::collections::BTreeMap;

use jiff::Timestamp;
use object_store::path::Path;
use serde::{Deserialize, Serialize};

use super::{
    report::Failure,
    secrecy::{Key, SUFFIX},
    store::Store,
};
use crate::domain::wire;

/// Version of the manifest's format.
pub const FORMAT: u32 = 1;
/// Name of the manifest.
pub const FILE_NAME: &str = "manifest.json";
/// Name of the file in which the site runner lists the parts.
pub const CONTENTS: &str = "contents.json";

/// Maximum size of a manifest.
pub const BYTES_MAX: u64 = 1 << 20;
/// The part with the keys that decrypt a site's stored passwords.
pub const KEYS: &str = "keys";
/// All parts of a backup, with their fixed file names.
pub const PARTS: [(&str, &str); 4] = [
    ("database", "database.sql.gz"),
    (KEYS, "keys.json"),
    ("private-files", "private-files.tgz"),
    ("public-files", "public-files.tgz"),
];

/// One part, before encryption.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
pub struct Part {
    /// Its file.
    pub file: String,
    /// Its size.
    pub bytes: u64,
    /// Its SHA-256, in hex.
    pub sha256: String,
    /// Unpacked size in bytes; None in backups of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unpacked: Option<u64>,
    /// The stored file, if encrypted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encrypted: Option<Stored>,
}

/// A stored file.
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
    /// The stored file.
    pub fn stored(&self) -> Stored {
        let plain = || Stored { file: self.file.clone(), bytes: self.bytes, sha256: self.sha256.clone() };
        self.encrypted.clone().unwrap_or_else(plain)
    }
}

/// Contents of a backup, as listed by the site runner.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
pub struct Contents {
    /// The site's name on its bench.
    pub site: String,
    /// mariadb or postgres.
    pub engine: String,
    /// Version of Frappe.
    pub frappe: String,
    /// Installed apps.
    pub apps: Vec<String>,
    /// The parts.
    pub parts: BTreeMap<String, Part>,
}

impl Contents {
    /// An unknown part, or a part with another file name, if there is one. File names decide which files are read and written, and
    /// the manifest is not trusted.
    pub fn odd(&self) -> Option<String> {
        self.parts.iter().find_map(|(title, part)| {
            let Some((_, file)) = PARTS.iter().find(|(known, _)| known == title) else {
                return Some(format!("has a part {title:?}"));
            };
            let encrypted = part.encrypted.as_ref();
            if part.file != *file {
                return Some(format!("has the file {:?} for {title}", part.file));
            }
            let named = encrypted.filter(|it| it.file.strip_suffix(SUFFIX) != Some(*file))?;
            Some(format!("has the file {:?} for {title}", named.file))
        })
    }

    /// Size of all parts.
    pub fn bytes(&self) -> u64 {
        self.parts.values().map(|part| part.bytes).sum()
    }
}

/// Manifest of a backup that was verified in storage.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Version of the format.
    pub format: u32,
    /// Name of the backup.
    pub name: String,
    /// The SiteBackup that made it.
    pub site_backup: String,
    /// The site: namespace/name.
    pub site: String,
    /// The site's identity.
    pub identity: String,
    /// Scheduled time.
    pub scheduled_at: Timestamp,
    /// Time at which it was verified.
    pub finished_at: Timestamp,
    /// Whether it is being removed, so that parts may be missing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub removing: bool,
    /// Contents.
    pub contents: Contents,
    /// HMAC with the storage's key over all other fields.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authentication: Option<String>,
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
        let Some(text) = store.read(&file(site_folder, name, FILE_NAME), BYTES_MAX).await? else { return Ok(None) };
        let parsed = serde_json::from_slice(&text);
        // Only the path, without the untrusted content.
        let broken = |error: serde_json::Error| {
            let at = format!("line {}, column {}", error.line(), error.column());
            Failure::broken("read", format!("the manifest of {name} is invalid: {at}"))
        };
        parsed.map(Some).map_err(broken)
    }

    /// Adds the authentication with a key.
    #[must_use]
    pub fn signed(mut self, key: &Key) -> Self {
        self.authentication = Some(key.authentication(&self.authenticated()));
        self
    }

    /// Whether it is authentic for this key; None if it has no authentication.
    pub fn is_authentic(&self, key: &Key) -> Option<bool> {
        self.authentication.as_ref().map(|it| key.authenticates(&self.authenticated(), it))
    }

    /// The authenticated values, independent of formatting.
    fn authenticated(&self) -> Vec<u8> {
        let bare = Self { authentication: None, ..self.clone() };
        wire::in_order(&bare).into_bytes()
    }
}

/// Names of all backups in a site's folder.
pub async fn names(store: &Store, site_folder: &str) -> Result<Vec<String>, Failure> {
    store.folders(&Path::from(site_folder)).await
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The site runner writes and reads parts with the same names.
    #[test]
    fn the_runner_gives_parts_the_same_names() {
        let runner = include_str!("../runner/runner_backup.py");
        for (title, file) in PARTS {
            assert!(runner.contains(&format!("\"{title}\": ")) && runner.contains(&format!("\"{file}\"")), "{title}");
        }
    }
}
