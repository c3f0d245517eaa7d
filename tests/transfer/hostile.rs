//! Attacks on the program by the bench's code, a volume, or a service at the endpoint of a bucket.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpListener,
    os::unix::fs::symlink,
    path::Path,
};

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::support::{Bed, Folder, NAME, SECRET_KEY};

const SECRET: &str = "SSRF-READS-THIS";

fn change_contents(staging: &Folder, change: impl FnOnce(&mut Value)) {
    let path = staging.path().join("contents.json");
    let mut contents: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    change(&mut contents);
    std::fs::write(&path, contents.to_string()).unwrap();
}

/// The description of a part with this content.
fn part(file: &str, content: &[u8]) -> Value {
    let sha256 = frappe_operator::parts::hex(&Sha256::digest(content));
    json!({"file": file, "bytes": content.len(), "sha256": sha256})
}

/// The bucket's key is mounted in the program's container, and the bench's code describes what to store.
#[tokio::test(flavor = "multi_thread")]
async fn code_of_the_bench_cannot_store_files_of_the_container() {
    let bed = Bed::start().await;
    let secret = bed.credentials().join("secretKey");
    let named = secret.to_str().unwrap();
    let climbing = format!("../{}/secretKey", bed.credentials().file_name().unwrap().to_str().unwrap());
    let refused = async |what: &str, staging: &Folder| {
        for encrypted in [false, true] {
            if encrypted {
                bed.set_identity(&crate::secrecy::identity());
            }
            let failed = bed.run(&bed.store(NAME), staging);
            assert!(!failed.ok, "{what}: {failed:?}");
            let hash = frappe_operator::parts::hex(&Sha256::digest(SECRET_KEY));
            assert!(!failed.said.to_string().contains(&hash), "{what}: its hash is not shown either: {failed:?}");
            assert!(bed.keys().await.iter().all(|key| !key.ends_with("manifest.json")), "{what}");
        }
        bed.no_identity();
    };
    for file in [named, climbing.as_str(), "secretKey"] {
        let staging = Bed::staging_of(b"rows");
        change_contents(&staging, |it| it["parts"]["database"] = part(file, SECRET_KEY.as_bytes()));
        refused(file, &staging).await;
        change_contents(&staging, |it| it["parts"]["loot"] = part(file, SECRET_KEY.as_bytes()));
        refused(file, &staging).await;
    }
    let linked = |name: &str, to: &Path| {
        let staging = Bed::staging_of(b"rows");
        let path = staging.path().join(name);
        let _ = std::fs::remove_file(&path);
        symlink(to, path).unwrap();
        staging
    };
    let staging = linked("database.sql.gz", &secret);
    change_contents(&staging, |it| it["parts"]["database"] = part("database.sql.gz", SECRET_KEY.as_bytes()));
    refused("a link", &staging).await;
    refused("a link instead of contents.json", &linked("contents.json", &secret)).await;
    for key in bed.keys().await {
        assert_ne!(bed.get(&key).await, SECRET_KEY.as_bytes(), "{key}");
    }
}

/// A file that the program writes encrypted has a name that already exists.
#[tokio::test(flavor = "multi_thread")]
async fn a_link_of_the_bench_is_not_followed_for_writes() {
    let bed = Bed::start().await;
    bed.set_identity(&crate::secrecy::identity());
    let elsewhere = Folder::new();
    let file = elsewhere.path().join("kept");
    std::fs::write(&file, "as it was").unwrap();
    let staging = Bed::staging_of(b"rows");
    symlink(&file, staging.path().join("database.sql.gz.age")).unwrap();
    assert!(bed.run(&bed.store(NAME), &staging).ok);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "as it was");
    let staging = Folder::new();
    symlink(elsewhere.path(), staging.path().join("folder")).unwrap();
    symlink(&file, staging.path().join("database.sql.gz")).unwrap();
    assert!(bed.run(&bed.fetch(NAME), &staging).ok);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "as it was", "the folder is emptied without following links");
}

fn on_volume(mut request: Value) -> Value {
    request["place"] = json!("volume");
    request
}

/// Others may write to the volume, too.
#[tokio::test(flavor = "multi_thread")]
async fn no_link_of_a_volume_is_followed() {
    let bed = Bed::start().await;
    let secret = bed.credentials().join("secretKey");
    let elsewhere = Folder::new();
    std::fs::create_dir_all(elsewhere.path().join("shop").join(NAME)).unwrap();
    std::fs::write(elsewhere.path().join("shop").join(NAME).join("kept"), "as it was").unwrap();
    let untouched =
        || std::fs::read_to_string(elsewhere.path().join("shop").join(NAME).join("kept")).unwrap() == "as it was";

    // A part that is a link to the bucket's key, with a manifest that describes it.
    let volume = Folder::new();
    assert!(bed.run_on(&on_volume(bed.store(NAME)), &Bed::staging_of(b"rows"), &volume).ok);
    let folder = volume.path().join("default/shop").join(NAME);
    let text = std::fs::read(folder.join("manifest.json")).unwrap();
    let mut manifest: Value = serde_json::from_slice(&text).unwrap();
    manifest["contents"]["parts"]["database"] = part("database.sql.gz", SECRET_KEY.as_bytes());
    std::fs::write(folder.join("manifest.json"), manifest.to_string()).unwrap();
    std::fs::remove_file(folder.join("database.sql.gz")).unwrap();
    symlink(&secret, folder.join("database.sql.gz")).unwrap();
    let fetched = Folder::new();
    let failed = bed.run_on(&on_volume(bed.fetch(NAME)), &fetched, &volume);
    assert!(failed.error().starts_with("StorageFailed: "), "{failed:?}");
    assert!(fetched.files().values().all(|it| it != SECRET_KEY.as_bytes()));
    // The manifest itself.
    std::fs::remove_file(folder.join("manifest.json")).unwrap();
    symlink(&secret, folder.join("manifest.json")).unwrap();
    let failed = bed.run_on(&on_volume(bed.fetch(NAME)), &Folder::new(), &volume);
    assert!(failed.error().starts_with("StorageFailed: "), "{failed:?}");

    // A link instead of a folder of the path: nothing is written, listed or removed behind it.
    let volume = Folder::new();
    symlink(elsewhere.path(), volume.path().join("default")).unwrap();
    let mut all = bed.store("daily-backup-2027-01-01-0200");
    all["retention"] = json!({"siteBackup": "daily-backup", "identity": "id-1", "keepLast": 1});
    for request in [bed.store(NAME), bed.fetch(NAME), bed.removal(), all] {
        let failed = bed.run_on(&on_volume(request), &Bed::staging_of(b"rows"), &volume);
        assert!(failed.error().starts_with("StorageFailed: "), "{failed:?}");
        assert!(untouched());
    }
    assert_eq!(std::fs::read_dir(elsewhere.path()).unwrap().count(), 1);

    // A link instead of a backup, and one in a backup: the link is removed, its target is kept.
    let volume = Folder::new();
    let site = volume.path().join("default/shop");
    std::fs::create_dir_all(site.join("daily-backup-2020-02-01-0200")).unwrap();
    symlink(elsewhere.path(), site.join("daily-backup-2020-02-01-0200/inner")).unwrap();
    symlink(elsewhere.path().join("shop"), site.join("daily-backup-2020-03-01-0200")).unwrap();
    let done = bed.run_on(&on_volume(bed.removal()), &Folder::new(), &volume);
    assert_eq!(done.said["result"]["removed"], json!(["daily-backup-2020-02-01-0200"]), "{done:?}");
    assert!(untouched());
}

/// Responds to every request with this; the receiver gets the requested paths.
fn service(answer: String) -> (u16, std::sync::mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (asked, seen) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let mut line = String::new();
            reader.read_line(&mut line).unwrap();
            let mut length = 0;
            loop {
                let mut header = String::new();
                if reader.read_line(&mut header).unwrap() == 0 || header == "\r\n" {
                    break;
                }
                if let Some(value) = header.to_ascii_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap();
                }
            }
            reader.take(length).read_to_end(&mut Vec::new()).unwrap();
            if asked.send(line).is_err() {
                return;
            }
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    (port, seen)
}

fn http(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n{headers}\r\n{body}", body.len())
}

/// An endpoint may be any service: the text of its responses must not reach a status.
#[tokio::test(flavor = "multi_thread")]
async fn only_error_codes_of_a_services_responses_are_reported() {
    let bed = Bed::start().await;
    let token = format!("token={SECRET}");
    let listed = format!("<ListBucketResult><Loot>{SECRET}</Loot>");
    let error = format!("<Error><Code>AccessDenied</Code><Message>{SECRET}</Message></Error>");
    for (answer, says) in [
        (
            http("400 Bad Request", "", &token),
            "StorageFailed: the storage service returned 400 without a known error code",
        ),
        (
            http("403 Forbidden", "", &token),
            "CredentialsRefused: the storage service returned 403 without a known error code",
        ),
        (http("403 Forbidden", "", &error), "CredentialsRefused: the storage service returned 403 AccessDenied"),
        (
            http("404 Not Found", "", &token),
            "StorageFailed: the storage service returned 404 without a known error code",
        ),
        (http("200 OK", "", &token), "StorageFailed: the response is not that of a storage service"),
        (http("200 OK", "", &listed), "StorageFailed: the response is not that of a storage service"),
        (http("200 OK", "", &error), ""),
    ] {
        let (port, _seen) = service(answer);
        for mut request in [bed.fetch(NAME), bed.store(NAME)] {
            request["place"]["s3"]["endpoint"] = json!(format!("http://127.0.0.1:{port}"));
            let fetches = request["fetch"].is_string();
            let failed = bed.run(&request, &Bed::staging_of(b"rows"));
            assert!(!failed.ok, "{failed:?}");
            assert!(!failed.said.to_string().contains(SECRET), "{failed:?}");
            assert!(!fetches || failed.error().starts_with(says), "{says}: {failed:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn redirects_are_not_followed_and_endpoints_are_restricted() {
    let bed = Bed::start().await;
    let (target, asked_target) = service(http("200 OK", "", SECRET));
    let location = format!("location: http://127.0.0.1:{target}/latest/meta-data\r\n");
    let (port, _seen) = service(http("307 Temporary Redirect", &location, ""));
    let mut request = bed.fetch(NAME);
    request["place"]["s3"]["endpoint"] = json!(format!("http://127.0.0.1:{port}"));
    let failed = bed.run(&request, &Folder::new());
    assert!(failed.error().contains("redirects are not followed"), "{failed:?}");
    assert!(asked_target.try_recv().is_err(), "it received no request");
    for endpoint in
        ["http://127.0.0.1:1/admin?x=", "http://user:pw@127.0.0.1:1", "http://169.254.169.254", "http://127.0.0.1:1/#"]
    {
        request["place"]["s3"]["endpoint"] = json!(endpoint);
        let failed = bed.run(&request, &Folder::new());
        assert!(failed.error().starts_with("EndpointRefused: "), "{endpoint}: {failed:?}");
    }
}

/// A service that sends data without end instead of a part of four bytes.
#[tokio::test(flavor = "multi_thread")]
async fn no_more_bytes_are_read_than_were_stored() {
    let bed = Bed::start().await;
    assert!(bed.run(&bed.store(NAME), &Bed::staging_of(b"rows")).ok);
    bed.put(&format!("default/shop/{NAME}/database.sql.gz"), &vec![0; 8 << 20]).await;
    let staging = Folder::new();
    let failed = bed.run(&bed.fetch(NAME), &staging);
    assert!(failed.error().contains("is larger than the 4 bytes"), "{failed:?}");
    let bytes = staging.files().get("database.sql.gz").map_or(0, Vec::len);
    assert!(bytes <= 4, "{bytes} bytes are in the folder");
    bed.put(&format!("default/shop/{NAME}/manifest.json"), &vec![b' '; 2 << 20]).await;
    let failed = bed.run(&bed.fetch(NAME), &Folder::new());
    assert!(failed.error().starts_with("BackupBroken: "), "{failed:?}");
}
