//! Columns of the table of kinds ([`super::kinds`]): watches, triggered reconciles, permissions.

use kube::core::ApiResource;

use super::capabilities::{Api, Reader};

/// Objects of a kind that a watch selects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Narrowing {
    /// Objects of the slots that this replica owns: by the slot label; sites by the hash of their uid if the API server
    /// supports it.
    Slots,
    /// Objects of the sites that this replica knows, by the slot label; it starts when the sites are listed.
    OfSites,
    /// Objects without a slot label.
    Unlabelled,
    /// Objects of benches, by this operator's label and without a slot label; only by the coordinator.
    OfBenches,
    /// Secrets with the label that a bench or site references them.
    Marked,
    /// All objects.
    Everything,
    /// The metadata of single objects, by name, from their first use on.
    Named,
    /// The operator's ConfigMap.
    Settings,
}

impl Narrowing {
    /// Whether it depends on the slots that this replica owns.
    pub fn is_by_slot(self) -> bool {
        matches!(self, Self::Slots | Self::OfSites)
    }
}

/// Reconciles that a change of an object triggers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wakes {
    /// The site; after its deletion, its SiteBackups and SiteJobs, and its bench if that is being deleted.
    Site,
    /// The bench, and its sites if the change affects them.
    Bench,
    /// The site that it belongs to.
    ItsSite,
    /// The bench that it belongs to.
    ItsBench,
    /// The bench that it belongs to, if it is a pod that cannot run.
    BenchOfFailingPod,
    /// The objects of its kind of its site: SiteBackups or SiteJobs.
    Companions,
    /// The site that has claimed the host; after a deletion, the sites that want the host.
    SitesOfHost,
    /// The sites in the namespace or on its benches, if its labels changed or it is being deleted.
    SitesOfNamespace,
    /// The site that it belongs to; if none, every site.
    SitesOfServer,
    /// The benches, sites and SiteBackups that reference it.
    Referrers,
    /// The sites or benches that use an optional API.
    UsersOfApi,
    /// Every bench.
    Benches,
    /// The benches and sites that the changed settings affect.
    UsersOfSetting,
}

/// One watch of a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watch {
    /// Selected objects.
    pub narrowing: Narrowing,
    /// Reconciles that a change triggers.
    pub wakes: Wakes,
    /// Reconciles that wait for its first list.
    pub awaited_by: &'static [Reader],
}

impl Watch {
    /// A site's objects.
    pub const OF_A_SITE: Self =
        Self { narrowing: Narrowing::OfSites, wakes: Wakes::ItsSite, awaited_by: &[Reader::Sites] };
    /// A bench's objects.
    pub const OF_A_BENCH: Self =
        Self { narrowing: Narrowing::OfBenches, wakes: Wakes::ItsBench, awaited_by: &[Reader::Benches] };
}

/// Permission for a kind or a subresource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Right {
    /// Subresource; empty for the object itself.
    pub subresource: &'static str,
    /// Verbs.
    pub verbs: &'static [&'static str],
    /// Purpose.
    pub why: &'static str,
}

/// Verbs for objects of other owners.
pub const READ: &[&str] = &["list", "watch"];
/// Verbs to create and change; deleted by the garbage collector. (Server-side apply of a new object needs create and patch.)
pub const MAKE: &[&str] = &["list", "watch", "create", "patch"];
/// Verbs to create, change and delete.
pub const OWN: &[&str] = &["list", "watch", "create", "patch", "delete"];
/// The same, and get.
pub const OWN_AND_GET: &[&str] = &["get", "list", "watch", "create", "patch", "delete"];

/// Row of the table of kinds.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// API resource.
    pub resource: fn() -> ApiResource,
    /// Whether it is cluster-scoped.
    pub is_of_cluster: bool,
    /// Whether only its metadata is watched.
    pub metadata_only: bool,
    /// Optional API that it needs; without it, the kind is not watched and no objects are created.
    pub needs: Option<Api>,
    /// Its watches.
    pub watches: &'static [Watch],
    /// Permission for its objects.
    pub right: Right,
    /// Permissions for its subresources.
    pub parts: &'static [Right],
}

impl Row {
    /// Row of a namespaced kind, with permission and purpose.
    pub const fn new(resource: fn() -> ApiResource, verbs: &'static [&'static str], why: &'static str) -> Self {
        Self {
            resource,
            is_of_cluster: false,
            metadata_only: false,
            needs: None,
            watches: &[],
            right: Right { subresource: "", verbs, why },
            parts: &[],
        }
    }

    /// The row with a required optional API.
    pub const fn needs(self, api: Api) -> Self {
        Self { needs: Some(api), ..self }
    }

    /// The row with its watches.
    pub const fn watched(self, watches: &'static [Watch]) -> Self {
        Self { watches, ..self }
    }
}
