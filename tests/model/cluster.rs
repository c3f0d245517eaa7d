//! Stand-ins for a cluster's controllers: Deployments, volumes, Jobs, garbage collection and the MariaDB operator.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use jiff::Timestamp;
use kube_sharding_sim::{Change, Server};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, sleep_until};

/// Delay between a change and the controllers' reaction.
const DELAY: Duration = Duration::from_millis(40);

/// How a Job ends.
#[derive(Clone, Debug)]
pub(crate) enum Outcome {
    /// After this time, with this result in its termination message.
    Succeeds(Duration, Value),
    /// After this time, with this code and message.
    Fails(Duration, &'static str),
}

/// When an action is due, and the collection and uid of its Job.
type Due = (Instant, String, String);
/// Decides how a Job ends.
type Decide = Box<dyn Fn(&Value) -> Outcome + Send>;

/// The cluster's controllers. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Cluster {
    server: Server,
    outcome: Arc<Mutex<Decide>>,
    /// Jobs by the time at which they end or, once finished, are removed.
    due: Arc<Mutex<BTreeMap<Due, Outcome>>>,
}

/// The outcome of most Jobs: success after two seconds.
pub(crate) fn succeeds_after_two_seconds(job: &Value) -> Outcome {
    let result = match job["metadata"]["labels"]["component"].as_str() {
        Some("configure") => {
            let image = job["spec"]["template"]["spec"]["containers"][0]["image"].as_str().unwrap();
            let code = json!({"version": "15.41.2", "schema": image.split('@').next()});
            json!({"apps": ["erpnext", "frappe", "hrms"], "code": {"erpnext": code, "frappe": code, "hrms": code}})
        }
        _ => json!({"bytes": 1024}),
    };
    Outcome::Succeeds(Duration::from_secs(2), result)
}

/// The image that a Job runs, by its digest.
fn image_id(job: &Value) -> String {
    let image = job["spec"]["template"]["spec"]["containers"][0]["image"].as_str().unwrap_or_default();
    let name = image.split('@').next().unwrap_or_default();
    let number = name.bytes().fold(0_u128, |all, byte| all.wrapping_mul(257).wrapping_add(byte.into()));
    format!("{name}@sha256:{number:064x}")
}

/// Whether a Job has finished.
pub(crate) fn ended(job: &Value) -> bool {
    job["status"]["conditions"].as_array().into_iter().flatten().any(|it| it["status"] == "True")
}

impl Cluster {
    /// Starts the controllers for a server's objects.
    pub(crate) fn start(server: &Server) -> Self {
        let this = Self {
            server: server.clone(),
            outcome: Arc::new(Mutex::new(Box::new(succeeds_after_two_seconds))),
            due: Arc::default(),
        };
        tokio::spawn(this.clone().run());
        this
    }

    /// Sets the outcome of Jobs that are created from now on.
    pub(crate) fn jobs(&self, outcome: impl Fn(&Value) -> Outcome + Send + 'static) {
        *self.outcome.lock().unwrap() = Box::new(outcome);
    }

    async fn run(self) {
        let (mut changes, mut seen) = (self.server.changes(), 0);
        loop {
            let next = self.due.lock().unwrap().keys().next().map(|it| it.0);
            let timer = async {
                match next {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                changed = changes.changed() => if changed.is_err() { return },
                () = timer => {}
            }
            sleep(DELAY).await;
            seen = self.process(seen);
        }
    }

    /// Reacts to writes after a version, and executes actions that are due; returns the last processed version.
    fn process(&self, seen: u64) -> u64 {
        let written = self.server.written_after(seen);
        let mut garbage = false;
        for write in &written {
            let deleting = write.object["metadata"]["deletionTimestamp"].is_string();
            garbage |=
                deleting || write.change == Change::Deleted || !write.object["metadata"]["ownerReferences"].is_null();
            if write.change != Change::Deleted {
                let collection = match write.place.namespace.as_str() {
                    "" => write.place.resource.clone(),
                    namespace => {
                        let (parent, plural) = write.place.resource.rsplit_once('/').unwrap();
                        format!("{parent}/namespaces/{namespace}/{plural}")
                    }
                };
                self.reconcile(&collection, &write.place.name, deleting);
            }
        }
        let now = Instant::now();
        let due: Vec<_> = {
            let mut all = self.due.lock().unwrap();
            let later = all.split_off(&(now + Duration::from_millis(1), String::new(), String::new()));
            std::mem::replace(&mut *all, later).into_iter().collect()
        };
        for ((_, collection, uid), outcome) in due {
            self.end(&collection, &uid, &outcome);
        }
        if garbage {
            self.server.collect_garbage();
        }
        written.last().map_or(seen, |it| it.version)
    }

    fn reconcile(&self, collection: &str, name: &str, deleting: bool) {
        let Some(object) = self.server.get(collection, name) else { return };
        let plural = collection.rsplit('/').next().unwrap_or_default();
        let set = |status: Value| {
            let differs = status.as_object().unwrap().iter().any(|(key, value)| object["status"][key] != *value);
            if differs {
                self.server.change(collection, name, |it| {
                    status.as_object().unwrap().iter().for_each(|(key, value)| it["status"][key] = value.clone());
                });
            }
        };
        let generation = &object["metadata"]["generation"];
        match plural {
            "databases" | "users" | "grants" | "mariadbs" => self.mariadb(collection, &object, deleting),
            _ if deleting => {}
            "deployments" | "statefulsets" => {
                let replicas = object["spec"]["replicas"].as_i64().unwrap_or(1);
                set(json!({"observedGeneration": generation, "replicas": replicas, "updatedReplicas": replicas,
                           "readyReplicas": replicas, "availableReplicas": replicas}));
            }
            "persistentvolumeclaims" => {
                set(json!({"phase": "Bound", "capacity": object["spec"]["resources"]["requests"]}));
            }
            "jobs" if object["status"]["startTime"].is_null() => {
                let now = self.stamp();
                set(json!({"startTime": now, "active": 1}));
                self.begin(collection, &object);
            }
            _ => {}
        }
    }

    /// The MariaDB operator: sets a finalizer and Ready; removes the finalizer when the object is deleted.
    fn mariadb(&self, collection: &str, object: &Value, deleting: bool) {
        let (name, stamp) = (object["metadata"]["name"].as_str().unwrap(), self.stamp());
        let own = json!("stand-in.k8s.mariadb.com/finalizer");
        let mut finalizers = object["metadata"]["finalizers"].as_array().cloned().unwrap_or_default();
        let has = finalizers.contains(&own);
        if deleting && has {
            finalizers.retain(|it| *it != own);
            self.server.change(collection, name, |it| it["metadata"]["finalizers"] = finalizers.into());
        } else if !deleting && !has {
            finalizers.push(own);
            self.server.change(collection, name, |it| {
                it["metadata"]["finalizers"] = finalizers.into();
                it["status"]["conditions"] =
                    json!([{"type": "Ready", "status": "True", "reason": "Created", "message": "Created",
                            "lastTransitionTime": stamp}]);
            });
        }
    }

    fn begin(&self, collection: &str, job: &Value) {
        let outcome = (self.outcome.lock().unwrap())(job);
        let (Outcome::Succeeds(after, _) | Outcome::Fails(after, _)) = &outcome;
        let after = *after;
        let uid = job["metadata"]["uid"].as_str().unwrap().to_owned();
        self.due.lock().unwrap().insert((Instant::now() + after, collection.to_owned(), uid), outcome);
    }

    /// Ends a Job, whose pod gets the termination message; removes a Job that has been finished for its TTL.
    fn end(&self, collection: &str, uid: &str, outcome: &Outcome) {
        let Some(job) = self.server.all(collection).into_iter().find(|it| it["metadata"]["uid"] == uid) else { return };
        let name = job["metadata"]["name"].as_str().unwrap();
        if job["status"]["conditions"].is_array() {
            return self.server.remove(collection, name);
        }
        let (good, message) = match outcome {
            Outcome::Succeeds(_, result) => (true, json!({"result": result})),
            Outcome::Fails(_, code) => {
                (false, json!({"step": "stand-in", "code": code, "error": "chosen by the test"}))
            }
        };
        let now = self.stamp();
        let pods = format!("/api/v1/namespaces/{}/pods", job["metadata"]["namespace"].as_str().unwrap());
        let mut labels = job["spec"]["template"]["metadata"]["labels"].clone();
        labels["batch.kubernetes.io/job-name"] = json!(name);
        let owner = json!({"apiVersion": "batch/v1", "kind": "Job", "name": name, "uid": uid, "controller": true,
                           "blockOwnerDeletion": true});
        let terminated = json!({"exitCode": i32::from(!good), "finishedAt": now, "message": message.to_string()});
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": format!("{name}-pod"), "labels": labels, "ownerReferences": [owner]},
            "spec": {"containers": [{"name": "main", "image": "stand-in"}]},
            "status": {"phase": if good { "Succeeded" } else { "Failed" }, "containerStatuses": [{
                "name": "main", "image": "stand-in", "imageID": image_id(&job), "ready": false, "restartCount": 0,
                "state": {"terminated": terminated},
            }]},
        });
        self.server.remove(&pods, &format!("{name}-pod"));
        self.server.create_by_hand(&pods, &pod);
        self.server.change(collection, name, |it| {
            it["status"] = json!({"startTime": it["status"]["startTime"], "conditions": [
                {"type": if good { "Complete" } else { "Failed" }, "status": "True", "lastTransitionTime": now}]});
        });
        let kept = job["spec"]["ttlSecondsAfterFinished"].as_u64().map(Duration::from_secs);
        if let Some(kept) = kept {
            let key = (Instant::now() + kept, collection.to_owned(), uid.to_owned());
            self.due.lock().unwrap().insert(key, outcome.clone());
        }
    }

    /// The time in whole seconds, as in objects.
    fn stamp(&self) -> String {
        Timestamp::from_second(self.server.now().as_second()).unwrap().to_string()
    }
}
