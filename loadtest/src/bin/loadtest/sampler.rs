//! Samples the processes once a second.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use frappe_loadtest::{meter::Process, report::Sample};

use crate::tracker::Tracker;

#[derive(Default)]
struct State {
    /// Process ids of members by name, and of the API server.
    members: BTreeMap<String, u32>,
    api_server: u32,
    samples: Vec<Sample>,
}

/// The samples.
#[derive(Clone, Default)]
pub(crate) struct Sampler(Arc<Mutex<State>>);

impl Sampler {
    /// Samples until the process ends.
    pub(crate) fn start(tracker: Tracker) -> Self {
        let this = Self::default();
        let shared = this.clone();
        tokio::spawn(async move {
            let begun = Instant::now();
            let mut before: BTreeMap<u32, f64> = BTreeMap::new();
            let mut then = begun;
            loop {
                tokio::time::sleep(Duration::from_secs(1)).await;
                let passed = then.elapsed().as_secs_f64();
                then = Instant::now();
                shared.sample(begun.elapsed().as_secs_f64(), passed, &mut before, &tracker);
            }
        });
        this
    }

    fn with<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn sample(&self, seconds: f64, passed: f64, before: &mut BTreeMap<u32, f64>, tracker: &Tracker) {
        let [_, waiting, _] = tracker.pending();
        let mut sample = Sample { seconds, ready: tracker.ready(), waiting, ..Sample::default() };
        let mut cores = |id: u32| {
            let process = Process::read(id).unwrap_or_default();
            let used = before.insert(id, process.cpu_seconds).map_or(0.0, |then| (process.cpu_seconds - then).max(0.0));
            (used / passed, process.resident_mebibytes)
        };
        self.with(|state| {
            for (name, id) in &state.members {
                let (used, resident) = cores(*id);
                sample.operator_cores += used;
                if resident > 0.0 {
                    sample.resident_mebibytes.insert(name.clone(), resident);
                }
            }
            sample.api_server_cores = cores(state.api_server).0;
            state.samples.push(sample);
        });
    }

    /// Sets the current processes.
    pub(crate) fn set_processes(&self, members: BTreeMap<String, u32>, api_server: u32) {
        self.with(|state| (state.members, state.api_server) = (members, api_server));
    }

    /// At most this number of samples, evenly spread.
    pub(crate) fn samples(&self, most: usize) -> Vec<Sample> {
        self.with(|state| {
            let every = state.samples.len().div_ceil(most).max(1);
            state.samples.iter().step_by(every).cloned().collect()
        })
    }
}
