//! The Secrets that hold what was decided once: created, never applied, so that nothing is decided anew.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::{
    controllers::site::model::{Database, Input, Subject},
    domain::{
        key::Key,
        labels,
        object::{Desired, Kind},
    },
};

/// `SITE-db-password`: the database account where this operator makes one, the encryption key, the identity.
///
/// The annotations repeat what is no secret, so that it is known from the metadata alone. A lost encryption key is only in
/// the site's own configuration, so that none is made for a Secret that replaces another.
pub fn credentials(input: &Input, password: &str, encryption_key: Option<&str>) -> Desired {
    let mut data = vec![("identity", input.known.identity.as_str())];
    data.extend(encryption_key.map(|key| ("encryption-key", key)));
    let made = matches!(input.valid.database, Database::Made(_));
    if made {
        data.extend([
            ("password", password),
            ("username", input.known.user.as_str()),
            ("database", input.known.name.as_str()),
        ]);
    }
    let mut desired = secret(input, input.valid.place.credentials(), &data);
    let metadata = &mut desired.body["metadata"];
    metadata["annotations"] = json!({
        labels::IDENTITY: input.known.identity, labels::DATABASE_KIND: input.valid.database.decision(),
    });
    if made {
        metadata["annotations"][labels::DATABASE] = json!(input.known.name);
        if input.known.user != input.known.name {
            metadata["annotations"][labels::DATABASE_USER] = json!(input.known.user);
        }
        // The MariaDB operator takes a changed password over only where the Secret has this label.
        metadata["labels"]["k8s.mariadb.com/watch"] = json!("");
    }
    desired
}

/// `SITE-admin-password`, in the site's own namespace: the password of Administrator, where the site names no Secret of
/// its own.
pub fn admin_password(input: &Input, password: &str) -> Desired {
    let key = input.valid.place.generated_admin_password(&input.name());
    let mut desired = secret(input, key, &[("password", password)]);
    desired.body["metadata"]["annotations"] = json!({labels::IDENTITY: input.known.identity});
    desired
}

/// Likewise, with the password of another Secret; it is added when it is written.
pub fn admin_password_copy(input: &Input) -> Desired {
    let key = input.valid.place.generated_admin_password(&input.name());
    let mut desired = secret(input, key, &[]);
    desired.body["metadata"]["annotations"] = json!({labels::IDENTITY: input.known.identity});
    desired.body["data"] = json!({"password": null});
    desired
}

/// `SITE-mariadb-root`: the administrator of a MariaDB of the site's own. No pod of the bench ever mounts it.
pub fn root_password(input: &Input, password: &str) -> Desired {
    let mut desired = secret(input, input.valid.place.own_server_root(), &[("password", password)]);
    desired.body["metadata"]["annotations"] = json!({labels::IDENTITY: input.known.identity});
    desired
}

/// A copy of these keys of a Secret of the site's namespace in that of its bench; their values are added when it is written.
pub fn copy(input: &Subject, name: &str, version: &str, keys: &[&str]) -> Desired {
    let key = Key::new(&input.place.namespace, input.place.mounted(name));
    let mut desired = secret(input, key, &[]);
    desired.body["metadata"]["annotations"] =
        json!({labels::IDENTITY: input.known.identity, labels::COPIED_VERSION: version});
    desired.body["data"] = keys.iter().map(|key| ((*key).to_owned(), Value::Null)).collect();
    desired
}

fn secret(input: &Subject, key: Key, data: &[(&str, &str)]) -> Desired {
    let data: BTreeMap<&str, &str> = data.iter().copied().collect();
    let body = json!({
        "apiVersion": "v1", "kind": "Secret", "type": "Opaque", "stringData": data,
        "metadata": {"name": key.name, "namespace": key.namespace, "labels": input.labels()},
    });
    Desired { kind: Kind::Secret, key, body }
}
