//! Requests that a site needs without faults, for each provider of its database.

use kube_sharding_sim::Requested;
use serde_json::{Value, json};

use crate::world::{SECRETS, SITES, World, run, site};

fn shown(asked: &[Requested]) -> Vec<String> {
    let status = |it: &Requested| it.subresource.as_ref().map_or("", |_| "/status");
    let mut shown: Vec<String> =
        asked.iter().map(|it| format!("{} {}{}", it.verb, it.place.plural(), status(it))).collect();
    shown.sort();
    shown
}

/// Requests of a new site until it is Ready and no more are sent.
async fn requests_of(world: &World, object: &Value) -> Vec<Requested> {
    let before = world.work().len();
    world.server.create_by_hand(SITES, object);
    let name = object["metadata"]["name"].as_str().unwrap();
    world.until(&format!("{name} is Ready"), |it| it.phase(SITES, name) == "Ready").await;
    world.rest().await;
    world.work()[before..].to_vec()
}

/// twelve requests, each listed in ARCHITECTURE.md.
#[test]
fn a_site_is_ready_with_twelve_requests() {
    run(1, async {
        let (world, _replica) = World::with_bench(1).await;
        assert_eq!(
            shown(&requests_of(&world, &site("shop")).await),
            [
                "apply databases",
                "apply grants",
                "apply ingresses",
                "apply users",
                "create frappedomains",
                "create jobs",
                "create secrets",
                "create secrets",
                "patch frappesites",
                "update frappesites/status",
                "update frappesites/status",
                "update frappesites/status",
            ]
        );
    });
}

/// the requests of a site of each provider from creation to Ready; nothing of the site is left after its deletion.
#[test]
fn each_provider_needs_a_fixed_number_of_requests() {
    run(2, async {
        let (world, _replica) = World::with_bench(2).await;
        for name in ["account-external", "account-postgres"] {
            let text = "dGV4dA==";
            let account = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name},
                                 "data": {"username": text, "password": text, "host": text}});
            world.server.create_by_hand(SECRETS, &account);
        }
        world.rest().await;
        let bare = world.inventory();
        let external = |provider: &str| json!({"provider": provider, "connectionSecretRef": {"name": format!("account-{provider}")}});
        let table = [
            ("shared", Value::Null, 12),
            ("dedicated", json!({"mode": "dedicated"}), 14),
            ("external", external("external"), 11),
            ("postgres", external("postgres"), 11),
        ];
        for (name, database, most) in &table {
            let mut object = site(name);
            if !database.is_null() {
                object["spec"]["dbConfig"] = database.clone();
            }
            let asked = requests_of(&world, &object).await;
            assert!(asked.iter().all(|it| it.code < 400) && asked.len() == *most, "{name}: {:#?}", shown(&asked));
        }
        for (name, ..) in table {
            world.server.remove(SITES, name);
            world.until(&format!("{name} is deleted"), |it| !it.exists(SITES, name)).await;
        }
        world.rest().await;
        assert_eq!(world.inventory(), bare);
    });
}

/// one site claims each host, the other reports it and claims the host once the first is deleted, and no claim is left.
#[test]
fn two_sites_claim_the_same_host() {
    const HOSTS: usize = 25;
    const DOMAINS: &str = "/apis/vyogo.tech/v1alpha1/frappedomains";
    for seed in 3..5 {
        run(seed, async {
            let (world, _one) = World::with_bench(seed).await;
            let _two = world.replica(1, "two");
            world.until("both share the slots", |it| it.owners() == 2).await;
            let name = |number: usize, side: &str| format!("{side}-{number}");
            for number in 0..HOSTS {
                for side in ["left", "right"] {
                    let mut racer = site(&name(number, side));
                    racer["spec"]["siteName"] = json!(format!("h{number}.example.com"));
                    world.server.create_by_hand(SITES, &racer);
                }
            }
            let winner = |it: &World, number: usize| -> Option<&str> {
                let won = |side: &&str| it.phase(SITES, &name(number, side)) == "Ready";
                let lost = |side: &&str| it.reason(SITES, &name(number, side), "Ready") == "HostClaimed";
                let sides = ["left", "right"];
                (sides.iter().filter(|it| lost(it)).count() == 1).then(|| sides.into_iter().find(won)).flatten()
            };
            world.until("each host has one winner", |it| (0..HOSTS).all(|number| winner(it, number).is_some())).await;
            assert_eq!(world.server.all(DOMAINS).len(), HOSTS);
            let losers: Vec<String> = (0..HOSTS)
                .map(|number| {
                    let side = winner(&world, number).unwrap();
                    world.server.remove(SITES, &name(number, side));
                    name(number, if side == "left" { "right" } else { "left" })
                })
                .collect();
            world.until("every loser is Ready", |it| losers.iter().all(|name| it.phase(SITES, name) == "Ready")).await;
            for name in &losers {
                world.server.remove(SITES, name);
            }
            world.until("all sites are deleted", |it| it.server.all(SITES).is_empty()).await;
            world.rest().await;
            assert_eq!(world.server.all(DOMAINS).len(), 0, "a claim is left");
        });
    }
}
