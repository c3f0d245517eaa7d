//! One member: a second refuses to start beside a live first, and takes over from a dead one.

use std::time::{Duration, Instant};

use frappe_loadtest::process::{Operator, Options};
use k8s_openapi::api::coordination::v1::Lease;
use kube::{Api, api::DeleteParams};

use crate::support::{World, program};

/// Clean stops in a row.
const CLEAN_STOPS: u32 = 10;

/// S-1.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_member_refuses_to_start_beside_a_live_first() {
    let short = Options { lease_seconds: Some(3), ..Options::default() };
    let mut world = World::start_with("member", &short).await;
    let mut second = Operator::start(program(), &world.cluster, &short).unwrap();
    let status = second.wait(Duration::from_secs(20)).await.unwrap();
    assert!(!status.success());
    let log = std::fs::read_to_string(&second.log).unwrap();
    assert!(log.contains("is held by the live member") && log.contains("one member only"), "{log}");
    assert!(world.operator.ended().unwrap().is_none(), "the first goes on");

    let died = Instant::now();
    world.operator.kill().unwrap();
    let mut third = Operator::start(program(), &world.cluster, &short).unwrap();
    third.ready().await.unwrap();
    println!("after kill -9 of the first, another is ready {:.1} s later (lease: 3 s)", died.elapsed().as_secs_f64());

    // Several times: a stop may come while a renewal is on its way.
    let mut member = third;
    for _ in 0..CLEAN_STOPS {
        let status = member.stop().await.unwrap();
        assert!(status.success(), "a clean stop ends well, not with {status}: {}", member.log_tail());
        let freed = Instant::now();
        member = Operator::start(program(), &world.cluster, &short).unwrap();
        member.ready().await.unwrap();
        assert!(freed.elapsed() < Duration::from_secs(3), "a clean stop gives the Lease back at once");
    }
    let mut fourth = member;

    let leases: Api<Lease> = Api::namespaced(world.client.clone(), frappe_loadtest::process::NAMESPACE);
    leases.delete("frappe-operator-member", &DeleteParams::default()).await.unwrap();
    let status = fourth.wait(Duration::from_secs(10)).await.unwrap();
    assert!(!status.success(), "a member whose Lease was removed ends");
    assert!(leases.get_opt("frappe-operator-member").await.unwrap().is_none(), "a PUT brought a deleted Lease back");
}
