//! The table of kinds: what of each is watched and whom that wakes, what it needs, and what the operator may do with it.
//!
//! From it follow the watches that are started, what must be listed before anything is reconciled, the chart's rights, the
//! list of the admission fence, what `check` asks for, and `docs/permissions.md`. How to add a kind: ARCHITECTURE.md. Pure.

use std::collections::BTreeSet;

use k8s_openapi::{
    api::{
        apps::v1::{Deployment, StatefulSet},
        batch::v1::Job,
        core::v1::{ConfigMap, Namespace, PersistentVolumeClaim, Pod, Secret, Service},
        networking::v1::{Ingress, NetworkPolicy},
        policy::v1::PodDisruptionBudget,
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::core::{ApiResource, GroupVersionKind};

use super::{
    capabilities::{Api, KnownBy, Reader},
    watches::{MAKE, Narrowing, OWN, OWN_AND_GET, READ, Right, Row, Wakes, Watch},
};

const STATUS: Right = Right { subresource: "status", verbs: &["update"], why: "its status" };
const FINALIZERS: Right = Right {
    subresource: "finalizers",
    verbs: &["update"],
    why: "owner references that block a deletion, where the admission plugin OwnerReferencesPermissionEnforcement is on",
};

/// Declares the kinds: a variant, with its documentation, and its row.
macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident => $row:expr;)*) => {
        /// A kind of object that this operator makes or reads.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Kind {
            $($(#[$doc])* $name,)*
        }

        impl Kind {
            /// Every kind, in the order of the table.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// What is to be known of the kind.
            pub fn row(self) -> &'static Row {
                match self {
                    $(Self::$name => {
                        const ROW: Row = $row;
                        &ROW
                    })*
                }
            }
        }
    };
}

kinds! {
    /// vyogo.tech FrappeSite
    Site => Row {
        parts: &[STATUS, FINALIZERS],
        ..Row::new(|| ApiResource::erase::<frappe_crds::FrappeSite>(&()), &["list", "watch", "patch"],
            "reconcile sites; patch sets the finalizer and labels")
    }.watched(&[
        Watch { narrowing: Narrowing::Slots, wakes: Wakes::Site, awaited_by: &[Reader::Sites] },
        Watch { narrowing: Narrowing::Unlabelled, wakes: Wakes::Site, awaited_by: &[] },
    ]);
    /// vyogo.tech FrappeBench
    Bench => Row {
        parts: &[STATUS, FINALIZERS],
        ..Row::new(|| ApiResource::erase::<frappe_crds::FrappeBench>(&()), &["list", "watch", "patch"],
            "reconcile benches; patch sets the finalizer")
    }.watched(&[Watch { narrowing: Narrowing::Everything, wakes: Wakes::Bench, awaited_by: &[Reader::Replica] }]);
    /// vyogo.tech FrappeDomain
    Domain => Row {
        is_of_cluster: true,
        ..Row::new(|| ApiResource::erase::<frappe_crds::FrappeDomain>(&()), OWN, "record which site uses a host name")
    }.watched(&[Watch {
        narrowing: Narrowing::Everything,
        wakes: Wakes::SitesOfHost,
        awaited_by: &[Reader::Replica, Reader::Sites],
    }]);
    /// vyogo.tech SiteBackup
    SiteBackup => Row {
        parts: &[STATUS],
        ..Row::new(|| ApiResource::erase::<frappe_crds::SiteBackup>(&()), &["get", "list", "watch", "patch"],
            "reconcile SiteBackups; get checks whether one that no watch shows still exists while its Job runs; patch sets the \
             label with the site's slot, and the finalizer for `deletionPolicy: Delete`")
    }.watched(&[
        Watch { narrowing: Narrowing::Slots, wakes: Wakes::Companions, awaited_by: &[Reader::Sites] },
        Watch { narrowing: Narrowing::Unlabelled, wakes: Wakes::Companions, awaited_by: &[Reader::Sites] },
    ]);
    /// vyogo.tech SiteJob
    SiteJob => Row {
        parts: &[STATUS],
        ..Row::new(|| ApiResource::erase::<frappe_crds::SiteJob>(&()), &["get", "list", "watch", "patch", "delete"],
            "reconcile SiteJobs; get checks whether one that no watch shows still exists while its Job runs; patch sets the label with \
             the site's slot; delete removes those whose `ttlSecondsAfterFinished` is over")
    }.watched(&[
        Watch { narrowing: Narrowing::Slots, wakes: Wakes::Companions, awaited_by: &[Reader::Sites] },
        Watch { narrowing: Narrowing::Unlabelled, wakes: Wakes::Companions, awaited_by: &[Reader::Sites] },
    ]);
    /// batch/v1 Job
    Job => Row::new(|| ApiResource::erase::<Job>(&()), OWN_AND_GET,
            "Jobs of sites, benches, SiteBackups and SiteJobs; get reads a Job that lost its label")
        .watched(&[Watch::OF_A_SITE, Watch::OF_A_BENCH]);
    /// networking.k8s.io/v1 Ingress
    Ingress => Row::new(|| ApiResource::erase::<Ingress>(&()), OWN, "route to sites").watched(&[Watch::OF_A_SITE]);
    /// networking.k8s.io/v1 NetworkPolicy
    NetworkPolicy => Row::new(|| ApiResource::erase::<NetworkPolicy>(&()), OWN, "NetworkPolicies of benches")
        .watched(&[Watch::OF_A_BENCH]);
    /// gateway.networking.k8s.io HTTPRoute
    HttpRoute => Row::new(|| foreign("gateway.networking.k8s.io", "v1", "HTTPRoute"), OWN, "route to sites")
        .needs(Api::Gateway)
        .watched(&[Watch::OF_A_SITE]);
    /// route.openshift.io Route
    Route => Row {
        parts: &[Right {
            subresource: "custom-host",
            verbs: &["create", "update"],
            why: "required by OpenShift to set the host of a Route",
        }],
        ..Row::new(|| foreign("route.openshift.io", "v1", "Route"), OWN, "route to sites")
    }.needs(Api::Routes).watched(&[Watch::OF_A_SITE]);
    /// apps/v1 Deployment
    Deployment => Row::new(|| ApiResource::erase::<Deployment>(&()), OWN,
            "run the components of benches; delete those of an image that serves no site any more")
        .watched(&[Watch::OF_A_BENCH]);
    /// apps/v1 StatefulSet
    StatefulSet => Row::new(|| ApiResource::erase::<StatefulSet>(&()), OWN,
            "run the Redis servers of benches; delete after a change to external servers")
        .watched(&[Watch::OF_A_BENCH]);
    /// policy/v1 PodDisruptionBudget
    PodDisruptionBudget => Row::new(|| ApiResource::erase::<PodDisruptionBudget>(&()), OWN,
            "PodDisruptionBudgets of benches")
        .watched(&[Watch::OF_A_BENCH]);
    /// core/v1 Secret, of which caches hold the metadata only
    Secret => Row {
        metadata_only: true,
        ..Row::new(|| ApiResource::erase::<Secret>(&()), OWN_AND_GET,
            "generated passwords, and metadata of referenced Secrets. get reads metadata; data to tell whether it changed, \
             and to copy a Secret for a site whose bench is in another namespace. list and watch read metadata only, of Secrets with the operator's labels")
    }.watched(&[
        Watch::OF_A_SITE,
        Watch {
            narrowing: Narrowing::Marked,
            wakes: Wakes::Referrers,
            awaited_by: &[Reader::Sites, Reader::Benches],
        },
    ]);
    /// core/v1 Service
    Service => Row::new(|| ApiResource::erase::<Service>(&()), OWN,
            "Services of benches; metadata of the ingress controller's Service")
        .watched(&[
            Watch::OF_A_BENCH,
            Watch { narrowing: Narrowing::Named, wakes: Wakes::Benches, awaited_by: &[] },
        ]);
    /// core/v1 ConfigMap
    ConfigMap => Row {
        metadata_only: true,
        ..Row::new(|| ApiResource::erase::<ConfigMap>(&()), MAKE, "the site runner's program of each bench")
    }.watched(&[
        Watch::OF_A_BENCH,
        Watch { narrowing: Narrowing::Settings, wakes: Wakes::UsersOfSetting, awaited_by: &[Reader::Replica] },
    ]);
    /// core/v1 PersistentVolumeClaim
    PersistentVolumeClaim => Row::new(|| ApiResource::erase::<PersistentVolumeClaim>(&()), MAKE,
            "volumes of benches; deleted by the garbage collector")
        .watched(&[Watch::OF_A_BENCH]);
    /// core/v1 Pod, never made by this operator itself
    Pod => Row::new(|| ApiResource::erase::<Pod>(&()), READ,
            "read why pods of benches do not run, and termination messages of Jobs")
        .watched(&[Watch { wakes: Wakes::BenchOfFailingPod, ..Watch::OF_A_BENCH }]);
    /// core/v1 Namespace, of which only the metadata is watched
    Namespace => Row {
        is_of_cluster: true,
        metadata_only: true,
        ..Row::new(|| ApiResource::erase::<Namespace>(&()), READ,
            "metadata only: labels for `allowedSites`, and whether a namespace is being deleted")
    }.watched(&[Watch {
        narrowing: Narrowing::Everything,
        wakes: Wakes::SitesOfNamespace,
        awaited_by: &[Reader::Sites],
    }]);
    /// keda.sh ScaledObject
    ScaledObject => Row::new(|| foreign("keda.sh", "v1alpha1", "ScaledObject"), OWN, "autoscale the workers of benches")
        .needs(Api::Keda)
        .watched(&[Watch::OF_A_BENCH]);
    /// keda.sh TriggerAuthentication
    TriggerAuthentication => Row::new(|| foreign("keda.sh", "v1alpha1", "TriggerAuthentication"), OWN,
            "give KEDA the Redis password of benches")
        .needs(Api::Keda)
        .watched(&[Watch::OF_A_BENCH]);
    /// monitoring.coreos.com ServiceMonitor
    ServiceMonitor => Row::new(|| foreign("monitoring.coreos.com", "v1", "ServiceMonitor"), OWN,
            "monitoring of benches")
        .needs(Api::Prometheus)
        .watched(&[Watch::OF_A_BENCH]);
    /// k8s.mariadb.com Database
    Database => Row::new(|| foreign("k8s.mariadb.com", "v1alpha1", "Database"), OWN, "create the databases of sites")
        .needs(Api::MariaDb)
        .watched(&[Watch::OF_A_SITE]);
    /// k8s.mariadb.com User
    User => Row::new(|| foreign("k8s.mariadb.com", "v1alpha1", "User"), OWN, "create the database users of sites")
        .needs(Api::MariaDb)
        .watched(&[Watch::OF_A_SITE]);
    /// k8s.mariadb.com Grant
    Grant => Row::new(|| foreign("k8s.mariadb.com", "v1alpha1", "Grant"), OWN, "grant privileges to these users")
        .needs(Api::MariaDb)
        .watched(&[Watch::OF_A_SITE]);
    /// k8s.mariadb.com MariaDB, made only for a site that has its own
    MariaDb => Row::new(|| foreign("k8s.mariadb.com", "v1alpha1", "MariaDB"), OWN,
            "use shared servers, and create dedicated ones")
        .needs(Api::MariaDb)
        .watched(&[Watch {
            narrowing: Narrowing::Everything,
            wakes: Wakes::SitesOfServer,
            awaited_by: &[Reader::Sites],
        }]);
    /// apiextensions.k8s.io/v1 CustomResourceDefinition, of which only the metadata is watched
    CustomResourceDefinition => Row {
        is_of_cluster: true,
        metadata_only: true,
        ..Row::new(|| ApiResource::erase::<CustomResourceDefinition>(&()), READ, "metadata only: detect optional APIs")
    }.watched(&[Watch {
        narrowing: Narrowing::Everything,
        wakes: Wakes::UsersOfApi,
        awaited_by: &[Reader::Replica, Reader::Benches],
    }]);
}

/// A kind that another operator defines.
fn foreign(group: &str, version: &str, kind: &str) -> ApiResource {
    let plural = format!("{}s", kind.to_lowercase());
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), &plural)
}

impl Kind {
    /// How the API server names the kind.
    pub fn resource(self) -> ApiResource {
        (self.row().resource)()
    }

    /// The name of its CustomResourceDefinition.
    pub fn definition(self) -> String {
        let resource = self.resource();
        format!("{}.{}", resource.plural, resource.group)
    }
}

impl Api {
    /// Its kinds.
    pub fn kinds(self) -> impl Iterator<Item = Kind> {
        Kind::ALL.iter().copied().filter(move |kind| kind.row().needs == Some(self))
    }

    /// Whether it exists in a cluster with these CustomResourceDefinitions.
    pub fn is_known_by(self, definitions: &BTreeSet<String>) -> bool {
        let of_kinds = || self.kinds().all(|kind| definitions.contains(&kind.definition()));
        match self.row().known_by {
            KnownBy::ItsKinds => of_kinds(),
            KnownBy::ItsKindsOr(other) => of_kinds() || definitions.contains(other),
            KnownBy::Definition(name) => definitions.contains(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn definitions_are_named_by_plural_and_group() {
        assert_eq!(Kind::MariaDb.definition(), "mariadbs.k8s.mariadb.com");
    }

    #[test]
    fn an_api_is_known_by_its_definitions() {
        let known = |names: &[&str]| {
            let names = names.iter().map(|it| (*it).to_owned()).collect();
            Api::ALL.iter().copied().filter(|api| api.is_known_by(&names)).collect::<Vec<_>>()
        };
        let sql = ["databases", "users", "grants", "mariadbs"].map(|it| format!("{it}.k8s.mariadb.com"));
        let sql: Vec<&str> = sql.iter().map(String::as_str).collect();
        assert_eq!(known(&sql), [Api::MariaDb]);
        assert_eq!(known(&sql[..3]), [], "one of its kinds is missing");
        assert_eq!(known(&["routes.route.openshift.io"]), [Api::Routes]);
        let constraints = "securitycontextconstraints.security.openshift.io";
        assert_eq!(known(&[constraints]), [Api::OpenShift, Api::Routes], "it serves Routes without a definition");
    }

    /// Who is woken when an API comes or goes is who reads its kinds; an object of a site or bench is awaited by those.
    #[test]
    fn the_columns_agree() {
        for kind in Kind::ALL {
            let row = kind.row();
            for watch in row.watches {
                let wanted = match watch.narrowing {
                    Narrowing::OfSites => Reader::Sites,
                    Narrowing::OfBenches => Reader::Benches,
                    _ => continue,
                };
                assert!(watch.awaited_by.contains(&wanted), "{kind:?}");
            }
            let readers = || row.watches.iter().flat_map(|watch| watch.awaited_by);
            if let Some(api) = row.needs {
                assert!(readers().all(|reader| *reader == api.row().reader), "{kind:?} is read by others than {api:?}");
            }
            assert!(row.watches.is_empty() || row.right.verbs.contains(&"watch"), "{kind:?} may not be watched");
        }
    }
}
