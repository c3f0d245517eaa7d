//! Secrets with values that are generated once: they are created, never applied.

use k8s_openapi::api::core::v1::Secret;
use kube::{ResourceExt, api::ObjectMeta};

use crate::{
    controllers::site::model::{Database, Input, Subject},
    domain::{key::Key, labels, object::Desired, typed},
};

/// `SITE-db-password`: the database account if this operator creates one, the encryption key, the identity.
///
/// The annotations contain copies of non-secret values, so that they are known from the metadata. A lost encryption key is only in the
/// site's configuration, so a Secret that replaces a lost one contains no new one.
pub fn credentials(input: &Input, password: &str, encryption_key: Option<&str>) -> Desired {
    typed::secret(input.valid.place.credentials(), account_secret(input, password, encryption_key))
}

/// The content of [`credentials`].
pub fn account_secret(input: &Input, password: &str, encryption_key: Option<&str>) -> Secret {
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
    let mut secret = secret(input, &data);
    let annotations = secret.annotations_mut();
    let mut annotate = |key: &str, value: String| annotations.insert(key.to_owned(), value);
    annotate(labels::DATABASE_KIND, input.valid.database.decision());
    if made {
        annotate(labels::DATABASE, input.known.name.clone());
        if input.known.user != input.known.name {
            annotate(labels::DATABASE_USER, input.known.user.clone());
        }
        // The MariaDB operator applies a changed password only if the Secret has this label.
        secret.labels_mut().insert("k8s.mariadb.com/watch".to_owned(), String::new());
    }
    secret
}

/// `SITE-admin-password`, in the site's namespace: the Administrator's password, unless the site references a Secret.
pub fn admin_password(input: &Input, password: &str) -> Desired {
    let key = input.valid.place.generated_admin_password(&input.name());
    typed::secret(key, secret(input, &[("password", password)]))
}

/// The same, with the password of another Secret, which is added at the write.
pub fn admin_password_copy(input: &Input) -> Desired {
    let key = input.valid.place.generated_admin_password(&input.name());
    typed::secret_copy(key, secret(input, &[]), &["password"])
}

/// `SITE-mariadb-root`: the administrator of a dedicated MariaDB. No pod of the bench mounts it.
pub fn root_password(input: &Input, password: &str) -> Desired {
    typed::secret(input.valid.place.own_server_root(), secret(input, &[("password", password)]))
}

/// A copy of these keys of a Secret in the site's namespace, in the bench's namespace; the values are added at the write.
pub fn copy(input: &Subject, name: &str, version: &str, keys: &[&str]) -> Desired {
    let key = Key::new(&input.place.namespace, input.place.mounted(name));
    let mut secret = secret(input, &[]);
    secret.annotations_mut().insert(labels::COPIED_VERSION.to_owned(), version.to_owned());
    typed::secret_copy(key, secret, keys)
}

/// A Secret of the site, with its identity.
fn secret(input: &Subject, data: &[(&str, &str)]) -> Secret {
    let data = data.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    Secret {
        metadata: ObjectMeta { annotations: Some(input.identity()), ..input.kept_metadata() },
        type_: Some("Opaque".to_owned()),
        string_data: Some(data.collect()),
        ..Secret::default()
    }
}
