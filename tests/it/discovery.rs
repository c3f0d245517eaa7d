//! The MariaDB operator may be installed after this operator: it is detected without a restart.

use frappe_loadtest::{
    cluster::Cluster,
    process::{Operator, Options},
};

use crate::support::{World, program, site};

const KINDS: [&str; 4] = ["databases", "users", "grants", "mariadbs"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kinds_that_are_installed_later_are_detected() {
    let cluster = Cluster::start("discovery", 3).unwrap();
    for kind in KINDS {
        assert!(cluster.kubectl(&["delete", "crd", &format!("{kind}.k8s.mariadb.com")], "").unwrap().success);
    }
    let client = cluster.client().await.unwrap();
    let mut operator = Operator::start(program(), &cluster, &Options::default()).unwrap();
    operator.ready().await.unwrap();
    let world = World { operator, client, cluster };
    let bench = "apiVersion: v1\nkind: Namespace\nmetadata: {name: early}\n---\n\
                 apiVersion: vyogo.tech/v1alpha1\nkind: FrappeBench\nmetadata: {name: bench, namespace: early}\n\
                 spec: {frappeVersion: \"15\"}\n";
    world.cluster.apply(&format!("{bench}{}", site("early", "shop"))).unwrap();
    println!("{}", world.wait_for_site_reason("early", "shop", "MariaDbOperatorMissing").await);
    world.cluster.apply(include_str!("../../loadtest/controlplane/crds/mariadb-stand-in.yaml")).unwrap();
    println!("{}", world.wait_for_site_reason("early", "shop", "DatabaseServerNotFound").await);
    let server =
        "apiVersion: k8s.mariadb.com/v1alpha1\nkind: MariaDB\nmetadata: {name: late, namespace: early}\nspec: {}\n";
    world.cluster.apply(server).unwrap();
    println!("{}", world.wait_for_site_reason("early", "shop", "CreatingDatabase").await);
    world.kubectl(&["get", "database.k8s.mariadb.com/shop-db", "-n", "early"]);
}
