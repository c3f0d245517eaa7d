//! Objects that cannot or must not be read completely: too large, or nested too deeply. A placeholder is kept for each, so
//! that what runs for it continues unchanged, and its owner gets a report.
//!
//! Fields that decide what happens to an object, such as whether its data is kept when it is deleted, are read anyway, each
//! on its own.

use frappe_crds::{
    FrappeBench, FrappeBenchSpec, FrappeSite, FrappeSiteSpec,
    bench::{FrappeBenchStatus, StorageDeletionPolicy},
    common::{DatabaseConfig, NamespacedReference, SecretReference},
    site::{DeletionPolicy, FrappeSiteStatus},
};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::core::{DynamicObject, TypeMeta};
use kube_sharding::reading::{self, Head};
use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use serde_json::{Value, value::RawValue};

use crate::{
    domain::{labels, wire},
    io::{bound, compact::Compact},
};

/// Longest text of a field that is read on its own, and of a status, in bytes.
const FIELD_BYTES_MAX: usize = 4 << 10;
const STATUS_BYTES_MAX: usize = 64 << 10;

/// A site, as far as it can be read.
pub(super) fn site(text: &str) -> Option<FrappeSite> {
    if let Some(site) = reading::whole(text) {
        return Some(bound::site(site));
    }
    let metadata = head(text)?.metadata;
    let Parts { spec, status } = parts::<SiteFields, FrappeSiteStatus>(text);
    let unread = status.is_unread();
    let spec = FrappeSiteSpec {
        site_name: spec.site_name,
        bench_ref: spec.bench_ref,
        admin_password_secret_ref: spec.admin_password_secret_ref,
        db_config: spec.db_config,
        domain: spec.domain,
        maintenance_mode: spec.maintenance_mode,
        scheduler_paused: spec.scheduler_paused,
        suspend: spec.suspend,
        deletion_policy: spec.deletion_policy,
        deletion_protection: spec.deletion_protection,
        ..FrappeSiteSpec::default()
    };
    let mut site = bound::site(FrappeSite { metadata, spec, status: status.read() });
    bound::mark_as(&mut site, marked(unread));
    Some(site)
}

/// A bench, as far as it can be read.
pub(super) fn bench(text: &str) -> Option<FrappeBench> {
    if let Some(bench) = reading::whole(text) {
        return Some(bound::bench(bench));
    }
    let metadata = head(text)?.metadata;
    let Parts { spec, status } = parts::<BenchFields, FrappeBenchStatus>(text);
    let unread = status.is_unread();
    let spec = FrappeBenchSpec {
        frappe_version: spec.frappe_version,
        storage_deletion_policy: spec.storage_deletion_policy,
        ..FrappeBenchSpec::default()
    };
    let mut bench = bound::bench(FrappeBench { metadata, spec, status: status.read() });
    bound::mark_as(&mut bench, marked(unread));
    Some(bench)
}

/// The operator's own ConfigMap: only the platform writes it, and settings that cannot be read must not become none.
pub(super) fn settings(text: &str) -> Option<ConfigMap> {
    let map = serde_json::from_str(text);
    map.inspect_err(|error| tracing::warn!(%error, "the operator's ConfigMap cannot be parsed")).ok()
}

/// The metadata alone.
pub(super) fn metadata(text: &str) -> Option<Compact> {
    bare(text).map(Compact::bare)
}

/// The API server's answer with an object: the whole of it, or its metadata alone.
pub(super) fn answer(text: &str) -> Option<DynamicObject> {
    wire::moderate_object(text).or_else(|| bare(text))
}

fn bare(text: &str) -> Option<DynamicObject> {
    let Head { api_version, kind, metadata } = head(text)?;
    let types = api_version.zip(kind).map(|(api_version, kind)| TypeMeta { api_version, kind });
    Some(DynamicObject { types, metadata, data: Value::Null })
}

fn head(text: &str) -> Option<Head> {
    Head::of(text, labels::is_own)
}

/// Spec and status, of which what cannot be read is omitted.
#[derive(Deserialize)]
#[serde(bound = "S: DeserializeOwned + Default, T: DeserializeOwned")]
struct Parts<S, T> {
    #[serde(default)]
    spec: S,
    #[serde(default, deserialize_with = "status")]
    status: Status<T>,
}

/// What there is of a status.
#[derive(Default)]
enum Status<T> {
    /// There is none.
    #[default]
    None,
    /// All of it.
    Read(Box<T>),
    /// There is one that cannot be read.
    Unread,
}

impl<T> Status<T> {
    fn is_unread(&self) -> bool {
        matches!(self, Self::Unread)
    }

    fn read(self) -> Option<T> {
        match self {
            Self::Read(status) => Some(*status),
            Self::None | Self::Unread => None,
        }
    }
}

fn marked(unread: bool) -> &'static str {
    if unread { labels::UNREAD_STATUS } else { "true" }
}

fn parts<S: DeserializeOwned + Default, T: DeserializeOwned>(text: &str) -> Parts<S, T> {
    // What is not even an object with fields may have a status all the same.
    serde_json::from_str(text).unwrap_or_else(|_| Parts { spec: S::default(), status: Status::Unread })
}

/// Fields of a site's spec that are small by the definition of the kind.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct SiteFields {
    #[serde(deserialize_with = "field")]
    site_name: String,
    #[serde(deserialize_with = "field")]
    bench_ref: NamespacedReference,
    #[serde(deserialize_with = "field")]
    admin_password_secret_ref: Option<SecretReference>,
    #[serde(deserialize_with = "field")]
    db_config: Option<DatabaseConfig>,
    #[serde(deserialize_with = "field")]
    domain: Option<String>,
    #[serde(deserialize_with = "field")]
    maintenance_mode: Option<bool>,
    #[serde(deserialize_with = "field")]
    scheduler_paused: Option<bool>,
    #[serde(deserialize_with = "field")]
    suspend: Option<bool>,
    #[serde(deserialize_with = "field")]
    deletion_policy: Option<DeletionPolicy>,
    #[serde(deserialize_with = "field")]
    deletion_protection: Option<bool>,
}

/// The same of a bench.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct BenchFields {
    #[serde(deserialize_with = "field")]
    frappe_version: String,
    #[serde(deserialize_with = "field")]
    storage_deletion_policy: Option<StorageDeletionPolicy>,
}

/// A field of its own: one that cannot be read is as if it were omitted.
fn field<'de, D: Deserializer<'de>, T: DeserializeOwned + Default>(deserializer: D) -> Result<T, D::Error> {
    let text = Box::<RawValue>::deserialize(deserializer)?;
    Ok(short(&text, FIELD_BYTES_MAX).unwrap_or_default())
}

fn status<'de, D: Deserializer<'de>, T: DeserializeOwned>(deserializer: D) -> Result<Status<T>, D::Error> {
    let text = Box::<RawValue>::deserialize(deserializer)?;
    if text.get() == "null" {
        return Ok(Status::None);
    }
    Ok(short(&text, STATUS_BYTES_MAX).map_or(Status::Unread, |it| Status::Read(Box::new(it))))
}

fn short<T: DeserializeOwned>(text: &RawValue, most: usize) -> Option<T> {
    let text = Some(text.get()).filter(|it| it.len() <= most)?;
    serde_json::from_str(text).ok()
}

#[cfg(test)]
mod tests {
    use kube::ResourceExt;

    use super::*;
    use crate::io::cached::Cached;

    fn deep() -> String {
        format!("{}{}", "[".repeat(130), "]".repeat(130))
    }

    fn text(spec: &str, status: &str) -> String {
        format!(
            r#"{{"apiVersion": "vyogo.tech/v1alpha1", "kind": "A", "spec": {spec}, "status": {status},
                "metadata": {{"name": "shop", "namespace": "a", "uid": "u", "resourceVersion": "7",
                              "labels": {{"{}": "007", "theirs": "x"}}}}}}"#,
            labels::SLOT
        )
    }

    /// What is deep hides neither the site nor what its owner said of its deletion, nor what was decided about it.
    #[test]
    fn a_site_that_is_nested_too_deeply_has_a_placeholder() {
        let spec = format!(
            r#"{{"siteName": "shop.example.com", "benchRef": {{"name": "b"}}, "deletionPolicy": "Retain",
                 "deletionProtection": true, "suspend": "maybe", "siteConfig": {{"mute_emails": {}}}}}"#,
            deep()
        );
        let text = text(&spec, r#"{"identity": "i", "phase": "Ready"}"#);
        assert!(serde_json::from_str::<FrappeSite>(&text).is_err());
        let site = FrappeSite::read(&text).expect("a site");
        assert_eq!((site.spec.site_name.as_str(), site.spec.bench_ref.name.as_str()), ("shop.example.com", "b"));
        assert_eq!(site.spec.deletion_policy, Some(DeletionPolicy::Retain));
        assert_eq!((site.spec.deletion_protection, site.spec.suspend), (Some(true), None));
        assert_eq!(site.status.as_ref().and_then(|it| it.identity.as_deref()), Some("i"));
        assert_eq!((site.uid().as_deref(), site.resource_version().as_deref()), (Some("u"), Some("7")));
        assert_eq!(site.labels().keys().collect::<Vec<_>>(), [labels::SLOT]);
        assert!(site.annotations().contains_key(labels::TOO_LARGE), "its owner is told");
    }

    #[test]
    fn a_spec_of_any_type_has_a_placeholder() {
        for spec in ["5", "null", "{}", r#"{"siteName": 5, "frappeVersion": []}"#, &deep()] {
            let text = text(spec, &deep());
            let site = FrappeSite::read(&text).expect("a site");
            let bench = FrappeBench::read(&text).expect("a bench");
            assert_eq!(site.annotations().get(labels::TOO_LARGE).map(String::as_str), Some(labels::UNREAD_STATUS));
            assert_eq!((site.name_any(), site.status, site.spec), ("shop".into(), None, FrappeSiteSpec::default()));
            assert_eq!((bench.name_any(), bench.spec), ("shop".into(), FrappeBenchSpec::default()));
            assert!(bench.metadata.annotations.unwrap_or_default().contains_key(labels::TOO_LARGE));
        }
        let spec =
            format!(r#"{{"frappeVersion": "15", "storageDeletionPolicy": "Delete", "networkPolicy": {}}}"#, deep());
        let bench = FrappeBench::read(&text(&spec, r#"{"redisProtected": true}"#)).expect("a bench");
        assert_eq!(
            (bench.spec.frappe_version.as_str(), bench.spec.storage_deletion_policy),
            ("15", Some(StorageDeletionPolicy::Delete))
        );
        assert_eq!(bench.status.and_then(|it| it.redis_protected), Some(true));
    }

    /// What is held compressed, and what a write answers, is read also.
    #[test]
    fn only_metadata_of_any_other_kind_is_kept() {
        for spec in [deep(), format!("[{}0]", r#"{"":0},"#.repeat(20_000))] {
            let text = text(&spec, "{}");
            let compact = DynamicObject::read(&text).expect("an object");
            assert_eq!((compact.name_any().as_str(), compact.label(labels::SLOT)), ("shop", Some("007")));
            assert_eq!(compact.open().data["spec"], Value::Null);
            let answer = answer(&text).expect("an object");
            assert_eq!((answer.name_any().as_str(), &answer.data), ("shop", &Value::Null));
        }
        assert_eq!(DynamicObject::read(&text("[1]", "{}")).expect("an object").open().data["spec"][0], 1);
        assert!(DynamicObject::read(r#"{"kind": "Status"}"#).is_none());
    }
}
