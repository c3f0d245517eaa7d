//! The Secrets that a site and its SiteBackups reference, and the keys that are read. Pure.

use std::collections::BTreeSet;

use frappe_crds::{FrappeBench, FrappeSite, backup_storage::BackupStorage, common::SecretReference};

use super::{place::Place, references};

/// A Secret of the site's own namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// Field that references it.
    pub field: &'static str,
    /// Its name.
    pub name: String,
    /// The keys that are read.
    pub keys: Vec<String>,
}

impl Reference {
    fn new(field: &'static str, name: &str, keys: &[&str]) -> Self {
        Self { field, name: name.to_owned(), keys: keys.iter().map(|key| (*key).to_owned()).collect() }
    }
}

/// Keys of the account of an existing database.
pub const CONNECTION_KEYS: [&str; 5] = ["username", "password", "host", "port", "database"];

/// References in a site's spec, and in its bench's defaults for it.
pub fn of_site(site: &FrappeSite, bench: Option<&FrappeBench>) -> Vec<Reference> {
    use kube::ResourceExt as _;
    let spec = &site.spec;
    let own = site.namespace();
    let here = |namespace: &Option<String>| namespace.is_none() || *namespace == own;
    let admin = spec.admin_password_secret_ref.iter().filter(|it| here(&it.namespace));
    let admin = admin.map(|it| Reference::new("adminPasswordSecretRef", &it.name, &["password"]));
    let connection = spec.db_config.iter().filter_map(|it| it.connection_secret_ref.as_ref());
    let shared = bench.and_then(|it| it.spec.db_config.as_ref()?.connection_secret_ref.as_ref());
    let connections = connection.chain(shared).filter(|it| here(&it.namespace));
    let connections = connections.map(|it| Reference::new("dbConfig.connectionSecretRef", &it.name, &CONNECTION_KEYS));
    // A certificate must be in the route's namespace: it is copied there, unless cert-manager creates it there.
    let tls = spec.tls.iter().filter(|tls| tls.enabled && tls.issuer.is_none() && Place::of(site).is_foreign());
    let certificate = tls.filter_map(|tls| tls.secret_name.as_ref());
    let certificate = certificate.map(|name| Reference::new("tls.secretName", name, &["tls.crt", "tls.key", "ca.crt"]));
    let entries = spec.site_config_secret_refs.values();
    let entries = entries.map(|it| Reference::new("siteConfigSecretRefs", &it.name, &[it.key.as_str()]));
    admin.chain(connections).chain(certificate).chain(entries).collect()
}

/// The Secrets of a storage of objects.
pub struct Access<'a> {
    /// The Secret with its credentials, if it has one.
    pub credentials: Option<&'a SecretReference>,
    /// The Secret with CA certificates, if it has one.
    pub certificates: Option<&'a SecretReference>,
    /// The fields that name the two.
    pub fields: [&'static str; 2],
    /// Keys of the credentials, each also the name of a file of the transfer.
    pub keys: &'static [&'static str],
    /// Those of them that may be missing.
    pub optional: &'static [&'static str],
}

/// The Secrets of a storage; None if it is a volume.
pub fn access(storage: &BackupStorage) -> Option<Access<'_>> {
    let s3 = storage.s3.as_ref().map(|it| Access {
        credentials: it.credentials_secret_ref.as_ref(),
        certificates: it.ca_secret_ref.as_ref(),
        fields: ["s3.credentialsSecretRef", "s3.caSecretRef"],
        keys: &["accessKey", "secretKey", "sessionToken"],
        optional: &["sessionToken"],
    });
    let azure = storage.azure.as_ref().map(|it| Access {
        credentials: it.credentials_secret_ref.as_ref(),
        certificates: it.ca_secret_ref.as_ref(),
        fields: ["azure.credentialsSecretRef", "azure.caSecretRef"],
        keys: &["accountKey", "sasToken"],
        // The transfer needs one of them.
        optional: &["accountKey", "sasToken"],
    });
    let gcs = storage.gcs.as_ref().map(|it| Access {
        credentials: it.credentials_secret_ref.as_ref(),
        certificates: it.ca_secret_ref.as_ref(),
        fields: ["gcs.credentialsSecretRef", "gcs.caSecretRef"],
        keys: &["serviceAccountKey"],
        optional: &[],
    });
    s3.or(azure).or(gcs)
}

/// References in the storage of a SiteBackup.
pub fn of_storage(storage: &BackupStorage) -> Vec<Reference> {
    let of = |field, to: &SecretReference, keys: &[&str]| Reference::new(field, &to.name, keys);
    let objects = access(storage).into_iter().flat_map(|it| {
        let [credentials, certificates] = it.fields;
        let credentials = it.credentials.map(|to| of(credentials, to, it.keys));
        [credentials, it.certificates.map(|to| of(certificates, to, &["ca.crt"]))]
    });
    let key = storage.encryption_key_secret_ref.as_ref();
    let key = key.map(|it| of("encryptionKeySecretRef", it, &["identity"]));
    objects.chain([key]).flatten().collect()
}

/// All keys of a Secret that are read.
pub fn keys_of(references: &[Reference], secret: &str) -> BTreeSet<String> {
    references.iter().filter(|it| it.name == secret).flat_map(|it| it.keys.clone()).collect()
}

/// Names of the Secrets that a site's spec references.
pub fn named_secrets(site: &FrappeSite, bench: Option<&FrappeBench>) -> Vec<String> {
    references::of_site(site, bench).into_iter().map(|it| it.name).collect()
}
