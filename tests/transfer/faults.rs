//! Corrupt, missing and rejected objects, and their error codes.

use serde_json::json;

use crate::{
    servers::{Kind, each_kind},
    support::{Bed, Folder, NAME},
};

each_kind! {
    a_backup_that_changed_in_the_storage_is_not_fetched
    a_missing_safety_backup_stops_the_restore
    a_backup_of_the_same_name_of_another_site_is_not_overwritten
    each_storage_error_has_its_code_and_the_next_run_recovers
}

async fn a_backup_that_changed_in_the_storage_is_not_fetched(kind: Kind) {
    let bed = Bed::of(kind).await;
    assert!(bed.run(&bed.store(NAME), &Bed::staging_of(b"rows")).ok);
    let part = format!("default/shop/{NAME}/database.sql.gz");
    for (content, words) in
        [(b"rowz".as_slice(), "is corrupt: "), (b"ro", "its 4 bytes or"), (b"more rows", "is larger than the 4 bytes")]
    {
        bed.put(&part, content).await;
        let failed = bed.run(&bed.fetch(NAME), &Folder::new());
        assert!(!failed.ok && failed.error().starts_with("BackupBroken: database of"), "{failed:?}");
        assert!(failed.error().contains(words), "{failed:?}");
    }
    object_store::ObjectStoreExt::delete(&bed.store, &part.as_str().into()).await.unwrap();
    let failed = bed.run(&bed.fetch(NAME), &Folder::new());
    assert!(
        failed.error().contains("BackupBroken: database of") && failed.error().contains("is missing"),
        "{failed:?}"
    );
    bed.put(&format!("default/shop/{NAME}/manifest.json"), b"{\"format\": 1").await;
    let failed = bed.run(&bed.fetch(NAME), &Folder::new());
    assert!(failed.error().starts_with("BackupBroken: the manifest of"), "{failed:?}");
}

/// A manifest is untrusted input.
#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_references_no_file_outside_of_its_folder() {
    let bed = Bed::start().await;
    assert!(bed.run(&bed.store(NAME), &Bed::staging_of(b"rows")).ok);
    let key = format!("default/shop/{NAME}/manifest.json");
    let manifest =
        object_store::ObjectStoreExt::get(&bed.store, &key.as_str().into()).await.unwrap().bytes().await.unwrap();
    let manifest = String::from_utf8(manifest.to_vec()).unwrap();
    for file in ["../../etc/passwd", "/etc/passwd", ".hidden", "keys.json", "contents.json"] {
        bed.put(&key, manifest.replace("database.sql.gz", file).as_bytes()).await;
        let failed = bed.run(&bed.fetch(NAME), &Folder::new());
        assert!(failed.error().contains("has the file"), "{file}: {failed:?}");
    }
    bed.put(&key, manifest.replace("\"public-files\"", "\"other\"").as_bytes()).await;
    let failed = bed.run(&bed.fetch(NAME), &Folder::new());
    assert!(failed.error().contains("has a part \"other\""), "{failed:?}");
    let keys = manifest.replace("\"public-files\"", "\"keys\"").replace("public-files.tgz", "keys.json");
    bed.put(&key, keys.as_bytes()).await;
    let failed = bed.run(&bed.fetch(NAME), &Folder::new());
    assert!(
        failed.error().contains("contains keys that are not encrypted"),
        "whoever sets these keys can read later encrypted data: {failed:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn staged_files_are_verified_before_they_become_a_backup() {
    let bed = Bed::start().await;
    let staging = Bed::staging_of(b"rows");
    std::fs::write(staging.path().join("database.sql.gz"), b"cut").unwrap();
    let failed = bed.run(&bed.store(NAME), &staging);
    assert!(failed.error().starts_with("BackupBroken: database.sql.gz differs from the 4 bytes"), "{failed:?}");
    assert!(bed.keys().await.iter().all(|key| !key.ends_with("manifest.json")), "it is not a backup");
    let nothing = bed.run(&bed.store(NAME), &Folder::new());
    assert!(!nothing.ok && nothing.error().starts_with("StagingFailed: "), "{nothing:?}");
}

/// A restore that has started has no site to back up: the safety backup must exist.
async fn a_missing_safety_backup_stops_the_restore(kind: Kind) {
    let bed = Bed::of(kind).await;
    let mut request = bed.store("restore-job-before-2026-11-26-0300");
    request["store"]["mayBeStored"] = json!(true);
    let failed = bed.run(&request, &Folder::new());
    assert!(failed.error().contains("was never stored"), "{failed:?}");
    assert!(bed.run(&request, &Bed::staging_of(b"before")).ok);
    assert!(bed.run(&request, &Folder::new()).ok, "it exists");
}

async fn a_backup_of_the_same_name_of_another_site_is_not_overwritten(kind: Kind) {
    let bed = Bed::of(kind).await;
    assert!(bed.run(&bed.store(NAME), &Bed::staging_of(b"rows")).ok);
    let mut request = bed.store(NAME);
    request["store"]["identity"] = json!("another");
    let failed = bed.run(&request, &Bed::staging_of(b"other rows"));
    assert!(failed.error().starts_with("BackupForeign: "), "{failed:?}");
}

async fn each_storage_error_has_its_code_and_the_next_run_recovers(kind: Kind) {
    let mut bed = Bed::of(kind).await;
    let staging = Bed::staging_of(b"rows");
    let failed = bed.run(&bed.to_bucket(bed.store(NAME), "missing"), &staging);
    assert!(!failed.ok && failed.error().starts_with("BucketMissing: "), "{failed:?}");
    bed.set_access(false);
    let failed = bed.run(&bed.store(NAME), &staging);
    assert!(!failed.ok && failed.error().starts_with("CredentialsRefused: "), "{failed:?}");
    bed.set_access(true);
    assert!(bed.run(&bed.store(NAME), &staging).ok, "the next run recovers");
    bed.stop();
    let failed = bed.run(&bed.store(NAME), &staging);
    assert!(!failed.ok && failed.error().starts_with("StorageUnreachable: "), "{failed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_volume_has_its_code_and_leaves_no_backup() {
    let bed = Bed::start().await;
    let small = Folder::new();
    let mounted =
        std::process::Command::new("mount").args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"]).arg(small.path()).status();
    if !mounted.is_ok_and(|it| it.success()) {
        println!("NOT TESTED: a full volume (this process may not mount a file system)");
        return;
    }
    let mut request = bed.store(NAME);
    request["place"] = json!("volume");
    let failed = bed.run_on(&request, &Bed::staging(3 << 20), &small);
    let fits = bed.run_on(&request, &Bed::staging_of(b"rows"), &small);
    std::process::Command::new("umount").arg(small.path()).status().unwrap();
    assert!(!failed.ok && failed.error().starts_with("StorageFull: "), "{failed:?}");
    assert!(fits.ok, "the next run recovers: {fits:?}");
}
