//! Permissions that the operator used in all clusters of a test run: they are recorded when a cluster is removed.

use std::{collections::BTreeSet, path::Path};

use crate::audit::Request;

/// The environment variable with the folder of the records.
pub const FOLDER: &str = "FRAPPE_RIGHTS_USED";

/// Group, resource (with a subresource after a slash) and verb.
pub type Right = (String, String, String);

/// Records the permissions that the operator's requests used in the cluster of this name.
pub fn note(requests: &[Request], cluster: &str, folder: &Path) -> anyhow::Result<()> {
    // The commands for users have no pod in their user agent: they use a user's permissions.
    let used: BTreeSet<Right> = requests.iter().filter(|it| !it.pod.is_empty()).flat_map(rights).collect();
    std::fs::create_dir_all(folder)?;
    std::fs::write(folder.join(format!("{cluster}.json")), serde_json::to_vec(&used)?)?;
    Ok(())
}

/// All recorded permissions, and the number of clusters.
pub fn noted(folder: &Path) -> anyhow::Result<(BTreeSet<Right>, usize)> {
    let (mut used, mut clusters) = (BTreeSet::new(), 0);
    for entry in std::fs::read_dir(folder)? {
        let of_one: BTreeSet<Right> = serde_json::from_slice(&std::fs::read(entry?.path())?)?;
        used.extend(of_one);
        clusters += 1;
    }
    Ok((used, clusters))
}

/// A patch that creates an object also needs the permission to create it.
fn rights(request: &Request) -> Vec<Right> {
    let of = |verb: &str| (request.group.clone(), request.resource.clone(), verb.to_owned());
    let mut rights = vec![of(&request.verb)];
    rights.extend((request.verb == "patch" && request.code == 201).then(|| of("create")));
    rights
}
