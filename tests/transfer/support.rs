//! An S3 server for each test, and the program as a Job runs it.

use std::{
    collections::BTreeMap,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use futures::TryStreamExt as _;
use object_store::{
    ObjectStore as _, ObjectStoreExt as _,
    aws::{AmazonS3, AmazonS3Builder},
};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// Name of a backup, as the operator chooses it.
pub(crate) const NAME: &str = "daily-backup-2026-11-26-0200";
const BUCKET: &str = "frappe-backups";
const ACCESS_KEY: &str = "access";
/// Must never be printed.
pub(crate) const SECRET_KEY: &str = "a-secret-key-of-the-bucket";

/// A folder that is removed at the end of the test.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        static MADE: AtomicUsize = AtomicUsize::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let name = format!("frappe-transfer-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Every file with its content.
    pub(crate) fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let entries = std::fs::read_dir(&self.0).unwrap().map(Result::unwrap);
        entries
            .map(|it| (it.file_name().to_string_lossy().into_owned(), std::fs::read(it.path()).unwrap()))
            // JSON is compared without the order of its keys.
            .map(|(name, content)| match serde_json::from_slice::<Value>(&content) {
                Ok(json) if name == "contents.json" => (name, json.to_string().into_bytes()),
                _ => (name, content),
            })
            .collect()
    }

    /// Size of all parts.
    pub(crate) fn bytes(&self) -> usize {
        self.files().iter().filter(|(name, _)| *name != "contents.json").map(|(_, content)| content.len()).sum()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

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

/// An S3 server with a bucket.
pub(crate) struct Bed {
    server: Child,
    pub(crate) port: u16,
    data: Folder,
    volume: Folder,
    credentials: Folder,
    pub(crate) store: AmazonS3,
}

impl Drop for Bed {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn server_program() -> PathBuf {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("loadtest/objectstore/build");
    let built = Command::new(script).stderr(Stdio::inherit()).output().unwrap();
    assert!(built.status.success(), "the S3 server could not be built");
    PathBuf::from(String::from_utf8(built.stdout).unwrap().trim())
}

impl Bed {
    pub(crate) async fn start() -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (data, port) = (Folder::new(), free_port());
        for part in ["objects", "metadata"] {
            std::fs::create_dir_all(data.path().join(part)).unwrap();
        }
        let server = Command::new(server_program())
            .args(["--port", &format!("127.0.0.1:{port}"), "--access", ACCESS_KEY, "--secret", SECRET_KEY, "--quiet"])
            // Not every file system supports extended attributes: they are stored in separate files.
            .args(["posix", "--sidecar", data.path().join("metadata").to_str().unwrap()])
            .arg(data.path().join("objects"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let credentials = Folder::new();
        std::fs::write(credentials.path().join("accessKey"), format!("{ACCESS_KEY}\n")).unwrap();
        std::fs::write(credentials.path().join("secretKey"), SECRET_KEY).unwrap();
        std::fs::create_dir(data.path().join("objects").join(BUCKET)).unwrap();
        let store = AmazonS3Builder::new()
            .with_bucket_name(BUCKET)
            .with_region("us-east-1")
            .with_endpoint(format!("http://127.0.0.1:{port}"))
            .with_allow_http(true)
            .with_access_key_id(ACCESS_KEY)
            .with_secret_access_key(SECRET_KEY)
            .build()
            .unwrap();
        let bed = Self { server, port, data, volume: Folder::new(), credentials, store };
        for _ in 0..100 {
            if bed.store.list_with_delimiter(None).await.is_ok() {
                return bed;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("the S3 server does not respond");
    }

    /// Stops the server, as in an outage of its machine.
    pub(crate) fn stop(&mut self) {
        self.server.kill().unwrap();
        self.server.wait().unwrap();
    }

    fn request(&self) -> Value {
        json!({
            "place": {"s3": {"bucket": BUCKET, "region": "us-east-1", "endpoint": format!("http://127.0.0.1:{}", self.port),
                             "pathStyle": true}},
            "folder": "default/shop",
        })
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

    pub(crate) fn set_secret_key(&self, key: &str) {
        std::fs::write(self.credentials.path().join("secretKey"), key).unwrap();
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
        let mut found = Vec::new();
        let mut left = vec![self.data.path().join("objects").join(BUCKET).join(".sgwtmp/multipart")];
        while let Some(folder) = left.pop() {
            for entry in std::fs::read_dir(folder).into_iter().flatten().map(Result::unwrap) {
                if entry.path().is_dir() { left.push(entry.path()) } else { found.push(entry.path()) }
            }
        }
        found
    }
}
