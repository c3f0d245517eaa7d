//! An upgrade of the operator alone restarts no pod: templates of earlier versions are kept.

use serde::Deserialize as _;

use super::*;

/// The workloads of a bench with one app, as earlier versions created them.
const EARLIER: [(&str, &str); 2] =
    [("entrypoint", include_str!("earlier/entrypoint.yaml")), ("no pause", include_str!("earlier/no-pause.yaml"))];

fn workloads(text: &str) -> Vec<Desired> {
    let read = |document| {
        let body = Value::deserialize(document).expect("a workload");
        let kind = if body["kind"] == "Deployment" { Kind::Deployment } else { Kind::StatefulSet };
        assert_eq!(body["kind"], kind.resource().kind);
        let name = body["metadata"]["name"].as_str().expect("a name");
        Desired { kind, key: Key::new("default", name), body }
    };
    serde_yaml_ng::Deserializer::from_str(text).map(read).collect()
}

/// A bench of this version with the workloads of another version.
fn with(earlier: &[Desired]) -> Observed {
    let mut world = observed(json!({"apps": [{"name": "erpnext", "source": "image"}]}));
    converge(&mut world);
    for desired in earlier {
        world.live.insert((desired.kind, desired.key.name.clone()), live(desired));
    }
    world
}

#[test]
fn workloads_of_earlier_versions_stay_as_they_are() {
    for (version, text) in EARLIER {
        let earlier = workloads(text);
        assert_eq!(earlier.len(), 9, "{version}");
        let world = with(&earlier);
        assert_eq!(ready(&world).1, "Ready", "{version}");
        let next = plan(&world);
        for was in &earlier {
            let now = next.steps.iter().find_map(|step| match step {
                Step::Ensure(it) if (it.kind, &it.key) == (was.kind, &was.key) => Some(it.stamped()),
                _ => None,
            });
            let now = now.unwrap_or_else(|| panic!("{version}: {} is not kept", was.key.name));
            assert_eq!(now, was.stamped(), "{version}: {}", was.key.name);
        }
    }
}
