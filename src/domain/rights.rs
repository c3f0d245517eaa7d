//! What the operator may do: what follows from the table of kinds, and what it does with kinds beside it. Pure.

use super::{
    kinds::Kind,
    watches::{READ, Right},
};

/// Secret in the operator's own namespace with the key of the hashes of contents.
pub const HASH_KEY: &str = "frappe-operator-hash-key";

/// Where something may be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// With what the cluster has one collection of.
    Cluster,
    /// In every watched namespace.
    Namespaces,
    /// In the operator's own namespace.
    Own,
}

/// Something that may be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Where.
    pub place: Place,
    /// API group.
    pub group: String,
    /// Resource, with a slash before a subresource.
    pub resource: String,
    /// The only objects, by name; all if empty.
    pub names: &'static [&'static str],
    /// Verbs.
    pub verbs: &'static [&'static str],
    /// What for.
    pub why: &'static str,
}

/// A resource, or a part of it, as Kubernetes names it in rules.
fn named(plural: &str, right: &Right) -> String {
    if right.subresource.is_empty() { plural.to_owned() } else { format!("{plural}/{}", right.subresource) }
}

/// A rule as Kubernetes writes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// API groups.
    pub api_groups: Vec<String>,
    /// Resources, with a slash before a subresource.
    pub resources: Vec<String>,
    /// The only objects, by name; all if empty.
    pub resource_names: Vec<String>,
    /// Verbs.
    pub verbs: Vec<String>,
}

/// Every right that the operator needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rights {
    /// Of what the cluster has one collection of.
    pub cluster: Vec<Rule>,
    /// In every watched namespace.
    pub namespaces: Vec<Rule>,
    /// In the operator's own namespace.
    pub own: Vec<Rule>,
}

/// What is done with kinds that the table does not have: place, API group, resource, verbs, what for.
const BESIDE: [(Place, &str, &str, &[&str], &str); 6] = [
    (Place::Cluster, "storage.k8s.io", "storageclasses", &["get", "list"], "check whether a volume can be expanded"),
    (
        Place::Namespaces,
        "events.k8s.io",
        "events",
        &["create", "patch"],
        "Events of benches, sites, SiteBackups and SiteJobs",
    ),
    (
        Place::Own,
        "coordination.k8s.io",
        "leases",
        &["get", "list", "watch", "create", "update", "patch", "delete"],
        "Leases of the replicas and of the coordinator's election",
    ),
    (
        Place::Own,
        "vyogo.tech",
        "slotmaps",
        &["get", "list", "watch", "create", "update"],
        "the slot map: which replica owns which sites",
    ),
    (Place::Own, "", "configmaps", READ, "the operator's settings"),
    (Place::Own, "events.k8s.io", "events", &["create", "patch"], "Events of replicas and of the ConfigMap"),
];

/// All that the operator may do, in the order of the table.
pub fn grants() -> Vec<Grant> {
    let of_kind = |kind: &Kind| {
        let (row, resource) = (kind.row(), kind.resource());
        let place = if row.is_of_cluster { Place::Cluster } else { Place::Namespaces };
        let rights = std::iter::once(&row.right).chain(row.parts);
        let grant = |right: &Right| Grant {
            place,
            group: resource.group.clone(),
            resource: named(&resource.plural, right),
            names: &[],
            verbs: right.verbs,
            why: right.why,
        };
        rights.map(grant).collect::<Vec<_>>()
    };
    let beside = BESIDE.iter().map(|(place, group, resource, verbs, why)| Grant {
        place: *place,
        group: (*group).to_owned(),
        resource: (*resource).to_owned(),
        names: &[],
        verbs,
        why,
    });
    let hash_key = Grant {
        place: Place::Own,
        group: String::new(),
        resource: "secrets".to_owned(),
        names: &[HASH_KEY],
        verbs: &["get", "patch"],
        why: "the key of the hashes by which a changed content of a Secret is recognized; patch creates it, once",
    };
    Kind::ALL.iter().flat_map(of_kind).chain(beside).chain([hash_key]).collect()
}

impl Rights {
    /// Those that the operator needs.
    pub fn needed() -> Self {
        let grants = grants();
        let of = |place: Place| rules(grants.iter().filter(|it| it.place == place));
        Self { cluster: of(Place::Cluster), namespaces: of(Place::Namespaces), own: of(Place::Own) }
    }
}

/// One rule for all resources of a group with the same verbs.
fn rules<'a>(grants: impl Iterator<Item = &'a Grant>) -> Vec<Rule> {
    let mut rules: Vec<Rule> = Vec::new();
    for grant in grants {
        match rules.iter_mut().find(|rule| {
            rule.api_groups == [grant.group.as_str()] && rule.verbs == grant.verbs && rule.resource_names == grant.names
        }) {
            Some(rule) => rule.resources.push(grant.resource.clone()),
            None => rules.push(Rule {
                api_groups: vec![grant.group.clone()],
                resources: vec![grant.resource.clone()],
                resource_names: grant.names.iter().map(|it| (*it).to_owned()).collect(),
                verbs: grant.verbs.iter().map(|it| (*it).to_owned()).collect(),
            }),
        }
    }
    rules
}

/// What the operator writes of the kinds of the table: API groups, with resources and their statuses.
pub fn written() -> Vec<(String, Vec<String>)> {
    let mut groups: Vec<(String, Vec<String>)> = Vec::new();
    let writes = |right: &Right| right.verbs.iter().any(|verb| ["create", "update", "patch", "delete"].contains(verb));
    for kind in Kind::ALL {
        let (row, resource) = (kind.row(), kind.resource());
        // Other parts are asked for in the request that writes the object.
        let stored = row.parts.iter().filter(|part| part.subresource == "status");
        let rights = std::iter::once(&row.right).chain(stored).filter(|right| writes(right));
        let names: Vec<String> = rights.map(|right| named(&resource.plural, right)).collect();
        match groups.iter_mut().find(|(group, _)| *group == resource.group) {
            Some((_, resources)) => resources.extend(names),
            None if names.is_empty() => {}
            None => groups.push((resource.group, names)),
        }
    }
    groups
}
