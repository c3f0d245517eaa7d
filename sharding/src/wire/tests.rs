//! Stored objects are parsed as they were written, and edits by users as far as they are valid.

use proptest::prelude::*;

use super::*;

fn names() -> Names {
    let text = str::to_owned;
    Names { group: text("example.com"), prefix: text("example.com"), namespace: text("system"), name: text("fleet") }
}

proptest! {
    #[test]
    fn a_map_is_parsed_as_it_was_written(owners in proptest::collection::vec(proptest::option::of(0..40u8), 257), generation in 0..1_000_000u64) {
        let owner = |index: u8| Incarnation::new(&format!("9f{index:034}"), "abcdefgh");
        let holdings = owners.iter().enumerate().map(|(epoch, it)| Holding { owner: it.map(owner), epoch: i64::try_from(epoch).unwrap() + 1 });
        let content = Content { generation, holdings: holdings.collect() };
        let on = Version { uid: "u".into(), number: 7 };
        let object = names().render_map(Some(&on), &content);
        let read = names().read_map(&object).unwrap();
        prop_assert_eq!(&read.content, &content);
        prop_assert_eq!(read.version, on);
        prop_assert!(serde_json::to_string(&object).unwrap().len() < 10_000);
    }
}

#[test]
fn invalid_names_are_rejected_before_a_request() {
    let with = |change: fn(&mut Names)| {
        let mut names = names();
        change(&mut names);
        names.check("fleet-7d4-x2x")
    };
    assert_eq!(with(|_| ()), Ok(()));
    assert!(with(|it| it.group = "Example.com".into()).is_err());
    assert!(with(|it| it.group = "a".repeat(245)).is_err());
    assert!(with(|it| it.prefix = "example.com/x".into()).is_err());
    assert!(with(|it| it.namespace = String::new()).is_err());
    assert!(with(|it| it.name = "fleet.one".into()).is_err());
    assert!(with(|it| it.name = "-fleet".into()).is_err());
    assert!(names().check("a_b").is_err());
    assert_eq!(names().check("web-0.web"), Ok(()));
    let error = names().check("coordinator").unwrap_err();
    assert_eq!(error, InvalidName::Coordinator("coordinator".into()));
    let error = names().check("A").unwrap_err().to_string();
    assert_eq!(
        error,
        "the member's name \"A\" is not a DNS subdomain (DNS labels with '.' between) of at most 247 bytes"
    );
}

fn stored(change: impl FnOnce(&mut serde_json::Value)) -> DynamicObject {
    let me = Incarnation::new("pod", "1");
    let holding = Holding { owner: Some(me), epoch: (1_760_000_000 << 20) + 9 };
    let content = Content { generation: 9, holdings: vec![holding; SLOTS + 1] };
    let mut object = names().render_map(Some(&Version { uid: "u".into(), number: 7 }), &content);
    change(&mut object.data["spec"]);
    object
}

/// S-4: after any edit by a user, the parsed map has an entry for each slot, owned entries have an epoch that opens the gate, and the
/// API server accepts the next write.
#[test]
fn invalid_entries_of_a_map_are_unowned_and_reported() {
    type Edit = fn(&mut serde_json::Value);
    let edits: [(Edit, Option<Correction>); 13] = [
        (|_| (), None),
        (|it| it["epochs"][3] = json!(0), Some(Correction::Epoch(Entry(3), 0))),
        (|it| it["epochs"][3] = json!(-1), Some(Correction::Epoch(Entry(3), -1))),
        (|it| it["epochs"][3] = json!(i64::MAX), Some(Correction::Epoch(Entry(3), i64::MAX))),
        (|it| it["epochs"][256] = json!(i64::MIN), Some(Correction::Epoch(Entry::COORDINATOR, i64::MIN))),
        (|it| it["owners"][3] = json!(7), Some(Correction::Owner(Entry(3)))),
        (|it| it["owners"][3] = json!(-2), Some(Correction::Owner(Entry(3)))),
        (|it| it["members"][0] = json!("nonsense"), Some(Correction::Owner(Entry(3)))),
        (|it| it["generation"] = json!(-4), Some(Correction::Generation(-4))),
        (|it| it["generation"] = json!(i64::MAX), Some(Correction::Generation(i64::MAX))),
        (|it| it["owners"] = json!([0]), Some(Correction::Length(1))),
        (|it| it["epochs"].as_array_mut().unwrap().push(json!(1)), Some(Correction::Length(258))),
        (|it| *it = json!({}), Some(Correction::Unreadable)),
    ];
    for (edit, correction) in edits {
        let object = stored(edit);
        let said = names().corrections(&object);
        assert!(correction.map_or(said.is_empty(), |it| said.contains(&it)), "{correction:?}: {said:?}");
        let mut content = names().read_map(&object).expect("the map has a version").content;
        assert_eq!(content.holdings.len(), SLOTS + 1);
        for entry in (0..=Entry::COORDINATOR.0).map(Entry) {
            let held = content.holding(entry).unwrap().clone();
            assert!(held.owner.is_none() || held.epoch > 0, "{correction:?}: {held:?}");
            content.give(entry, Some(Incarnation::new("pod", "2")), 1_760_000_000);
            let before = (1_760_000_000 << 20) + 9;
            let epoch = content.holding(entry).unwrap().epoch;
            assert!(matches!(correction, Some(Correction::Unreadable)) || epoch > before, "{correction:?}");
        }
        let next = names().render_map(None, &content);
        assert_eq!(names().corrections(&next), Vec::new(), "{correction:?}");
    }
    assert_eq!(names().corrections(&stored(|it| *it = json!(null))), [Correction::Unreadable]);
}

/// A member that is listed twice is one member, and the next write lists it once.
#[test]
fn a_member_that_is_listed_twice_is_one() {
    let object = stored(|it| {
        it["members"] = json!(["pod_1", "pod_1"]);
        it["owners"][0] = json!(1);
    });
    let content = names().read_map(&object).unwrap().content;
    assert!(content.holdings.iter().all(|it| it.owner == Some(Incarnation::new("pod", "1"))));
    assert_eq!(names().render_map(None, &content).data["spec"]["members"], json!(["pod_1"]));
}

/// Bounds of the CRD's schema.
#[test]
fn the_crd_bounds_what_may_be_written() {
    let definition = serde_json::to_value(names().definition()).unwrap();
    let spec = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"];
    let bounds = |schema: &serde_json::Value| (schema["minimum"].as_f64(), schema["maximum"].as_f64());
    #[expect(clippy::cast_precision_loss, reason = "it is the highest that is exact")]
    let most = Some(NUMBER_MAX as f64);
    assert_eq!(bounds(&spec["epochs"]["items"]), (Some(0.0), most));
    assert_eq!(bounds(&spec["generation"]), (Some(0.0), most));
    assert_eq!(bounds(&spec["owners"]["items"]), (Some(-1.0), Some(1023.0)));
}

#[test]
fn a_lease_is_parsed_as_it_was_written() {
    let facts =
        Facts { readiness: Readiness::Ready, template: "5d4".into(), generation: 12, handovers: 3, objects: 400 };
    let (me, former) = (Incarnation::new("pod", "1"), Incarnation::new("old", "9"));
    let on = Version { uid: "u".into(), number: 42 };
    let written = names().render_lease(
        &LeaseToWrite {
            name: "fleet-a",
            on: Some(&on),
            holder: Some(&me),
            attempt: 8,
            ended: Some(&former),
            facts: &facts,
            acquired: Timestamp::UNIX_EPOCH,
            renewed: Timestamp::UNIX_EPOCH,
        },
        &Timing::default(),
    );
    let read = names().read_lease(&written).unwrap();
    assert_eq!(
        (read.holder, read.attempt, read.ended, read.facts, read.version),
        (Some(me), 8, Some(former), facts, on)
    );
}
