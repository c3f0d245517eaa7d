//! Optional APIs: which of them are whole, by the CustomResourceDefinitions that there are.

use std::collections::BTreeSet;

use tokio::sync::watch;

use crate::{
    domain::object::Kind,
    io::{cache::Change, compact::Compact},
};

/// Objects of sites that the MariaDB operator defines, narrowed to the slots of the shard.
pub(super) const SQL_KINDS: [Kind; 3] = [Kind::Database, Kind::User, Kind::Grant];
/// Objects of benches that KEDA defines.
pub(super) const KEDA_KINDS: [Kind; 2] = [Kind::ScaledObject, Kind::TriggerAuthentication];
/// The definition by which OpenShift is known.
const OPENSHIFT_DEFINITION: &str = "securitycontextconstraints.security.openshift.io";

/// Which optional APIs exist.
pub(super) struct Present {
    pub(super) mariadb: watch::Receiver<bool>,
    pub(super) keda: watch::Receiver<bool>,
    pub(super) service_monitors: watch::Receiver<bool>,
    pub(super) openshift: watch::Receiver<bool>,
    pub(super) routes: watch::Receiver<bool>,
    pub(super) gateway: watch::Receiver<bool>,
}

/// The optional APIs, none of whose definitions was seen yet.
pub(super) fn optional() -> ([Api; 6], Present) {
    let names = |kinds: &[Kind]| kinds.iter().copied().map(definition_name).collect::<Vec<_>>();
    let sql: Vec<Kind> = SQL_KINDS.into_iter().chain([Kind::MariaDb]).collect();
    let (mariadb_api, mariadb) = Api::new(names(&sql));
    let (keda_api, keda) = Api::new(names(&KEDA_KINDS));
    let (monitors_api, service_monitors) = Api::new(names(&[Kind::ServiceMonitor]));
    let (openshift_api, openshift) = Api::new(vec![OPENSHIFT_DEFINITION.to_owned()]);
    let (gateway_api, gateway) = Api::new(names(&[Kind::HttpRoute]));
    // OpenShift serves Routes without a definition; where there is one, it counts by itself.
    let (routes_api, routes) = Api::any(vec![definition_name(Kind::Route), OPENSHIFT_DEFINITION.to_owned()]);
    let present = Present { mariadb, keda, service_monitors, openshift, routes, gateway };
    ([mariadb_api, keda_api, monitors_api, openshift_api, gateway_api, routes_api], present)
}

/// An optional API: the definitions that make it whole, and those that were seen.
pub(super) struct Api {
    pub(super) wanted: Vec<String>,
    /// How many of them make it whole.
    enough: usize,
    seen: BTreeSet<String>,
    exists: watch::Sender<bool>,
}

impl Api {
    /// All of these definitions make it whole.
    pub(super) fn new(wanted: Vec<String>) -> (Self, watch::Receiver<bool>) {
        let (exists, present) = watch::channel(false);
        (Self { enough: wanted.len(), wanted, seen: BTreeSet::new(), exists }, present)
    }

    /// Any one of them makes it whole.
    pub(super) fn any(wanted: Vec<String>) -> (Self, watch::Receiver<bool>) {
        let (api, present) = Self::new(wanted);
        (Self { enough: 1, ..api }, present)
    }

    /// A definition came or went, as [`serves`] says.
    pub(super) fn saw(&mut self, definition: &str, is_there: bool) {
        if is_there {
            self.seen.insert(definition.to_owned());
        } else {
            self.seen.remove(definition);
        }
        let whole = self.seen.len() >= self.enough;
        self.exists.send_if_modified(|exists| std::mem::replace(exists, whole) != whole);
    }
}

/// Whether a definition's kind can be used: one that is being deleted takes no new object, and stays for as long as its
/// objects have finalizers, which may be for ever where who would take them off is gone already.
pub(super) fn serves(change: &Change<Compact>) -> bool {
    matches!(change, Change::Applied { now, .. } if now.open().metadata.deletion_timestamp.is_none())
}

/// Name of the CustomResourceDefinition of a kind.
pub(super) fn definition_name(kind: Kind) -> String {
    let resource = kind.resource();
    format!("{}.{}", resource.plural, resource.group)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::*;

    /// KEDA removed in the wrong order leaves its definitions Terminating: it is gone all the same.
    #[test]
    fn a_definition_that_is_being_deleted_does_not_serve() {
        let definition = |deleted: Value| -> Arc<Compact> {
            let metadata = json!({"name": "scaledobjects.keda.sh", "deletionTimestamp": deleted});
            let object = json!({"kind": "PartialObjectMetadata", "metadata": metadata});
            Arc::new(serde_json::from_value(object).expect("a definition"))
        };
        let applied = |now: Arc<Compact>| Change::Applied { now, before: None };
        assert!(serves(&applied(definition(Value::Null))));
        assert!(!serves(&applied(definition(json!("2026-01-01T00:00:00Z")))));
        assert!(!serves(&Change::Deleted(definition(Value::Null))));
    }

    #[test]
    fn definitions_are_named_by_plural_and_group() {
        assert_eq!(definition_name(Kind::MariaDb), "mariadbs.k8s.mariadb.com");
    }
}
