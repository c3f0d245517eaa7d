//! A storage service for each test, and the program as a Job runs it.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
};

use futures::TryStreamExt as _;
use object_store::{ObjectStore, ObjectStoreExt as _};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

pub(crate) use crate::folder::Folder;
use crate::servers::{BUCKET, Kind, Server};

/// Name of a backup, as the operator chooses it.
pub(crate) const NAME: &str = "daily-backup-2026-11-26-0200";
pub(crate) use crate::servers::SECRET_KEY;

/// The result of a run of the program.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) ok: bool,
    /// Whether it was killed.
    pub(crate) killed: bool,
    /// Its termination message.
    pub(crate) said: Value,
}

impl Ended {
    /// Its error code and message.
    pub(crate) fn error(&self) -> String {
        let text = |key: &str| self.said[key].as_str().unwrap_or_default();
        format!("{}: {}", text("code"), text("error"))
    }
}

/// A storage service with a bucket.
pub(crate) struct Bed {
    server: Server,
    volume: Folder,
    credentials: Folder,
    pub(crate) store: Arc<dyn ObjectStore>,
}

impl Bed {
    pub(crate) async fn start() -> Self {
        Self::of(Kind::S3).await
    }

    pub(crate) async fn of(kind: Kind) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let credentials = Folder::new();
        let (server, store) = Server::start(kind).await;
        let bed = Self { server, volume: Folder::new(), credentials, store };
        bed.set_access(true);
        bed
    }

    /// Stops the server, as in an outage of its machine.
    pub(crate) fn stop(&mut self) {
        self.server.stop();
    }

    pub(crate) fn port(&self) -> u16 {
        self.server.port
    }

    fn request(&self) -> Value {
        json!({
            "place": self.server.kind.place(BUCKET, self.port()),
            "folder": "default/shop",
        })
    }

    /// The same request to another bucket.
    pub(crate) fn to_bucket(&self, mut request: Value, name: &str) -> Value {
        request["place"] = self.server.kind.place(name, self.port());
        request
    }

    /// The same request to another service.
    pub(crate) fn to_port(&self, mut request: Value, port: u16) -> Value {
        request["place"] = self.server.kind.place(BUCKET, port);
        request
    }

    pub(crate) fn store(&self, name: &str) -> Value {
        let mut request = self.request();
        request["store"] = json!({
            "name": name, "siteBackup": "daily-backup", "site": "default/shop", "identity": "id-1",
            "scheduledAt": "2026-11-26T02:00:00Z",
        });
        request
    }

    /// Request to remove all backups of the SiteBackup daily-backup.
    pub(crate) fn removal(&self) -> Value {
        let mut request = self.request();
        request["removal"] = json!({"siteBackup": "daily-backup", "identity": "id-1"});
        request
    }

    pub(crate) fn fetch(&self, name: &str) -> Value {
        let mut request = self.request();
        request["fetch"] = json!(name);
        request
    }

    /// A backup as the site runner stages it, with a large part of this size.
    pub(crate) fn staging(large_bytes: usize) -> Folder {
        let noise: Vec<u8> = (0..large_bytes).map(|index| u8::try_from(index * index % 251).unwrap()).collect();
        Self::staged([("database", "database.sql.gz", noise), ("public-files", "public-files.tgz", b"files".to_vec())])
    }

    pub(crate) fn staging_of(content: &[u8]) -> Folder {
        Self::staged([
            ("database", "database.sql.gz", content.to_vec()),
            ("public-files", "public-files.tgz", Vec::new()),
        ])
    }

    fn staged(parts: [(&str, &str, Vec<u8>); 2]) -> Folder {
        let folder = Folder::new();
        let mut described = serde_json::Map::new();
        for (part, file, content) in parts {
            std::fs::write(folder.path().join(file), &content).unwrap();
            let sha256 = frappe_operator::parts::hex(&Sha256::digest(&content));
            described.insert(part.to_owned(), json!({"file": file, "bytes": content.len(), "sha256": sha256}));
        }
        let contents = json!({"site": "shop.example.com", "engine": "mariadb", "frappe": "15.1.0", "apps": ["frappe"], "parts": described});
        std::fs::write(folder.path().join("contents.json"), contents.to_string()).unwrap();
        folder
    }

    /// Starts the program as a Job does.
    pub(crate) fn begin(&self, request: &Value, staging: &Folder, log: &Path) -> Child {
        self.begin_on(request, staging, &self.volume, log)
    }

    fn begin_on(&self, request: &Value, staging: &Folder, volume: &Folder, log: &Path) -> Child {
        Command::new(env!("CARGO_BIN_EXE_frappe-operator"))
            .args(["transfer", &request.to_string(), "--staging"])
            .arg(staging.path())
            .arg("--credentials")
            .arg(self.credentials.path())
            .arg("--volume")
            .arg(volume.path())
            .arg("--termination-log")
            .arg(log)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    pub(crate) fn run(&self, request: &Value, staging: &Folder) -> Ended {
        let logs = Folder::new();
        let log = logs.path().join("termination");
        Self::ended(self.begin(request, staging, &log), &log)
    }

    /// Runs it with another volume.
    pub(crate) fn run_on(&self, request: &Value, staging: &Folder, volume: &Folder) -> Ended {
        let logs = Folder::new();
        let log = logs.path().join("termination");
        Self::ended(self.begin_on(request, staging, volume, &log), &log)
    }

    pub(crate) fn ended(child: Child, log: &Path) -> Ended {
        let output = child.wait_with_output().unwrap();
        let shown = [output.stdout, output.stderr].concat();
        let said = std::fs::read(log).unwrap_or_default();
        for text in [&shown, &said] {
            assert!(!String::from_utf8_lossy(text).contains(SECRET_KEY), "a secret is shown");
        }
        Ended {
            ok: output.status.success(),
            killed: output.status.code().is_none(),
            said: serde_json::from_slice(&said).unwrap_or_default(),
        }
    }

    /// Sets credentials that the service accepts or rejects.
    pub(crate) fn set_access(&self, accepted: bool) {
        for (name, content) in self.server.keys(accepted) {
            std::fs::write(self.credentials.path().join(name), content).unwrap();
        }
    }

    /// Sets the key by which parts are encrypted from now on.
    pub(crate) fn set_identity(&self, identity: &str) {
        std::fs::write(self.credentials.path().join("identity"), identity).unwrap();
    }

    pub(crate) fn no_identity(&self) {
        std::fs::remove_file(self.credentials.path().join("identity")).unwrap();
    }

    /// Changes the manifest so that a part has this content.
    pub(crate) async fn forge_manifest(&self, part: &str, content: &[u8]) {
        let (folder, file) = part.rsplit_once('/').unwrap();
        let key = format!("{folder}/manifest.json");
        let text = self.store.get(&key.as_str().into()).await.unwrap().bytes().await.unwrap();
        let mut manifest: Value = serde_json::from_slice(&text).unwrap();
        for part in manifest["contents"]["parts"].as_object_mut().unwrap().values_mut() {
            if part["encrypted"]["file"] == file {
                part["encrypted"]["bytes"] = json!(content.len());
                part["encrypted"]["sha256"] = json!(frappe_operator::parts::hex(&Sha256::digest(content)));
            }
        }
        self.put(&key, manifest.to_string().as_bytes()).await;
    }

    /// Removes the authentication from the manifest of a part's backup.
    pub(crate) async fn forget_authentication(&self, part: &str) {
        let key = format!("{}/manifest.json", part.rsplit_once('/').unwrap().0);
        let mut manifest: Value = serde_json::from_slice(&self.get(&key).await).unwrap();
        manifest.as_object_mut().unwrap().remove("authentication");
        self.put(&key, manifest.to_string().as_bytes()).await;
    }

    pub(crate) async fn get(&self, key: &str) -> Vec<u8> {
        self.store.get(&key.into()).await.unwrap().bytes().await.unwrap().to_vec()
    }

    /// The folder of credentials, which is mounted beside the backup.
    pub(crate) fn credentials(&self) -> &Path {
        self.credentials.path()
    }

    pub(crate) async fn put(&self, key: &str, content: &[u8]) {
        self.store.put(&key.into(), content.to_vec().into()).await.unwrap();
    }

    /// Everything in the bucket.
    pub(crate) async fn keys(&self) -> Vec<String> {
        let mut keys: Vec<String> =
            self.store.list(None).map_ok(|it| it.location.to_string()).try_collect().await.unwrap();
        keys.sort();
        keys
    }

    /// Names in the site's folder.
    pub(crate) async fn folders(&self) -> Vec<String> {
        let mut names: Vec<String> = self
            .keys()
            .await
            .iter()
            .filter_map(|key| Some(key.strip_prefix("default/shop/")?.split('/').next()?.to_owned()))
            .collect();
        names.dedup();
        names
    }

    /// Incomplete multipart uploads on the server's disk.
    pub(crate) fn unfinished(&self) -> Vec<PathBuf> {
        self.server.unfinished()
    }
}
