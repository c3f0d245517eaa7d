//! Only a changed content of a Secret restarts pods or runs Jobs; a change of its metadata costs a replica one request.

use kube_sharding_sim::Requested;
use serde_json::{Value, json};

use crate::world::{BENCHES, DEPLOYMENTS, Replica, SECRETS, SITES, World, bench, run, site};

const STATEFUL_SETS: &str = "/apis/apps/v1/namespaces/shops/statefulsets";
const NAMES: [&str; 3] = ["shop", "news", "blog"];

/// A bench whose Redis, and three sites whose Administrator and settings, read the same Secret.
async fn settled(seed: u64) -> (World, Replica) {
    let world = World::new(seed);
    let replica = world.replica(0, "one");
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "shared"},
                        "data": {"password": "Zmlyc3Q=", "mail": "bWFpbA==", "unread": "eA=="}});
    world.server.create_by_hand(SECRETS, &secret);
    let mut bench = bench();
    bench["spec"]["redisConfig"] = json!({"passwordSecretRef": {"name": "shared"}});
    world.server.create_by_hand(BENCHES, &bench);
    for name in NAMES {
        let mut site = site(name);
        site["spec"]["adminPasswordSecretRef"] = json!({"name": "shared"});
        site["spec"]["siteConfigSecretRefs"] = json!({"mail_password": {"name": "shared", "key": "mail"}});
        world.server.create_by_hand(SITES, &site);
    }
    let ready =
        |it: &World| it.phase(BENCHES, "bench") == "Ready" && NAMES.iter().all(|name| it.phase(SITES, name) == "Ready");
    world.until("bench and sites are Ready", ready).await;
    world.rest().await;
    (world, replica)
}

/// The templates of all pods.
fn templates(world: &World) -> Vec<Value> {
    let all = [DEPLOYMENTS, STATEFUL_SETS].map(|it| world.server.all(it)).concat();
    all.iter().map(|it| it["spec"]["template"].clone()).collect()
}

fn annotate(world: &World, name: &str, value: &str) {
    world.server.change(SECRETS, name, |it| it["metadata"]["annotations"]["example.com/synced"] = json!(value));
}

fn asked(world: &World, since: usize) -> Vec<String> {
    let show = |it: &Requested| format!("{} {} {}", it.verb, it.place.plural(), it.place.name);
    world.work()[since..].iter().map(show).collect()
}

/// S-7, R-5.
#[test]
fn metadata_of_a_secret_costs_one_request_and_its_content_rolls() {
    run(1, async {
        let (world, _replica) = settled(1).await;
        let (pods, jobs) = (templates(&world), world.jobs_made());
        for round in ["1", "2"] {
            let before = world.work().len();
            annotate(&world, "shared", round);
            world.rest().await;
            assert_eq!(asked(&world, before), ["get secrets shared"], "round {round}");
        }
        let before = world.work().len();
        world.server.change(SECRETS, "shared", |it| it["data"]["unread"] = json!("eQ=="));
        world.rest().await;
        assert_eq!(asked(&world, before), ["get secrets shared"], "a key that nothing reads");
        annotate(&world, "shop-db-password", "1");
        world.rest().await;
        assert_eq!((templates(&world), world.jobs_made()), (pods.clone(), jobs.clone()), "nothing restarts");
        world.server.change(SECRETS, "shared", |it| it["data"]["mail"] = json!("b3RoZXI="));
        world.rest().await;
        assert_eq!(templates(&world), pods, "the bench does not read this key");
        assert_eq!(world.jobs_made()[jobs.len()..].len(), NAMES.len(), "{:?}", world.jobs_made());
        let jobs = world.jobs_made();
        world.server.change(SECRETS, "shared", |it| it["data"]["password"] = json!("c2Vjb25k"));
        world.rest().await;
        let rolled = templates(&world).iter().zip(&pods).filter(|(now, before)| now != before).count();
        assert!(rolled > 3, "{rolled} templates changed");
        let made = &world.jobs_made()[jobs.len()..];
        assert_eq!(made.iter().filter(|it| it.contains("-apply")).count(), NAMES.len(), "{made:?}");
    });
}

/// Nothing secret is in a status, and equal values have different hashes.
#[test]
fn statuses_have_keyed_hashes() {
    run(2, async {
        let (world, _replica) = settled(2).await;
        let read = |name: &str| {
            let found = world.server.get(SITES, name).unwrap()["status"]["readSecrets"].clone();
            found.as_array().unwrap().iter().find(|it| it["name"] == "shared").unwrap()["content"].clone()
        };
        let content = read("shop");
        assert_eq!(content, read("news"));
        assert!(content["unread"].is_null() && content["password"] != content["mail"], "{content}");
        assert_eq!(content["password"].as_str().map(str::len), Some(32), "{content}");
    });
}

/// A status of an earlier version records nothing: the present versions go on, and metadata that changes later restarts nothing. So it
/// is on a replica that takes over.
#[test]
fn an_upgrade_and_a_takeover_restart_nothing() {
    run(3, async {
        let (world, replica) = settled(3).await;
        let (pods, jobs) = (templates(&world), world.jobs_made());
        replica.stop().await;
        for (collection, name) in [(BENCHES, "bench"), (SITES, "shop"), (SITES, "news"), (SITES, "blog")] {
            world.server.change(collection, name, |it| {
                it["status"].as_object_mut().unwrap().remove("readSecrets").unwrap();
            });
        }
        let replica = world.replica(1, "one");
        world
            .until("all is recorded", |it| {
                NAMES.iter().all(|name| !it.server.get(SITES, name).unwrap()["status"]["readSecrets"].is_null())
            })
            .await;
        world.rest().await;
        annotate(&world, "shared", "1");
        world.rest().await;
        replica.stop().await;
        annotate(&world, "shared", "2");
        let before = world.work().len();
        let _replica = world.replica(2, "one");
        world.rest().await;
        assert_eq!((templates(&world), world.jobs_made()), (pods, jobs));
        let read = asked(&world, before).into_iter().filter(|it| it.starts_with("get")).collect::<Vec<_>>();
        assert_eq!(read.iter().filter(|it| *it == "get secrets shared").count(), 1, "{read:?}");
    });
}
