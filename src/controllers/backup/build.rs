//! The Jobs that back a site up, restore it and remove backups: the site runner and the transfer, one after the other in one pod. Pure.

use frappe_crds::{
    SiteBackup,
    site::{BackupOperation, BackupOperationKind},
};
use kube::ResourceExt;
use serde_json::{Value, json};

use super::storage::Storage;
use crate::{
    controllers::{
        bench::{build as bench, model::Input as BenchInput},
        site::{
            build::{account, request, with},
            model::Subject,
            under_way::job_key,
        },
    },
    domain::{
        labels,
        object::{Desired, Kind},
    },
    transfer::{
        request::{CREDENTIALS, Maker, Request, Retention, STAGING, Storing, VOLUME},
        secrecy,
    },
};

/// Longest time of a backup or a restore, in seconds.
const DEADLINE_SECONDS: i64 = 6 * 3600;
/// How long a finished Job is kept, in seconds.
const KEPT_SECONDS: i64 = 3600;
/// Name of the backup that is made before a restore.
pub(super) fn safety_name(operation: &BackupOperation) -> String {
    format!("{}-before-{}", operation.site_backup, operation.started_at.0.strftime("%Y-%m-%d-%H%M"))
}

/// The Job.
pub(super) fn job(
    input: &Subject,
    bench: &BenchInput,
    image: &str,
    backup: &SiteBackup,
    storage: &Storage,
    operation: &BackupOperation,
) -> Desired {
    let mut request = with(request(input), &json!({"staging": STAGING}));
    if storage.spec.encryption_key_secret_ref.is_some() {
        // In clear they never leave the volume.
        request["keys"] = json!(true);
    }
    let carry = transfer_request(input, backup, storage, operation);
    let pod = match &backup.spec.restore {
        _ if operation.kind == BackupOperationKind::Remove => removing_pod(input, bench, image, storage, &carry),
        None => pod(input, bench, &["backup"], &request, image, storage, &carry, None),
        Some(restore) => {
            let more = json!({
                "run": run_of_restore(operation),
                "restore_database": restore.restore_database.unwrap_or(true),
                "restore_files": restore.restore_files.unwrap_or(true),
            });
            let last = with(request.clone(), &more);
            let before = with(request, &json!({"before": run_of_restore(operation)}));
            let first: &[&str] = if restore.safety_backup == Some(false) { &[] } else { &["backup"] };
            pod(input, bench, first, &before, image, storage, &carry, Some(&last))
        }
    };
    let component = match operation.kind {
        BackupOperationKind::Backup => "site-backup",
        BackupOperationKind::Restore => "site-restore",
        BackupOperationKind::Remove => "site-backup-removal",
    };
    let mut labels = input.labels();
    labels.insert("component".to_owned(), component.to_owned());
    let spec = json!({
        "backoffLimit": 0,
        "activeDeadlineSeconds": DEADLINE_SECONDS,
        "ttlSecondsAfterFinished": KEPT_SECONDS,
        "template": {"metadata": {"labels": labels}, "spec": pod},
    });
    let mut metadata = input.owned_metadata();
    metadata["labels"] = json!(labels);
    metadata["annotations"] = json!({labels::IDENTITY: input.known.identity});
    Desired::untyped(Kind::Job, job_key(input.place, operation), metadata, &spec)
}

/// What the runner knows a restore by, over all of its tries.
fn run_of_restore(operation: &BackupOperation) -> String {
    format!("{} by {} {}", operation.run, operation.site_backup, operation.site_backup_uid)
}

fn transfer_request(input: &Subject, backup: &SiteBackup, storage: &Storage, operation: &BackupOperation) -> Request {
    let maker = Maker { site_backup: operation.site_backup.clone(), identity: input.known.identity.clone() };
    let nothing = Request {
        place: storage.place.clone(),
        folder: storage.folder.clone(),
        store: None,
        retention: None,
        fetch: None,
        fetch_folder: None,
        unauthenticated: false,
        removal: None,
    };
    if operation.kind == BackupOperationKind::Remove {
        return Request { removal: Some(maker), ..nothing };
    }
    let site = format!("{}/{}", input.site.namespace().unwrap_or_default(), input.site.name_any());
    let storing = |name: String, may_be_stored: bool| Storing {
        name,
        site_backup: operation.site_backup.clone(),
        site: site.clone(),
        identity: input.known.identity.clone(),
        scheduled_at: operation.scheduled_at.0,
        may_be_stored,
    };
    let retention = backup.spec.retention.as_ref().map(|rule| Retention {
        maker,
        days: rule.days,
        keep_last: usize::try_from(rule.keep_last.unwrap_or(1)).unwrap_or(1),
    });
    let restore = backup.spec.restore.as_ref();
    let store = match restore {
        None => Some(storing(operation.run.clone(), false)),
        Some(restore) => (restore.safety_backup != Some(false)).then(|| storing(safety_name(operation), true)),
    };
    Request {
        store,
        retention,
        unauthenticated: restore.and_then(|it| it.allow_unauthenticated).unwrap_or(false),
        fetch: restore.map(|it| it.backup_name.clone()),
        fetch_folder: restore.and_then(|it| it.source_site.as_deref()).map(|site| storage.folder_of(site)),
        ..nothing
    }
}

/// A pod that only reaches where backups are kept: it has nothing of the site.
fn removing_pod(input: &Subject, bench: &BenchInput, image: &str, storage: &Storage, carry: &Request) -> Value {
    let mut pod = bench::runner_pod(bench, "backup", &json!({}), &[]);
    let runner = pod["containers"][0].take();
    let (carrier, kept) = transfer_container(input, image, storage, carry, None, &runner);
    pod["containers"] = json!([carrier]);
    pod["volumes"] = json!(kept);
    own_account(&mut pod, storage);
    pod
}

fn own_account(pod: &mut Value, storage: &Storage) {
    if let Some(account) = &storage.spec.service_account_name {
        pod["serviceAccountName"] = json!(account);
    }
}

/// A pod whose containers run one after the other: the runner's `first` commands, the transfer, and the runner's restore.
#[allow(clippy::too_many_arguments, reason = "each is one thing of the pod")]
fn pod(
    input: &Subject,
    bench: &BenchInput,
    first: &[&str],
    request: &Value,
    image: &str,
    storage: &Storage,
    carry: &Request,
    restore: Option<&Value>,
) -> Value {
    let secrets = json!({"name": "secrets", "projected": {"defaultMode": 0o440, "sources": account(input)}});
    let mut staging = json!({"name": "staging", "emptyDir": {}});
    if let Some(limit) = &storage.spec.staging_size_limit {
        staging["emptyDir"]["sizeLimit"] = json!(limit);
    }
    let staged = json!({"name": "staging", "mountPath": STAGING});
    let volumes = [
        (secrets, json!({"name": "secrets", "mountPath": crate::runner::SECRETS, "readOnly": true})),
        (staging, staged.clone()),
    ];
    let mut pod = bench::runner_pod(bench, first.first().copied().unwrap_or("restore"), request, &volumes);
    let runner = pod["containers"][0].take();
    let (carrier, mut kept) = transfer_container(input, image, storage, carry, Some(staged), &runner);
    let mut containers: Vec<Value> = first.iter().map(|_| runner.clone()).collect();
    containers.push(carrier);
    if let Some(restore) = restore {
        let mut last = runner;
        last["name"] = json!("restore");
        last["args"] = json!(["restore", restore.to_string()]);
        containers.push(last);
    }
    let last = containers.pop();
    pod["initContainers"] = json!(containers);
    pod["containers"] = json!(last.into_iter().collect::<Vec<_>>());
    if let Some(volumes) = pod["volumes"].as_array_mut() {
        volumes.append(&mut kept);
    }
    own_account(&mut pod, storage);
    pod
}

/// The container that carries, and the volumes that only it mounts.
fn transfer_container(
    input: &Subject,
    image: &str,
    storage: &Storage,
    carry: &Request,
    staged: Option<Value>,
    runner: &Value,
) -> (Value, Vec<Value>) {
    let (mut mounts, mut volumes) = (Vec::from_iter(staged), Vec::new());
    if let Some(claim) = &storage.spec.persistent_volume_claim {
        volumes.push(json!({"name": "backups", "persistentVolumeClaim": {"claimName": claim.claim_name}}));
        mounts.push(json!({"name": "backups", "mountPath": VOLUME}));
    }
    let named = |name: &str| input.place.mounted(name);
    let s3 = storage.spec.s3.as_ref();
    let credentials = s3.and_then(|it| it.credentials_secret_ref.as_ref()).map(|it| {
        let items = ["accessKey", "secretKey", "sessionToken"].map(|key| json!({"key": key, "path": key}));
        // Optional as a whole: of the keys one is. Which of the others is missing is said by the transfer.
        json!({"secret": {"name": named(&it.name), "items": items, "optional": true}})
    });
    let certificates = s3.and_then(|it| it.ca_secret_ref.as_ref());
    let certificates = certificates
        .map(|it| json!({"secret": {"name": named(&it.name), "items": [{"key": "ca.crt", "path": "ca.crt"}]}}));
    let key = storage.spec.encryption_key_secret_ref.as_ref().map(|it| {
        let items = [json!({"key": secrecy::FILE_NAME, "path": secrecy::FILE_NAME})];
        json!({"secret": {"name": named(&it.name), "items": items}})
    });
    let sources: Vec<Value> = [credentials, certificates, key].into_iter().flatten().collect();
    if !sources.is_empty() {
        volumes.push(json!({"name": "storage", "projected": {"defaultMode": 0o440, "sources": sources}}));
        mounts.push(json!({"name": "storage", "mountPath": CREDENTIALS, "readOnly": true}));
    }
    let mut security = runner["securityContext"].clone();
    security["readOnlyRootFilesystem"] = json!(true);
    let carry = serde_json::to_string(carry).unwrap_or_default();
    let container = json!({
        "name": "transfer",
        "image": image,
        "args": ["transfer", carry],
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"cpu": "2", "memory": "512Mi"}},
        "securityContext": security,
        "volumeMounts": mounts,
    });
    (container, volumes)
}
