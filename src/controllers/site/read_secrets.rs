//! The Secrets that a site's configuration reads, with the versions that count.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use frappe_crds::{FrappeBench, FrappeSite, common::ReadSecret};
use kube::{ResourceExt, core::DynamicObject};
use kube_sharding::gate::Scope;

use super::{
    model::Observed,
    place::Place,
    references::{keys_of, of_site},
};
use crate::{
    controllers::context::Context,
    domain::{content, labels, uid},
};

/// Metadata of Secrets of a site.
pub(super) struct Known<'a> {
    /// Those of the site's namespace, by name.
    pub(super) secrets: &'a BTreeMap<String, Arc<DynamicObject>>,
    /// That with the database user.
    pub(super) credentials: Option<&'a DynamicObject>,
}

/// Their records. A Secret is read only if the recorded version is not the present one, and once for all sites of this replica. While it
/// is missing, its record is kept.
pub(super) async fn read(
    context: &Context,
    site: &FrappeSite,
    bench: Option<&FrappeBench>,
    known: &Known<'_>,
) -> Result<Vec<ReadSecret>, kube::Error> {
    let former = site.status.as_ref().map(|status| status.read_secrets.as_slice()).unwrap_or_default();
    if site.metadata.deletion_timestamp.is_some() || site.spec.suspend == Some(true) {
        return Ok(former.to_vec());
    }
    let scope = Scope::Slot(uid::slot_of(site));
    let mut records = Vec::new();
    for (name, keys) in names(site, bench, known) {
        let record = former.iter().find(|it| it.name == name);
        let live = known.of(site, &name).filter(|it| is_watched(it));
        match live {
            Some(live) => records.push(one(context, scope, record, &name, live, &keys).await?),
            None => records.extend(record.cloned()),
        }
    }
    Ok(records)
}

/// The record of one Secret.
async fn one(
    context: &Context,
    scope: Scope,
    record: Option<&ReadSecret>,
    name: &str,
    live: &DynamicObject,
    keys: &BTreeSet<String>,
) -> Result<ReadSecret, kube::Error> {
    let version = live.resource_version().unwrap_or_default();
    if let Some(record) = record.filter(|it| content::answers(Some(it), &version, keys)) {
        return Ok(record.clone());
    }
    let found = context.contents.of(scope, live).await?;
    let version = found.as_deref().and_then(|it| it.object.resource_version()).unwrap_or(version);
    Ok(content::counted(record, (name, &version), keys, found.as_deref().map(|it| &it.hashes)))
}

/// Names in the records, and the keys that are read.
fn names(site: &FrappeSite, bench: Option<&FrappeBench>, known: &Known) -> BTreeMap<String, BTreeSet<String>> {
    let references = of_site(site, bench);
    let mut names: BTreeMap<_, _> =
        references.iter().map(|it| (it.name.clone(), keys_of(&references, &it.name))).collect();
    if site.spec.admin_password_secret_ref.is_none() {
        let generated = Place::of(site).generated_admin_password(&site.name_any()).name;
        names.entry(generated).or_default().insert("password".to_owned());
    }
    let whole = BTreeSet::from([content::WHOLE.to_owned()]);
    names.extend(known.credentials.map(|it| (recorded_name(site, it), whole)));
    names
}

/// The name in the record: outside the site's namespace, with its namespace.
fn recorded_name(site: &FrappeSite, secret: &DynamicObject) -> String {
    let namespace = secret.namespace().filter(|it| Some(it) != site.namespace().as_ref());
    namespace.map_or_else(|| secret.name_any(), |namespace| format!("{namespace}/{}", secret.name_any()))
}

/// Whether its labels are set, which change its version once.
fn is_watched(secret: &DynamicObject) -> bool {
    [labels::WATCHED, labels::SLOT].iter().any(|label| secret.labels().contains_key(*label))
}

impl<'a> Known<'a> {
    fn of(&self, site: &FrappeSite, name: &str) -> Option<&'a DynamicObject> {
        let credentials = self.credentials.filter(|it| recorded_name(site, it) == name);
        credentials.or_else(|| self.secrets.get(name).map(|it| &**it))
    }
}

impl Observed {
    /// The version of a Secret that counts.
    pub(super) fn version_of(&self, secret: &DynamicObject) -> String {
        let name = recorded_name(&self.site, secret);
        let record = self.read_secrets.iter().find(|it| it.name == name);
        record.map_or_else(|| secret.resource_version().unwrap_or_default(), |it| it.version.clone())
    }
}
