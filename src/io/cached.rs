//! What caches hold: typed objects as they are, others as compressed JSON.
//!
//! The objects of one kind are nearly alike, so that beside a sample each is a few hundred bytes.

use std::{
    fmt,
    sync::{Arc, OnceLock},
};

use frappe_crds::{FrappeBench, FrappeSite};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Resource, core::DynamicObject};
use kube_sharding::keep::{Keep, is_whole};
use lz4_flex::block::{compress_prepend_size_with_dict, decompress_size_prepended_with_dict};
use serde::de::DeserializeOwned;

use super::compact::Compact;
use crate::io::{bound, unread};

/// An object that a cache may hold.
pub trait Cached: Sized + Send + Sync + 'static {
    /// What the watch delivers.
    type Form: Resource + Clone + DeserializeOwned + fmt::Debug + Send + Sync + 'static;
    /// What the cache holds.
    type Held: Send + Sync;

    /// The form of an object.
    fn close(self) -> Self::Form;

    /// What arrives, from its text: one that cannot be read whole is no reason not to read the others.
    fn read(text: &str) -> Option<Self::Form>;

    /// What of a form is kept when it arrives.
    fn trim(form: Self::Form) -> Self::Form {
        form
    }

    /// The object of a form.
    fn open(form: &Arc<Self::Form>) -> Arc<Self>;

    /// The form as it is held beside a sample of its kind.
    fn hold(form: &Arc<Self::Form>, sample: &Sample) -> Self::Held;

    /// The form that is held.
    fn form(held: &Self::Held) -> Arc<Self::Form>;

    /// The same, in memory of its own.
    fn copy(held: &Self::Held) -> Self::Held;
}

/// The caches of this operator keep objects as [`Cached`] says.
pub struct Kept;

impl<K: Cached> Keep<K> for Kept {
    type Form = K::Form;
    type Held = K::Held;
    type Sample = Sample;

    fn close(object: K) -> K::Form {
        object.close()
    }

    fn read(text: &str) -> Option<K::Form> {
        K::read(text)
    }

    fn trim(form: K::Form) -> K::Form {
        K::trim(form)
    }

    fn open(form: &Arc<K::Form>) -> Arc<K> {
        K::open(form)
    }

    fn hold(form: &Arc<K::Form>, sample: &Sample) -> K::Held {
        K::hold(form, sample)
    }

    fn form(held: &K::Held) -> Arc<K::Form> {
        K::form(held)
    }

    fn copy(held: &K::Held) -> K::Held {
        K::copy(held)
    }
}

/// One object of a kind, the first that was held: what the others have in common with it is not held again.
#[derive(Default)]
pub struct Sample(OnceLock<Arc<[u8]>>);

/// Kinds that are held as they are.
macro_rules! held_as_they_are {
    ($($kind:ty, $trim:ident;)*) => {$(
        impl Cached for $kind {
            type Form = Self;
            type Held = Arc<Self>;

            fn close(self) -> Self {
                self
            }

            fn read(text: &str) -> Option<Self> {
                unread::$trim(text).filter(|it| is_whole(it, true))
            }

            fn trim(form: Self) -> Self {
                bound::$trim(form)
            }

            fn open(form: &Arc<Self>) -> Arc<Self> {
                Arc::clone(form)
            }

            fn hold(form: &Arc<Self>, _: &Sample) -> Arc<Self> {
                Arc::clone(form)
            }

            fn form(held: &Arc<Self>) -> Arc<Self> {
                Arc::clone(held)
            }

            fn copy(held: &Arc<Self>) -> Arc<Self> {
                Arc::new(Self::clone(held))
            }
        }
    )*};
}

held_as_they_are! {
    FrappeSite, site;
    FrappeBench, bench;
    ConfigMap, settings;
}

impl Cached for DynamicObject {
    type Form = Compact;
    type Held = Packed;

    fn close(self) -> Compact {
        Compact::of(self)
    }

    fn read(text: &str) -> Option<Compact> {
        // Some kinds are of the cluster.
        Compact::read(text).or_else(|| unread::metadata(text)).filter(|it| is_whole(it, false))
    }

    fn open(form: &Arc<Compact>) -> Arc<Self> {
        Arc::new(form.open())
    }

    fn hold(form: &Arc<Compact>, sample: &Sample) -> Packed {
        let sample = Arc::clone(sample.0.get_or_init(|| form.json.clone().into()));
        Packed { compressed: compress_prepend_size_with_dict(&form.json, &sample).into_boxed_slice(), sample }
    }

    fn form(held: &Packed) -> Arc<Compact> {
        let json = decompress_size_prepended_with_dict(&held.compressed, &held.sample);
        Arc::new(Compact::again(json.expect("what was compressed with a sample is read with it")))
    }

    fn copy(held: &Packed) -> Packed {
        Packed { compressed: held.compressed.clone(), sample: Arc::clone(&held.sample) }
    }
}

/// An object as LZ4, beside a sample.
pub struct Packed {
    compressed: Box<[u8]>,
    sample: Arc<[u8]>,
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::domain::labels;
    use kube::ResourceExt;

    fn object() -> Value {
        json!({
            "metadata": {"name": "shop-init", "namespace": "a", "uid": "u", "resourceVersion": "7",
                         "labels": {"site": "shop", labels::SLOT: "042"}, "managedFields": [{"manager": "x"}]},
            "spec": {"backoffLimit": 0, "template": {"spec": {}}},
            "status": {"conditions": [{"type": "Complete", "status": "True"}]},
        })
    }

    #[test]
    fn an_object_is_unpacked_without_the_fields_that_are_never_read() {
        let compact: Compact = serde_json::from_value(object()).unwrap();
        assert_eq!((compact.name_any().as_str(), compact.resource_version().as_deref()), ("shop-init", Some("7")));
        assert_eq!((compact.label("site"), compact.label("none")), (Some("shop"), None));
        let opened = compact.open();
        assert_eq!(opened.labels()["site"], "shop");
        assert_eq!(opened.metadata.managed_fields, None);
        assert_eq!(opened.data["spec"], json!({"backoffLimit": 0}));
        assert_eq!(opened.data["status"]["conditions"][0]["type"], "Complete");
        assert_eq!(opened.close().json, compact.json, "closing what was opened gives the same");
    }

    /// Were it taken in, a site without a uid would be in the slot of the empty text.
    #[test]
    fn an_object_without_name_or_uid_is_rejected() {
        let text = |metadata: &str| {
            format!(
                r#"{{"apiVersion": "vyogo.tech/v1alpha1", "kind": "FrappeSite", "metadata": {metadata},
                     "spec": {{"siteName": "shop.example.com", "benchRef": {{"name": "b"}}}}}}"#
            )
        };
        let read = |metadata: &str| {
            let text = text(metadata);
            (FrappeSite::read(&text).is_some(), DynamicObject::read(&text).is_some())
        };
        assert_eq!(read(r#"{"name": "shop", "namespace": "a", "uid": "u"}"#), (true, true));
        assert_eq!(read(r#"{"name": "shop", "namespace": "a"}"#), (false, false));
        assert_eq!(read(r#"{"name": "shop", "namespace": "a", "uid": ""}"#), (false, false));
        assert_eq!(read(r#"{"namespace": "a", "uid": "u"}"#), (false, false));
        assert_eq!(read(r#"{"name": "shop", "uid": "u"}"#), (false, true), "some kinds are of the cluster");
    }

    /// Of a Secret that was just made, everything but its metadata is dropped before it is remembered.
    #[test]
    fn metadata_alone_is_an_object_too() {
        let mut secret: DynamicObject = serde_json::from_value(object()).unwrap();
        secret.data = Value::Null;
        let compact = secret.close();
        assert_eq!((compact.name_any().as_str(), compact.label("site")), ("shop-init", Some("shop")));
        assert_eq!(compact.open().data["spec"], Value::Null);
    }

    #[test]
    fn equal_objects_are_held_once() {
        let sample = Sample::default();
        let held: Vec<Packed> = ["1", "2", "3"]
            .map(|uid| {
                let mut object = object();
                object["metadata"]["uid"] = json!(uid);
                DynamicObject::hold(&Arc::new(serde_json::from_value(object).unwrap()), &sample)
            })
            .into();
        for (packed, uid) in held.iter().zip(["1", "2", "3"]) {
            let form = DynamicObject::form(packed);
            assert_eq!(form.uid().as_deref(), Some(uid));
            assert_eq!(DynamicObject::open(&form).data["spec"], json!({"backoffLimit": 0}));
            assert!(
                packed.compressed.len() * 5 < form.json.len(),
                "{} of {}",
                packed.compressed.len(),
                form.json.len()
            );
        }
    }

    #[test]
    fn the_template_of_a_bench_is_compared_so_it_is_kept() {
        let mut object = object();
        object["metadata"]["labels"] = json!({"bench": "b"});
        let compact: Compact = serde_json::from_value(object).unwrap();
        assert!(compact.open().data["spec"]["template"].is_object());
    }

    #[test]
    fn a_value_that_is_not_an_object_is_rejected() {
        assert!(serde_json::from_value::<Compact>(json!({"kind": "Status"})).is_err());
    }
}
