//! Which rights the operator used, over all clusters of a test run: each cluster notes them when it is removed.

use std::{collections::BTreeSet, path::Path};

use crate::audit::Request;

/// The environment variable with the folder of notes.
pub const FOLDER: &str = "FRAPPE_RIGHTS_USED";

/// Group, resource (with a subresource after a slash) and verb.
pub type Right = (String, String, String);

/// Writes down what the operator used in the cluster of this name, by all its requests there.
pub fn note(requests: &[Request], cluster: &str, folder: &Path) -> anyhow::Result<()> {
    // The commands for people name no pod: they act with a person's rights.
    let used: BTreeSet<Right> = requests.iter().filter(|it| !it.pod.is_empty()).flat_map(rights).collect();
    std::fs::create_dir_all(folder)?;
    std::fs::write(folder.join(format!("{cluster}.json")), serde_json::to_vec(&used)?)?;
    Ok(())
}

/// Everything that was written down, and by how many clusters.
pub fn noted(folder: &Path) -> anyhow::Result<(BTreeSet<Right>, usize)> {
    let (mut used, mut clusters) = (BTreeSet::new(), 0);
    for entry in std::fs::read_dir(folder)? {
        let of_one: BTreeSet<Right> = serde_json::from_slice(&std::fs::read(entry?.path())?)?;
        used.extend(of_one);
        clusters += 1;
    }
    Ok((used, clusters))
}

/// A patch that makes an object needs the right to create it too.
fn rights(request: &Request) -> Vec<Right> {
    let of = |verb: &str| (request.group.clone(), request.resource.clone(), verb.to_owned());
    let mut rights = vec![of(&request.verb)];
    rights.extend((request.verb == "patch" && request.code == 201).then(|| of("create")));
    rights
}
