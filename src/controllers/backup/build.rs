//! Jobs that back up or restore a site, or remove backups: site runner and transfer run one after the other in one pod. Pure.

use std::collections::BTreeMap;

use frappe_crds::{
    SiteBackup,
    backup_storage::BackupStorage,
    common::{self, SecretReference},
    pod_templates::JOBS,
    site::{BackupOperation, BackupOperationKind},
};
use k8s_openapi::{
    api::core::v1::{
        Container, EmptyDirVolumeSource, PersistentVolumeClaimSpec, PodTemplateSpec, SecurityContext, VolumeProjection,
        VolumeResourceRequirements,
    },
    apimachinery::pkg::api::resource::Quantity,
};
use serde::Serialize;

use super::storage::Storage;
use crate::{
    controllers::{
        bench::{build as bench, model::Input as BenchInput},
        site::{
            build::{Time, account_sources, job_of, labels_of, request},
            model::Subject,
            references::access,
            under_way::job_key,
        },
    },
    domain::{
        key::Key,
        object::Desired,
        pod::{self, Mounted, Pod, item, origins, projected_if_there},
        wire,
    },
    transfer::{
        request::{CREDENTIALS, Maker, Request, Retention, STAGING, Storing, VOLUME},
        secrecy,
    },
};

/// Longest time of a backup or a restore, in seconds.
const DEADLINE_SECONDS: i64 = 6 * 3600;
/// How long a finished Job is kept, in seconds.
const KEPT_SECONDS: i32 = 3600;
/// Name of the safety backup before a restore.
pub(super) fn safety_name(operation: &BackupOperation) -> String {
    format!("{}-before-{}", operation.site_backup, operation.started_at.0.strftime("%Y-%m-%d-%H%M"))
}

/// The runner's request for a backup or a restore.
#[derive(Clone, Default, Serialize)]
struct More<'a> {
    staging: &'a str,
    /// Whether the storage is encrypted: unencrypted keys never leave the volume.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    keys: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    before: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    run: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    restore_database: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    restore_files: Option<bool>,
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
    let carry = transfer_request(input, backup, storage, operation);
    let component = match operation.kind {
        BackupOperationKind::Backup => "site-backup",
        BackupOperationKind::Restore => "site-restore",
        BackupOperationKind::Remove => "site-backup-removal",
    };
    let transfer = Transfer { input, bench, image, storage, carry: &carry, component };
    let pods = if operation.kind == BackupOperationKind::Remove {
        transfer.alone()
    } else {
        let [first, last] = commands(input, backup, storage, operation);
        transfer.between(first, last)
    };
    let time = Time { deadline_seconds: DEADLINE_SECONDS, kept_seconds: KEPT_SECONDS };
    job_of(input, job_key(input.place, operation), component, &time, pods)
}

/// A command of the site runner, with its request.
type Command = (&'static str, String);

/// Commands of the runner before and after the transfer.
fn commands(
    input: &Subject,
    backup: &SiteBackup,
    storage: &Storage,
    operation: &BackupOperation,
) -> [Option<Command>; 2] {
    let keys = storage.spec.encryption_key_secret_ref.is_some();
    let more = More { staging: STAGING, keys, ..More::default() };
    let told = |more: More| wire::text(&request(input, more));
    let Some(restore) = &backup.spec.restore else { return [Some(("backup", told(more))), None] };
    let run = Some(run_of_restore(operation));
    let before = More { before: run.clone(), ..more.clone() };
    let after = More {
        run,
        restore_database: Some(restore.restore_database.unwrap_or(true)),
        restore_files: Some(restore.restore_files.unwrap_or(true)),
        ..more
    };
    let first = (restore.safety_backup != Some(false)).then(|| ("backup", told(before)));
    [first, Some(("restore", told(after)))]
}

/// Identifier of a restore for the runner, the same for all attempts.
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
        needs: needed(input, storage),
    };
    if operation.kind == BackupOperationKind::Remove {
        return Request { removal: Some(maker), ..nothing };
    }
    let site = Key::of(input.site).to_string();
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

/// Volume sources of the storage's Secrets. The transfer reports a missing key.
fn credentials(input: &Subject, storage: &Storage) -> Vec<VolumeProjection> {
    let access = access(&storage.spec);
    let of = |to: &SecretReference, keys: &[&str]| {
        projected_if_there(input.place.mounted(&to.name), keys.iter().map(|key| item(key, *key)).collect())
    };
    let account = access.as_ref().and_then(|it| Some(of(it.credentials?, it.keys)));
    let certificates = access.as_ref().and_then(|it| Some(of(it.certificates?, &["ca.crt"])));
    let key = storage.spec.encryption_key_secret_ref.as_ref().map(|it| of(it, &[secrecy::FILE_NAME]));
    [account, certificates, key].into_iter().flatten().collect()
}

/// The files of [`credentials`] that must exist, with Secret and key of each.
fn needed(input: &Subject, storage: &Storage) -> BTreeMap<String, [String; 2]> {
    let optional = access(&storage.spec).map_or(&[][..], |it| it.optional);
    let mut files = origins(&credentials(input, storage));
    files.retain(|file, _| !optional.contains(&file.as_str()));
    files
}

/// The volume between runner and transfer.
fn staging(storage: &BackupStorage) -> Mounted {
    let quantity = |it: &common::Quantity| Quantity(it.0.clone());
    let Some(volume) = &storage.staging_volume else {
        let size_limit = storage.staging_size_limit.as_ref().map(quantity);
        return Mounted::empty("staging", STAGING, EmptyDirVolumeSource { size_limit, medium: None });
    };
    let requests = BTreeMap::from([("storage".to_owned(), quantity(&volume.size))]);
    let claim = PersistentVolumeClaimSpec {
        access_modes: Some(vec!["ReadWriteOnce".to_owned()]),
        storage_class_name: volume.storage_class_name.clone(),
        resources: Some(VolumeResourceRequirements { requests: Some(requests), limits: None }),
        ..PersistentVolumeClaimSpec::default()
    };
    Mounted::ephemeral("staging", STAGING, claim)
}

/// Input of the transfer's container.
struct Transfer<'a> {
    input: &'a Subject<'a>,
    bench: &'a BenchInput<'a>,
    image: &'a str,
    storage: &'a Storage,
    carry: &'a Request,
    /// Label of the Job.
    component: &'static str,
}

impl Transfer<'_> {
    /// A pod with only the transfer, without volumes of the site.
    fn alone(&self) -> PodTemplateSpec {
        let kept = self.volumes();
        let pod = bench::bare_pod(self.bench).then(self.container(&kept));
        self.own_account(pod.with_volumes(kept.into_iter().map(|it| it.volume)))
    }

    /// A pod whose containers run one after the other: the runner, the transfer, and the runner again.
    fn between(&self, first: Option<Command>, last: Option<Command>) -> PodTemplateSpec {
        let staging = staging(&self.storage.spec);
        let extra = [bench::runner_secrets(account_sources(self.input)), staging.clone()];
        let kept = self.volumes();
        let mounted: Vec<Mounted> = [staging].into_iter().chain(kept.iter().cloned()).collect();
        let runner = |(command, request): Command| bench::runner_container(self.bench, command, &request, &extra);
        let containers = first.map(runner).into_iter().chain([self.container(&mounted)]).chain(last.map(runner));
        let pod = bench::runner_pod(self.bench, &extra).with_volumes(kept.into_iter().map(|it| it.volume));
        self.own_account(containers.fold(pod, Pod::then))
    }

    /// The pods of the Job, as the storage's ServiceAccount if it names one.
    fn own_account(&self, pod: Pod) -> PodTemplateSpec {
        let mut pods = bench::for_job(self.bench, labels_of(self.input, self.component), pod);
        if let (Some(account), Some(spec)) = (&self.storage.spec.service_account_name, pods.spec.as_mut()) {
            pod::run_as(spec, account);
        }
        pods
    }

    /// Volumes that only the transfer mounts.
    fn volumes(&self) -> Vec<Mounted> {
        let claim = self.storage.spec.persistent_volume_claim.as_ref();
        let claim = claim.map(|it| Mounted::claim("backups", VOLUME, it.claim_name.clone()));
        let sources = credentials(self.input, self.storage);
        let storage = (!sources.is_empty()).then(|| Mounted::secrets("storage", CREDENTIALS, sources));
        claim.into_iter().chain(storage).collect()
    }

    fn container(&self, mounted: &[Mounted]) -> Container {
        let security =
            SecurityContext { read_only_root_filesystem: Some(true), ..bench::container_security(self.bench, JOBS) };
        let carry = wire::in_order(self.carry);
        Container {
            name: "transfer".to_owned(),
            image: Some(self.image.to_owned()),
            args: Some(vec!["transfer".to_owned(), carry]),
            termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
            resources: Some(pod::resources(["100m", "64Mi", "2", "512Mi"])),
            security_context: Some(security),
            volume_mounts: Some(mounted.iter().map(|it| it.mount.clone()).collect()),
            ..Container::default()
        }
    }
}
