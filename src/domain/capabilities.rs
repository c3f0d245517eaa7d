//! Optional APIs: the table of those that a cluster may have beyond Kubernetes itself.
//!
//! Which kinds each of them has is in the table of [`super::kinds`].

use frappe_crds::FrappeBenchSpec;

/// How an optional API is known: by its CustomResourceDefinitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KnownBy {
    /// Those of all its kinds.
    ItsKinds,
    /// Those of all its kinds, or this one of the platform that serves them without definitions.
    ItsKindsOr(&'static str),
    /// This one: it has no kinds that this operator makes.
    Definition(&'static str),
}

/// Whose objects an API's kinds, or a watch's objects, are read for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reader {
    /// The sites of a slot, by its owner.
    Sites,
    /// The benches, by the coordinator.
    Benches,
    /// Every replica, before it owns anything.
    Replica,
}

/// Who misses an API that is absent.
#[derive(Clone, Copy, Debug)]
pub enum Missed {
    /// Most sites.
    Always,
    /// Benches with such a spec.
    By(fn(&FrappeBenchSpec) -> bool),
    /// No one: something else does as well.
    Never,
}

/// What is to be known of an optional API.
#[derive(Clone, Copy, Debug)]
pub struct ApiRow {
    /// What users call it.
    pub title: &'static str,
    /// How it is known that it exists.
    pub known_by: KnownBy,
    /// Who is reconciled otherwise where it exists: they are woken when it comes or goes.
    pub reader: Reader,
    /// What happens where it does not exist.
    pub without: &'static str,
    /// Whether `check` warns of that.
    pub missed: Missed,
    /// Its name in `render --with`, where a bench's objects depend on it.
    pub render: Option<&'static str>,
}

/// Declares the optional APIs: variant, field of [`Capabilities`] and row.
macro_rules! apis {
    ($($(#[$doc:meta])* $name:ident, $field:ident => $row:expr;)*) => {
        /// An API that a cluster may have.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Api {
            $($(#[$doc])* $name,)*
        }

        impl Api {
            /// Every optional API.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// What is to be known of it.
            pub fn row(self) -> &'static ApiRow {
                match self {
                    $(Self::$name => {
                        const ROW: ApiRow = $row;
                        &ROW
                    })*
                }
            }
        }

        /// Optional APIs that exist and, where this operator makes such objects, are synced. They come and go while it runs.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[allow(clippy::struct_excessive_bools, reason = "each is an API that exists or not")]
        pub struct Capabilities {
            $($(#[$doc])* pub $field: bool,)*
        }

        impl Capabilities {
            /// Those APIs that are offered.
            pub fn of(offered: impl Fn(Api) -> bool) -> Self {
                Self { $($field: offered(Api::$name)),* }
            }

            /// Whether an API is among them.
            pub fn has(self, api: Api) -> bool {
                match api {
                    $(Api::$name => self.$field),*
                }
            }
        }
    };
}

apis! {
    /// The MariaDB operator: `Database`, `User`, `Grant` and `MariaDB` of k8s.mariadb.com.
    MariaDb, mariadb => ApiRow {
        title: "MariaDB operator",
        known_by: KnownBy::ItsKinds,
        reader: Reader::Sites,
        without: "only sites with an existing database work (provider external or postgres)",
        missed: Missed::Always,
        render: None,
    };
    /// KEDA: `ScaledObject` and `TriggerAuthentication` of keda.sh.
    Keda, keda => ApiRow {
        title: "KEDA",
        known_by: KnownBy::ItsKinds,
        reader: Reader::Benches,
        without: "benches with workerAutoscaling run a fixed number of workers",
        missed: Missed::By(|bench| bench.worker_autoscaling.is_some()),
        render: Some("keda"),
    };
    /// The Gateway API: `HTTPRoute` of gateway.networking.k8s.io.
    Gateway, gateway => ApiRow {
        title: "Gateway API",
        known_by: KnownBy::ItsKinds,
        reader: Reader::Sites,
        without: "`httpRoute` of a site is ignored: its Ingress is used",
        missed: Missed::Never,
        render: None,
    };
    /// OpenShift: `SecurityContextConstraints` give pods their ids, so that none may be fixed.
    OpenShift, openshift => ApiRow {
        title: "OpenShift",
        known_by: KnownBy::Definition("securitycontextconstraints.security.openshift.io"),
        reader: Reader::Benches,
        without: "pods run with the uid of their images",
        missed: Missed::Never,
        render: Some("openshift"),
    };
    /// OpenShift's router: `Route` of route.openshift.io.
    Routes, routes => ApiRow {
        title: "OpenShift's Route",
        // OpenShift serves Routes without a definition; where there is one, it counts by itself.
        known_by: KnownBy::ItsKindsOr("securitycontextconstraints.security.openshift.io"),
        reader: Reader::Sites,
        without: "`routeConfig` of a site is ignored: its HTTPRoute or Ingress is used",
        missed: Missed::Never,
        render: None,
    };
    /// The Prometheus operator: `ServiceMonitor` of monitoring.coreos.com.
    Prometheus, service_monitors => ApiRow {
        title: "Prometheus operator",
        known_by: KnownBy::ItsKinds,
        reader: Reader::Benches,
        without: "`monitoring.enabled` of a bench has no effect",
        missed: Missed::Never,
        render: Some("service-monitor"),
    };
}
