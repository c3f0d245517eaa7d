//! The door for objects that lack what every object of an API server has: a name, a uid and, of most kinds, a namespace. They are
//! not taken in, so that nothing is named, owned, counted or put into a slot by an absent one. Pure.

use kube::{Resource, api::ObjectMeta};

use crate::slot::Slot;

/// The field that an object lacks, if it lacks one; `namespaced` says whether its kind has a namespace.
pub fn lacking(metadata: &ObjectMeta, namespaced: bool) -> Option<&'static str> {
    let fields = [
        ("metadata.name", Some(&metadata.name)),
        ("metadata.namespace", namespaced.then_some(&metadata.namespace)),
        ("metadata.uid", Some(&metadata.uid)),
    ];
    let is_absent = |value: &Option<String>| value.as_ref().is_none_or(String::is_empty);
    fields.into_iter().find(|(_, value)| value.is_some_and(is_absent)).map(|(field, _)| field)
}

/// The uid of an object that was taken in.
pub fn of(object: &impl Resource) -> &str {
    object.meta().uid.as_deref().unwrap_or_default()
}

/// The slot of an object that was taken in.
pub fn slot_of(object: &impl Resource) -> Slot {
    Slot::of_uid(of(object))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_name_namespace_or_uid_is_an_error() {
        let whole = ObjectMeta {
            name: Some("shop".into()),
            namespace: Some("a".into()),
            uid: Some("u".into()),
            ..ObjectMeta::default()
        };
        let with = |change: fn(&mut ObjectMeta)| {
            let mut changed = whole.clone();
            change(&mut changed);
            changed
        };
        assert_eq!(lacking(&whole, true), None);
        for (metadata, field) in [
            (with(|it| it.name = None), "metadata.name"),
            (with(|it| it.namespace = None), "metadata.namespace"),
            (with(|it| it.uid = None), "metadata.uid"),
            (with(|it| it.uid = Some(String::new())), "metadata.uid"),
        ] {
            assert_eq!(lacking(&metadata, true), Some(field));
        }
        assert_eq!(lacking(&with(|it| it.namespace = None), false), None, "of a kind of the cluster");
    }
}
