//! The Secrets that hold what was decided once: created, never applied, so that nothing is decided anew.

use std::collections::BTreeMap;

use serde_json::json;

use super::{Input, admin_password_name, credentials_name};
use crate::domain::{
    key::Key,
    labels,
    object::{Desired, Kind},
};

/// `SITE-db-password`: the database account, the encryption key, the identity.
///
/// The annotations repeat what is no secret, so that it is known from the metadata alone.
pub fn credentials(input: &Input, password: &str, encryption_key: &str) -> Desired {
    let data = [
        ("password", password),
        ("username", input.database_name),
        ("database", input.database_name),
        ("encryption-key", encryption_key),
        ("identity", input.identity),
    ];
    let mut desired = secret(input, &credentials_name(&input.name()), &data);
    desired.body["metadata"]["annotations"] =
        json!({labels::IDENTITY: input.identity, labels::DATABASE: input.database_name});
    // The MariaDB operator takes a changed password over only where the Secret has this label.
    desired.body["metadata"]["labels"]["k8s.mariadb.com/watch"] = json!("");
    desired
}

/// `SITE-admin-password`: the password of Administrator, where the site names no Secret of its own.
pub fn admin_password(input: &Input, password: &str) -> Desired {
    let mut desired = secret(input, &admin_password_name(&input.name()), &[("password", password)]);
    desired.body["metadata"]["annotations"] = json!({labels::IDENTITY: input.identity});
    desired
}

fn secret(input: &Input, name: &str, data: &[(&str, &str)]) -> Desired {
    let key = Key::new(input.key("").namespace, name);
    let data: BTreeMap<&str, &str> = data.iter().copied().collect();
    let body = json!({
        "apiVersion": "v1", "kind": "Secret", "type": "Opaque", "stringData": data,
        "metadata": {"name": key.name, "namespace": key.namespace, "labels": input.labels()},
    });
    Desired { kind: Kind::Secret, key, body }
}
