//! Encryption at rest.

use crate::support::{Bed, Folder, NAME};

/// An identity, as `age-keygen` writes it.
pub(crate) fn identity() -> String {
    use age::secrecy::ExposeSecret as _;
    let key = age::x25519::Identity::generate();
    format!("# created: 2026-11-26\n# public key: {}\n{}\n", key.to_public(), key.to_string().expose_secret())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_encrypted_backup_is_restored_and_nowhere_in_plain_text() {
    let bed = Bed::start().await;
    bed.set_identity(&identity());
    let staging = Bed::staging_of(b"rows that are confidential");
    let before = staging.files();
    assert!(bed.run(&bed.store(NAME), &staging).ok);
    let keys = bed.keys().await;
    let expected = ["database.sql.gz.age", "manifest.json", "public-files.tgz.age"];
    assert_eq!(keys, expected.map(|it| format!("default/shop/{NAME}/{it}")));
    for key in &keys {
        let object = object_store::ObjectStoreExt::get(&bed.store, &key.as_str().into()).await.unwrap();
        let text = String::from_utf8_lossy(&object.bytes().await.unwrap()).into_owned();
        assert!(!text.contains("confidential") && !text.contains("AGE-SECRET-KEY"), "{key}");
        assert!(key.contains("manifest") || text.starts_with("age-encryption.org/v1\n"), "the age tool can decrypt it");
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
async fn a_wrong_or_missing_key_is_reported() {
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

/// The pod starts without the key, and must not upload a backup in plain text.
#[tokio::test(flavor = "multi_thread")]
async fn a_secret_without_its_key_is_reported_and_nothing_is_stored() {
    let bed = Bed::start().await;
    let mut request = bed.store(NAME);
    request["needs"] =
        serde_json::json!({"secretKey": ["bucket-keys", "secretKey"], "identity": ["backup-key", "identity"]});
    let stored = |request: &serde_json::Value| bed.run(request, &Bed::staging_of(b"rows"));
    assert_eq!(stored(&request).error(), "SecretInvalid: Secret backup-key has no key identity, or it is empty");
    bed.set_identity("\n");
    assert_eq!(stored(&request).error(), "SecretInvalid: Secret backup-key has no key identity, or it is empty");
    assert_eq!(bed.keys().await, Vec::<String>::new());
    bed.set_identity(&identity());
    assert!(stored(&request).ok);
    std::fs::remove_file(bed.credentials().join("secretKey")).unwrap();
    assert_eq!(stored(&request).error(), "SecretInvalid: Secret bucket-keys has no key secretKey, or it is empty");
}

/// With a key, only data that was written with it is used: others may write to the bucket.
#[tokio::test(flavor = "multi_thread")]
async fn with_a_key_only_encrypted_parts_of_an_authenticated_manifest_are_restored() {
    let bed = Bed::start().await;
    assert!(bed.run(&bed.store("plain-2026-11-26-0200"), &Bed::staging_of(b"\\! in plain text")).ok);
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

    // One part in plain text, which matches the manifest.
    let mut one_plain = manifest.clone();
    one_plain["contents"]["parts"]["public-files"].as_object_mut().unwrap().remove("encrypted");
    bed.put(&key, one_plain.to_string().as_bytes()).await;
    refused(NAME, "BackupNotEncrypted: public-files", "is not encrypted").await;
    // Another version of Frappe, no files: each changes what is restored.
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
    // The same manifest with another formatting.
    bed.put(&key, manifest.to_string().as_bytes()).await;
    assert!(bed.run(&bed.fetch(NAME), &Folder::new()).ok);
    // The manifest of another site with the same key.
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
    // The manifest of another day instead of this one.
    bed.put("default/shop/daily-backup-2026-11-27-0200/manifest.json", &whole).await;
    let failed = bed.run(&bed.fetch("daily-backup-2026-11-27-0200"), &Folder::new());
    assert!(
        failed.error().starts_with("BackupBroken: the manifest of daily-backup-2026-11-27-0200 is of"),
        "{failed:?}"
    );
}

/// Backups of the previous version are encrypted, but their manifests are not authenticated.
#[tokio::test(flavor = "multi_thread")]
async fn a_backup_of_the_previous_version_is_restored_only_on_request() {
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
    // Even then, plain text and invalid authentication are rejected.
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
    // A backup that finds such a manifest in its place replaces it, with the key.
    bed.put(&key, manifest.to_string().as_bytes()).await;
    assert!(bed.run(&bed.store(NAME), &Bed::staging_of(b"new rows")).ok);
    let fetched = Folder::new();
    assert!(bed.run(&bed.fetch(NAME), &fetched).ok);
    assert_eq!(fetched.files()["database.sql.gz"], b"new rows");
}

/// A restore gets the original contents.json, which the site runner verifies.
#[tokio::test(flavor = "multi_thread")]
async fn the_site_runner_gets_the_contents_that_it_wrote() {
    let bed = Bed::start().await;
    bed.set_identity(&identity());
    let staging = Bed::staging_of(b"rows");
    let made = staging.files();
    assert!(bed.run(&bed.store(NAME), &staging).ok);
    let fetched = Folder::new();
    assert!(bed.run(&bed.fetch(NAME), &fetched).ok);
    assert_eq!(fetched.files(), made);
}

/// A part is changed in the bucket, and its manifest is changed to match.
#[tokio::test(flavor = "multi_thread")]
async fn a_truncated_or_changed_part_is_not_decrypted() {
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
        // Without authentication, age detects it.
        bed.forget_authentication(&part).await;
        let mut request = bed.fetch(NAME);
        request["unauthenticated"] = serde_json::json!(true);
        let failed = bed.run(&request, &Folder::new());
        assert!(!failed.ok && failed.error().starts_with("BackupBroken: "), "{failed:?}");
    }
}
