//! The columns of the table of kinds ([`super::kinds`]): what is watched, for whom, and what may be done.

use kube::core::ApiResource;

use super::capabilities::{Api, Reader};

/// Which objects of a kind one watch shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Narrowing {
    /// Those of the slots that this replica holds: by the slot's label, sites by the hash of their uid where the server
    /// can.
    Slots,
    /// Objects of the sites that this replica knows, by the slot's label: it begins when the sites are listed.
    OfSites,
    /// Those that have no slot's label yet.
    Unlabelled,
    /// Objects of benches, by this operator's label and without a slot's: for the coordinator alone.
    OfBenches,
    /// Those with the label of Secrets that a bench or a site reads.
    Marked,
    /// All of them.
    Everything,
    /// The metadata of a single one, by its name, once someone asks for it.
    Named,
    /// The operator's ConfigMap.
    Settings,
}

impl Narrowing {
    /// Whether it follows the slots that this replica holds.
    pub fn is_by_slot(self) -> bool {
        matches!(self, Self::Slots | Self::OfSites)
    }
}

/// Whom a change of an object wakes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wakes {
    /// The site itself; where it goes, its SiteBackups, and its bench if that is being deleted.
    Site,
    /// The bench itself, and its sites where it matters to them.
    Bench,
    /// The site that it belongs to.
    ItsSite,
    /// The bench that it belongs to.
    ItsBench,
    /// The bench that it belongs to, where it is a pod that cannot run.
    BenchInTrouble,
    /// The SiteBackups of the site that it names.
    Backups,
    /// The site that holds the host; where it goes, those that want the host.
    SitesOfHost,
    /// The sites in the namespace, or of benches in it, where its labels changed or it is being deleted.
    SitesOfNamespace,
    /// The site that it belongs to; where it belongs to none, every site.
    SitesOfServer,
    /// The benches, sites and SiteBackups that name it.
    WhoNamesIt,
    /// The sites, or the benches, that an optional API concerns.
    WhoUsesTheApi,
    /// Every bench.
    Benches,
    /// Whom a setting in it concerns.
    WhoUsesTheSetting,
}

/// One watch of a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watch {
    /// Which objects it shows.
    pub narrowing: Narrowing,
    /// Whom a change of one wakes.
    pub wakes: Wakes,
    /// Who is not reconciled, or what does not begin, before its first list is in.
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

/// What the operator may do with a kind, or with a part of its objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Right {
    /// The part; the object itself if empty.
    pub subresource: &'static str,
    /// Verbs of Kubernetes.
    pub verbs: &'static [&'static str],
    /// What for.
    pub why: &'static str,
}

/// To look at what others make.
pub const READ: &[&str] = &["list", "watch"];
/// To make and change; who owns it deletes it. (A server-side apply of a new object is a create and a patch.)
pub const MAKE: &[&str] = &["list", "watch", "create", "patch"];
/// To make, change and delete.
pub const OWN: &[&str] = &["list", "watch", "create", "patch", "delete"];
/// The same, and to read single ones.
pub const OWN_AND_GET: &[&str] = &["get", "list", "watch", "create", "patch", "delete"];

/// What is to be known of a kind.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// How the API server names it.
    pub resource: fn() -> ApiResource,
    /// Whether the cluster has one collection of it, in no namespace.
    pub is_of_cluster: bool,
    /// Whether its watches transfer metadata alone.
    pub metadata_only: bool,
    /// The API that must exist; where it does not, the kind is not watched and nothing of it is made.
    pub needs: Option<Api>,
    /// What is watched of it.
    pub watches: &'static [Watch],
    /// What the operator may do with its objects.
    pub right: Right,
    /// What it may do with parts of them.
    pub parts: &'static [Right],
}

impl Row {
    /// A kind with objects in namespaces, with what may be done with them and what for.
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

    /// One that some clusters do not have.
    pub const fn needs(self, api: Api) -> Self {
        Self { needs: Some(api), ..self }
    }

    /// What is watched of it.
    pub const fn watched(self, watches: &'static [Watch]) -> Self {
        Self { watches, ..self }
    }
}
