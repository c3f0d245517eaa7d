//! Index of Secrets with the password of a MariaDB administrator, from the watch of MariaDBs.

use kube::{ResourceExt, core::DynamicObject};
use kube_sharding::index::{By, Index};

use crate::{
    domain::{key::Key, live},
    io::compact::Compact,
};

/// MariaDBs by the Secret of their administrator, which is in the same namespace.
pub struct ByRootSecret;

/// MariaDBs by the Secret of their administrator.
pub type RootSecrets = Index<ByRootSecret>;

impl By for ByRootSecret {
    type Form = Compact;
    type Of = Key;
    type Note = ();

    fn of(server: &Compact) -> Option<(Key, ())> {
        Some((root_secret(&server.open()), ()))
    }
}

/// The Secret that a MariaDB references, or else the one that the MariaDB operator creates.
fn root_secret(server: &DynamicObject) -> Key {
    let named = live::field(server, "/spec/rootPasswordSecretKeyRef/name").filter(|it: &String| !it.is_empty());
    let name = named.unwrap_or_else(|| format!("{}-root", server.name_any()));
    Key::new(Key::of(server).namespace, name)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::io::cache::Change;

    fn server(name: &str, secret: &str) -> Arc<Compact> {
        let reference = json!({"name": secret, "key": "password"});
        let server =
            json!({"metadata": {"name": name, "namespace": "a"}, "spec": {"rootPasswordSecretKeyRef": reference}});
        Arc::new(serde_json::from_value(server).expect("a MariaDB"))
    }

    #[test]
    fn a_secret_is_an_administrators_while_a_server_references_it() {
        let index = RootSecrets::default();
        let (first, second) = (server("first", "root"), server("second", "root"));
        let has = |namespace: &str, name: &str| index.has(&Key::new(namespace, name));
        for it in [&first, &second] {
            index.update(&Change::Applied { now: Arc::clone(it), before: None });
        }
        assert!(has("a", "root") && !has("b", "root"));
        index.update(&Change::Deleted(first));
        assert!(has("a", "root"));
        index.update(&Change::Applied { now: server("second", "other"), before: Some(second) });
        assert!(!has("a", "root") && has("a", "other"));
    }

    #[test]
    fn a_server_without_a_reference_has_the_generated_secret() {
        for spec in [json!({}), json!({"rootPasswordSecretKeyRef": {"key": "password"}})] {
            let server = json!({"metadata": {"name": "main", "namespace": "a"}, "spec": spec});
            let server: DynamicObject = serde_json::from_value(server).expect("a MariaDB");
            assert_eq!(root_secret(&server), Key::new("a", "main-root"));
        }
    }
}
