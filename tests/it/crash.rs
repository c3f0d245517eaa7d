//! The crash sweep: the process is killed after its n-th write, for every n of a site's life; it converges each time.

use std::time::Duration;

use frappe_crds::site::SitePhase;
use frappe_loadtest::process::{Operator, Options};

use crate::support::{World, inventory, program, site, until};

/// More writes than any way has: the sweep must end before.
const WRITES_MAX: i64 = 40;
/// One pod whose container restarts: it takes its own Lease over at once.
const POD: &str = "11111111-2222-3333-4444-555555555555";

fn options(crash_after_writes: Option<i64>) -> Options {
    Options { crash_after_writes, pod_uid: Some(POD.to_owned()), ..Options::default() }
}

/// Runs the operator so that it dies after `writes`, if it comes so far; answers whether it died.
async fn run_until_crash(world: &mut World, writes: i64, done: impl AsyncFn(&World) -> bool) -> bool {
    world.operator = Operator::start(program(), &world.cluster, &options(Some(writes))).unwrap();
    for _ in 0..1200 {
        if let Some(status) = world.operator.ended().unwrap() {
            assert!(!status.success());
            return true;
        }
        if done(world).await {
            tokio::time::sleep(Duration::from_millis(500)).await;
            return world.operator.ended().unwrap().is_some();
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("neither dead nor done after 30 s with {writes} writes\n{}", world.operator.log_tail());
}

async fn restart(world: &mut World) {
    world.operator = Operator::start(program(), &world.cluster, &options(None)).unwrap();
    world.operator.ready().await.unwrap();
}

///
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_after_any_write_converges() {
    let mut world = World::start_with("crash", &options(None)).await;
    world.with_bench("sweep").await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let bare = inventory(&world, "sweep");
    let (mut to_ready, mut to_gone) = (0, 0);
    let mut whole: Vec<String> = Vec::new();
    for writes in 1..WRITES_MAX {
        world.operator.kill().unwrap();
        world.cluster.apply(&site("sweep", "victim")).unwrap();
        let ready = async |world: &World| {
            let site = world.sites("sweep").get("victim").await.unwrap();
            site.status.is_some_and(|it| it.phase == SitePhase::Ready)
        };
        let crashed_on_the_way = to_ready == writes - 1 && run_until_crash(&mut world, writes, ready).await;
        if crashed_on_the_way {
            to_ready = writes;
        } else {
            world.operator.kill().unwrap();
        }
        restart(&mut world).await;
        let site = world.site_in("sweep", "victim", SitePhase::Ready).await;
        assert!(site.status.unwrap().initialized);
        let now = inventory(&world, "sweep");
        if whole.is_empty() {
            whole.clone_from(&now);
        }
        assert_eq!(now, whole, "after a crash at write {writes} on the way to Ready");

        world.operator.kill().unwrap();
        world.kubectl(&["delete", "frappesite", "victim", "-n", "sweep", "--wait=false"]);
        let gone = async |world: &World| world.sites("sweep").get_opt("victim").await.unwrap().is_none();
        let crashed_on_the_way_out = to_gone == writes - 1 && run_until_crash(&mut world, writes, gone).await;
        if crashed_on_the_way_out {
            to_gone = writes;
        } else {
            world.operator.kill().unwrap();
        }
        restart(&mut world).await;
        world.site_gone("sweep", "victim").await;
        let left = || async { (inventory(&world, "sweep") == bare).then_some(()) };
        assert!(
            until("nothing is left", 30, left).await.is_some(),
            "after a crash at write {writes}: {:#?}",
            inventory(&world, "sweep")
        );
        if !crashed_on_the_way && !crashed_on_the_way_out {
            break;
        }
    }
    println!(
        "crash sweep: killed after each of {to_ready} writes to Ready and {to_gone} writes of the deletion; converged every time"
    );
    assert!((10..WRITES_MAX - 1).contains(&to_ready), "{to_ready} writes to Ready");
    assert!((6..WRITES_MAX - 1).contains(&to_gone), "{to_gone} writes of the deletion");
}
