//! Every granted permission was used by a suite, and every used permission is granted. `make integration` runs this last, on the
//! audit logs of all clusters of the suites.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

use std::{collections::BTreeSet, path::PathBuf};

use frappe_loadtest::rights::{FOLDER, Right, noted};
use frappe_operator::parts::{Rights, Rule};

/// Permissions that no audit log contains, each with the reason.
const UNAUDITED: [(&str, &str, &str, &str); 4] = [
    (
        "vyogo.tech",
        "frappesites/finalizers",
        "update",
        "checked by OwnerReferencesPermissionEnforcement, in the request that names the owner",
    ),
    ("vyogo.tech", "frappebenches/finalizers", "update", "the same"),
    (
        "route.openshift.io",
        "routes/custom-host",
        "create",
        "checked by OpenShift, in the request that creates the Route",
    ),
    ("route.openshift.io", "routes/custom-host", "update", "the same"),
];

fn flat(rules: &[Rule]) -> BTreeSet<Right> {
    let mut rights = BTreeSet::new();
    for rule in rules {
        for group in &rule.api_groups {
            for resource in &rule.resources {
                rights.extend(rule.verbs.iter().map(|verb| (group.clone(), resource.clone(), verb.clone())));
            }
        }
    }
    rights
}

#[test]
fn granted_permissions_are_the_used_ones() {
    let Some(folder) = std::env::var_os(FOLDER).map(PathBuf::from) else {
        println!(
            "SKIPPED: {FOLDER} is not set: make integration compares the permissions with the requests of its suites"
        );
        return;
    };
    let (used, clusters) = noted(&folder).unwrap();
    let rights = Rights::needed();
    let unaudited: BTreeSet<Right> =
        UNAUDITED.iter().map(|(a, b, c, _)| ((*a).into(), (*b).into(), (*c).into())).collect();
    let granted = flat(&[rights.cluster, rights.namespaces, rights.own].concat());
    assert!(clusters > 10, "only {clusters} clusters recorded their requests");
    let missing: Vec<_> = used.difference(&granted).collect();
    let idle: Vec<_> = granted.difference(&used).filter(|it| !unaudited.contains(*it)).collect();
    assert!(missing.is_empty(), "used and not granted: {missing:#?}");
    assert!(idle.is_empty(), "granted and never used: {idle:#?}");
    println!(
        "{} rights are granted, {} of them used in {clusters} clusters, {} unaudited by nature",
        granted.len(),
        used.len(),
        unaudited.len()
    );
}
