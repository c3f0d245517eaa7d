//! The Secrets that hold what was decided once: created, never applied, so that nothing is decided again.

use k8s_openapi::api::core::v1::Secret;
use kube::{ResourceExt, api::ObjectMeta};

use crate::{
    controllers::site::model::{Database, Input, Subject},
    domain::{key::Key, labels, object::Desired, typed},
};

/// `SITE-db-password`: the database account where this operator makes one, the encryption key, the identity.
///
/// The annotations repeat what is no secret, so that it is known from the metadata alone. A lost encryption key is only in
/// the site's own configuration, so that none is made for a Secret that replaces another.
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
        // The MariaDB operator takes a changed password over only where the Secret has this label.
        secret.labels_mut().insert("k8s.mariadb.com/watch".to_owned(), String::new());
    }
    secret
}

/// `SITE-admin-password`, in the site's own namespace: the password of Administrator, where the site names no Secret of
/// its own.
pub fn admin_password(input: &Input, password: &str) -> Desired {
    let key = input.valid.place.generated_admin_password(&input.name());
    typed::secret(key, secret(input, &[("password", password)]))
}

/// Also, with the password of another Secret; it is added when it is written.
pub fn admin_password_copy(input: &Input) -> Desired {
    let key = input.valid.place.generated_admin_password(&input.name());
    typed::secret_copy(key, secret(input, &[]), &["password"])
}

/// `SITE-mariadb-root`: the administrator of a MariaDB of the site's own. No pod of the bench ever mounts it.
pub fn root_password(input: &Input, password: &str) -> Desired {
    typed::secret(input.valid.place.own_server_root(), secret(input, &[("password", password)]))
}

/// A copy of these keys of a Secret of the site's namespace in that of its bench; their values are added when it is written.
pub fn copy(input: &Subject, name: &str, version: &str, keys: &[&str]) -> Desired {
    let key = Key::new(&input.place.namespace, input.place.mounted(name));
    let mut secret = secret(input, &[]);
    secret.annotations_mut().insert(labels::COPIED_VERSION.to_owned(), version.to_owned());
    typed::secret_copy(key, secret, keys)
}

/// A Secret of the site by its identity.
fn secret(input: &Subject, data: &[(&str, &str)]) -> Secret {
    let data = data.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    Secret {
        metadata: ObjectMeta { annotations: Some(input.identity()), ..input.kept_metadata() },
        type_: Some("Opaque".to_owned()),
        string_data: Some(data.collect()),
        ..Secret::default()
    }
}
