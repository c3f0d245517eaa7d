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
pub enum Relation {
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
    pub fn relation(&self, object: &DynamicObject) -> Relation {
        if self.is_site { self.relation_to_site(object) } else { self.relation_to_bench(object) }
    }

    /// Whether an object belongs to it, or to a deleted one with the same name.
    pub fn has(&self, object: &DynamicObject) -> bool {
        self.relation(object) != Relation::Other
    }

    fn relation_to_site(&self, object: &DynamicObject) -> Relation {
        let label = |key: &str| object.labels().get(key);
        // A FrappeDomain, which no tenant may write, says it in its spec.
        if let Some(holder) = foreign::holder(object) {
            return if holder.uid == self.uid { Relation::Own } else { Relation::Other };
        }
        if label(SITE_UID) == Some(&self.uid) || (is_marked(object) && is_controlled_by(object, &self.uid)) {
            return Relation::Own;
        }
        let namespace = label(SITE_NAMESPACE).cloned().or_else(|| object.namespace());
        let is_namesake = label("site") == Some(&self.name) && namespace.as_ref() == Some(&self.namespace);
        let was_a_sites = label(SITE_UID).is_some() || is_marked(object);
        if is_namesake && was_a_sites { Relation::Former } else { Relation::Other }
    }

    fn relation_to_bench(&self, object: &DynamicObject) -> Relation {
        let controller = object.owner_references().iter().find(|it| it.controller == Some(true));
        let is_namesake = object.labels().get("bench") == Some(&self.name) && is_marked(object);
        match controller {
            _ if object.labels().contains_key(SITE_UID) => Relation::Other,
            Some(controller) if controller.uid == self.uid => Relation::Own,
            // A volume that is to outlive its bench names no owner.
            None if is_namesake => Relation::Own,
            Some(_) if is_namesake && self.uid.is_empty() => Relation::Own,
            Some(controller) if is_namesake && controller.name == self.name => Relation::Former,
            _ => Relation::Other,
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
        for (holder, expected) in [("mine", Relation::Own), ("other", Relation::Other)] {
            let mut claim = object(&json!({"name": "shop.example.com"}));
            claim.data = json!({"spec": {"site": {"namespace": "a", "name": "shop", "uid": holder}}});
            assert_eq!(owner(true).relation(&claim), expected);
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
            (json!({uid: "mine", "site": "shop"}), Relation::Own),
            (json!({uid: "gone", "site": "shop"}), Relation::Former),
            (json!({uid: "other", "site": "shop", namespace: "b"}), Relation::Other),
            (json!({uid: "other", "site": "other"}), Relation::Other),
            (json!({"site": "shop"}), Relation::Former),
            (json!({}), Relation::Other),
        ] {
            assert_eq!(owner(true).relation(&marked(labels.clone())), expected, "{labels}");
        }
        let persons = object(&json!({"name": "shop-db", "namespace": "a", "labels": {"site": "shop"}}));
        assert_eq!(
            owner(true).relation(&persons),
            Relation::Other,
            "its name and a label of a person's are no identity"
        );
    }

    #[test]
    fn an_object_is_a_benchs_by_its_controller() {
        let of = |uid: &str, name: &str| json!([{"apiVersion": "vyogo.tech/v1alpha1", "kind": "FrappeBench", "name": name, "uid": uid, "controller": true}]);
        let labels = json!({"app.kubernetes.io/managed-by": "frappe-operator", "bench": "shop"});
        for (owners, expected) in [
            (of("mine", "shop"), Relation::Own),
            (of("gone", "shop"), Relation::Former),
            (of("other", "other"), Relation::Other),
            (json!([]), Relation::Own),
        ] {
            let found =
                object(&json!({"name": "shop-nginx", "namespace": "a", "labels": labels, "ownerReferences": owners}));
            assert_eq!(owner(false).relation(&found), expected, "{owners}");
        }
        let persons = object(&json!({"name": "shop-nginx", "namespace": "a", "labels": {"bench": "shop"}}));
        assert_eq!(owner(false).relation(&persons), Relation::Other);
    }
}
