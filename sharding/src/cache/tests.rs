//! The newest that is known, from three sources that may each be late.

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::ObjectMeta;

use super::*;

fn named(name: &str, uid: &str, version: u64) -> ConfigMap {
    ConfigMap {
        metadata: ObjectMeta {
            name: Some(name.into()),
            namespace: Some("n".into()),
            uid: Some(uid.into()),
            resource_version: Some(version.to_string()),
            ..ObjectMeta::default()
        },
        ..ConfigMap::default()
    }
}

fn object(uid: &str, version: u64) -> ConfigMap {
    named("a", uid, version)
}

fn cache() -> Cache<ConfigMap> {
    Cache::new(|it: &ConfigMap| it.metadata.uid.as_deref().map(Slot::of_uid))
}

fn version(cache: &Cache<ConfigMap>) -> Option<String> {
    cache.get(&Key::new("n", "a")).and_then(|it| it.resource_version())
}

#[test]
fn an_own_write_is_seen_until_the_watch_delivers_it() {
    let cache = cache();
    cache.apply(object("u", 1));
    cache.wrote(object("u", 3));
    assert_eq!(version(&cache).as_deref(), Some("3"));
    cache.apply(object("u", 2));
    assert_eq!(version(&cache).as_deref(), Some("3"), "an older event does not hide the write");
    cache.apply(object("u", 3));
    assert_eq!(version(&cache).as_deref(), Some("3"));
    assert!(cache.written.is_empty());
}

/// A record of what the watch has told already would stay for good.
#[test]
fn an_answer_that_comes_after_the_watch_is_not_recorded() {
    let cache = cache();
    cache.apply(object("u", 3));
    cache.wrote(object("u", 3));
    cache.wrote(object("u", 2));
    assert!(cache.written.is_empty());
    cache.wrote(object("v", 4));
    assert_eq!(cache.written.len(), 1, "a successor is");
}

#[test]
fn an_own_delete_is_seen_at_once_and_a_successor_is_not_hidden() {
    let cache = cache();
    cache.apply(object("u", 1));
    cache.deleted(&Key::new("n", "a"), "u");
    assert_eq!(version(&cache), None);
    cache.apply(object("v", 5));
    assert_eq!(version(&cache).as_deref(), Some("5"));
}

/// The answer to a write may come after the watch has told that the object is gone.
#[test]
fn an_answer_that_comes_after_the_watch_brings_nothing_back() {
    let cache = cache();
    cache.apply(object("u", 1));
    cache.remove(object("u", 3));
    cache.wrote(object("u", 2));
    assert_eq!(version(&cache), None);
    cache.wrote(object("v", 4));
    assert_eq!(version(&cache).as_deref(), Some("4"), "a successor of the same name is seen");
}

/// To a watch by label, an object that loses the label is deleted; with the label it is there again.
#[test]
fn an_object_that_lost_its_label_comes_back_with_it() {
    let cache = cache();
    cache.apply(object("u", 1));
    cache.remove(object("u", 2));
    assert_eq!(version(&cache), None);
    cache.wrote(object("u", 3));
    assert_eq!(version(&cache).as_deref(), Some("3"));
    cache.remove(object("u", 4));
    cache.apply(object("u", 5));
    assert_eq!(version(&cache).as_deref(), Some("5"));
}

#[test]
fn a_write_whose_object_was_deleted_meanwhile_is_forgotten() {
    let cache = cache();
    cache.wrote(object("u", 3));
    cache.remove(object("u", 4));
    assert_eq!(version(&cache), None);
}

/// S-8: the watch by label says that it is gone; another shows that it is there.
#[test]
fn a_stray_is_seen_until_it_has_its_label_or_was_deleted() {
    let cache = cache();
    cache.apply(object("u", 1));
    cache.stray(Arc::new(object("u", 2)));
    cache.remove(object("u", 2));
    assert_eq!(version(&cache).as_deref(), Some("2"));
    assert_eq!(cache.all().len(), 1);
    cache.wrote(object("u", 3));
    cache.apply(object("u", 3));
    cache.remove(object("u", 4));
    assert_eq!(version(&cache), None, "it had its label again");
    cache.stray(Arc::new(object("v", 5)));
    cache.deleted(&Key::new("n", "a"), "v");
    assert_eq!(version(&cache), None);
}

/// S-8: a merged watch goes on from the oldest version of its parts.
#[test]
fn a_repeated_event_changes_nothing() {
    let cache = cache();
    assert!(cache.apply(object("u", 2)).is_some());
    assert!(cache.apply(object("u", 1)).is_none());
    assert!(cache.apply(object("u", 2)).is_none());
    assert!(cache.remove(object("old", 1)).is_none(), "a namesake that went before");
    assert!(cache.remove(object("u", 3)).is_some());
    assert!(cache.apply(object("u", 2)).is_none(), "it went after that");
    assert_eq!(version(&cache), None);
}

/// A list after a lost watch: what changed, what went and what came is told; what stayed the same is not.
#[test]
fn a_list_finds_changes_that_the_watch_missed_only_in_its_slots() {
    let cache = cache();
    let other = named("other", "other", 3);
    for it in [named("same", "s", 1), named("changed", "c", 2), named("gone", "g", 3), other.clone()] {
        cache.apply(it);
    }
    let slots: SlotSet = ["s", "c", "g", "n"].map(Slot::of_uid).into_iter().collect();
    assert!(!slots.contains(Slot::of_uid("other")), "the test needs another slot");
    let told = cache.list(&slots, vec![named("same", "s", 1), named("changed", "c", 4), named("new", "n", 5)], "6");
    let mut told: Vec<String> = told
        .iter()
        .map(|change| {
            let verb = if matches!(change, Change::Deleted(_)) { "-" } else { "+" };
            format!("{verb}{}", change.object().name_any())
        })
        .collect();
    told.sort();
    assert_eq!(told, ["+changed", "+new", "-gone"]);
    assert_eq!(cache.len(), 4);
    cache.drop_slots(&slots);
    assert_eq!(cache.all().len(), 1, "lost slots are forgotten, others are not");
}

/// A test that is repeated from a seed meets the same order.
#[test]
fn what_a_list_does_not_show_is_told_in_order() {
    let cache = cache();
    let names: Vec<String> = (10..40).map(|number| format!("a-{number}")).collect();
    for name in &names {
        cache.apply(named(name, name, 1));
    }
    let told = cache.list(&SlotSet::ALL, Vec::new(), "2");
    assert_eq!(told.iter().map(|change| change.object().name_any()).collect::<Vec<_>>(), names);
}

/// S-7: an edit of a site without its slot's label that comes soon after this process wrote its status.
#[test]
fn an_own_write_does_not_make_a_stray_newer() {
    let cache = cache();
    cache.stray(Arc::new(object("u", 1)));
    cache.wrote(object("u", 2));
    assert_eq!(version(&cache).as_deref(), Some("2"), "the own write is newer");
    cache.stray(Arc::new(object("u", 3)));
    assert_eq!(version(&cache).as_deref(), Some("3"), "the edit is newer than the own write");
    cache.wrote(object("u", 4));
    assert_eq!(version(&cache).as_deref(), Some("4"));
    cache.stray(Arc::new(object("u", 3)));
    assert_eq!(version(&cache).as_deref(), Some("4"), "what is told again hides nothing");
    cache.wrote(object("u", 2));
    assert_eq!(version(&cache).as_deref(), Some("4"), "nor does an answer that comes late");
}

/// A record outlives its time where the only other source is older.
#[test]
fn an_own_write_is_not_forgotten_for_an_older_stray() {
    let cache = cache();
    cache.stray(Arc::new(object("u", 1)));
    let long_ago = Instant::now().checked_sub(RECORD_LIFETIME * 2).unwrap();
    cache.written.insert(Key::new("n", "a"), (Written::Object(Arc::new(object("u", 2))), long_ago));
    assert_eq!(version(&cache).as_deref(), Some("2"));
    cache.stray_gone(&Key::new("n", "a"), Some("u"));
    assert_eq!(version(&cache), None);
}

/// Two watches show an object whose label comes and goes; each may be late.
#[test]
fn the_later_version_of_two_watches_counts() {
    let cache = cache();
    cache.apply(object("u", 2));
    cache.stray(Arc::new(object("u", 5)));
    assert_eq!(version(&cache).as_deref(), Some("5"), "the watch by label has not told yet that the label went");
    let all: Vec<Option<String>> = cache.all().iter().map(|it| it.resource_version()).collect();
    assert_eq!(all, [Some("5".to_owned())], "the object is there once");
    cache.apply(object("u", 3));
    assert_eq!(version(&cache).as_deref(), Some("5"), "what it tells late hides nothing");
    cache.remove(object("u", 5));
    assert_eq!(version(&cache).as_deref(), Some("5"), "the label went at that version");
    cache.no_stray(&object("u", 4));
    assert_eq!(version(&cache).as_deref(), Some("5"), "that it had got its label was told late");
    cache.apply(object("u", 7));
    cache.stray(Arc::new(object("u", 6)));
    assert_eq!(version(&cache).as_deref(), Some("7"));
    cache.remove(object("u", 8));
    assert_eq!(version(&cache), None);
    cache.stray(Arc::new(object("u", 6)));
    assert_eq!(version(&cache), None, "it went after that");
}

/// S-7: what a watch of strays tells again, or late, hides nothing and stays nowhere.
#[test]
fn an_older_stray_is_not_taken_in() {
    let cache = cache();
    cache.stray(Arc::new(object("u", 5)));
    cache.stray(Arc::new(object("u", 4)));
    assert_eq!(version(&cache).as_deref(), Some("5"), "not the one that was told late");
    cache.apply(object("u", 7));
    cache.stray(Arc::new(object("u", 6)));
    assert!(cache.strays.is_empty(), "it has had its label since");
    let slots: SlotSet = [Slot::of_uid("u")].into_iter().collect();
    cache.list(&slots, Vec::new(), "9");
    assert_eq!(version(&cache), None, "a list does not show it any more");
}

/// S-7: a list is newer than every write before it.
#[test]
fn an_own_write_is_forgotten_where_a_newer_list_does_not_show_it() {
    let cache = cache();
    let slots: SlotSet = [Slot::of_uid("u")].into_iter().collect();
    cache.wrote(object("u", 2));
    cache.list(&slots, Vec::new(), "1");
    assert_eq!(version(&cache).as_deref(), Some("2"), "the list was served before it");
    let others: SlotSet = [Slot::of_uid("other")].into_iter().collect();
    cache.list(&others, Vec::new(), "3");
    assert_eq!(version(&cache).as_deref(), Some("2"), "the list was of other slots");
    cache.list(&slots, Vec::new(), "3");
    assert_eq!(version(&cache), None);
}

/// O-4: of a slot that is another's nothing is known any more, from whichever source.
#[test]
fn nothing_of_a_lost_slot_is_kept() {
    let cache = cache();
    cache.apply(object("u", 1));
    cache.wrote(object("u", 2));
    cache.stray(Arc::new(object("u", 3)));
    cache.stray(Arc::new(named("other", "other", 3)));
    cache.drop_slots(&[Slot::of_uid("u")].into_iter().collect());
    assert_eq!(version(&cache), None);
    let left: Vec<String> = cache.all().iter().map(|it| it.name_any()).collect();
    assert_eq!(left, ["other"]);
}

/// The watch tells of the deletion after this process has made an object of the same name again.
#[test]
fn a_late_deletion_event_does_not_hide_the_successor() {
    let cache = cache();
    cache.apply(object("u", 1));
    cache.deleted(&Key::new("n", "a"), "u");
    cache.wrote(object("v", 4));
    assert_eq!(version(&cache).as_deref(), Some("4"), "not the one that the watch still shows");
    cache.remove(object("u", 3));
    assert_eq!(version(&cache).as_deref(), Some("4"));
    cache.wrote(object("u", 2));
    assert_eq!(version(&cache).as_deref(), Some("4"), "an answer about the former one");
    cache.apply(object("v", 4));
    assert!(cache.written.is_empty());
}

/// S-7: another object of a stray's name that is gone takes the stray not along.
#[test]
fn a_stray_is_removed_by_its_uid() {
    let cache = cache();
    cache.stray(Arc::new(object("u", 5)));
    cache.stray_gone(&Key::new("n", "a"), Some("former"));
    assert_eq!(version(&cache).as_deref(), Some("5"));
    cache.stray_gone(&Key::new("n", "a"), Some("u"));
    assert_eq!(version(&cache), None);
}

/// A cache of objects with a label `owner`, which keeps those of known owners.
fn owned(known: &Arc<std::sync::Mutex<Vec<&'static str>>>) -> Cache<ConfigMap> {
    let known = Arc::clone(known);
    cache().deciding(Box::new(move |object: &ConfigMap| match object.labels().get("owner") {
        None => Decision::Drop,
        Some(owner) if known.lock().unwrap().contains(&owner.as_str()) => Decision::Keep,
        Some(owner) => Decision::Note(owner.clone()),
    }))
}

fn of_owner(owner: &str, version: u64) -> ConfigMap {
    let mut object = object("u", version);
    object.labels_mut().insert("owner".into(), owner.into());
    object
}

/// The watches of two kinds are not ordered: without this an object that is delivered before its owner would never be seen.
#[test]
fn what_was_delivered_before_its_owner_is_read_when_the_owner_is_known() {
    let known = Arc::default();
    let cache = owned(&known);
    let key = Key::new("n", "a");
    assert!(cache.apply(of_owner("shop", 3)).is_none());
    assert_eq!((cache.strangers_of("shop"), version(&cache)), (vec![key.clone()], None));
    assert!(cache.read(&key, Some(of_owner("shop", 3))).is_none(), "its owner is still unknown");
    known.lock().unwrap().push("shop");
    assert!(cache.read(&key, Some(of_owner("shop", 2))).is_none(), "an answer that is older than the watch");
    assert_eq!(cache.strangers_of("shop").len(), 1, "is no reason to forget it");
    assert!(matches!(cache.read(&key, Some(of_owner("shop", 4))), Some(Change::Applied { before: None, .. })));
    assert_eq!((cache.strangers_of("shop").len(), version(&cache).as_deref()), (0, Some("4")));
    assert!(cache.read(&key, Some(of_owner("shop", 5))).is_none(), "it is read once");
}

#[test]
fn a_stranger_that_is_gone_is_not_brought_back() {
    let known = Arc::default();
    let cache = owned(&known);
    let key = Key::new("n", "a");
    cache.apply(of_owner("shop", 3));
    known.lock().unwrap().push("shop");
    cache.remove(of_owner("shop", 4));
    assert!(cache.read(&key, Some(of_owner("shop", 3))).is_none(), "the answer was on its way when the deletion came");
    cache.apply(of_owner("other", 5));
    assert!(cache.read(&key, None).is_none());
    assert!(cache.strangers_of("other").is_empty(), "it does not exist");
    cache.apply(object("u", 6));
    assert_eq!(version(&cache), None, "one that has no owner is neither kept nor noted");
}

#[test]
fn strangers_of_slots_that_stay_are_not_forgotten() {
    let cache = owned(&Arc::default());
    cache.apply(of_owner("shop", 3));
    let slot = Slot::of_uid("u");
    cache.drop_slots(&SlotSet::ALL.difference(&[slot].into_iter().collect()));
    assert_eq!(cache.strangers_of("shop").len(), 1);
    cache.drop_slots(&[slot].into_iter().collect());
    assert!(cache.strangers_of("shop").is_empty());
}

/// A deletion that no watch confirms is not kept for good.
#[tokio::test(start_paused = true)]
async fn old_records_of_deletions_are_dropped() {
    let cache = cache();
    let delete = |name: String| cache.deleted(&Key::new("n", name), "u");
    (0..=RECORDS_KEPT).for_each(|number| delete(number.to_string()));
    assert_eq!(cache.written.len(), RECORDS_KEPT + 1, "each counts while a watch may be silent");
    tokio::time::advance(RECORD_LIFETIME).await;
    delete("last".to_owned());
    assert_eq!(cache.written.len(), 1);
}

/// As long as a watch may be silent, an own write is what is known.
#[tokio::test(start_paused = true)]
async fn an_own_write_is_known_while_a_watch_is_silent() {
    let cache = cache();
    cache.wrote(object("u", 3));
    tokio::time::advance(Duration::from_secs(180)).await;
    assert_eq!(version(&cache).as_deref(), Some("3"));
    tokio::time::advance(Duration::from_secs(180)).await;
    assert_eq!(version(&cache), None, "the watch does not show it");
}
