//! Which backup is due, and until when it may start.

use super::{
    backups::{at, backup, bucket, served, settle, under_way},
    *,
};

fn scheduled(name: &str, schedule: &str) -> Arc<SiteBackup> {
    backup(name, json!({"storage": bucket(), "schedule": schedule, "startingDeadlineSeconds": 4 * 3600}))
}

#[test]
fn a_backup_starts_up_to_its_deadline() {
    for (now, jobs) in [("2026-03-02T06:00:00Z", 1), ("2026-03-02T06:00:01Z", 0)] {
        let mut world = served(vec![scheduled("nightly", "0 2 * * *")]);
        world.now = at(now);
        assert_eq!(settle(&mut world).len(), jobs, "{now}");
    }
}

#[test]
fn the_backup_that_was_due_first_starts_first() {
    for (first, second, wanted) in [("0 1 * * *", "0 2 * * *", "a"), ("0 2 * * *", "0 1 * * *", "z")] {
        let mut world = served(vec![scheduled("a", first), scheduled("z", second)]);
        world.now = at("2026-03-02T03:00:00Z");
        settle(&mut world);
        assert_eq!(under_way(&world).map(|it| it.site_backup).as_deref(), Some(wanted));
    }
}
