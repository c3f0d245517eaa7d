//! No right is granted that the suites did not use, and none that they used is missing. `make integration` runs this last, over
//! what every cluster of the suites noted.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

use std::{collections::BTreeSet, path::PathBuf};

use frappe_loadtest::rights::{FOLDER, Right, noted};
use frappe_operator::parts::{Rights, Rule};

/// Rights that no audit log can show, each with its reason.
const UNSEEN: [(&str, &str, &str, &str); 4] = [
    (
        "vyogo.tech",
        "frappesites/finalizers",
        "update",
        "asked by OwnerReferencesPermissionEnforcement, in the request that names the owner",
    ),
    ("vyogo.tech", "frappebenches/finalizers", "update", "likewise"),
    ("route.openshift.io", "routes/custom-host", "create", "asked by OpenShift, in the request that makes the Route"),
    ("route.openshift.io", "routes/custom-host", "update", "likewise"),
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
fn what_is_granted_is_what_is_used() {
    let Some(folder) = std::env::var_os(FOLDER).map(PathBuf::from) else {
        println!("SKIPPED: {FOLDER} is not set: make integration holds rights against what its suites used");
        return;
    };
    let (used, clusters) = noted(&folder).unwrap();
    let rights = Rights::needed();
    let unseen: BTreeSet<Right> = UNSEEN.iter().map(|(a, b, c, _)| ((*a).into(), (*b).into(), (*c).into())).collect();
    let granted = flat(&[rights.cluster, rights.namespaces, rights.own].concat());
    assert!(clusters > 10, "only {clusters} clusters noted what they used");
    let missing: Vec<_> = used.difference(&granted).collect();
    let idle: Vec<_> = granted.difference(&used).filter(|it| !unseen.contains(*it)).collect();
    assert!(missing.is_empty(), "used and not granted: {missing:#?}");
    assert!(idle.is_empty(), "granted and never used: {idle:#?}");
    println!(
        "{} rights are granted, {} of them used in {clusters} clusters, {} unseen by nature",
        granted.len(),
        used.len(),
        unseen.len()
    );
}
