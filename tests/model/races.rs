//! Changes between any two requests: an edit, or the deletion of the namespace.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use kube_sharding_sim::{Call, Fault};
use serde_json::json;

use crate::world::{INGRESSES, NAMESPACE, SITES, World, in_parallel, is_counted, run, site};

/// Does something before the n-th request of a site's creation; returns the counter of requests.
fn before_request(world: &World, number: usize, act: impl Fn() + Send + Sync + 'static) -> Arc<AtomicUsize> {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    world.injector.intercept(move |call: &Call| {
        if is_counted(call) && counted.fetch_add(1, Ordering::SeqCst) + 1 == number {
            act();
        }
        Fault::None
    });
    count
}

/// S-7, R-7: an edit between any two requests is never lost.
#[test]
fn an_edit_before_any_request_is_applied() {
    in_parallel(1..=12, |number| {
        run(number as u64, async {
            let (world, _replica) = World::with_bench(number as u64).await;
            let server = world.server.clone();
            let edit = move || {
                server.change(SITES, "shop", |it| it["spec"]["additionalDomains"] = json!(["www.shop.example.com"]));
            };
            let count = before_request(&world, number, edit);
            world.server.create_by_hand(SITES, &site("shop"));
            world
                .until(&format!("the edit before request {number} is applied"), |it| {
                    let ingress = it.server.get(INGRESSES, "shop-ingress");
                    it.is_settled(SITES, "shop") && ingress.is_some_and(|it| it.to_string().contains("www.shop"))
                })
                .await;
            world.rest().await;
            assert!(count.load(Ordering::SeqCst) >= 12);
            let found = world.server.get(SITES, "shop").unwrap();
            assert_eq!(found["status"]["operation"]["generation"], found["metadata"]["generation"]);
            assert!(world.exists("/apis/vyogo.tech/v1alpha1/frappedomains", "www.shop.example.com"));
        });
    });
}

/// A namespace can be deleted at any moment: its site is deleted, and no claim of a host is left.
#[test]
fn a_namespace_may_be_deleted_before_any_request() {
    in_parallel(1..=14, |number| {
        run(number as u64, async {
            let (world, _replica) = World::with_bench(number as u64).await;
            let server = world.server.clone();
            before_request(&world, number, move || server.remove("/api/v1/namespaces", NAMESPACE));
            world.server.create_by_hand(SITES, &site("shop"));
            if number > 12 {
                world.until("the site is Ready", |it| it.phase(SITES, "shop") == "Ready").await;
                world.server.remove("/api/v1/namespaces", NAMESPACE);
            }
            world
                .until(&format!("the namespace is deleted before request {number}"), |it| {
                    !it.exists("/api/v1/namespaces", NAMESPACE)
                })
                .await;
            world.rest().await;
            let left: Vec<_> = world.inventory().into_iter().filter(|it| it.contains("shop")).collect();
            assert_eq!(left, Vec::<String>::new(), "the namespace was deleted before request {number}");
        });
    });
}
