//! Which benches a change concerns. Pure.

use frappe_crds::FrappeBench;
use kube::ResourceExt;

use super::build;
use crate::{domain::key::Key, io::compact::Compact};

/// Whether a bench reads this Secret.
pub fn reads_secret(bench: &FrappeBench, secret: &Key) -> bool {
    bench.namespace().as_deref() == Some(secret.namespace.as_str())
        && build::redis_secret(bench).is_some_and(|(_, name)| name == secret.name)
}

/// The bench that a child belongs to, by its labels.
pub fn owner(child: &Compact) -> Option<Key> {
    let bench = child.label("bench")?;
    child.namespace().map(|namespace| Key::new(namespace, bench))
}
