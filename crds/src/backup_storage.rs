//! Where a SiteBackup stores backups.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    common::{Quantity, SecretReference},
    text::text,
};

text! {
    /// URL of a storage service.
    Endpoint, {"minLength": 1, "maxLength": 512},
    "self.matches('^https?://[^[:space:]/?#@]+(/[^[:space:]?#@]*)?$') && !self.matches('^https?://(169[.]254[.]|0[.]0[.]0[.]0|.[fF][eE][89aAbB])')",
    "endpoint must be an http:// or https:// URL of a service: host, port and path, without a user, ? or #, and no link-local address"
}

text! {
    /// Prefix of the names of objects.
    Prefix, {"maxLength": 512},
    "self.matches('^[A-Za-z0-9!_.*()-]+(/[A-Za-z0-9!_.*()-]+)*$') && !self.split('/').exists(it, it == '..' || it == '.')",
    "prefix must be names separated by slashes, without . and .."
}

/// Storage of backups.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("[has(self.s3), has(self.azure), has(self.gcs), has(self.persistentVolumeClaim)].exists_one(it, it)").message("storage must set exactly one of s3, azure, gcs and persistentVolumeClaim"),
    validation = Rule::new("!(has(self.stagingSizeLimit) && has(self.stagingVolume))").message("stagingSizeLimit and stagingVolume are mutually exclusive: the limit is for the node's disk")
)]
pub struct BackupStorage {
    /// S3 bucket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub s3: Option<S3Storage>,
    /// Container of Azure Blob Storage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub azure: Option<AzureStorage>,
    /// Bucket of Google Cloud Storage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gcs: Option<GcsStorage>,
    /// Volume other than the sites volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persistent_volume_claim: Option<ClaimStorage>,
    /// Secret whose key `identity` holds an age identity (created by `age-keygen`). Each part is then encrypted before it leaves
    /// the pod, and the backup includes the keys that decrypt passwords stored in the site. Keep a copy away from the backups:
    /// without it they cannot be restored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryption_key_secret_ref: Option<SecretReference>,
    /// Maximum size of a backup on the node's disk while it is being transferred. Default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub staging_size_limit: Option<Quantity>,
    /// Volume in which a backup is while it is being transferred, created for each pod and deleted with it. Default: the node's disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub staging_volume: Option<StagingVolume>,
    /// ServiceAccount of the backup Jobs, for clouds that grant access by ServiceAccount instead of by keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub service_account_name: Option<String>,
}

/// A volume that lives as long as a pod.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct StagingVolume {
    /// StorageClass of the volume. Default: the cluster's default class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub storage_class_name: Option<String>,
    /// Size of the volume. A backup needs the compressed size of the database and the files, and twice that if it is encrypted.
    pub size: Quantity,
}

/// A volume in the namespace of the bench.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClaimStorage {
    /// Name of the PersistentVolumeClaim.
    #[schemars(length(min = 1, max = 253))]
    pub claim_name: String,
    /// Path inside the volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    #[x_kube(validation = Rule::new("self.matches('^[A-Za-z0-9!_.*()-]+(/[A-Za-z0-9!_.*()-]+)*$') && !self.split('/').exists(it, it == '..' || it == '.')").message("path must be names separated by slashes, without . and .."))]
    pub path: Option<String>,
}

/// A bucket of Amazon S3 or a compatible service.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct S3Storage {
    /// Name of the bucket.
    #[schemars(length(min = 3, max = 63))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9][a-z0-9.-]*[a-z0-9]$')").message("bucket must be an S3 bucket name: lower-case letters, digits, dots and hyphens"))]
    pub bucket: String,
    /// Region of the bucket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    #[x_kube(validation = Rule::new("self.matches('^[A-Za-z0-9_-]+$')").message("region must be letters, digits, - and _"))]
    pub region: Option<String>,
    /// URL of the S3 service. Default: Amazon S3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<Endpoint>,
    /// Prefix of the objects in the bucket. Clusters that share a bucket need different prefixes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<Prefix>,
    /// Secret with the keys `accessKey` and `secretKey`, and `sessionToken` for temporary credentials. Default: access by
    /// `serviceAccountName`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials_secret_ref: Option<SecretReference>,
    /// Whether the bucket name is part of the path instead of the host name. Default: true if `endpoint` is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub force_path_style: Option<bool>,
    /// Checksum that is sent beside each object and part. Default: SHA256. Services that reject its headers, such as Backblaze B2 and the
    /// S3 interface of Google Cloud Storage, need None. What was stored is read back and compared either way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checksum: Option<S3Checksum>,
    /// Secret whose key `ca.crt` holds the CA certificates of the S3 service, if it does not use a public CA.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_secret_ref: Option<SecretReference>,
}

/// Checksum of the objects of an S3 bucket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum S3Checksum {
    /// SHA-256, in the header `x-amz-checksum-sha256`. Buckets with Object Lock need a checksum.
    #[default]
    SHA256,
    /// No checksum.
    None,
}

/// A container of Azure Blob Storage.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct AzureStorage {
    /// Name of the storage account.
    #[schemars(length(min = 3, max = 24))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9]+$')").message("account must be the name of a storage account: lower-case letters and digits"))]
    pub account: String,
    /// Name of the container.
    #[schemars(length(min = 3, max = 63))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9]+(-[a-z0-9]+)*$')").message("container must be the name of a container: lower-case letters, digits and single hyphens"))]
    pub container: String,
    /// URL of the account's Blob service. Default: `https://ACCOUNT.blob.core.windows.net`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<Endpoint>,
    /// Prefix of the blobs in the container. Clusters that share a container need different prefixes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<Prefix>,
    /// Secret with the key `accountKey`, or `sasToken` for a shared access signature. Default: access by `serviceAccountName`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials_secret_ref: Option<SecretReference>,
    /// Secret whose key `ca.crt` holds the CA certificates of the endpoint, if it does not use a public CA.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_secret_ref: Option<SecretReference>,
}

/// A bucket of Google Cloud Storage.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct GcsStorage {
    /// Name of the bucket.
    #[schemars(length(min = 3, max = 222))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9][a-z0-9._-]*[a-z0-9]$')").message("bucket must be the name of a bucket: lower-case letters, digits, dots, hyphens and underscores"))]
    pub bucket: String,
    /// URL of the service. Default: `https://storage.googleapis.com`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<Endpoint>,
    /// Prefix of the objects in the bucket. Clusters that share a bucket need different prefixes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<Prefix>,
    /// Secret with the key `serviceAccountKey`, a service account's key as JSON. Default: access by `serviceAccountName`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials_secret_ref: Option<SecretReference>,
    /// Secret whose key `ca.crt` holds the CA certificates of the endpoint, if it does not use a public CA.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_secret_ref: Option<SecretReference>,
}
