//! Evaluation of a run's audit log: who owned which slot at which time, who wrote what, and when each edit was observed.
//!
//! It shares no code with the operator: the slot of a uid and the format of the map are implemented again, and versions and times
//! are the server's. Writes are joined with the map by resourceVersion, since one store numbers both.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    path::Path,
};

use jiff::Timestamp;
use serde_json::Value;

use crate::audit::events;

/// Number of slots; the coordinator's entry follows them.
const SLOTS: usize = 256;

/// Top 8 bits of the 64-bit FNV-1a hash.
fn slot_of(uid: &str) -> usize {
    let hash = uid
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    usize::try_from(hash >> 56).unwrap_or(0)
}

/// The map at one version.
#[derive(Clone, Debug)]
pub struct Map {
    /// Its resourceVersion.
    pub version: u64,
    /// When it was written.
    pub at: Timestamp,
    /// Its uid.
    pub uid: String,
    /// Its generation.
    pub generation: i64,
    /// Owner of each slot in the map; empty if it is unowned.
    pub owners: Vec<String>,
    epochs: Vec<i64>,
    /// Whether a user wrote it.
    pub by_person: bool,
}

/// A write of a member that changed an object.
#[derive(Clone, Debug)]
struct Effect {
    what: String,
    version: u64,
    at: Timestamp,
    pod: String,
    slot: usize,
}

/// An edit of a site by a user.
#[derive(Clone, Debug)]
pub struct Edit {
    /// The site.
    pub site: String,
    /// Its slot.
    pub slot: usize,
    /// The site's generation after it.
    pub generation: i64,
    /// When it was completed.
    pub at: Timestamp,
    /// When the status observed it.
    pub observed: Option<Timestamp>,
    /// Whether it created the site.
    pub creates: bool,
    /// Whether the site was deleted at that time or later.
    pub gone: bool,
}

/// The state of one site.
#[derive(Default)]
struct Site {
    name: String,
    /// Newest generation by a user.
    generation: i64,
    observed: Vec<(i64, Timestamp)>,
    gone: bool,
}

/// Contents of the log.
#[derive(Default)]
pub struct Findings {
    /// Versions of the map, in order.
    pub maps: Vec<Map>,
    /// Edits of sites, in order.
    pub edits: Vec<Edit>,
    /// Number of sites that users created.
    pub made: usize,
    /// Number of sites that users deleted.
    pub deleted: usize,
    /// Number of created Jobs.
    pub jobs: usize,
    /// Jobs that were created twice.
    pub jobs_twice: Vec<String>,
    /// Error responses to members, by code and resource.
    pub refused: BTreeMap<(i64, String), usize>,
    effects: Vec<Effect>,
}

/// Writes of members, compared with the owners in the map.
#[derive(Debug, Default)]
pub struct Verdict {
    /// Number of writes that changed an object.
    pub writes: usize,
    /// Writes by a member that was not the owner at that version.
    pub violations: Vec<String>,
    /// Writes by an owner whose slot a user had just removed.
    pub after_hand: Vec<String>,
    /// Writes while a version of the map is missing in the log, because the API server was killed before it logged it.
    pub undecided: usize,
    /// Changes of an owner without a higher epoch.
    pub epochs: Vec<String>,
    /// Changes of an owner without a higher epoch, after a user had changed the epoch.
    pub epochs_after_hand: usize,
}

fn pod_of(event: &Value) -> Option<String> {
    let agent = event["userAgent"].as_str()?;
    let (_, uid) = agent.starts_with("frappe-operator/").then(|| agent.rsplit_once("; "))??;
    Some(uid.trim_end_matches(')').to_owned())
}

fn time(event: &Value) -> Option<Timestamp> {
    event["stageTimestamp"].as_str()?.parse().ok()
}

fn version(object: &Value) -> Option<u64> {
    object["metadata"]["resourceVersion"].as_str()?.parse().ok()
}

fn map(event: &Value) -> Option<Map> {
    let object = &event["responseObject"];
    let spec = &object["spec"];
    let members: Vec<&str> = spec["members"].as_array()?.iter().map(|it| it.as_str().unwrap_or_default()).collect();
    let owner = |index: &Value| {
        let found = usize::try_from(index.as_i64()?).ok().and_then(|it| members.get(it))?;
        Some((*found).to_owned())
    };
    let metadata = &object["metadata"];
    let gone = metadata["deletionTimestamp"].is_string() && metadata["finalizers"].as_array().is_none_or(Vec::is_empty);
    let epochs: Vec<i64> = spec["epochs"].as_array()?.iter().map(|it| it.as_i64().unwrap_or(0)).collect();
    // An entry without an epoch is unowned, whatever its owner is.
    let free = |slot: usize| gone || epochs.get(slot).is_none_or(|epoch| *epoch <= 0);
    let owners = spec["owners"].as_array()?.iter().enumerate();
    Some(Map {
        version: version(object)?,
        at: time(event)?,
        uid: metadata["uid"].as_str()?.to_owned(),
        generation: spec["generation"].as_i64()?,
        owners: owners
            .map(|(slot, it)| if free(slot) { String::new() } else { owner(it).unwrap_or_default() })
            .collect(),
        epochs,
        by_person: pod_of(event).is_none(),
    })
}

/// The pod of an owner.
pub fn pod(owner: &str) -> &str {
    owner.rsplit_once('_').map_or("", |(pod, _)| pod)
}

impl Findings {
    /// Reads the audit logs in a folder.
    pub fn read(folder: &Path) -> anyhow::Result<Self> {
        let mut reader = Reader::default();
        for event in events(folder)? {
            reader.take(&event?);
        }
        Ok(reader.end())
    }

    /// The map at a time.
    pub fn map_at(&self, at: Timestamp) -> Option<&Map> {
        self.maps.iter().rfind(|map| map.at <= at)
    }

    /// Edits of existing sites that were never observed.
    pub fn lost(&self) -> Vec<&Edit> {
        self.edits.iter().filter(|edit| edit.observed.is_none() && !edit.gone).collect()
    }

    /// Observed edits of existing sites since a time, with their wait in seconds, the shortest first.
    pub fn waits(&self, since: Timestamp) -> Vec<(f64, &Edit)> {
        let edits = self.edits.iter().filter(|edit| !edit.creates && edit.at >= since);
        let mut waits: Vec<_> = edits.filter_map(|edit| wait(edit).map(|seconds| (seconds, edit))).collect();
        waits.sort_by(|one, other| one.0.total_cmp(&other.0));
        waits
    }

    /// Checks every write and every change of an owner. `right_seconds`: how long an owner may act without reading the map, and so
    /// without noticing that a user removed its slot.
    pub fn check(&self, right_seconds: f64) -> Verdict {
        let mut verdict = Verdict { writes: self.effects.len(), ..Verdict::default() };
        for effect in &self.effects {
            self.check_write(effect, right_seconds, &mut verdict);
        }
        self.check_epochs(&mut verdict);
        verdict
    }

    fn check_write(&self, effect: &Effect, right_seconds: f64, verdict: &mut Verdict) {
        let next = self.maps.partition_point(|map| map.version < effect.version);
        let owner =
            |index: usize| self.maps.get(index).and_then(|map| map.owners.get(effect.slot)).map_or("", String::as_str);
        let before = next.checked_sub(1);
        if before.is_some_and(|before| pod(owner(before)) == effect.pod) {
            return;
        }
        let now = before.map_or("", owner);
        let shown = format!("{} at {} by {} while {now:?} owned it", effect.what, effect.version, effect.pod);
        let (Some(before), after) = (before, self.maps.get(next)) else {
            verdict.violations.push(shown);
            return;
        };
        let missing = after.is_some_and(|after| {
            after.uid == self.maps[before].uid && after.generation > self.maps[before].generation + 1
        });
        if missing {
            verdict.undecided += 1;
            return;
        }
        // When the writer lost the slot, and to whom: another member may have taken over a slot that a user freed.
        let had = |index: usize| pod(owner(index)) == effect.pod;
        let lost = (1..=before).rev().find(|index| had(*index - 1) && !had(*index)).map(|index| &self.maps[index]);
        match lost.filter(|map| map.by_person).map(|map| effect.at.duration_since(map.at).as_secs_f64()) {
            Some(late) if late < right_seconds => {
                verdict.after_hand.push(format!("{shown}, {:.0} ms after a user removed it", late * 1e3));
            }
            _ => verdict.violations.push(shown),
        }
    }

    fn check_epochs(&self, verdict: &mut Verdict) {
        for slot in 0..=SLOTS {
            let (mut owner, mut highest, mut by_hand) = (String::new(), 0_i64, false);
            for (index, map) in self.maps.iter().enumerate() {
                let (Some(next), Some(epoch)) = (map.owners.get(slot), map.epochs.get(slot)) else { continue };
                let former = index.checked_sub(1).map(|it| &self.maps[it]);
                if map.by_person {
                    by_hand |= former.is_none_or(|it| it.epochs.get(slot) != Some(epoch));
                    owner.clone_from(next);
                    continue;
                }
                if !next.is_empty() && *next != owner {
                    match (*epoch > highest, by_hand) {
                        (true, _) => {}
                        (false, true) => verdict.epochs_after_hand += 1,
                        (false, false) => {
                            verdict.epochs.push(format!("slot {slot} at {}: {epoch} after {highest}", map.version));
                        }
                    }
                    (highest, by_hand) = (*epoch, false);
                }
                owner.clone_from(next);
            }
        }
    }
}

/// How long an edit waited to be observed, in seconds.
pub fn wait(edit: &Edit) -> Option<f64> {
    edit.observed.map(|observed| observed.duration_since(edit.at).as_secs_f64().max(0.0))
}

/// Processes events in the order of the log.
#[derive(Default)]
struct Reader {
    found: Findings,
    sites: HashMap<String, Site>,
    /// Known versions of objects: a response with one of them changed nothing.
    versions: HashSet<(String, u64)>,
    jobs: HashSet<(String, String)>,
}

impl Reader {
    fn take(&mut self, event: &Value) {
        let verb = event["verb"].as_str().unwrap_or_default();
        let reference = &event["objectRef"];
        let resource = reference["resource"].as_str().unwrap_or_default();
        let code = event["responseStatus"]["code"].as_i64().unwrap_or(0);
        let member = pod_of(event);
        if ["get", "list", "watch"].contains(&verb) {
            return;
        }
        if !(200..300).contains(&code) {
            if member.is_some() {
                let status = reference["subresource"].as_str().map(|it| format!("/{it}")).unwrap_or_default();
                *self.found.refused.entry((code, format!("{resource}{status}"))).or_default() += 1;
            }
            return;
        }
        match resource {
            "slotmaps" => self.found.maps.extend(map(event)),
            "frappesites" => self.site(event, verb, member),
            "jobs" => self.job(event, verb, member),
            _ => {}
        }
    }

    fn site(&mut self, event: &Value, verb: &str, member: Option<String>) {
        let object = &event["responseObject"];
        let metadata = &object["metadata"];
        if let ("delete", Some(uid)) = (verb, object["details"]["uid"].as_str()) {
            // Without finalizers, the site is deleted at once, and the response is not an object.
            self.sites.entry(uid.to_owned()).or_default().gone = true;
            self.found.deleted += 1;
            return;
        }
        let (Some(uid), Some(at)) = (metadata["uid"].as_str(), time(event)) else { return };
        let site = self.sites.entry(uid.to_owned()).or_default();
        metadata["name"].as_str().unwrap_or_default().clone_into(&mut site.name);
        site.gone |= metadata["deletionTimestamp"].is_string();
        if let Some(observed) = object["status"]["observedGeneration"].as_i64()
            && site.observed.last().is_none_or(|(newest, _)| *newest < observed)
        {
            site.observed.push((observed, at));
        }
        if let Some(pod) = member {
            let what = format!("{verb} of site {}", site.name);
            self.effect(object, uid, what, at, pod, slot_of(uid));
            return;
        }
        let generation = metadata["generation"].as_i64().unwrap_or(0);
        let is_new = site.generation < generation;
        site.generation = site.generation.max(generation);
        self.versions.extend(version(object).map(|version| (uid.to_owned(), version)));
        self.found.made += usize::from(verb == "create");
        self.found.deleted += usize::from(verb == "delete");
        if is_new && ["create", "patch", "update"].contains(&verb) {
            let (site, slot) = (uid.to_owned(), slot_of(uid));
            self.found.edits.push(Edit {
                site,
                slot,
                generation,
                at,
                observed: None,
                creates: verb == "create",
                gone: false,
            });
        }
    }

    fn job(&mut self, event: &Value, verb: &str, member: Option<String>) {
        let object = &event["responseObject"];
        let (Some(pod), Some(at), Some(uid)) = (member, time(event), object["metadata"]["uid"].as_str()) else {
            return;
        };
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        let mut owners = object["metadata"]["ownerReferences"].as_array().into_iter().flatten();
        let Some(site) = owners.find(|it| it["kind"] == "FrappeSite").and_then(|it| it["uid"].as_str()) else { return };
        if verb == "delete" {
            return;
        }
        if self.effect(object, uid, format!("{verb} of Job {name}"), at, pod, slot_of(site)) && verb == "create" {
            self.found.jobs += 1;
            if !self.jobs.insert((site.to_owned(), name.to_owned())) {
                self.found.jobs_twice.push(name.to_owned());
            }
        }
    }

    /// Returns whether it changed an object.
    fn effect(&mut self, object: &Value, uid: &str, what: String, at: Timestamp, pod: String, slot: usize) -> bool {
        let Some(version) = version(object) else { return false };
        let changed = self.versions.insert((uid.to_owned(), version));
        if changed {
            self.found.effects.push(Effect { what, version, at, pod, slot });
        }
        changed
    }

    fn end(self) -> Findings {
        let Self { mut found, sites, .. } = self;
        found.maps.sort_by_key(|map| map.version);
        found.effects.sort_by_key(|effect| effect.version);
        found.edits.sort_by_key(|edit| edit.at);
        for edit in &mut found.edits {
            let Some(site) = sites.get(&edit.site) else { continue };
            edit.gone = site.gone;
            edit.observed = site.observed.iter().find(|(it, _)| *it >= edit.generation).map(|(_, at)| *at);
            edit.site.clone_from(&site.name);
        }
        found
    }
}

#[cfg(test)]
#[path = "checker_tests.rs"]
pub(super) mod tests;
