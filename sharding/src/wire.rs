//! Storage format of Leases and the slot map in the API server. Pure.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
    apimachinery::pkg::apis::meta::v1::MicroTime,
};
use kube::{
    ResourceExt,
    api::ObjectMeta,
    core::{ApiResource, DynamicObject, GroupVersionKind},
};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{
    map::{Content, Correction, Entry, Holding, NUMBER_MAX, SlotMap},
    member::{Facts, Incarnation, LeaseRecord, Readiness, Version},
    slot::SLOTS,
    timing::Timing,
};

/// Finalizer of the slot map, which prevents an accidental deletion.
const FINALIZER: &str = "slot-map";

/// Names chosen by the user of this crate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    /// API group of the slot map's CustomResourceDefinition.
    pub group: String,
    /// Prefix of labels and annotations, without a slash.
    pub prefix: String,
    /// Namespace of Leases and slot map.
    pub namespace: String,
    /// Name of the slot map, and prefix of the Leases' names.
    pub name: String,
}

impl Names {
    /// Names of a controller whose labels are prefixed with its API group.
    pub fn new(group: impl Into<String>, namespace: impl Into<String>, name: impl Into<String>) -> Self {
        let group = group.into();
        Self { prefix: group.clone(), group, namespace: namespace.into(), name: name.into() }
    }

    /// Label of objects with their slot, as three digits.
    pub fn slot_label(&self) -> String {
        format!("{}/slot", self.prefix)
    }

    /// Selector of the members' Leases.
    pub fn lease_selector(&self) -> String {
        format!("{}/member={}", self.prefix, self.name)
    }

    /// Name of the Lease of the member in this pod.
    pub fn lease(&self, pod: &str) -> String {
        format!("{}-{pod}", self.name)
    }

    /// The pod of a Lease's name.
    pub fn pod<'a>(&self, lease: &'a str) -> &'a str {
        lease.strip_prefix(&self.name).and_then(|it| it.strip_prefix('-')).unwrap_or(lease)
    }

    /// Name of the Lease of the coordinator's election.
    pub fn coordinator_lease(&self) -> String {
        format!("{}-coordinator", self.name)
    }

    /// The slot map's kind.
    pub fn map_resource(&self) -> ApiResource {
        let kind = GroupVersionKind::gvk(&self.group, "v1alpha1", "SlotMap");
        ApiResource::from_gvk_with_plural(&kind, "slotmaps")
    }

    fn key(&self, word: &str) -> String {
        format!("{}/{word}", self.prefix)
    }
}

/// Error of invalid names.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidName {
    /// Not a DNS name.
    #[error("{what} {value:?} is not {form} of at most {most} bytes")]
    Form {
        /// Which name it is.
        what: &'static str,
        /// The name.
        value: String,
        /// Required form.
        form: &'static str,
        /// Maximum bytes.
        most: usize,
    },
    /// The member's Lease would be that of the coordinator's election.
    #[error("a member cannot be called {0:?}: its Lease would be that of the coordinator's election")]
    Coordinator(String),
}

fn is_label(name: &str) -> bool {
    let inner = |it: u8| it.is_ascii_lowercase() || it.is_ascii_digit() || it == b'-';
    let edges = !name.starts_with('-') && !name.ends_with('-');
    !name.is_empty() && name.len() <= 63 && edges && name.bytes().all(inner)
}

fn check_label(what: &'static str, name: &str) -> Result<(), InvalidName> {
    let invalid = || InvalidName::Form {
        what,
        value: name.to_owned(),
        form: "a DNS label (lower-case letters, digits, '-')",
        most: 63,
    };
    is_label(name).then_some(()).ok_or_else(invalid)
}

fn check_subdomain(what: &'static str, name: &str, most: usize) -> Result<(), InvalidName> {
    let invalid = || InvalidName::Form {
        what,
        value: name.to_owned(),
        form: "a DNS subdomain (DNS labels with '.' between)",
        most,
    };
    (name.len() <= most && name.split('.').all(is_label)).then_some(()).ok_or_else(invalid)
}

impl Names {
    /// Whether the API server accepts objects with these names from the member named `member`.
    pub fn check(&self, member: &str) -> Result<(), InvalidName> {
        // The definition is called slotmaps.GROUP, the name is a label's value as well.
        check_subdomain("the group", &self.group, 253 - "slotmaps.".len())?;
        check_subdomain("the prefix of labels", &self.prefix, 253)?;
        check_label("the namespace", &self.namespace)?;
        check_label("the name of the slot map", &self.name)?;
        check_subdomain("the member's name", member, 253 - 1 - self.name.len())?;
        if self.lease(member) == self.coordinator_lease() {
            return Err(InvalidName::Coordinator(member.to_owned()));
        }
        Ok(())
    }
}

/// Content of a Lease to write.
pub struct LeaseToWrite<'a> {
    /// Its name.
    pub name: &'a str,
    /// The version to replace; None to create it.
    pub on: Option<&'a Version>,
    /// Its holder; None to fence.
    pub holder: Option<&'a Incarnation>,
    /// Number of the attempt.
    pub attempt: u64,
    /// The dead incarnation.
    pub ended: Option<&'a Incarnation>,
    /// Report of the member.
    pub facts: &'a Facts,
    /// When the holder acquired it; only informative.
    pub acquired: Timestamp,
    /// When it is written; only informative.
    pub renewed: Timestamp,
}

impl Names {
    /// A Lease as the API server stores it.
    pub fn render_lease(&self, lease: &LeaseToWrite<'_>, timing: &Timing) -> Lease {
        let facts = lease.facts;
        let mut annotations: BTreeMap<String, String> = [
            ("attempt", lease.attempt.to_string()),
            ("readiness", facts.readiness.word().to_owned()),
            ("template", facts.template.clone()),
            ("generation", facts.generation.to_string()),
            ("handovers", facts.handovers.to_string()),
            ("objects", facts.objects.to_string()),
        ]
        .map(|(word, value)| (self.key(word), value))
        .into();
        annotations.extend(lease.ended.map(|it| (self.key("ended"), it.to_string())));
        Lease {
            metadata: ObjectMeta {
                name: Some(lease.name.to_owned()),
                namespace: Some(self.namespace.clone()),
                uid: lease.on.map(|it| it.uid.to_string()),
                resource_version: lease.on.map(|it| it.number.to_string()),
                labels: Some([(self.key("member"), self.name.clone())].into()),
                annotations: Some(annotations),
                ..ObjectMeta::default()
            },
            spec: Some(LeaseSpec {
                holder_identity: Some(lease.holder.map(ToString::to_string).unwrap_or_default()),
                lease_duration_seconds: i32::try_from(timing.lease_duration.as_secs().max(1)).ok(),
                acquire_time: Some(MicroTime(lease.acquired)),
                renew_time: Some(MicroTime(lease.renewed)),
                ..LeaseSpec::default()
            }),
        }
    }

    /// Parses a Lease; None if it has no version.
    pub fn read_lease(&self, lease: &Lease) -> Option<LeaseRecord> {
        let spec = lease.spec.clone().unwrap_or_default();
        let note = |word: &str| lease.annotations().get(&self.key(word)).map_or("", String::as_str);
        Some(LeaseRecord {
            name: lease.name_any().into(),
            version: version(&lease.metadata)?,
            created_seconds: created(&lease.metadata),
            duration_seconds: spec.lease_duration_seconds.and_then(|it| u32::try_from(it).ok()).unwrap_or(0),
            holder: spec.holder_identity.as_deref().and_then(Incarnation::parse),
            attempt: note("attempt").parse().unwrap_or(0),
            ended: Incarnation::parse(note("ended")),
            facts: Facts {
                readiness: Readiness::parse(note("readiness")),
                template: note("template").to_owned(),
                generation: note("generation").parse().unwrap_or(0),
                handovers: note("handovers").parse().unwrap_or(0),
                objects: note("objects").parse().unwrap_or(0),
            },
        })
    }
}

fn version(metadata: &ObjectMeta) -> Option<Version> {
    let number = metadata.resource_version.as_deref()?.parse().ok()?;
    Some(Version { uid: metadata.uid.as_deref()?.into(), number })
}

fn created(metadata: &ObjectMeta) -> i64 {
    metadata.creation_timestamp.as_ref().map_or(0, |it| it.0.as_second())
}

/// Maximum number of members in a map, and maximum length of a name: an [`Incarnation`]'s.
const MEMBERS_MAX: usize = 1024;

/// The slot map's spec. Members are listed once and referenced by index, so that it has only a few kilobytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Stored {
    generation: i64,
    members: Vec<String>,
    /// For each slot in order, and last for the coordinator, the index of its owner; -1 if there is none.
    owners: Vec<i64>,
    /// Epoch of each slot and of the coordinator.
    epochs: Vec<i64>,
}

impl Names {
    /// The slot map as stored in the API server, to replace `on` or to be created.
    pub fn render_map(&self, on: Option<&Version>, content: &Content) -> DynamicObject {
        let mut members: Vec<String> = Vec::new();
        let mut index_of = |owner: &Incarnation| {
            let found = members.iter().position(|it| *it == owner.as_str());
            found.unwrap_or_else(|| {
                members.push(owner.to_string());
                members.len() - 1
            })
        };
        let owners = content
            .holdings
            .iter()
            .map(|it| it.owner.as_ref().map_or(-1, |owner| i64::try_from(index_of(owner)).unwrap_or(-1)))
            .collect();
        let epochs = content.holdings.iter().map(|it| it.epoch).collect();
        let generation = i64::try_from(content.generation).unwrap_or(NUMBER_MAX).min(NUMBER_MAX);
        let stored = Stored { generation, members, owners, epochs };
        let mut object = DynamicObject::new(&self.name, &self.map_resource()).within(&self.namespace);
        object.metadata.uid = on.map(|it| it.uid.to_string());
        object.metadata.resource_version = on.map(|it| it.number.to_string());
        object.metadata.finalizers = Some(vec![self.key(FINALIZER)]);
        object.data = json!({ "spec": stored });
        object
    }

    /// Parses a slot map; None if it has no version.
    ///
    /// A user may have edited it. Invalid entries are read as unowned, so that the next change of the map corrects them;
    /// [`Names::corrections`] lists them.
    pub fn read_map(&self, object: &DynamicObject) -> Option<SlotMap> {
        let (content, _) = read_content(object);
        Some(SlotMap { version: version(&object.metadata)?, created_seconds: created(&object.metadata), content })
    }

    /// Invalid entries of a stored map, which are corrected on read.
    pub fn corrections(&self, object: &DynamicObject) -> Vec<Correction> {
        read_content(object).1
    }

    /// The slot map's CustomResourceDefinition.
    ///
    /// # Panics
    /// Never: the definition is fixed at compile time.
    pub fn definition(&self) -> CustomResourceDefinition {
        let integers = |text: &str, least: i64, most: i64| {
            json!({"type": "array", "description": text, "minItems": SLOTS + 1, "maxItems": SLOTS + 1,
                   "items": {"type": "integer", "format": "int64", "minimum": least, "maximum": most}})
        };
        let members_max = i64::try_from(MEMBERS_MAX).unwrap_or(i64::MAX);
        let spec = json!({
            "type": "object",
            "required": ["generation", "members", "owners", "epochs"],
            "properties": {
                "generation": {"type": "integer", "format": "int64", "minimum": 0, "maximum": NUMBER_MAX,
                               "description": "Number of changes of this slot map."},
                "members": {"type": "array", "maxItems": MEMBERS_MAX,
                            "items": {"type": "string", "maxLength": Incarnation::LENGTH_MAX},
                            "description": "Owners: UID of the pod, an underscore, and a nonce of the process."},
                "owners": integers("Owner of each of the 256 slots and last the coordinator, as an index into members; -1 if there is none.",
                                   -1, members_max - 1),
                "epochs": integers("Epoch of each slot and last the coordinator: rises with every owner; 0 if there was none yet.", 0, NUMBER_MAX),
            }
        });
        let column = |name: &str, path: &str, kind: &str| json!({"name": name, "type": kind, "jsonPath": path});
        serde_json::from_value(json!({
            "metadata": {"name": format!("slotmaps.{}", self.group)},
            "spec": {
                "group": self.group,
                "names": {"kind": "SlotMap", "listKind": "SlotMapList", "plural": "slotmaps", "singular": "slotmap"},
                "scope": "Namespaced",
                "versions": [{
                    "name": "v1alpha1", "served": true, "storage": true,
                    "additionalPrinterColumns": [column("Generation", ".spec.generation", "integer"),
                                                 column("Members", ".spec.members", "string")],
                    "schema": {"openAPIV3Schema": {
                        "type": "object", "required": ["spec"], "properties": {"spec": spec},
                        "description": "Who owns which slot. Written by the members only; do not edit or delete it.",
                    }},
                }],
            },
        }))
        .expect("what is written here is a CustomResourceDefinition")
    }
}

/// The parsed map, and its invalid entries.
fn read_content(object: &DynamicObject) -> (Content, Vec<Correction>) {
    let entries = SLOTS + 1;
    let Some(stored) = object.data.get("spec").and_then(|spec| Stored::deserialize(spec).ok()) else {
        return (Content::free(Entry::COORDINATOR.0), vec![Correction::Unreadable]);
    };
    let mut corrections = Vec::new();
    let generation = stored.generation.clamp(0, NUMBER_MAX);
    if generation != stored.generation {
        corrections.push(Correction::Generation(stored.generation));
    }
    for length in [stored.owners.len(), stored.epochs.len()] {
        if length != entries {
            corrections.push(Correction::Length(length));
        }
    }
    let members: Vec<Option<Incarnation>> = stored.members.iter().map(|it| Incarnation::parse(it)).collect();
    let owner = |index: i64| members.get(usize::try_from(index).ok()?).cloned().flatten();
    let mut holdings = Vec::with_capacity(entries);
    for (entry, (index, epoch)) in (0..=Entry::COORDINATOR.0).map(Entry).zip(stored.owners.iter().zip(&stored.epochs)) {
        let holding = Holding { owner: owner(*index), epoch: *epoch };
        if holding.owner.is_none() && *index != -1 {
            corrections.push(Correction::Owner(entry));
        }
        holdings.push(holding);
    }
    holdings.resize(entries, Holding::default());
    let mut content = Content { generation: generation.unsigned_abs(), holdings };
    corrections.extend(content.correct_epochs());
    (content, corrections)
}
