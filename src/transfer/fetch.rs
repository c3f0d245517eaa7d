//! Downloads and verifies a backup. With a key, only backups made with that key are accepted: write access to the bucket is not
//! enough to change a site.

use std::{io::Write as _, path::Path as FilePath};

use super::{
    manifest::{self, CONTENTS, Manifest, Part},
    report::Failure,
    secrecy::{self, Key},
    staging,
    store::{Digest, Store},
};
use crate::domain::{code::Code, wire};

/// The storage's key, and exceptions.
#[derive(Clone, Copy)]
pub struct Trust<'a> {
    /// The key.
    pub key: Option<&'a Key>,
    /// Whether encrypted parts of an unauthenticated manifest are accepted, as of earlier versions.
    pub unauthenticated: bool,
}

/// Downloads a backup into the folder `into`, which is emptied first.
pub async fn fetch(
    store: &Store,
    folder: &str,
    name: &str,
    into: &FilePath,
    trust: Trust<'_>,
) -> Result<Manifest, Failure> {
    let found = find(store, folder, name).await?;
    admit(&found, folder, trust)?;
    let failed = |path: &FilePath, error: &std::io::Error| Failure::of_disk("fetch", path, error);
    staging::empty(into).map_err(|error| failed(into, &error))?;
    for (title, part) in &found.contents.parts {
        let stored = part.stored();
        let path = into.join(&stored.file);
        let mut file = staging::create(&path).map_err(|error| failed(&path, &error))?;
        let from = manifest::file(folder, &found.name, &stored.file);
        let sink = |bytes: &[u8]| file.write_all(bytes).map_err(|error| failed(&path, &error));
        let seen = store.digest(&from, stored.bytes, sink).await.map_err(|failure| match failure.code {
            Code::BackupNotFound => Failure::broken("fetch", format!("{title} of {} is missing", found.name)),
            Code::BackupBroken => Failure::broken("fetch", format!("{title} of {}: {}", found.name, failure.message)),
            _ => failure,
        })?;
        check_content(title, &found.name, &seen, (stored.bytes, &stored.sha256))?;
        if part.encrypted.is_some() {
            let key = trust.key.ok_or_else(secrecy::missing)?;
            let seen = open(key, &path, &into.join(&part.file), part.bytes)?;
            check_content(title, &found.name, &seen, (part.bytes, &part.sha256))?;
        }
    }
    let path = into.join(CONTENTS);
    // The original contents of the site runner, which does not depend on how parts are stored.
    let mut contents = found.contents.clone();
    contents.parts.values_mut().for_each(|part| part.encrypted = None);
    let text = wire::in_order(&contents).into_bytes();
    let written = staging::create(&path).and_then(|mut file| file.write_all(&text));
    written.map_err(|error| failed(&path, &error))?;
    Ok(found)
}

/// Rejects a manifest that may not be used.
fn admit(found: &Manifest, folder: &str, trust: Trust<'_>) -> Result<(), Failure> {
    let name = &found.name;
    let refused = |code, message| Err(Failure { step: "fetch", code, message });
    if let Some(odd) = found.contents.odd() {
        return Err(Failure::broken("fetch", format!("the manifest of {name} {odd}, which is invalid")));
    }
    let plain = found.contents.parts.iter().find(|(_, part)| part.encrypted.is_none()).map(|(title, _)| title);
    let Some(key) = trust.key else {
        return match found.contents.parts.get(manifest::KEYS) {
            Some(Part { encrypted: None, .. }) => {
                Err(Failure::broken("fetch", format!("{name} contains keys that are not encrypted, which is invalid")))
            }
            _ => Ok(()),
        };
    };
    if let Some(title) = plain {
        let message = format!(
            "{title} of {name} is not encrypted, and with a key only encrypted backups are restored: to restore a backup made \
             without a key, use a SiteBackup whose storage has no encryptionKeySecretRef"
        );
        return refused(Code::BackupNotEncrypted, message);
    }
    match found.is_authentic(key) {
        Some(true) if folder == found.site || folder.ends_with(&format!("/{}", found.site)) => Ok(()),
        Some(true) => {
            let message = format!("{name} in {folder} is a backup of {}", found.site);
            refused(Code::BackupNotAuthentic, message)
        }
        Some(false) => {
            let message = format!("the manifest of {name} was made with another key, or was modified");
            refused(Code::EncryptionKeyWrong, message)
        }
        None if trust.unauthenticated => Ok(()),
        None => {
            let message = format!(
                "the manifest of {name} is not authenticated with the storage's key: it was made by an earlier version, or by \
                 someone without the key. If you trust it, set restore.allowUnauthenticated: true"
            );
            refused(Code::BackupNotAuthentic, message)
        }
    }
}

/// Text of a manifest for a message: the manifest is not trusted.
fn shown(text: &str) -> String {
    text.chars().take(64).filter(char::is_ascii_graphic).collect()
}

/// Rejects content that differs from the stored content.
fn check_content(title: &str, name: &str, seen: &(u64, String), wanted: (u64, &String)) -> Result<(), Failure> {
    if (seen.0, &seen.1) == wanted {
        return Ok(());
    }
    // The message omits the actual digest: a hostile manifest may have made this read any file.
    let message =
        format!("{title} of {name} is corrupt: its {} bytes or their SHA-256 differ from the manifest", wanted.0);
    Err(Failure::broken("fetch", message))
}

/// Decrypts a file into another, and removes it; returns the size and digest of the result.
fn open(key: &Key, from: &FilePath, to: &FilePath, most: u64) -> Result<(u64, String), Failure> {
    let failed = |error: &std::io::Error| Failure::of_disk("decrypt", to, error);
    let mut file = staging::create(to).map_err(|it| failed(&it))?;
    let mut digest = Digest::default();
    key.decrypt(from, |bytes| {
        digest.add_at_most(bytes, most)?;
        file.write_all(bytes).map_err(|it| failed(&it))
    })?;
    std::fs::remove_file(from).map_err(|it| failed(&it))?;
    Ok(digest.finish())
}

/// The backup with this name, or the newest whose name begins with it.
async fn find(store: &Store, folder: &str, name: &str) -> Result<Manifest, Failure> {
    let begins = |it: &String| it.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'));
    let names = manifest::names(store, folder).await?;
    let mut found: Option<Manifest> = None;
    for candidate in names.iter().filter(|it| begins(it)) {
        let Some(read) = Manifest::read(store, folder, candidate).await? else { continue };
        if read.name != *candidate {
            return Err(Failure::broken("fetch", format!("the manifest of {candidate} is of {}", shown(&read.name))));
        }
        let newer = found.as_ref().is_none_or(|known| known.scheduled_at < read.scheduled_at);
        if !read.removing && (newer || read.name == name) && found.as_ref().is_none_or(|known| known.name != name) {
            found = Some(read);
        }
    }
    found.ok_or_else(|| {
        let others: Vec<&str> = names.iter().map(String::as_str).rev().take(5).collect();
        let there = if others.is_empty() {
            "there are none".to_owned()
        } else {
            format!("the newest are {}", others.join(", "))
        };
        Failure {
            step: "fetch",
            code: Code::BackupNotFound,
            message: format!("backup {name} not found in {folder}: {there}"),
        }
    })
}
