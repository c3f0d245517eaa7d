//! The command `transfer` with real storage services: the operator's binary, as the Jobs run it.
//!
//! The services come from `loadtest/objectstore` (`make objectstore`). Each test starts its own on loopback and ends it, also if the
//! test fails.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, clippy::disallowed_methods, reason = "tests")]

mod faults;
mod folder;
mod google;
mod hostile;
mod interrupted;
mod secrecy;
mod servers;
mod support;

use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use servers::{Kind, each_kind};
use support::{Bed, Ended, Folder, NAME};

/// Size of a part that is uploaded in pieces.
const LARGE_BYTES: usize = 40 << 20;

each_kind! {
    a_fetched_backup_equals_the_stored_one
    the_newest_of_a_day_is_fetched_and_no_others
    retention_removes_only_old_backups
    removal_removes_only_the_backups_of_its_site_backup
    the_last_complete_backup_is_kept_whatever_its_age
}

async fn a_fetched_backup_equals_the_stored_one(kind: Kind) {
    let bed = Bed::of(kind).await;
    let staging = Bed::staging(LARGE_BYTES);
    let stored = bed.run(&bed.store(NAME), &staging);
    assert_eq!(stored.said["result"]["bytes"], json!(staging.bytes()), "{stored:?}");
    let fetched = Folder::new();
    let done = bed.run(&bed.fetch(NAME), &fetched);
    assert_eq!(done.said["result"]["fetched"], NAME, "{done:?}");
    assert_eq!(fetched.files(), staging.files());
    let again = bed.run(&bed.store(NAME), &Folder::new());
    assert!(again.ok, "a stored backup is not stored again: {again:?}");
    println!("stored, read back and fetched: {} bytes in {} objects", staging.bytes(), bed.keys().await.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_stores_backups_as_a_bucket_does() {
    let bed = Bed::start().await;
    let staging = Bed::staging(LARGE_BYTES);
    let mut request = bed.store(NAME);
    request["place"] = json!("volume");
    assert!(bed.run(&request, &staging).ok);
    let fetched = Folder::new();
    let mut request = bed.fetch("daily-backup-2026-11-26");
    request["place"] = json!("volume");
    assert!(bed.run(&request, &fetched).ok, "it is found by the prefix of its name");
    assert_eq!(fetched.files(), staging.files());
}

/// Temporary files of a killed copy are beside the copied files, and not listed.
#[tokio::test(flavor = "multi_thread")]
async fn files_of_a_killed_copy_are_removed_from_a_volume() {
    let bed = Bed::start().await;
    let on_volume = |name: &str| {
        let mut request = bed.store(name);
        request["place"] = json!("volume");
        request["retention"] = json!({"siteBackup": "daily-backup", "identity": "id-1", "keepLast": 1});
        request
    };
    let volume = Folder::new();
    let folder = volume.path().join("default/shop");
    for name in [NAME, "daily-backup-2026-11-25-0200"] {
        std::fs::create_dir_all(folder.join(name)).unwrap();
        std::fs::write(folder.join(name).join("database.sql.gz#1"), b"half").unwrap();
    }
    assert!(bed.run_on(&on_volume(NAME), &Bed::staging_of(b"rows"), &volume).ok);
    let names = |path: &std::path::Path| -> Vec<String> {
        let mut names: Vec<String> =
            std::fs::read_dir(path).unwrap().map(|it| it.unwrap().file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    };
    assert_eq!(names(&folder), [NAME]);
    assert_eq!(names(&folder.join(NAME)), ["database.sql.gz", "manifest.json", "public-files.tgz"]);
    assert!(bed.run_on(&on_volume("daily-backup-2026-11-27-0200"), &Bed::staging_of(b"more"), &volume).ok);
    assert_eq!(names(&folder), ["daily-backup-2026-11-27-0200"], "an outdated backup is removed with its folder");
}

/// A backup can be named by its day, as in the guide.
async fn the_newest_of_a_day_is_fetched_and_no_others(kind: Kind) {
    let bed = Bed::of(kind).await;
    for (name, content) in [
        ("daily-backup-2024-01-15-0200", "night"),
        ("daily-backup-2024-01-15-1400", "noon"),
        ("daily-backup-2024-01-16-0200", "next day"),
        ("daily-backup-2024-01-155-0200", "no day"),
    ] {
        let staging = Bed::staging_of(content.as_bytes());
        let mut request = bed.store(name);
        let hour = if name.ends_with("1400") { 14 } else { 2 };
        request["store"]["scheduledAt"] = json!(format!("2024-01-{}T{hour:02}:00:00Z", &name[21..23]));
        assert!(bed.run(&request, &staging).ok);
    }
    for (name, content) in
        [("daily-backup-2024-01-15", "noon"), ("daily-backup-2024-01-15-0200", "night"), ("daily-backup", "next day")]
    {
        let fetched = Folder::new();
        assert!(bed.run(&bed.fetch(name), &fetched).ok);
        assert_eq!(fetched.files()["database.sql.gz"], content.as_bytes(), "{name}");
    }
    let none = bed.run(&bed.fetch("weekly"), &Folder::new());
    assert!(none.error().starts_with("BackupNotFound: backup weekly"), "{none:?}");
}

async fn retention_removes_only_old_backups(kind: Kind) {
    let bed = Bed::of(kind).await;
    let now = Timestamp::now();
    let days_ago = |days: i64| now.checked_sub(SignedDuration::from_hours(24 * days)).unwrap();
    let store = async |name: &str, site_backup: &str, identity: &str, days: i64| {
        let mut request = bed.store(name);
        request["store"]["siteBackup"] = json!(site_backup);
        request["store"]["identity"] = json!(identity);
        request["store"]["scheduledAt"] = json!(days_ago(days));
        assert!(bed.run(&request, &Bed::staging_of(name.as_bytes())).ok);
    };
    store("daily-2026-01-01-0200", "daily", "id-1", 90).await;
    store("daily-2026-02-01-0200", "daily", "id-1", 60).await;
    store("daily-2026-03-01-0200", "daily", "id-1", 5).await;
    store("weekly-2026-01-01-0200", "weekly", "id-1", 90).await;
    store("daily-2025-01-01-0200", "daily", "of-another-site", 400).await;
    // An incomplete backup, a user's file, and a manifest that cannot be parsed.
    bed.put("default/shop/daily-2026-02-15-0200/database.sql.gz", b"half").await;
    bed.put("default/shop/notes/readme.txt", b"mine").await;
    bed.put("default/shop/daily-2025-06-01-0200/manifest.json", b"{").await;
    let mut request = bed.store("daily-2026-04-01-0200");
    request["store"]["siteBackup"] = json!("daily");
    request["store"]["scheduledAt"] = json!(now);
    request["retention"] = json!({"siteBackup": "daily", "identity": "id-1", "days": 30, "keepLast": 1});
    let done = bed.run(&request, &Bed::staging_of(b"new"));
    let removed = done.said["result"]["removed"].as_array().unwrap().clone();
    let mut removed: Vec<&str> = removed.iter().map(|it| it.as_str().unwrap()).collect();
    removed.sort_unstable();
    assert_eq!(removed, ["daily-2026-01-01-0200", "daily-2026-02-01-0200", "daily-2026-02-15-0200"]);
    assert_eq!(
        bed.folders().await,
        [
            "daily-2025-01-01-0200",
            "daily-2025-06-01-0200",
            "daily-2026-03-01-0200",
            "daily-2026-04-01-0200",
            "notes",
            "weekly-2026-01-01-0200"
        ]
    );
}

///
async fn removal_removes_only_the_backups_of_its_site_backup(kind: Kind) {
    let bed = Bed::of(kind).await;
    let made = [
        ("daily-backup-2026-01-01-0200", "daily-backup", "id-1"),
        ("daily-backup-2026-01-02-0200", "daily-backup", "id-1"),
        ("daily-backup-before-2026-01-03-0200", "daily-backup", "id-1"),
        ("daily-backup-2020-01-01-0200", "daily-backup", "of-another-site"),
        ("weekly-2026-01-01-0200", "weekly", "id-1"),
    ];
    let volume = Folder::new();
    for (name, site_backup, identity) in made {
        let mut request = bed.store(name);
        request["store"]["siteBackup"] = json!(site_backup);
        request["store"]["identity"] = json!(identity);
        assert!(bed.run(&request, &Bed::staging_of(name.as_bytes())).ok);
        request["place"] = json!("volume");
        assert!(bed.run_on(&request, &Bed::staging_of(name.as_bytes()), &volume).ok);
    }
    bed.put("default/shop/daily-backup-final-2026-02-15-0200/database.sql.gz", b"half").await;
    bed.put("default/shop/notes/readme.txt", b"mine").await;
    bed.put("default/shop/daily-backup-2025-06-01-0200/manifest.json", b"{").await;
    let removed = |ended: &Ended| ended.said["result"]["removed"].as_array().map(Vec::len);
    let done = bed.run(&bed.removal(), &Folder::new());
    assert_eq!(removed(&done), Some(4), "{done:?}");
    let left = ["daily-backup-2020-01-01-0200", "daily-backup-2025-06-01-0200", "notes", "weekly-2026-01-01-0200"];
    assert_eq!(bed.folders().await, left);
    assert_eq!(removed(&bed.run(&bed.removal(), &Folder::new())), Some(0), "a second removal finds nothing");
    let mut request = bed.removal();
    request["place"] = json!("volume");
    assert_eq!(removed(&bed.run_on(&request, &Folder::new(), &volume)), Some(3));
    let names = std::fs::read_dir(volume.path().join("default/shop")).unwrap();
    let mut names: Vec<String> = names.map(|it| it.unwrap().file_name().into_string().unwrap()).collect();
    names.sort_unstable();
    assert_eq!(names, ["daily-backup-2020-01-01-0200", "weekly-2026-01-01-0200"]);
}

async fn the_last_complete_backup_is_kept_whatever_its_age(kind: Kind) {
    let bed = Bed::of(kind).await;
    let mut request = bed.store(NAME);
    request["store"]["scheduledAt"] = json!("2020-01-01T00:00:00Z");
    request["retention"] = json!({"siteBackup": "daily-backup", "identity": "id-1", "days": 1, "keepLast": 1});
    assert!(bed.run(&request, &Bed::staging_of(b"old")).ok);
    assert_eq!(bed.folders().await, [NAME]);
}
