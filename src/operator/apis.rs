//! Optional APIs: which of them are whole, by the CustomResourceDefinitions that there are.

use std::collections::BTreeSet;

use tokio::sync::watch;

use crate::domain::object::Kind;

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

    /// A definition came or went.
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

/// Name of the CustomResourceDefinition of a kind.
pub(super) fn definition_name(kind: Kind) -> String {
    let resource = kind.resource();
    format!("{}.{}", resource.plural, resource.group)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn definitions_are_named_by_plural_and_group() {
        assert_eq!(definition_name(Kind::MariaDb), "mariadbs.k8s.mariadb.com");
    }
}
