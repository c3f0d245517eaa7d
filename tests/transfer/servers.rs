//! Storage services on loopback.

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use object_store::{
    ObjectStore,
    aws::AmazonS3Builder,
    azure::{AzureAccessKey, AzureAuthorizer, AzureCredential, MicrosoftAzureBuilder},
    client::HttpRequestBody,
    gcp::GoogleCloudStorageBuilder,
};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::{folder::Folder, google};

/// The bucket or container.
pub(crate) const BUCKET: &str = "frappe-backups";
const ACCESS_KEY: &str = "access";
/// Must never be printed.
pub(crate) const SECRET_KEY: &str = "c2VjcmV0LWtleS1vZi10aGUtYnVja2V0";
const OTHER_KEY: &str = "YW5vdGhlci1rZXktb2YtdGhlLWJ1Y2tldA==";
const ACCOUNT: &str = "frappe";

/// A kind of storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    S3,
    Azure,
    Gcs,
}

/// Runs an async function with each kind of storage.
macro_rules! each_kind {
    ($($name:ident)*) => { $(
        mod $name {
            #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
            async fn s3() {
                super::$name($crate::servers::Kind::S3).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
            async fn azure() {
                super::$name($crate::servers::Kind::Azure).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
            async fn gcs() {
                super::$name($crate::servers::Kind::Gcs).await;
            }
        }
    )* };
}
pub(crate) use each_kind;

impl Kind {
    /// The place of a request.
    pub(crate) fn place(self, bucket: &str, port: u16) -> Value {
        let endpoint = format!("http://127.0.0.1:{port}");
        match self {
            Self::S3 => {
                json!({"s3": {"bucket": bucket, "region": "us-east-1", "endpoint": endpoint, "pathStyle": true}})
            }
            Self::Azure => {
                let endpoint = format!("{endpoint}/{ACCOUNT}");
                json!({"azure": {"account": ACCOUNT, "container": bucket, "endpoint": endpoint, "secret": "bucket-keys"}})
            }
            Self::Gcs => json!({"gcs": {"bucket": bucket, "endpoint": endpoint, "secret": "bucket-keys"}}),
        }
    }
}

/// A service with a bucket.
pub(crate) struct Server {
    pub(crate) kind: Kind,
    pub(crate) port: u16,
    process: Child,
    /// What asks for tokens.
    front: Option<JoinHandle<()>>,
    data: Folder,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// The program that a script of the project builds or installs.
fn program(script: &str) -> PathBuf {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("loadtest/objectstore").join(script);
    let built = Command::new(script).stderr(Stdio::inherit()).output().unwrap();
    assert!(built.status.success(), "the storage service could not be built");
    PathBuf::from(String::from_utf8(built.stdout).unwrap().trim())
}

/// An S3 server.
fn s3(port: u16, data: &Path) -> Command {
    for part in ["objects", "metadata"] {
        std::fs::create_dir_all(data.join(part)).unwrap();
    }
    std::fs::create_dir(data.join("objects").join(BUCKET)).unwrap();
    let mut command = Command::new(program("build"));
    command
        .args(["--port", &format!("127.0.0.1:{port}"), "--access", ACCESS_KEY, "--secret", SECRET_KEY, "--quiet"])
        // Not every file system supports extended attributes: they are stored in separate files.
        .args(["posix", "--sidecar", data.join("metadata").to_str().unwrap()])
        .arg(data.join("objects"));
    command
}

/// Azurite.
fn azurite(port: u16, data: &Path) -> Command {
    let mut command = Command::new("node");
    command
        .arg(program("azurite"))
        .args(["--blobHost", "127.0.0.1", "--blobPort", &port.to_string(), "--location", data.to_str().unwrap()])
        .args(["--silent", "--disableTelemetry", "--skipApiVersionCheck"])
        .env("AZURITE_ACCOUNTS", format!("{ACCOUNT}:{SECRET_KEY}"));
    command
}

/// Creates the container, once the server responds.
async fn create_container(port: u16) -> bool {
    let credential = AzureCredential::AccessKey(AzureAccessKey::try_new(SECRET_KEY).unwrap());
    let url = format!("http://127.0.0.1:{port}/{ACCOUNT}/{BUCKET}?restype=container");
    let mut request = http::Request::put(&url).header("content-length", "0").body(HttpRequestBody::empty()).unwrap();
    AzureAuthorizer::new(&credential, ACCOUNT).try_authorize(&mut request).unwrap();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let sent = client.put(&url).headers(request.headers().clone()).send().await;
    sent.is_ok_and(|it| it.status().as_u16() == 201)
}

impl Server {
    pub(crate) async fn start(kind: Kind) -> (Self, Arc<dyn ObjectStore>) {
        let (data, port) = (Folder::new(), free_port());
        let mut command = match kind {
            Kind::S3 | Kind::Gcs => s3(port, data.path()),
            Kind::Azure => azurite(port, data.path()),
        };
        let process = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let mut server = Self { kind, port, process, front: None, data };
        if kind == Kind::Gcs {
            let (port, front) = google::serve(port, ACCESS_KEY, SECRET_KEY).await;
            (server.port, server.front) = (port, Some(front));
        }
        let store = server.store();
        for _ in 0..400 {
            let ready = match kind {
                Kind::S3 | Kind::Gcs => store.list_with_delimiter(None).await.is_ok(),
                Kind::Azure => create_container(port).await,
            };
            if ready {
                return (server, store);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("the storage service does not respond");
    }

    fn store(&self) -> Arc<dyn ObjectStore> {
        let endpoint = format!("http://127.0.0.1:{}", self.port);
        match self.kind {
            Kind::S3 => Arc::new(
                AmazonS3Builder::new()
                    .with_bucket_name(BUCKET)
                    .with_region("us-east-1")
                    .with_endpoint(endpoint)
                    .with_allow_http(true)
                    .with_access_key_id(ACCESS_KEY)
                    .with_secret_access_key(SECRET_KEY)
                    .build()
                    .unwrap(),
            ),
            Kind::Azure => Arc::new(
                MicrosoftAzureBuilder::new()
                    .with_account(ACCOUNT)
                    .with_container_name(BUCKET)
                    .with_endpoint(format!("{endpoint}/{ACCOUNT}"))
                    .with_allow_http(true)
                    .with_access_key(SECRET_KEY)
                    .build()
                    .unwrap(),
            ),
            Kind::Gcs => Arc::new(
                GoogleCloudStorageBuilder::new()
                    .with_bucket_name(BUCKET)
                    .with_base_url(&endpoint)
                    .with_service_account_key(google::service_account_key(true))
                    .build()
                    .unwrap(),
            ),
        }
    }

    /// Stops the server, as in an outage of its machine.
    pub(crate) fn stop(&mut self) {
        self.front.iter().for_each(JoinHandle::abort);
        let _ = self.process.kill();
        let _ = self.process.wait();
    }

    /// Files of credentials that the server accepts or rejects.
    pub(crate) fn keys(&self, accepted: bool) -> Vec<(&'static str, String)> {
        let secret = if accepted { SECRET_KEY } else { OTHER_KEY }.to_owned();
        match self.kind {
            Kind::S3 => vec![("accessKey", format!("{ACCESS_KEY}\n")), ("secretKey", secret)],
            Kind::Azure => vec![("accountKey", secret)],
            Kind::Gcs => vec![("serviceAccountKey", google::service_account_key(accepted))],
        }
    }

    /// Incomplete uploads on the server's disk. Azure drops blocks that belong to no blob after a week, without a request.
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
