//! Which benches a change concerns. Pure.

use kube::{ResourceExt, core::DynamicObject};

use crate::domain::key::Key;

/// The bench that a child belongs to, by its labels.
pub fn owner(child: &DynamicObject) -> Option<Key> {
    let bench = child.labels().get("bench")?;
    child.namespace().map(|namespace| Key::new(namespace, bench))
}
