//! Storage of a SiteBackup, and the source of a restore. Pure.

use std::sync::Arc;

use frappe_crds::{
    SiteBackup,
    backup::Restore,
    backup_storage::{BackupStorage, Endpoint, S3Checksum},
};
use kube::ResourceExt;

use super::reason::Reason;
use crate::{
    controllers::site::{
        model::Observed,
        permissions::secrets::{is_reserved, refused},
        place::Place,
        reason::Reason as SiteReason,
        references::{Reference, access, of_storage},
    },
    domain::{key::Key, names::child},
    transfer::request::{Bucket, Container, GcsBucket, Place as Kept},
};

/// A usable storage.
#[derive(Clone, Debug, PartialEq)]
pub struct Storage {
    /// The storage in the spec.
    pub spec: BackupStorage,
    /// The storage in the Job's request.
    pub place: Kept,
    /// Folder of the site's backups.
    pub folder: String,
}

impl Storage {
    /// Folder of the backups of another site of the same namespace.
    pub fn folder_of(&self, site: &str) -> String {
        let namespace = self.folder.rsplit_once('/').map_or("", |(namespace, _)| namespace);
        format!("{namespace}/{site}")
    }
}

/// Reason and message of a refusal.
pub type Refusal = (Reason, String);

/// No Job can be created, because the operator's image is unknown.
pub fn image_unknown() -> Refusal {
    let message = "the operator was started without --image (OPERATOR_IMAGE), which backup Jobs need";
    (Reason::OperatorImageUnknown, message.to_owned())
}

/// The storage of a SiteBackup; for a restore without one, that of the SiteBackup that made the backup.
pub fn storage(observed: &Observed, backup: &SiteBackup) -> Result<Storage, Refusal> {
    let spec = match (&backup.spec.storage, &backup.spec.restore) {
        (Some(own), _) => own.clone(),
        (None, Some(restore)) => maker(observed, restore)?,
        (None, None) => {
            let message = "set spec.storage to a bucket, a container, or a volume other than the sites'";
            return Err((Reason::StorageMissing, message.to_owned()));
        }
    };
    refuse(observed, &spec)?;
    let references = of_storage(&spec);
    if let Some((_, message)) = references.iter().find_map(|it| not_readable(observed, it)) {
        return Err((Reason::StorageRefused, format!("spec.storage.{message}")));
    }
    let missing = references.iter().map(|it| &it.name).find(|name| !observed.secrets.contains_key(*name));
    if let Some(name) = missing {
        let message = format!("Secret {name} does not exist, but spec.storage refers to it: create it");
        return Err((Reason::StorageSecretMissing, message));
    }
    let site = &observed.site;
    let own = Key::of(site.as_ref()).to_string();
    let (place, prefix) = place(&spec);
    let folder = match prefix.filter(|it| !it.is_empty()) {
        Some(prefix) => format!("{prefix}/{own}"),
        None => own,
    };
    Ok(Storage { spec, place, folder })
}

/// The storage as the transfer knows it, and the prefix of folders in it.
fn place(spec: &BackupStorage) -> (Kept, Option<&str>) {
    let url = |it: &Option<Endpoint>| it.as_ref().map(|it| it.0.clone());
    let secret = access(spec).and_then(|it| it.credentials).map(|it| it.name.clone());
    let (kept, prefix) = if let Some(s3) = &spec.s3 {
        let bucket = Bucket {
            name: s3.bucket.clone(),
            region: s3.region.clone(),
            endpoint: url(&s3.endpoint),
            path_style: s3.force_path_style.unwrap_or(s3.endpoint.is_some()),
            no_checksum: s3.checksum == Some(S3Checksum::None),
        };
        (Kept::S3(bucket), &s3.prefix)
    } else if let Some(azure) = &spec.azure {
        let (account, name) = (azure.account.clone(), azure.container.clone());
        (Kept::Azure(Container { account, name, endpoint: url(&azure.endpoint), secret }), &azure.prefix)
    } else if let Some(gcs) = &spec.gcs {
        let bucket = GcsBucket { name: gcs.bucket.clone(), endpoint: url(&gcs.endpoint), secret };
        (Kept::Gcs(bucket), &gcs.prefix)
    } else {
        return (Kept::Volume, spec.persistent_volume_claim.as_ref().and_then(|it| it.path.as_deref()));
    };
    (kept, prefix.as_ref().map(|it| it.0.as_str()))
}

/// Whether it is refused because of a Secret that is not watched: a missing one, or one that may not be read.
pub fn is_unseen(observed: &Observed, backup: &SiteBackup, refusal: &Refusal) -> bool {
    let reserved = |name: &str| observed.secrets.get(name).is_some_and(|it| is_reserved(observed, name, it));
    let named = || backup.spec.storage.iter().flat_map(of_storage).any(|it| reserved(&it.name));
    refusal.0 == Reason::StorageSecretMissing || (refusal.0 == Reason::StorageRefused && named())
}

/// Refuses objects that a SiteBackup may not reference: Secrets of another namespace, and volumes and ServiceAccounts that are
/// not allowed.
fn refuse(observed: &Observed, spec: &BackupStorage) -> Result<(), Refusal> {
    let place = Place::of(&observed.site);
    let access = access(spec);
    let references = access.iter().flat_map(|it| [it.credentials, it.certificates]).flatten();
    let mut elsewhere = references
        .chain(&spec.encryption_key_secret_ref)
        .filter(|it| it.namespace.as_ref().is_some_and(|namespace| *namespace != place.own));
    let claim = spec.persistent_volume_claim.as_ref().map(|it| &it.claim_name);
    let sites = child(&observed.site.spec.bench_ref.name, "sites");
    let allowed = observed.bench.as_ref().and_then(|it| it.spec.allowed_sites.clone()?.backups).unwrap_or_default();
    // A list applies to all sites; without a list, objects in the site's namespace may be referenced.
    let within = |list: &[String], name: &String| list.contains(name) || (list.is_empty() && !place.is_foreign());
    let account = spec.service_account_name.as_ref();
    let default_class = String::new();
    let staging = spec.staging_volume.as_ref().map(|it| it.storage_class_name.as_ref().unwrap_or(&default_class));
    let has_keys = access.as_ref().is_none_or(|it| it.credentials.is_some());
    let message = if elsewhere.next().is_some() {
        "Secrets of spec.storage must be in the SiteBackup's namespace".to_owned()
    } else if claim == Some(&sites) {
        format!("{sites} is the volume of the sites: backups must be stored on another volume")
    } else if let Some(claim) = claim.filter(|it| observed.taken_claims.contains(*it)) {
        format!("{claim} is the volume of a bench or of a MariaDB: backups must be stored on another volume")
    } else if let Some(claim) = claim.filter(|it| !within(&allowed.persistent_volume_claims, it)) {
        format!(
            "spec.storage.persistentVolumeClaim: {claim} is not allowed for backups of this site: use \
             object storage with credentialsSecretRef, or have the bench's owner add it to allowedSites.backups.persistentVolumeClaims"
        )
    } else if let Some(account) = account.filter(|it| !within(&allowed.service_accounts, it)) {
        format!(
            "spec.storage.serviceAccountName: {account} is not allowed for Jobs of this site: use credentialsSecretRef, or \
             have the bench's owner add it to allowedSites.backups.serviceAccounts"
        )
    } else if let Some(class) = staging.filter(|it| !within(&allowed.staging_storage_classes, it)) {
        let class = if class.is_empty() { "the default StorageClass" } else { class };
        format!(
            "spec.storage.stagingVolume: {class} is not allowed for Jobs of this site: use the node's disk with \
             stagingSizeLimit, or name a StorageClass that the bench's owner adds to allowedSites.backups.stagingStorageClasses"
        )
    } else if place.is_foreign() && account.is_none() && !has_keys {
        "the site's bench is in another namespace, so access by ServiceAccount is not allowed: set credentialsSecretRef"
            .to_owned()
    } else {
        return Ok(());
    };
    Err((Reason::StorageRefused, message))
}

/// Why a Secret of a storage may not be read. Copies from before permissions were required are kept.
fn not_readable(observed: &Observed, reference: &Reference) -> Option<(SiteReason, String)> {
    let copied = observed.copies.contains_key(&Place::of(&observed.site).mounted(&reference.name));
    refused(observed, reference).filter(|(reason, _)| *reason == SiteReason::SecretRefused || !copied)
}

/// The storage of the SiteBackup whose name is the longest prefix of the backup's name.
fn maker(observed: &Observed, restore: &Restore) -> Result<BackupStorage, Refusal> {
    let begins = |it: &&Arc<SiteBackup>| {
        let rest = restore.backup_name.strip_prefix(&it.name_any());
        it.spec.restore.is_none() && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
    };
    let makers = observed.backups.iter().filter(begins).filter(|it| it.spec.storage.is_some());
    let maker = makers.max_by_key(|it| it.name_any().len()).and_then(|it| it.spec.storage.clone());
    maker.ok_or_else(|| {
        let message = format!(
            "no SiteBackup of this site has made a backup {}: set spec.storage to where the backup is stored",
            restore.backup_name
        );
        (Reason::StorageMissing, message)
    })
}
