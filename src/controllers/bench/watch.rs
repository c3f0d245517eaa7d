//! Benches that a change affects. Pure.

use frappe_crds::FrappeBench;
use kube::ResourceExt;

use super::build;
use crate::{
    domain::{key::Key, names::child, object::Kind},
    io::compact::Compact,
};

/// Suffixes of the names of a bench's objects.
const PARTS: [&str; 15] = [
    "sites",
    "site-runner",
    "redis-cache",
    "redis-queue",
    "redis-password",
    "redis",
    "configure",
    "hold",
    "gunicorn",
    "nginx",
    "socketio",
    "scheduler",
    "worker-default",
    "worker-short",
    "worker-long",
];

/// Whether a bench references this Secret.
pub fn reads_secret(bench: &FrappeBench, secret: &Key) -> bool {
    bench.namespace().as_deref() == Some(secret.namespace.as_str())
        && build::redis_secret(bench).is_some_and(|(_, name)| name == secret.name)
}

/// The bench that an object belongs to, by its labels.
pub fn owner(child: &Compact) -> Option<Key> {
    let bench = child.label("bench")?;
    child.namespace().map(|namespace| Key::new(namespace, bench))
}

/// Whether an object with a bench's labels belongs to the bench, by its name; pods are not checked. The names of objects of an earlier
/// revision end with its number, as their component does.
pub fn is_part(bench: &str, kind: Kind, object: &Compact) -> bool {
    let name = object.name_any();
    let component = object.label("component").filter(|it| is_of_revision(it));
    let of = |part: &&str| child(bench, part) == name;
    let claim = || name == format!("data-{}-0", child(bench, "redis-queue"));
    kind == Kind::Pod || PARTS.iter().copied().chain(["pods"]).chain(component).any(|it| of(&it)) || claim()
}

/// Whether a component is one of an earlier revision, such as `nginx-r1`.
fn is_of_revision(component: &str) -> bool {
    let Some((part, number)) = component.rsplit_once("-r") else { return false };
    PARTS.contains(&part) && number.bytes().all(|it| it.is_ascii_digit()) && !number.is_empty()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_bench_references_secrets_of_its_own_namespace() {
        let bench: FrappeBench = serde_json::from_value(json!({
            "apiVersion": "vyogo.tech/v1alpha1", "kind": "FrappeBench", "metadata": {"name": "prod", "namespace": "a"},
            "spec": {"frappeVersion": "15", "apps": [], "redisConfig": {"passwordSecretRef": {"name": "redis"}}},
        }))
        .expect("a bench");
        for (namespace, name, wanted) in [("a", "redis", true), ("b", "redis", false), ("a", "other", false)] {
            assert_eq!(reads_secret(&bench, &Key::new(namespace, name)), wanted, "{namespace}/{name}");
        }
    }
}
