//! Encryption at rest.

use crate::support::{Bed, Folder, NAME};

/// As `age-keygen` writes it.
fn identity() -> String {
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
    for content in [&changed[..], &whole[..100_000]] {
        bed.put(&part, content).await;
        bed.forge_manifest(&part, content).await;
        let failed = bed.run(&bed.fetch(NAME), &Folder::new());
        assert!(!failed.ok && failed.error().starts_with("BackupBroken: "), "{failed:?}");
    }
}
