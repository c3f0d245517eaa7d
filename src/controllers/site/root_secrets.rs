//! Which Secrets have the password of a MariaDB's administrator, by what the watch of MariaDBs shows.

use std::collections::BTreeSet;

use dashmap::DashMap;
use kube::ResourceExt;

use crate::{
    domain::key::Key,
    io::{cache::Change, compact::Compact},
};

/// MariaDBs by the Secret of their administrator: both are in one namespace.
#[derive(Default)]
pub struct RootSecrets(DashMap<Key, BTreeSet<String>>);

impl RootSecrets {
    /// Takes a change in.
    pub fn saw(&self, change: &Change<Compact>) {
        match change {
            Change::Applied { now, before } => {
                if let Some(before) = before.as_ref().filter(|before| secret_of(before) != secret_of(now)) {
                    self.remove(before);
                }
                self.0.entry(secret_of(now)).or_default().insert(now.name_any());
            }
            Change::Deleted(gone) => self.remove(gone),
        }
    }

    /// Whether a server has this Secret as its administrator's.
    pub fn has(&self, secret: &Key) -> bool {
        self.0.contains_key(secret)
    }

    fn remove(&self, server: &Compact) {
        let key = secret_of(server);
        if let Some(mut servers) = self.0.get_mut(&key) {
            servers.remove(&server.name_any());
        }
        self.0.remove_if(&key, |_, servers| servers.is_empty());
    }
}

/// The Secret that a MariaDB names, or the one that its operator makes where it names none.
fn secret_of(server: &Compact) -> Key {
    let object = server.open();
    let named = object.data["spec"]["rootPasswordSecretKeyRef"]["name"].as_str().map(str::to_owned);
    Key::new(object.namespace().unwrap_or_default(), named.unwrap_or_else(|| format!("{}-root", object.name_any())))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;

    fn server(name: &str, secret: &str) -> Arc<Compact> {
        let reference = json!({"name": secret, "key": "password"});
        let server =
            json!({"metadata": {"name": name, "namespace": "a"}, "spec": {"rootPasswordSecretKeyRef": reference}});
        Arc::new(serde_json::from_value(server).expect("a MariaDB"))
    }

    #[test]
    fn a_secret_is_an_administrators_as_long_as_one_server_names_it() {
        let index = RootSecrets::default();
        let (first, second) = (server("first", "root"), server("second", "root"));
        let has = |namespace: &str, name: &str| index.has(&Key::new(namespace, name));
        for it in [&first, &second] {
            index.saw(&Change::Applied { now: Arc::clone(it), before: None });
        }
        assert!(has("a", "root") && !has("b", "root"));
        index.saw(&Change::Deleted(first));
        assert!(has("a", "root"));
        index.saw(&Change::Applied { now: server("second", "other"), before: Some(second) });
        assert!(!has("a", "root") && has("a", "other"));
    }
}
