//! Encryption at rest.

use crate::support::{Bed, Folder, NAME};

/// As `age-keygen` writes it.
pub(crate) fn identity() -> String {
    use age::secrecy::ExposeSecret as _;
    let key = age::x25519::Identity::generate();
    format!("# created: 2026-11-26\n# public key: {}\n{}\n", key.to_public(), key.to_string().expose_secret())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_encrypted_comes_back_and_lies_nowhere_in_clear() {
    let bed = Bed::start().await;
    bed.set_identity(&identity());
    let staging = Bed::staging_of(b"rows that nobody may read");
    let before = staging.files();
    assert!(bed.run(&bed.store(NAME), &staging).ok);
    let keys = bed.keys().await;
    let expected = ["database.sql.gz.age", "manifest.json", "public-files.tgz.age"];
    assert_eq!(keys, expected.map(|it| format!("default/shop/{NAME}/{it}")));
    for key in &keys {
        let object = object_store::ObjectStoreExt::get(&bed.store, &key.as_str().into()).await.unwrap();
        let text = String::from_utf8_lossy(&object.bytes().await.unwrap()).into_owned();
        assert!(!text.contains("nobody may read") && !text.contains("AGE-SECRET-KEY"), "{key}");
        assert!(key.contains("manifest") || text.starts_with("age-encryption.org/v1\n"), "age itself can open it");
    }
    let fetched = Folder::new();
    assert!(bed.run(&bed.fetch(NAME), &fetched).ok);
    let fetched = fetched.files();
    assert_eq!(fetched.keys().collect::<Vec<_>>(), before.keys().collect::<Vec<_>>());
    for file in ["database.sql.gz", "public-files.tgz"] {
        assert_eq!(fetched[file], before[file]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_wrong_key_and_none_open_nothing_and_say_so() {
    let bed = Bed::start().await;
    bed.set_identity(&identity());
    assert!(bed.run(&bed.store(NAME), &Bed::staging_of(b"rows")).ok);
    for (key, word) in [
        (identity(), "EncryptionKeyWrong: "),
        ("AGE-SECRET-KEY-1NOPE".to_owned(), "EncryptionKeyWrong: "),
        (String::new(), "EncryptionKeyWrong: "),
    ] {
        bed.set_identity(&key);
        let failed = bed.run(&bed.fetch(NAME), &Folder::new());
        assert!(!failed.ok && failed.error().starts_with(word), "{key}: {failed:?}");
        assert!(!failed.said.to_string().contains("SECRET-KEY-1NOPE"), "{failed:?}");
    }
    bed.no_identity();
    let failed = bed.run(&bed.fetch(NAME), &Folder::new());
    assert!(failed.error().starts_with("EncryptionKeyMissing: "), "{failed:?}");
}

/// With a key nothing is followed that was not written with it: who can write to the bucket could say anything.
#[tokio::test(flavor = "multi_thread")]
async fn with_a_key_only_encrypted_parts_of_an_authenticated_manifest_come_back() {
    let bed = Bed::start().await;
    assert!(bed.run(&bed.store("plain-2026-11-26-0200"), &Bed::staging_of(b"\\! in clear")).ok);
    bed.set_identity(&identity());
    let refused = async |name: &str, word: &str, says: &str| {
        let failed = bed.run(&bed.fetch(name), &Folder::new());
        assert!(!failed.ok && failed.error().starts_with(word) && failed.error().contains(says), "{failed:?}");
    };
    refused("plain", "BackupNotEncrypted: ", "a SiteBackup whose storage has no encryptionKeySecretRef").await;
    assert!(bed.run(&bed.store(NAME), &Bed::staging_of(b"rows")).ok);
    let key = format!("default/shop/{NAME}/manifest.json");
    let whole = bed.get(&key).await;
    let manifest: serde_json::Value = serde_json::from_slice(&whole).unwrap();

    // One part in clear, which the manifest says is right.
    let mut one_plain = manifest.clone();
    one_plain["contents"]["parts"]["public-files"].as_object_mut().unwrap().remove("encrypted");
    bed.put(&key, one_plain.to_string().as_bytes()).await;
    refused(NAME, "BackupNotEncrypted: public-files", "is not encrypted").await;
    // Another version of Frappe, no files: each a change of what is restored.
    for change in [
        serde_json::json!({"frappe": "14.0.0"}),
        serde_json::json!({"apps": []}),
        serde_json::json!({"parts": {"database": manifest["contents"]["parts"]["database"]}}),
    ] {
        let mut changed = manifest.clone();
        changed["contents"].as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        bed.put(&key, changed.to_string().as_bytes()).await;
        refused(NAME, "EncryptionKeyWrong: ", "was modified").await;
    }
    // Written otherwise, it says the same.
    bed.put(&key, manifest.to_string().as_bytes()).await;
    assert!(bed.run(&bed.fetch(NAME), &Folder::new()).ok);
    // That of another site of the same key.
    for (object, content) in [("manifest.json", whole.clone())]
        .into_iter()
        .chain([("database.sql.gz.age", bed.get(&format!("default/shop/{NAME}/database.sql.gz.age")).await)])
    {
        bed.put(&format!("default/other/{NAME}/{object}"), &content).await;
    }
    let mut request = bed.fetch(NAME);
    request["folder"] = serde_json::json!("default/other");
    let failed = bed.run(&request, &Folder::new());
    assert!(failed.error().starts_with("BackupNotAuthentic: "), "{failed:?}");
    assert!(failed.error().contains("is a backup of default/shop"), "{failed:?}");
    // One of another day in the place of this one.
    bed.put("default/shop/daily-backup-2026-11-27-0200/manifest.json", &whole).await;
    let failed = bed.run(&bed.fetch("daily-backup-2026-11-27-0200"), &Folder::new());
    assert!(
        failed.error().starts_with("BackupBroken: the manifest of daily-backup-2026-11-27-0200 is of"),
        "{failed:?}"
    );
}

/// Those of the version before are encrypted, and their manifests are as they are.
#[tokio::test(flavor = "multi_thread")]
async fn a_backup_of_the_version_before_is_restored_where_a_person_says_so() {
    let bed = Bed::start().await;
    bed.set_identity(&identity());
    assert!(bed.run(&bed.store(NAME), &Bed::staging_of(b"rows")).ok);
    let key = format!("default/shop/{NAME}/manifest.json");
    let mut manifest: serde_json::Value = serde_json::from_slice(&bed.get(&key).await).unwrap();
    assert!(manifest.as_object_mut().unwrap().remove("authentication").is_some());
    bed.put(&key, manifest.to_string().as_bytes()).await;
    let failed = bed.run(&bed.fetch(NAME), &Folder::new());
    assert!(failed.error().starts_with("BackupNotAuthentic: "), "{failed:?}");
    assert!(failed.error().contains("set restore.allowUnauthenticated: true"), "{failed:?}");
    let mut request = bed.fetch(NAME);
    request["unauthenticated"] = serde_json::json!(true);
    let fetched = Folder::new();
    assert!(bed.run(&request, &fetched).ok);
    assert_eq!(fetched.files()["database.sql.gz"], b"rows");
    // Also then nothing in clear, and nothing that says it is authenticated and is not.
    for (name, word) in [("encrypted", "BackupNotEncrypted: "), ("authentication", "EncryptionKeyWrong: ")] {
        let mut changed = manifest.clone();
        if name == "encrypted" {
            changed["contents"]["parts"]["database"].as_object_mut().unwrap().remove("encrypted");
        } else {
            changed["authentication"] = serde_json::json!("bm9uZQ==");
        }
        bed.put(&key, changed.to_string().as_bytes()).await;
        let failed = bed.run(&request, &Folder::new());
        assert!(failed.error().starts_with(word), "{failed:?}");
    }
    // A try that finds such a one in its place makes it anew, with the key.
    bed.put(&key, manifest.to_string().as_bytes()).await;
    assert!(bed.run(&bed.store(NAME), &Bed::staging_of(b"new rows")).ok);
    let fetched = Folder::new();
    assert!(bed.run(&bed.fetch(NAME), &fetched).ok);
    assert_eq!(fetched.files()["database.sql.gz"], b"new rows");
}

/// A restore reads what was made, not how it was stored: the site runner compares it.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_site_runner_is_told_is_what_it_made() {
    let bed = Bed::start().await;
    bed.set_identity(&identity());
    let staging = Bed::staging_of(b"rows");
    let made = staging.files();
    assert!(bed.run(&bed.store(NAME), &staging).ok);
    let fetched = Folder::new();
    assert!(bed.run(&bed.fetch(NAME), &fetched).ok);
    assert_eq!(fetched.files(), made);
}

/// What is changed in the bucket by who can write its manifest too.
#[tokio::test(flavor = "multi_thread")]
async fn a_part_that_was_cut_or_changed_does_not_open() {
    let bed = Bed::start().await;
    bed.set_identity(&identity());
    assert!(bed.run(&bed.store(NAME), &Bed::staging_of(&vec![7; 200_000])).ok);
    let part = format!("default/shop/{NAME}/database.sql.gz.age");
    let whole =
        object_store::ObjectStoreExt::get(&bed.store, &part.as_str().into()).await.unwrap().bytes().await.unwrap();
    let mut changed = whole.to_vec();
    changed[150_000] ^= 1;
    let key = format!("default/shop/{NAME}/manifest.json");
    let manifest = bed.get(&key).await;
    for content in [&changed[..], &whole[..100_000]] {
        bed.put(&key, &manifest).await;
        bed.put(&part, content).await;
        bed.forge_manifest(&part, content).await;
        let failed = bed.run(&bed.fetch(NAME), &Folder::new());
        assert!(!failed.ok && failed.error().starts_with("EncryptionKeyWrong: "), "{failed:?}");
        // Where nothing is authenticated, age itself tells.
        bed.forget_authentication(&part).await;
        let mut request = bed.fetch(NAME);
        request["unauthenticated"] = serde_json::json!(true);
        let failed = bed.run(&request, &Folder::new());
        assert!(!failed.ok && failed.error().starts_with("BackupBroken: "), "{failed:?}");
    }
}
