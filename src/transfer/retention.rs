//! Removes backups of the same SiteBackup and site: outdated ones, never the newest; or all of them, if a user requested it.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};

use super::{
    manifest::{self, Manifest},
    report::Failure,
    request::{Maker, Retention},
    store::Store,
    upload,
};
use crate::domain::code::Code;

/// Names of the backups to remove. Pure. `backups` are those of the SiteBackup.
pub fn outdated(backups: &[Manifest], rule: &Retention, now: Timestamp) -> BTreeSet<String> {
    let mut newest_first: Vec<&Manifest> = backups.iter().filter(|it| !it.removing).collect();
    newest_first.sort_by_key(|it| std::cmp::Reverse((it.scheduled_at, it.name.clone())));
    let keep_last = rule.keep_last.max(1);
    let beyond = newest_first.into_iter().skip(keep_last);
    let old = |it: &&Manifest| match rule.days {
        Some(days) => now.duration_since(it.scheduled_at) > SignedDuration::from_hours(i64::from(days) * 24),
        None => true,
    };
    let interrupted = backups.iter().filter(|it| it.removing);
    beyond.filter(old).chain(interrupted).map(|it| it.name.clone()).collect()
}

/// Removes outdated backups and remains of failed attempts of this SiteBackup; returns the names. `present` is the backup that was
/// just uploaded.
pub async fn retain(
    store: &Store,
    folder: &str,
    rule: &Retention,
    present: Option<&str>,
    now: Timestamp,
) -> Result<Vec<String>, Failure> {
    let found = found(store, folder, &rule.maker).await?;
    let mut removed = Vec::new();
    for name in found.tries.iter().filter(|it| present != Some(it.as_str())) {
        if is_run_of(name, &rule.maker.site_backup) {
            remove_try(store, folder, name).await?;
            removed.push(name.clone());
        }
    }
    let outdated = outdated(&found.backups, rule, now);
    for backup in found.backups.iter().filter(|it| outdated.contains(&it.name)) {
        remove(store, folder, backup).await?;
        removed.push(backup.name.clone());
    }
    Ok(removed)
}

/// Removes all backups of the SiteBackup and site, and remains of failed attempts; returns the names.
pub async fn remove_all(store: &Store, folder: &str, maker: &Maker) -> Result<Vec<String>, Failure> {
    let found = found(store, folder, maker).await?;
    for name in &found.tries {
        remove_try(store, folder, name).await?;
    }
    for backup in &found.backups {
        remove(store, folder, backup).await?;
    }
    Ok(found.tries.into_iter().chain(found.backups.into_iter().map(|it| it.name)).collect())
}

/// Backups of one SiteBackup in a site's folder.
#[derive(Default)]
struct Found {
    backups: Vec<Manifest>,
    /// Names of failed attempts of this SiteBackup.
    tries: Vec<String>,
}

async fn found(store: &Store, folder: &str, maker: &Maker) -> Result<Found, Failure> {
    let mut all = Found::default();
    for name in manifest::names(store, folder).await? {
        match Manifest::read(store, folder, &name).await {
            Ok(Some(it)) if it.site_backup == maker.site_backup && it.identity == maker.identity && it.name == name => {
                all.backups.push(it);
            }
            Ok(None) if began(&name, &maker.site_backup) => all.tries.push(name),
            Ok(_) => {}
            // Not one that can be read is not one that may be removed.
            Err(failure) if failure.code == Code::BackupBroken => {}
            Err(failure) => return Err(failure),
        }
    }
    Ok(all)
}

async fn remove_try(store: &Store, folder: &str, name: &str) -> Result<(), Failure> {
    let left = manifest::folder(folder, name);
    store.end_unfinished(&left, &manifest::file(folder, name, upload::JOURNAL)).await?;
    store.remove(&left).await
}

/// Removes a backup: marks its manifest, deletes the parts, then the manifest.
async fn remove(store: &Store, folder: &str, backup: &Manifest) -> Result<(), Failure> {
    upload::put(store, folder, &Manifest { removing: true, authentication: None, ..backup.clone() }).await?;
    for part in backup.contents.parts.values() {
        store.remove_file(&manifest::file(folder, &backup.name, &part.stored().file)).await?;
    }
    store.remove(&manifest::folder(folder, &backup.name)).await
}

/// Whether a name is a SiteBackup's name of a backup, including safety and final backups.
fn began(name: &str, site_backup: &str) -> bool {
    [site_backup.to_owned(), format!("{site_backup}-before"), format!("{site_backup}-final")]
        .iter()
        .any(|it| is_run_of(name, it))
}

/// Whether a name has the form `NAME-2024-01-15-0200`.
pub fn is_run_of(name: &str, site_backup: &str) -> bool {
    let rest = name.strip_prefix(site_backup).and_then(|it| it.strip_prefix('-'));
    let form = |rest: &str| {
        let parts: Vec<&str> = rest.split('-').collect();
        let digits = |it: &&str| it.bytes().all(|byte| byte.is_ascii_digit());
        parts.iter().map(|it| it.len()).eq([4, 2, 2, 4]) && parts.iter().all(digits)
    };
    rest.is_some_and(form)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::transfer::manifest::Contents;

    const NOW: i64 = 1_800_000_000;
    const DAY: i64 = 86_400;

    fn backup(name: String, age_seconds: i64) -> Manifest {
        let contents = Contents {
            site: String::new(),
            engine: String::new(),
            frappe: String::new(),
            apps: Vec::new(),
            parts: BTreeMap::new(),
        };
        let scheduled_at = Timestamp::new(NOW - age_seconds, 0).expect("a time");
        Manifest {
            format: 1,
            name,
            site_backup: "daily".into(),
            site: "a/shop".into(),
            identity: "id".into(),
            scheduled_at,
            finished_at: scheduled_at,
            removing: false,
            contents,
            authentication: None,
        }
    }

    fn rule(days: Option<i32>, keep_last: usize) -> Retention {
        Retention { maker: Maker { site_backup: "daily".into(), identity: "id".into() }, days, keep_last }
    }

    fn gone(ages_days: &[i64], rule: &Retention) -> Vec<String> {
        let backups: Vec<_> = ages_days.iter().map(|days| backup(format!("b{days:02}"), days * DAY + 1)).collect();
        outdated(&backups, rule, Timestamp::new(NOW, 0).expect("a time")).into_iter().collect()
    }

    #[test]
    fn older_backups_are_removed_except_the_newest() {
        assert_eq!(gone(&[0, 1, 2, 3], &rule(Some(2), 1)), ["b02", "b03"]);
        assert_eq!(gone(&[40, 50], &rule(Some(30), 1)), ["b50"]);
        assert_eq!(gone(&[40, 50, 60], &rule(Some(30), 2)), ["b60"]);
        assert_eq!(gone(&[1, 2, 3], &rule(None, 2)), ["b03"]);
        assert_eq!(gone(&[40], &rule(Some(1), 0)), [""; 0], "never the last good one");
    }

    #[test]
    fn a_removal_that_was_cut_short_is_ended_and_counts_for_nothing() {
        let half = Manifest { removing: true, ..backup("half".into(), 0) };
        let backups = [half, backup("old".into(), 90 * DAY)];
        let gone = outdated(&backups, &rule(Some(1), 1), Timestamp::new(NOW, 0).expect("a time"));
        assert_eq!(gone.into_iter().collect::<Vec<_>>(), ["half"]);
    }

    #[test]
    fn the_sitebackup_of_a_run_is_known_by_its_name() {
        assert!(is_run_of("daily-2026-11-26-0200", "daily"));
        for other in [
            "daily-backup-2026-11-26-0200",
            "daily",
            "daily-",
            "daily-2026-11-26",
            "other-2026-11-26-0200",
            "daily-a-b",
        ] {
            assert!(!is_run_of(other, "daily"), "{other}");
        }
        for own in ["daily-2026-11-26-0200", "daily-before-2026-11-26-0200", "daily-final-2026-11-26-0200"] {
            assert!(began(own, "daily"), "{own}");
        }
        assert!(!began("daily-backup-2026-11-26-0200", "daily"));
    }

    proptest! {
        #[test]
        fn the_newest_always_stays(ages in prop::collection::vec(0_i64..400, 1..30), days in prop::option::of(1_i32..100), keep in 0_usize..10) {
            let backups: Vec<_> = ages.iter().enumerate().map(|(index, age)| backup(format!("{index:03}"), age * DAY)).collect();
            let gone = outdated(&backups, &rule(days, keep), Timestamp::new(NOW, 0).expect("a time"));
            let stay = backups.len() - gone.len();
            prop_assert!(stay >= keep.max(1).min(backups.len()));
            let newest = ages.iter().min().copied().unwrap_or(0);
            prop_assert!(backups.iter().zip(&ages).any(|(it, age)| *age == newest && !gone.contains(&it.name)));
        }
    }
}
