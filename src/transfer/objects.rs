//! Storages of objects: how each service is connected to.

use std::{path::Path, time::Duration};

use object_store::{
    ObjectStore, RetryConfig,
    aws::{AmazonS3, AmazonS3Builder, Checksum},
    azure::{AzureConfigKey, MicrosoftAzure, MicrosoftAzureBuilder},
    gcp::{GoogleCloudStorage, GoogleCloudStorageBuilder},
    multipart::MultipartStore,
};

use super::{
    connect::{Connector, refused},
    report::Failure,
    request::{Bucket, Container, GcsBucket},
};
use crate::domain::code::Code;

/// A storage of objects, to which large ones are sent in pieces.
pub trait Objects: ObjectStore + MultipartStore {}

impl<T: ObjectStore + MultipartStore> Objects for T {}

/// The directory with the keys of the storage's Secrets.
#[derive(Clone, Copy)]
struct Keys<'a>(&'a Path);

impl Keys<'_> {
    /// A key, unless it is empty or missing.
    fn get(self, name: &str) -> Option<String> {
        let text = std::fs::read_to_string(self.0.join(name)).ok()?;
        Some(text.trim().to_owned()).filter(|it| !it.is_empty())
    }

    fn connector(self, endpoint: Option<&str>) -> Result<Connector, Failure> {
        Connector::new(endpoint, self.get("ca.crt").as_deref().map(str::as_bytes))
    }
}

/// A service that does not answer is asked for about ten seconds: the operator has the Job run again, later.
fn retry() -> RetryConfig {
    RetryConfig { max_retries: 6, retry_timeout: Duration::from_mins(2), ..RetryConfig::default() }
}

impl Bucket {
    /// Opens the bucket, without a request.
    pub fn open(&self, credentials: &Path) -> Result<AmazonS3, Failure> {
        let keys = Keys(credentials);
        let connector = keys.connector(self.endpoint.as_deref())?;
        // It becomes a part of a host's name.
        let word = |it: char| it.is_ascii_alphanumeric() || matches!(it, '-' | '_');
        if self.region.as_ref().is_some_and(|it| !it.chars().all(word)) {
            return Err(refused("storage.s3.region must be letters, digits, - and _"));
        }
        // The environment is where clouds put the identity of a pod's ServiceAccount.
        let mut builder = AmazonS3Builder::from_env()
            .with_bucket_name(&self.name)
            .with_region(self.region.as_deref().unwrap_or("us-east-1"))
            .with_virtual_hosted_style_request(!self.path_style)
            // Not every service removes many objects in one request, and a backup has few.
            .with_disable_bulk_delete(true);
        if !self.no_checksum {
            builder = builder.with_checksum_algorithm(Checksum::SHA256);
        }
        if let Some(endpoint) = &self.endpoint {
            builder = builder.with_endpoint(endpoint).with_allow_http(endpoint.starts_with("http://"));
        }
        if let (Some(access), Some(secret)) = (keys.get("accessKey"), keys.get("secretKey")) {
            builder = builder.with_access_key_id(access).with_secret_access_key(secret);
            builder = keys.get("sessionToken").into_iter().fold(builder, AmazonS3Builder::with_token);
        }
        let opened = builder.with_http_connector(connector).with_retry(retry()).build();
        opened.map_err(|error| Failure::of_store("open", &error))
    }
}

impl Container {
    /// Opens the container, without a request.
    pub fn open(&self, credentials: &Path) -> Result<MicrosoftAzure, Failure> {
        let keys = Keys(credentials);
        let connector = keys.connector(self.endpoint.as_deref())?;
        // They become parts of a host's name and a path.
        let word = |it: char| it.is_ascii_lowercase() || it.is_ascii_digit() || it == '-';
        if ![&self.account, &self.name].iter().all(|it| it.chars().all(word)) {
            return Err(refused("storage.azure.account and container must be lower-case letters, digits and -"));
        }
        let builder = match &self.secret {
            Some(secret) => {
                let invalid = |message| Failure { step: "secrets", code: Code::SecretInvalid, message };
                let (name, value) = match (keys.get("accountKey"), keys.get("sasToken")) {
                    (Some(key), _) => (AzureConfigKey::AccessKey, key),
                    (None, Some(token)) => (AzureConfigKey::SasKey, token),
                    (None, None) => {
                        let message =
                            format!("Secret {secret} has neither the key accountKey nor sasToken, or it is empty");
                        return Err(invalid(message));
                    }
                };
                MicrosoftAzureBuilder::new().with_config(name, value)
            }
            // The environment is where the cloud puts the identity of a pod's ServiceAccount.
            None => MicrosoftAzureBuilder::from_env(),
        };
        let endpoint = self.endpoint.clone();
        let builder = endpoint.into_iter().fold(builder, MicrosoftAzureBuilder::with_endpoint);
        let builder = builder.with_account(&self.account).with_container_name(&self.name);
        let opened = builder.with_http_connector(connector).with_retry(retry()).build();
        opened.map_err(|_| Failure::of_secret(self.secret.as_deref(), "accountKey or sasToken"))
    }
}

impl GcsBucket {
    /// Opens the bucket, without a request.
    pub fn open(&self, credentials: &Path) -> Result<GoogleCloudStorage, Failure> {
        let keys = Keys(credentials);
        let mut connector = keys.connector(self.endpoint.as_deref())?;
        // Not the one that a service account's key may name.
        let endpoint = self.endpoint.as_deref().unwrap_or("https://storage.googleapis.com").trim_end_matches('/');
        let mut builder = GoogleCloudStorageBuilder::new().with_bucket_name(&self.name).with_base_url(endpoint);
        match (&self.secret, keys.get("serviceAccountKey")) {
            (Some(_), key) => builder = builder.with_service_account_key(key.unwrap_or_default()),
            // The metadata server knows the identity of a pod's ServiceAccount.
            (None, _) => connector = connector.with_metadata_server(),
        }
        let opened = builder.with_http_connector(connector).with_retry(retry()).build();
        opened.map_err(|_| Failure::of_secret(self.secret.as_deref(), "serviceAccountKey"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code<T>(opened: Result<T, Failure>) -> Result<(), Code> {
        opened.map(|_| ()).map_err(|failure| failure.code)
    }

    #[test]
    fn names_of_a_storage_lead_to_no_other_host() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let folder = Path::new("/nonexistent");
        let bucket = |region: &str| Bucket {
            name: "frappe-backups".into(),
            region: Some(region.into()),
            endpoint: None,
            path_style: false,
            no_checksum: false,
        };
        assert_eq!(code(bucket("eu-central-1").open(folder)), Ok(()));
        assert_eq!(code(bucket("x.evil.example/").open(folder)), Err(Code::EndpointRefused));
        let container = |account: &str, name: &str| Container {
            account: account.into(),
            name: name.into(),
            endpoint: None,
            secret: None,
        };
        assert_eq!(code(container("frappe", "backups-2").open(folder)), Ok(()));
        for (account, name) in [("x.evil.example/", "backups"), ("frappe@evil", "backups"), ("frappe", "../logs")] {
            assert_eq!(code(container(account, name).open(folder)), Err(Code::EndpointRefused), "{account} {name}");
        }
    }

    #[test]
    fn a_key_of_another_form_is_reported() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let folder = tempfile();
        let secret = Some("keys".to_owned());
        let container =
            Container { account: "frappe".into(), name: "backups".into(), endpoint: None, secret: secret.clone() };
        let bucket = GcsBucket { name: "backups".into(), endpoint: None, secret };
        for (file, text) in [("accountKey", "***"), ("serviceAccountKey", "{}"), ("serviceAccountKey", "a key")] {
            std::fs::write(folder.join(file), text).expect("a file");
        }
        let failure = container.open(&folder).map(|_| ()).expect_err("it is no base64");
        assert_eq!(failure.code, Code::SecretInvalid);
        assert!(failure.message.contains("Secret keys") && !failure.message.contains("***"), "{}", failure.message);
        assert_eq!(code(bucket.open(&folder)), Err(Code::SecretInvalid));
        std::fs::remove_dir_all(&folder).expect("the folder");
        assert_eq!(code(container.open(&folder)), Err(Code::SecretInvalid), "without any key");
        assert_eq!(code(bucket.open(&folder)), Err(Code::SecretInvalid), "without its key");
    }

    fn tempfile() -> std::path::PathBuf {
        let folder = std::env::temp_dir().join(format!("frappe-objects-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        folder
    }
}
