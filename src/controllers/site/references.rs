//! The Secrets that a site and its SiteBackups reference, and the keys that are read. Pure.

use std::collections::BTreeSet;

use frappe_crds::{FrappeBench, FrappeSite, backup::BackupStorage};

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

/// References in the storage of a SiteBackup.
pub fn of_storage(storage: &BackupStorage) -> Vec<Reference> {
    let s3 = storage.s3.as_ref();
    let credentials = s3.and_then(|it| it.credentials_secret_ref.as_ref());
    let authorities = s3.and_then(|it| it.ca_secret_ref.as_ref());
    let of = |field, name: &String, keys: &[&str]| Reference::new(field, name, keys);
    let credentials =
        credentials.map(|it| of("s3.credentialsSecretRef", &it.name, &["accessKey", "secretKey", "sessionToken"]));
    let authorities = authorities.map(|it| of("s3.caSecretRef", &it.name, &["ca.crt"]));
    let key = storage.encryption_key_secret_ref.as_ref();
    let key = key.map(|it| of("encryptionKeySecretRef", &it.name, &["identity"]));
    [credentials, authorities, key].into_iter().flatten().collect()
}

/// All keys of a Secret that are read.
pub fn keys_of(references: &[Reference], secret: &str) -> BTreeSet<String> {
    references.iter().filter(|it| it.name == secret).flat_map(|it| it.keys.clone()).collect()
}

/// Names of the Secrets that a site's spec references.
pub fn named_secrets(site: &FrappeSite, bench: Option<&FrappeBench>) -> Vec<String> {
    references::of_site(site, bench).into_iter().map(|it| it.name).collect()
}
