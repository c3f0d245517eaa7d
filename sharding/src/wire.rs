//! How Leases and the slot map are stored in the API server. Pure.

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
    Incarnation, SLOTS,
    map::{Content, Holding, SlotMap},
    member::{Facts, LeaseRecord, Readiness, Version},
    timing::Timing,
};

/// Finalizer of the slot map, against a delete by mistake.
const FINALIZER: &str = "slot-map";

/// The names that a user of this crate chooses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    /// API group of the slot map's CustomResourceDefinition.
    pub group: String,
    /// Prefix of labels and annotations, without a slash.
    pub prefix: String,
    /// Namespace of Leases and slot map.
    pub namespace: String,
    /// Name of the slot map, and what the names of the Leases begin with.
    pub name: String,
}

impl Names {
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

    /// Name of the Lease of the coordinator's election: what people look at.
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

/// What is written into a Lease.
pub struct LeaseToWrite<'a> {
    /// Its name.
    pub name: &'a str,
    /// The version that is replaced; nothing to create it.
    pub on: Option<&'a Version>,
    /// Its holder; nobody to fence.
    pub holder: Option<&'a Incarnation>,
    /// Number of the attempt.
    pub attempt: u64,
    /// The incarnation that is dead.
    pub ended: Option<&'a Incarnation>,
    /// What it tells.
    pub facts: &'a Facts,
    /// When the holder took it: for people, no decision uses it.
    pub acquired: Timestamp,
    /// When it is written: for people, no decision uses it.
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

    /// Reads a Lease; nothing where it has no version.
    pub fn read_lease(&self, lease: &Lease) -> Option<LeaseRecord> {
        let spec = lease.spec.clone().unwrap_or_default();
        let note = |word: &str| lease.annotations().get(&self.key(word)).map_or("", String::as_str);
        Some(LeaseRecord {
            name: lease.name_any().into(),
            version: version(&lease.metadata)?,
            created_seconds: created(&lease.metadata),
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

/// The slot map's spec. Members are named once and referred to by index, so that it stays at a few kilobytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Stored {
    generation: u64,
    members: Vec<String>,
    /// For each slot in order, and last for the coordinator, the index of its owner; -1 where it is free.
    owners: Vec<i64>,
    /// Likewise the epochs.
    epochs: Vec<i64>,
}

impl Names {
    /// The slot map as the API server stores it, to replace `on`, or to be created.
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
        let stored = Stored { generation: content.generation, members, owners, epochs };
        let mut object = DynamicObject::new(&self.name, &self.map_resource()).within(&self.namespace);
        object.metadata.uid = on.map(|it| it.uid.to_string());
        object.metadata.resource_version = on.map(|it| it.number.to_string());
        object.metadata.finalizers = Some(vec![self.key(FINALIZER)]);
        object.data = json!({ "spec": stored });
        object
    }

    /// Reads a slot map; nothing where it is not one.
    pub fn read_map(&self, object: &DynamicObject) -> Option<SlotMap> {
        let stored = Stored::deserialize(object.data.get("spec")?).ok()?;
        let members: Vec<Option<Incarnation>> = stored.members.iter().map(|it| Incarnation::parse(it)).collect();
        let owner = |index: i64| members.get(usize::try_from(index).ok()?).cloned().flatten();
        let holdings = stored
            .owners
            .iter()
            .zip(&stored.epochs)
            .map(|(index, epoch)| Holding { owner: owner(*index), epoch: *epoch });
        Some(SlotMap {
            version: version(&object.metadata)?,
            created_seconds: created(&object.metadata),
            content: Content { generation: stored.generation, holdings: holdings.collect() },
        })
    }

    /// The slot map's CustomResourceDefinition.
    ///
    /// # Panics
    /// Never: what is written here is one.
    pub fn definition(&self) -> CustomResourceDefinition {
        let integers = |text: &str| {
            json!({"type": "array", "description": text, "minItems": SLOTS + 1, "maxItems": SLOTS + 1,
                   "items": {"type": "integer", "format": "int64"}})
        };
        let spec = json!({
            "type": "object",
            "required": ["generation", "members", "owners", "epochs"],
            "properties": {
                "generation": {"type": "integer", "format": "int64", "minimum": 0, "description": "Number of changes so far."},
                "members": {"type": "array", "maxItems": 1024, "items": {"type": "string", "maxLength": 128},
                            "description": "Owners: uid of the pod, an underscore, a nonce of the process."},
                "owners": integers("Owner of each of the 256 slots and last the coordinator, as an index into members; -1 where it is free."),
                "epochs": integers("Likewise the epochs, which rise with every owner."),
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn names() -> Names {
        let text = str::to_owned;
        Names {
            group: text("example.com"),
            prefix: text("example.com"),
            namespace: text("system"),
            name: text("fleet"),
        }
    }

    proptest! {
        #[test]
        fn a_map_is_read_as_it_was_written(owners in proptest::collection::vec(proptest::option::of(0..40u8), 257), generation in 0..1_000_000u64) {
            let owner = |index: u8| Incarnation::new(&format!("9f{index:034}"), "abcdefgh");
            let holdings = owners.iter().enumerate().map(|(epoch, it)| Holding { owner: it.map(owner), epoch: i64::try_from(epoch).unwrap() });
            let content = Content { generation, holdings: holdings.collect() };
            let on = Version { uid: "u".into(), number: 7 };
            let object = names().render_map(Some(&on), &content);
            let read = names().read_map(&object).unwrap();
            prop_assert_eq!(&read.content, &content);
            prop_assert_eq!(read.version, on);
            prop_assert!(serde_json::to_string(&object).unwrap().len() < 10_000);
        }
    }

    #[test]
    fn a_lease_is_read_as_it_was_written() {
        let facts =
            Facts { readiness: Readiness::Ready, template: "5d4".into(), generation: 12, handovers: 3, objects: 400 };
        let (me, former) = (Incarnation::new("pod", "1"), Incarnation::new("old", "9"));
        let on = Version { uid: "u".into(), number: 42 };
        let written = names().render_lease(
            &LeaseToWrite {
                name: "fleet-a",
                on: Some(&on),
                holder: Some(&me),
                attempt: 8,
                ended: Some(&former),
                facts: &facts,
                acquired: Timestamp::UNIX_EPOCH,
                renewed: Timestamp::UNIX_EPOCH,
            },
            &Timing::default(),
        );
        let read = names().read_lease(&written).unwrap();
        assert_eq!(
            (read.holder, read.attempt, read.ended, read.facts, read.version),
            (Some(me), 8, Some(former), facts, on)
        );
    }
}
