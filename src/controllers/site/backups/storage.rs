//! Where a SiteBackup keeps its backups, and what a restore is restored from. Pure.

use std::sync::Arc;

use frappe_crds::{
    SiteBackup,
    backup::{BackupStorage, Restore},
};
use kube::ResourceExt;

use super::{
    super::{observe::Observed, place::Place},
    reason::Reason,
};
use crate::{
    domain::names::child,
    transfer::store::{Bucket, Place as Kept},
};

/// A storage that can be used.
#[derive(Clone, Debug, PartialEq)]
pub struct Storage {
    /// As the spec has it.
    pub spec: BackupStorage,
    /// As the Job's program is told.
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

/// What stands in the way, for people.
pub type Refusal = (Reason, String);

/// The storage of a SiteBackup: its own; of a restore without one, that of the SiteBackup that made the backup.
pub fn storage(observed: &Observed, backup: &SiteBackup) -> Result<Storage, Refusal> {
    let spec = match (&backup.spec.storage, &backup.spec.restore) {
        (Some(own), _) => own.clone(),
        (None, Some(restore)) => maker(observed, restore)?,
        (None, None) => {
            let message =
                "set spec.storage.s3, or spec.storage.persistentVolumeClaim with a volume other than the sites'";
            return Err((Reason::StorageMissing, message.to_owned()));
        }
    };
    refuse(observed, &spec)?;
    let missing = secrets(&spec).find(|name| !observed.secrets.contains_key(*name));
    if let Some(name) = missing {
        let message = format!("Secret {name} does not exist, but spec.storage refers to it: create it");
        return Err((Reason::StorageSecretMissing, message));
    }
    let site = &observed.site;
    let own = format!("{}/{}", site.namespace().unwrap_or_default(), site.name_any());
    let (place, prefix) = match (&spec.s3, &spec.persistent_volume_claim) {
        (Some(s3), _) => {
            let bucket = Bucket {
                bucket: s3.bucket.clone(),
                region: s3.region.clone(),
                endpoint: s3.endpoint.clone(),
                path_style: s3.force_path_style.unwrap_or(s3.endpoint.is_some()),
            };
            (Kept::S3(bucket), &s3.prefix)
        }
        (None, claim) => (Kept::Volume, &claim.as_ref().and_then(|it| it.path.clone())),
    };
    let folder = match prefix.as_deref().filter(|it| !it.is_empty()) {
        Some(prefix) => format!("{prefix}/{own}"),
        None => own,
    };
    Ok(Storage { spec, place, folder })
}

/// What a SiteBackup may not name: a Secret of another namespace, and what belongs to a bench that is not beside it.
fn refuse(observed: &Observed, spec: &BackupStorage) -> Result<(), Refusal> {
    let place = Place::of(&observed.site);
    let s3 = spec.s3.as_ref();
    let references = s3.iter().flat_map(|it| [&it.credentials_secret_ref, &it.ca_secret_ref]).flatten();
    let mut elsewhere = references
        .chain(&spec.encryption_key_secret_ref)
        .filter(|it| it.namespace.as_ref().is_some_and(|namespace| *namespace != place.own));
    let claim = spec.persistent_volume_claim.as_ref().map(|it| it.claim_name.as_str());
    let sites = child(&observed.site.spec.bench_ref.name, "sites");
    let message = if elsewhere.next().is_some() {
        "spec.storage may refer only to Secrets in the SiteBackup's own namespace".to_owned()
    } else if claim == Some(sites.as_str()) {
        format!("{sites} is the volume of the sites: losing it would lose their backups too")
    } else if place.is_foreign() && (claim.is_some() || spec.service_account_name.is_some()) {
        "the site's bench is in another namespace, whose volumes and ServiceAccounts are not this one's: use s3 with \
         credentialsSecretRef"
            .to_owned()
    } else {
        return Ok(());
    };
    Err((Reason::StorageRefused, message))
}

/// Names of the Secrets that a storage reads.
pub fn secrets(storage: &BackupStorage) -> impl Iterator<Item = &str> {
    let s3 = storage.s3.as_ref();
    let credentials = s3.and_then(|it| it.credentials_secret_ref.as_ref());
    let authorities = s3.and_then(|it| it.ca_secret_ref.as_ref());
    [credentials, authorities, storage.encryption_key_secret_ref.as_ref()]
        .into_iter()
        .flatten()
        .map(|it| it.name.as_str())
}

/// The storage of the SiteBackup whose name the backup's begins with: of several the longest.
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
