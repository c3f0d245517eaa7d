//! Which benches a change concerns. Pure.

use kube::ResourceExt;

use crate::{domain::key::Key, io::compact::Compact};

/// The bench that a child belongs to, by its labels.
pub fn owner(child: &Compact) -> Option<Key> {
    let bench = child.label("bench")?;
    child.namespace().map(|namespace| Key::new(namespace, bench))
}
