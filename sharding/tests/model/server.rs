//! A model of the API server: Leases, the slot map, and one object in each slot; every change increments the version.

use std::{collections::BTreeMap, sync::Arc};

use kube_sharding::{
    Incarnation,
    map::{Content, Entry, SlotMap},
    member::{LeaseRecord, Version},
    step::{Effect, Failure, Input},
};

/// The server's objects.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Server {
    /// Leases, maps and each object have separate versions, because only those are compared: so that fewer states differ.
    pub(crate) lease_versions: BTreeMap<Arc<str>, u64>,
    pub(crate) map_version: u64,
    pub(crate) leases: BTreeMap<Arc<str>, LeaseRecord>,
    pub(crate) map: Option<SlotMap>,
    /// For each entry, the version of its object and the epoch of its last write.
    pub(crate) objects: Vec<(u64, i64)>,
    /// Whether a write of an older epoch took effect after one of a newer epoch.
    pub(crate) overwritten: bool,
}

/// A request.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Request {
    /// A request of the protocol.
    Protocol(Effect),
    /// A write to the object of an entry, based on a version, by the owner with this epoch.
    Write { entry: Entry, on: u64, epoch: i64 },
}

impl Request {
    /// The error with an unknown outcome.
    pub(crate) fn unknown_outcome(&self) -> Option<Input> {
        let nothing = Failure::Unknown;
        Some(match self {
            Self::Protocol(Effect::Renew { attempt, .. }) => Input::Renewed(*attempt, Err(nothing)),
            Self::Protocol(Effect::ReadLease(asked)) => Input::LeaseRead(asked.clone(), Err(nothing)),
            Self::Protocol(Effect::ReadLeases(asked)) => Input::LeasesRead(asked.clone(), Err(nothing)),
            Self::Protocol(Effect::Fence(seen)) => Input::Fenced(Arc::clone(&seen.name), Err(nothing)),
            Self::Protocol(Effect::ReadMap(asked)) => Input::MapRead(asked.clone(), Err(nothing)),
            Self::Protocol(Effect::WriteMap { .. }) => Input::MapWritten(Err(nothing)),
            Self::Protocol(_) | Self::Write { .. } => return None,
        })
    }
}

impl Server {
    /// Executes a request. `ignored` are the preconditions that the server ignores.
    pub(crate) fn apply(&mut self, from: &Sender, request: &Request, ignored: IgnoredPreconditions) -> Option<Input> {
        match request {
            Request::Protocol(Effect::Renew { attempt, on, facts, ended }) => {
                let lease = LeaseRecord {
                    name: Arc::clone(&from.lease),
                    version: Version { uid: "lease".into(), number: 0 },
                    created_seconds: 0,
                    duration_seconds: 15,
                    holder: Some(from.incarnation.clone()),
                    attempt: *attempt,
                    ended: ended.clone(),
                    facts: facts.clone(),
                };
                Some(Input::Renewed(*attempt, self.put_lease(lease, on.as_ref())))
            }
            Request::Protocol(Effect::ReadLease(asked)) => {
                Some(Input::LeaseRead(asked.clone(), Ok(self.leases.get(&from.lease).cloned())))
            }
            Request::Protocol(Effect::ReadLeases(asked)) => {
                Some(Input::LeasesRead(asked.clone(), Ok(self.leases.values().cloned().collect())))
            }
            Request::Protocol(Effect::Fence(seen)) => {
                let mut lease = LeaseRecord::clone(seen);
                lease.ended = lease.holder.take();
                let on = match (ignored.fence, self.leases.get(&seen.name)) {
                    (true, Some(now)) => now.version.clone(),
                    _ => seen.version.clone(),
                };
                Some(Input::Fenced(Arc::clone(&seen.name), self.put_lease(lease, Some(&on))))
            }
            Request::Protocol(Effect::DeleteLease(name, on)) => {
                if self.leases.get(name).is_some_and(|lease| lease.version == *on) {
                    self.leases.remove(name);
                }
                None
            }
            Request::Protocol(Effect::ReadMap(asked)) => Some(Input::MapRead(asked.clone(), Ok(self.map.clone()))),
            Request::Protocol(Effect::WriteMap { on, content }) => {
                Some(Input::MapWritten(self.put_map(on.as_ref(), content)))
            }
            Request::Protocol(Effect::Drain(..) | Effect::Elect | Effect::End(_)) => None,
            Request::Write { entry, on, epoch } => {
                let object = &mut self.objects[usize::from(entry.0)];
                if object.0 == *on || ignored.write {
                    self.overwritten |= *epoch < object.1;
                    *object = (object.0 + 1, *epoch);
                }
                None
            }
        }
    }

    fn put_lease(&mut self, mut lease: LeaseRecord, on: Option<&Version>) -> Result<LeaseRecord, Failure> {
        match (self.leases.get(&lease.name).map(|it| &it.version), on) {
            (None, Some(_)) => return Err(Failure::NotFound),
            (now, on) if now != on => return Err(Failure::Conflict),
            _ => {}
        }
        let version = self.lease_versions.entry(Arc::clone(&lease.name)).or_default();
        *version += 1;
        lease.version.number = *version;
        self.leases.insert(Arc::clone(&lease.name), lease.clone());
        Ok(lease)
    }

    fn put_map(&mut self, on: Option<&Version>, content: &Content) -> Result<SlotMap, Failure> {
        if self.map.as_ref().map(|map| &map.version) != on {
            return Err(Failure::Conflict);
        }
        self.map_version += 1;
        let uid = on.map_or_else(|| format!("map-{}", self.map_version).into(), |on| Arc::clone(&on.uid));
        let version = Version { uid, number: self.map_version };
        let map = SlotMap { version, created_seconds: 0, content: content.clone() };
        self.map = Some(map.clone());
        Ok(map)
    }
}

/// Who sent a request.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Sender {
    pub(crate) incarnation: Incarnation,
    pub(crate) lease: Arc<str>,
}

/// Which preconditions the server ignores.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct IgnoredPreconditions {
    pub(crate) fence: bool,
    pub(crate) write: bool,
}
