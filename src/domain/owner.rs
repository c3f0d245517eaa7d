//! Ownership of objects; decided only here. Pure.
//!
//! An object belongs to a site or bench by the uid that it carries, never by its name. A user who may write in a bench's
//! namespace can label objects there at will, but cannot give objects to, or take them from, owners in another namespace.

use kube::{ResourceExt, core::DynamicObject};

use super::{
    foreign,
    key::Key,
    labels::{self, SITE_NAMESPACE, SITE_UID},
    object::{Desired, is_controlled_by, is_ours},
    uid,
};

/// Relation of an object to a site or bench.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It belongs to this site or bench.
    Own,
    /// It was created for a deleted one with the same namespace and name, and may be used.
    Former,
    /// It belongs to another owner: it is not used, not changed, not labelled and not deleted.
    Other,
}

/// A site or bench as an owner of objects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Whether it is a site.
    pub is_site: bool,
    /// Its uid.
    pub uid: String,
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
}

impl Owner {
    /// A site.
    pub fn site(site: &impl ResourceExt) -> Self {
        Self { is_site: true, ..Self::bench(site) }
    }

    /// A bench.
    pub fn bench(bench: &impl ResourceExt) -> Self {
        Self {
            is_site: false,
            uid: uid::of(bench).to_owned(),
            name: bench.name_any(),
            namespace: Key::of(bench).namespace,
        }
    }

    /// The owner of a desired object, from its labels and owner references.
    pub fn of(desired: &Desired) -> Self {
        let owned = |it: &str| it.to_owned();
        let namespace = desired.label(SITE_NAMESPACE).unwrap_or(&desired.key.namespace).to_owned();
        if let Some(uid) = desired.label(SITE_UID) {
            let name = desired.label("site").map(owned).unwrap_or_default();
            return Self { is_site: true, uid: uid.to_owned(), name, namespace };
        }
        let uid = desired.owners().into_iter().next().map(|it| it.uid).unwrap_or_default();
        Self { is_site: false, uid, name: desired.label("bench").map(owned).unwrap_or_default(), namespace }
    }

    /// Relation of an object to this owner.
    pub fn standing(&self, object: &DynamicObject) -> Standing {
        if self.is_site { self.standing_of_sites(object) } else { self.standing_of_benches(object) }
    }

    /// Whether an object belongs to it, or to a deleted one with the same name.
    pub fn has(&self, object: &DynamicObject) -> bool {
        self.standing(object) != Standing::Other
    }

    fn standing_of_sites(&self, object: &DynamicObject) -> Standing {
        let label = |key: &str| object.labels().get(key);
        // A FrappeDomain, which no tenant may write, says it in its spec.
        if let Some(holder) = foreign::holder(object) {
            return if holder.uid == self.uid { Standing::Own } else { Standing::Other };
        }
        if label(SITE_UID) == Some(&self.uid) || (is_marked(object) && is_controlled_by(object, &self.uid)) {
            return Standing::Own;
        }
        let namespace = label(SITE_NAMESPACE).cloned().or_else(|| object.namespace());
        let is_namesake = label("site") == Some(&self.name) && namespace.as_ref() == Some(&self.namespace);
        let was_a_sites = label(SITE_UID).is_some() || is_marked(object);
        if is_namesake && was_a_sites { Standing::Former } else { Standing::Other }
    }

    fn standing_of_benches(&self, object: &DynamicObject) -> Standing {
        let controller = object.owner_references().iter().find(|it| it.controller == Some(true));
        let is_namesake = object.labels().get("bench") == Some(&self.name) && is_marked(object);
        match controller {
            _ if object.labels().contains_key(SITE_UID) => Standing::Other,
            Some(controller) if controller.uid == self.uid => Standing::Own,
            // A volume that is to outlive its bench names no owner.
            None if is_namesake => Standing::Own,
            Some(_) if is_namesake && self.uid.is_empty() => Standing::Own,
            Some(controller) if is_namesake && controller.name == self.name => Standing::Former,
            _ => Standing::Other,
        }
    }
}

/// Whether an object has a label of this operator.
fn is_marked(object: &DynamicObject) -> bool {
    is_ours(&object.metadata) || object.annotations().contains_key(labels::APPLIED_HASH)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn object(metadata: &Value) -> DynamicObject {
        serde_json::from_value(json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata})).expect("an object")
    }

    fn owner(is_site: bool) -> Owner {
        Owner { is_site, uid: "mine".into(), name: "shop".into(), namespace: "a".into() }
    }

    #[test]
    fn a_host_is_held_by_the_uid_in_its_claim() {
        for (holder, expected) in [("mine", Standing::Own), ("other", Standing::Other)] {
            let mut claim = object(&json!({"name": "shop.example.com"}));
            claim.data = json!({"spec": {"site": {"namespace": "a", "name": "shop", "uid": holder}}});
            assert_eq!(owner(true).standing(&claim), expected);
        }
    }

    #[test]
    fn an_object_is_a_sites_by_its_uid() {
        let marked = |more: Value| {
            let mut labels = json!({"app.kubernetes.io/managed-by": "frappe-operator"});
            labels.as_object_mut().expect("labels").extend(more.as_object().cloned().expect("labels"));
            object(&json!({"name": "shop-db", "namespace": "a", "labels": labels}))
        };
        let uid = "frappe.vyogo.tech/site-uid";
        let namespace = "frappe.vyogo.tech/site-namespace";
        for (labels, expected) in [
            (json!({uid: "mine", "site": "shop"}), Standing::Own),
            (json!({uid: "gone", "site": "shop"}), Standing::Former),
            (json!({uid: "other", "site": "shop", namespace: "b"}), Standing::Other),
            (json!({uid: "other", "site": "other"}), Standing::Other),
            (json!({"site": "shop"}), Standing::Former),
            (json!({}), Standing::Other),
        ] {
            assert_eq!(owner(true).standing(&marked(labels.clone())), expected, "{labels}");
        }
        let persons = object(&json!({"name": "shop-db", "namespace": "a", "labels": {"site": "shop"}}));
        assert_eq!(
            owner(true).standing(&persons),
            Standing::Other,
            "its name and a label of a person's are no identity"
        );
    }

    #[test]
    fn an_object_is_a_benchs_by_its_controller() {
        let of = |uid: &str, name: &str| json!([{"apiVersion": "vyogo.tech/v1alpha1", "kind": "FrappeBench", "name": name, "uid": uid, "controller": true}]);
        let labels = json!({"app.kubernetes.io/managed-by": "frappe-operator", "bench": "shop"});
        for (owners, expected) in [
            (of("mine", "shop"), Standing::Own),
            (of("gone", "shop"), Standing::Former),
            (of("other", "other"), Standing::Other),
            (json!([]), Standing::Own),
        ] {
            let found =
                object(&json!({"name": "shop-nginx", "namespace": "a", "labels": labels, "ownerReferences": owners}));
            assert_eq!(owner(false).standing(&found), expected, "{owners}");
        }
        let persons = object(&json!({"name": "shop-nginx", "namespace": "a", "labels": {"bench": "shop"}}));
        assert_eq!(owner(false).standing(&persons), Standing::Other);
    }
}
