//! Three crashes on a real API server: the process is killed after a write, and its successor converges. All other points are
//! tested by `tests/model/crash.rs`.

use std::time::Duration;

use frappe_crds::site::SitePhase;
use frappe_loadtest::process::{Operator, Options};

use crate::support::{World, inventory, program, site, until};

/// Numbers of writes after which the process is killed while it creates a site: after the Secret, and before the Job.
const TO_READY: [i64; 2] = [3, 9];
/// The same for a deletion: after the delete Job was created.
const TO_DELETED: i64 = 3;
/// One pod whose container restarts: the new process takes over its own Lease at once.
const POD: &str = "11111111-2222-3333-4444-555555555555";

fn options(crash_after_writes: Option<i64>) -> Options {
    Options { crash_after_writes, pod_uid: Some(POD.to_owned()), ..Options::default() }
}

/// Runs the operator until it crashes after so many writes, then starts another.
async fn crash_and_restart(world: &mut World, writes: i64) {
    world.operator = Operator::start(program(), &world.cluster, &options(Some(writes))).unwrap();
    let mut died = false;
    for _ in 0..1200 {
        if let Some(status) = world.operator.ended().unwrap() {
            assert!(!status.success());
            died = true;
            break;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    assert!(died, "alive after 30 s with {writes} writes\n{}", world.operator.log_tail());
    world.operator = Operator::start(program(), &world.cluster, &options(None)).unwrap();
    world.operator.ready().await.unwrap();
}

///
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_operator_converges_after_a_crash() {
    let mut world = World::start_with("crash", &options(None)).await;
    world.with_bench("sweep").await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let bare = inventory(&world, "sweep");
    let mut whole: Vec<String> = Vec::new();
    for (round, writes) in TO_READY.into_iter().enumerate() {
        world.operator.kill().unwrap();
        world.cluster.apply(&site("sweep", "victim")).unwrap();
        crash_and_restart(&mut world, writes).await;
        let site = world.wait_for_site_phase("sweep", "victim", SitePhase::Ready).await;
        assert!(site.status.unwrap().initialized);
        let now = inventory(&world, "sweep");
        if round == 0 {
            whole.clone_from(&now);
        }
        assert_eq!(now, whole, "after a crash at write {writes} of the creation");
        world.operator.kill().unwrap();
        world.kubectl(&["delete", "frappesite", "victim", "-n", "sweep", "--wait=false"]);
        crash_and_restart(&mut world, TO_DELETED).await;
        world.wait_for_site_deletion("sweep", "victim").await;
        let left = || async { (inventory(&world, "sweep") == bare).then_some(()) };
        assert!(until("nothing is left", 30, left).await.is_some(), "left: {:#?}", inventory(&world, "sweep"));
    }
}
