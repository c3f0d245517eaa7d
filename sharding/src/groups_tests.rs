//! What a member's watches report while it gains and loses slots.

use std::sync::{Arc, Mutex};

use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt;

use super::*;
use crate::scripted::{Server, query, settle};

/// The calls of a sink, as text.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<Vec<String>>>);

impl Told {
    fn say(&self, word: String) {
        self.0.lock().unwrap().push(word);
    }

    fn words(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

fn slot(name: &str) -> Slot {
    Slot::of_uid(name)
}

fn slots(names: &[&str]) -> SlotSet {
    names.iter().map(|name| slot(name)).collect()
}

/// Slots by the names of the tests' objects.
fn shown(slots: &SlotSet) -> String {
    let names = ["one", "two", "three", "four", "five"];
    names.into_iter().filter(|name| slots.contains(slot(name))).collect::<Vec<_>>().join(" ")
}

impl Sink<ConfigMap> for Told {
    fn slot_of(&self, object: &ConfigMap) -> Option<Slot> {
        object.uid().map(|uid| slot(&uid))
    }

    fn listed(&self, slots: &SlotSet, objects: Vec<ConfigMap>, version: &str) {
        let names: Vec<String> = objects.iter().map(ResourceExt::name_any).collect();
        self.say(format!("listed [{}] of {} at {version}", names.join(" "), shown(slots)));
    }

    fn applied(&self, object: ConfigMap) {
        self.say(format!("+{}", object.name_any()));
    }

    fn deleted(&self, object: ConfigMap) {
        self.say(format!("-{}", object.name_any()));
    }

    fn dropped(&self, slots: &SlotSet) {
        self.say(format!("dropped {}", shown(slots)));
    }

    fn synced(&self, slots: SlotSet) {
        self.say(format!("synced {}", shown(&slots)));
    }
}

struct World {
    server: Server,
    told: Told,
    owned: watch::Sender<SlotSet>,
    run: tokio::task::JoinHandle<()>,
}

impl World {
    fn new(query: Query, selection: Selection) -> Self {
        let server = Server::new(&["one", "two", "three", "four", "five"]);
        let (told, owned) = (Told::default(), watch::Sender::new(SlotSet::NONE));
        let groups = Groups::new(server.client(), query, selection, told.clone());
        let run = tokio::spawn(groups.run(owned.subscribe()));
        Self { server, told, owned, run }
    }

    async fn own(&self, names: &[&str]) -> Vec<String> {
        self.owned.send_replace(slots(names));
        settle().await;
        self.told.words()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.run.abort();
    }
}

#[test]
fn the_names_of_these_tests_are_in_different_slots() {
    assert_eq!(slots(&["one", "two", "three", "four", "five"]).len(), 5);
}

/// O-4, S-8: a slot is synced after its list was reported, and kept slots are not listed again.
#[tokio::test(start_paused = true)]
async fn slots_are_synced_after_their_list_and_kept_slots_are_not_listed_again() {
    let world = World::new(query(), Selection::Everything);
    world.server.answer_lists(false);
    assert_eq!(world.own(&["one"]).await, ["synced "], "nothing is listed yet");
    world.server.answer_lists(true);
    settle().await;
    assert_eq!(world.told.words(), ["listed [one] of one at 5", "synced one"]);
    assert_eq!(world.server.requests(), ["list", "5"]);
    world.server.answer_lists(false);
    assert_eq!(world.own(&["one", "two"]).await, ["synced one"]);
    world.server.answer_lists(true);
    settle().await;
    assert_eq!(world.told.words(), ["listed [two] of two at 5", "synced one two"]);
    assert_eq!(world.server.requests(), ["list", "5"]);
}

/// A watch may select more slots than are owned, and the server may send more than was selected.
#[tokio::test(start_paused = true)]
async fn events_of_slots_that_are_not_owned_are_dropped() {
    let world = World::new(query(), Selection::Everything);
    world.own(&["one", "two"]).await;
    for name in ["one", "two", "three"] {
        world.server.change(name);
    }
    settle().await;
    assert_eq!(world.told.words(), ["+one", "+two"]);
    assert_eq!(world.own(&["one"]).await, ["dropped two", "synced one"]);
    for name in ["two", "one"] {
        world.server.change(name);
    }
    world.server.delete("two");
    world.server.delete("one");
    settle().await;
    assert_eq!(world.told.words(), ["+one", "-one"]);
    assert_eq!(world.own(&[]).await, ["dropped one", "synced "]);
}

/// S-7: a slot that was lost and gained again is listed again.
#[tokio::test(start_paused = true)]
async fn a_slot_that_is_gained_again_is_listed() {
    let world = World::new(query(), Selection::Everything);
    world.own(&["one"]).await;
    world.own(&[]).await;
    world.server.change("one");
    assert_eq!(world.own(&["one"]).await, ["synced ", "listed [one] of one at 6", "synced one"]);
}

/// S-7, S-8: a merged watch continues from the oldest version of its parts, without a list.
#[tokio::test(start_paused = true)]
async fn merged_groups_miss_no_event() {
    let world = World::new(query(), Selection::Label("slot".to_owned()));
    for names in [&["one"][..], &["one", "two"], &["one", "two", "three"], &["one", "two", "three", "four"]] {
        world.own(names).await;
    }
    world.server.requests();
    // All watches but the second have received the newest version; the second has not received the change of its slot.
    let newest = world.server.change_unseen("two");
    for watch in [0, 2, 3] {
        world.server.bookmark(watch, newest);
    }
    settle().await;
    assert_eq!(world.told.words(), [""; 0]);
    tokio::time::sleep(QUIET).await;
    settle().await;
    let all = slots(&["one", "two", "three", "four"]).label_selector("slot");
    let selector = all.replace(' ', "+").replace(',', "%2C");
    assert_eq!(world.server.requests(), [format!("5 {selector}")], "from the oldest, and no list");
    assert_eq!(world.told.words(), ["+two"]);
}

/// S-8: events before the bookmarks of all parts are not requested again.
#[tokio::test(start_paused = true)]
async fn events_that_all_parts_have_passed_are_not_repeated() {
    let world = World::new(query(), Selection::Everything);
    for names in [&["one"][..], &["one", "two"], &["one", "two", "three"], &["one", "two", "three", "four"]] {
        world.own(names).await;
    }
    world.server.requests();
    for (watch, version) in [(0, 12), (1, 9), (2, 10), (3, 11)] {
        world.server.bookmark(watch, version);
    }
    tokio::time::sleep(QUIET + Duration::from_secs(1)).await;
    assert_eq!(world.server.requests(), ["9"]);
}

/// S-8: a part that is not listed yet has no version to continue from, and its slots are not synced.
#[tokio::test(start_paused = true)]
async fn groups_are_not_merged_before_all_are_listed() {
    let world = World::new(query(), Selection::Everything);
    for names in [&["one"][..], &["one", "two"], &["one", "two", "three"]] {
        world.own(names).await;
    }
    world.server.answer_lists(false);
    assert_eq!(world.own(&["one", "two", "three", "four"]).await, ["synced one two three"]);
    world.server.requests();
    tokio::time::sleep(QUIET + Duration::from_secs(1)).await;
    assert_eq!(world.server.requests(), [""; 0], "the merge waits for its list");
    assert_eq!(world.told.words(), [""; 0]);
    world.server.answer_lists(true);
    settle().await;
    assert_eq!(world.told.words(), ["listed [four] of four at 5", "synced one two three four"]);
    assert_eq!(world.server.requests(), ["5"], "then one watch of everything continues from there");
}

/// The watch of a group that lost most of its slots is narrowed, and continues from its version.
#[tokio::test(start_paused = true)]
async fn a_watch_of_much_more_than_is_owned_is_narrowed() {
    let world = World::new(query(), Selection::Label("slot".to_owned()));
    world.own(&["one", "two"]).await;
    world.own(&["one"]).await;
    world.server.requests();
    tokio::time::sleep(QUIET).await;
    settle().await;
    assert_eq!(world.server.requests(), [format!("5 {}", slots(&["one"]).label_selector("slot").replace(' ', "+"))]);
    tokio::time::sleep(QUIET * 3).await;
    assert!(world.server.requests().iter().all(|it| !it.starts_with("list")), "and then it is not changed again");
}

/// Several namespaces have no common version from which one watch could continue.
#[tokio::test(start_paused = true)]
async fn groups_of_several_namespaces_are_not_merged() {
    let query = query().within(&["a".to_owned(), "b".to_owned()]);
    let world = World::new(query, Selection::Everything);
    world.own(&["one", "two"]).await;
    assert_eq!(world.own(&["one"]).await, ["dropped two", "synced one"]);
    world.server.requests();
    tokio::time::sleep(QUIET + Duration::from_secs(1)).await;
    assert_eq!(world.server.requests(), [""; 0]);
}

/// The list after an expired watch selects only the group's own slots.
#[tokio::test(start_paused = true)]
async fn a_watch_that_expired_lists_its_own_slots() {
    let world = World::new(query(), Selection::Everything);
    world.own(&["one"]).await;
    world.own(&["one", "two"]).await;
    world.server.change_unseen("two");
    world.server.expire(1);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(world.told.words(), ["listed [two] of two at 6", "synced one two"]);
}
