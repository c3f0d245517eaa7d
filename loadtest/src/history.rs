//! The history check: did only a slot's owner write to its sites?
//!
//! No clocks are compared, because etcd numbers all writes. Every write to sites and their Jobs in the audit log (policy
//! `audit-history.yaml`), with its version and the pod that sent it, is joined with the history of the
//! slot map: at that version, the slot belonged to a member of that pod, or the write had no effect.

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
};

use jiff::Timestamp;
use kube_sharding::{SLOTS, Slot};
use serde_json::Value;

use crate::audit::{events, pod_of};

/// One version of the slot map.
pub struct MapVersion {
    /// Its resourceVersion.
    pub version: u64,
    /// When it was written.
    pub at: Timestamp,
    /// uid of the pod of each slot's owner, and last the coordinator's; empty if it is unowned.
    pub pods: Vec<String>,
}

/// One write that took effect.
pub struct Effect {
    /// Verb and resource.
    pub what: String,
    /// Namespace and name.
    pub object: String,
    /// The resourceVersion that it created.
    pub version: u64,
    /// uid of the pod that sent it.
    pub pod: String,
    /// The slot of the object.
    pub slot: Slot,
}

/// The history of a cluster.
#[derive(Default)]
pub struct History {
    /// Versions of the map, in order.
    pub maps: Vec<MapVersion>,
    /// Writes to sites and their Jobs, in order.
    pub effects: Vec<Effect>,
}

/// uid of the pod in a member's name or a user agent: `pod; uid)`.
fn uid_in_agent(event: &Value) -> String {
    let agent = event["userAgent"].as_str().unwrap_or_default();
    agent.rsplit_once("; ").map_or("", |(_, rest)| rest.trim_end_matches(')')).to_owned()
}

/// uid of the pod of each slot's owner in a slot map, and last the coordinator's; empty if it is unowned. None if it is no slot map.
pub fn owners(map: &Value) -> Option<Vec<String>> {
    let members: Vec<&str> = map["spec"]["members"].as_array()?.iter().filter_map(Value::as_str).collect();
    let pod = |index: &Value| {
        let member = usize::try_from(index.as_i64()?).ok().and_then(|it| members.get(it))?;
        Some(member.rsplit_once('_')?.0.to_owned())
    };
    Some(map["spec"]["owners"].as_array()?.iter().map(|it| pod(it).unwrap_or_default()).collect())
}

fn map_version(event: &Value) -> Option<MapVersion> {
    let object = &event["responseObject"];
    Some(MapVersion {
        version: object["metadata"]["resourceVersion"].as_str()?.parse().ok()?,
        at: event["stageTimestamp"].as_str()?.parse().ok()?,
        pods: owners(object)?,
    })
}

fn effect(event: &Value) -> Option<Effect> {
    let (object, reference) = (&event["responseObject"], &event["objectRef"]);
    let resource = reference["resource"].as_str()?;
    let slot = match resource {
        "frappesites" => Slot::of_uid(object["metadata"]["uid"].as_str()?),
        _ => Slot::new(object["metadata"]["labels"]["frappe.vyogo.tech/slot"].as_str()?.parse().ok()?),
    };
    Some(Effect {
        what: format!("{} {resource}", event["verb"].as_str()?),
        object: format!("{}/{}", reference["namespace"].as_str()?, object["metadata"]["name"].as_str()?),
        version: object["metadata"]["resourceVersion"].as_str()?.parse().ok()?,
        pod: uid_in_agent(event),
        slot,
    })
}

impl History {
    /// Reads the audit logs in a folder.
    pub fn read(folder: &Path) -> anyhow::Result<Self> {
        let mut history = Self::default();
        let mut seen: HashMap<String, u64> = HashMap::new();
        for event in events(folder)? {
            let event = event?;
            let ok = event["responseStatus"]["code"].as_i64().is_some_and(|code| (200..300).contains(&code));
            if !ok || ["get", "list", "watch"].contains(&event["verb"].as_str().unwrap_or_default()) {
                continue;
            }
            match event["objectRef"]["resource"].as_str() {
                Some("slotmaps") => history.maps.extend(map_version(&event)),
                Some("frappesites" | "jobs") => {
                    let Some(effect) = effect(&event) else { continue };
                    // A write that changed nothing returns the existing version.
                    let last = seen.insert(format!("{} {}", effect.what, effect.object), effect.version);
                    if !pod_of(&event).is_empty() && last != Some(effect.version) {
                        history.effects.push(effect);
                    }
                }
                _ => {}
            }
        }
        history.maps.sort_by_key(|map| map.version);
        history.effects.sort_by_key(|effect| effect.version);
        Ok(history)
    }

    /// Writes that took effect while their slot belonged to another pod, or was unowned.
    pub fn violations(&self) -> Vec<String> {
        let by_version: BTreeMap<u64, &MapVersion> = self.maps.iter().map(|map| (map.version, map)).collect();
        let owner = |effect: &Effect| {
            let (_, map) = by_version.range(..effect.version).next_back()?;
            map.pods.get(usize::from(effect.slot.number())).cloned()
        };
        let wrong = self.effects.iter().filter(|effect| owner(effect).as_ref() != Some(&effect.pod));
        wrong
            .map(|effect| {
                let owner = owner(effect).unwrap_or_default();
                format!(
                    "{} {} at {} by {} while {owner:?} owned it",
                    effect.what, effect.object, effect.version, effect.pod
                )
            })
            .collect()
    }

    /// Summary of the check; an error if a pod wrote to a site that it did not own.
    pub fn check(&self) -> anyhow::Result<String> {
        let violations = self.violations();
        let shown = format!(
            "{} writes to sites and their Jobs, {} versions of the map, {} writes by a non-owner that took effect",
            self.effects.len(),
            self.maps.len(),
            violations.len()
        );
        anyhow::ensure!(violations.is_empty(), "{shown}\n{}", violations.join("\n"));
        Ok(shown)
    }

    /// For each slot, the seconds from `since` until its owner was none of the pods in `gone`.
    pub fn unowned(&self, since: Timestamp, gone: &[String]) -> Vec<f64> {
        let Some(before) = self.maps.iter().rfind(|map| map.at <= since) else { return Vec::new() };
        let lost = before.pods.iter().take(SLOTS).enumerate().filter(|(_, pod)| gone.contains(pod));
        lost.filter_map(|(slot, _)| {
            let later = self.maps.iter().filter(|map| map.at > since);
            let taken = later.clone().find(|map| {
                let pod = &map.pods[slot];
                !pod.is_empty() && !gone.contains(pod)
            })?;
            Some(taken.at.duration_since(since).as_secs_f64())
        })
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(owners: &[(u64, &str)], writes: &[(u64, &str)]) -> History {
        let map = |(version, pod): &(u64, &str)| MapVersion {
            version: *version,
            at: Timestamp::from_second(i64::try_from(*version).unwrap()).unwrap(),
            pods: vec![(*pod).to_owned(); 257],
        };
        let write = |(version, pod): &(u64, &str)| Effect {
            what: "update frappesites".to_owned(),
            object: "a/b".to_owned(),
            version: *version,
            pod: (*pod).to_owned(),
            slot: Slot::new(3),
        };
        History { maps: owners.iter().map(map).collect(), effects: writes.iter().map(write).collect() }
    }

    #[test]
    fn a_write_after_the_loss_of_a_slot_is_found() {
        assert_eq!(history(&[(1, "a"), (10, "b")], &[(5, "a"), (11, "b")]).violations(), Vec::<String>::new());
        let found = history(&[(1, "a"), (10, "b")], &[(5, "a"), (11, "a"), (12, "b")]).violations();
        assert_eq!(found.len(), 1);
        assert!(found[0].contains("at 11 by a while \"b\" owned it"), "{found:?}");
    }

    #[test]
    fn slots_are_unowned_until_another_pod_has_them() {
        let history = history(&[(1, "a"), (10, ""), (17, "b")], &[]);
        let unowned = history.unowned(Timestamp::from_second(5).unwrap(), &["a".to_owned()]);
        assert_eq!((unowned.len(), unowned[0]), (256, 12.0));
    }
}
