//! A watch continues from its last version after its connection was lost.

use k8s_openapi::api::core::v1::ConfigMap;

use super::*;
use crate::scripted::{Server, query};

type Seeing = Pin<Box<dyn Stream<Item = Result<Seen<ConfigMap>, kube::Error>> + Send>>;

fn seeing(server: &Server, from: Option<&str>) -> Seeing {
    Box::pin(follow(server.client(), query(), read, from.map(str::to_owned)))
}

/// The events of the next seconds.
async fn seen(stream: &mut Seeing, seconds: u64) -> Vec<String> {
    let mut words = Vec::new();
    let end = Instant::now() + Duration::from_secs(seconds);
    while let Ok(Some(item)) = tokio::time::timeout_at(end, stream.next()).await {
        words.push(match item {
            Ok(Seen::Listed(objects, version)) => format!("listed {} at {version}", objects.len()),
            Ok(Seen::Applied(object)) => format!("+{}", object.name_any()),
            Ok(Seen::Deleted(object)) => format!("-{}", object.name_any()),
            Ok(Seen::UpTo(version)) => format!("up to {version}"),
            Err(kube::Error::Api(status)) => format!("error {}", status.code),
            Err(error) => format!("{error}"),
        });
    }
    words
}

#[tokio::test(start_paused = true)]
async fn it_lists_and_continues_from_the_list() {
    let server = Server::new(&["one", "two"]);
    let mut stream = seeing(&server, None);
    assert_eq!(seen(&mut stream, 1).await, ["listed 2 at 2"]);
    server.change("three");
    server.delete("one");
    assert_eq!(seen(&mut stream, 1).await, ["+three", "-one"]);
    assert_eq!(server.requests(), ["list", "2"]);
}

/// S-8: known objects are not listed again.
#[tokio::test(start_paused = true)]
async fn it_continues_from_a_known_version_without_a_list() {
    let server = Server::new(&["one", "two"]);
    let mut stream = seeing(&server, Some("1"));
    assert_eq!(seen(&mut stream, 1).await, ["+two"]);
    assert_eq!(server.requests(), ["1"]);
}

/// S-7: no event is lost if a connection ends or is dead, or if the server responds with an error.
#[tokio::test(start_paused = true)]
async fn a_lost_connection_costs_no_event() {
    let server = Server::new(&["one"]);
    let mut stream = seeing(&server, None);
    seen(&mut stream, 1).await;
    server.bookmark(0, 1);
    server.change("two");
    assert_eq!(seen(&mut stream, 1).await, ["up to 1", "+two"]);
    server.hang_up();
    server.change("three");
    server.refuse(500);
    assert_eq!(seen(&mut stream, 5).await, ["error 500", "+three"]);
    assert_eq!(server.requests(), ["list", "1", "2", "2"], "from the newest received version");
    server.change_unseen("four");
    assert_eq!(seen(&mut stream, 30).await, [""; 0], "its connection is stalled");
    assert_eq!(seen(&mut stream, 60).await, ["+four"], "and was closed after the timeout");
}

/// S-8: if nothing is selected for a long time, only bookmarks prevent that a version becomes too old.
#[tokio::test(start_paused = true)]
async fn it_continues_from_the_newest_bookmark() {
    let server = Server::new(&["one"]);
    let mut stream = seeing(&server, None);
    seen(&mut stream, 1).await;
    server.bookmark(0, 9);
    assert_eq!(seen(&mut stream, 1).await, ["up to 9"]);
    server.hang_up();
    assert_eq!(seen(&mut stream, 5).await, [""; 0]);
    assert_eq!(server.requests(), ["list", "1", "9"]);
}

#[tokio::test(start_paused = true)]
async fn a_version_that_is_too_old_requires_a_list() {
    let server = Server::new(&["one"]);
    let mut stream = seeing(&server, None);
    seen(&mut stream, 1).await;
    server.change_unseen("two");
    server.expire(0);
    assert_eq!(seen(&mut stream, 5).await, ["error 410", "listed 2 at 2"]);
    let mut late = seeing(&server, Some("1"));
    server.refuse(410);
    assert_eq!(seen(&mut late, 5).await, ["error 410", "listed 2 at 2"]);
}

/// An object that cannot be parsed hides no other object and stops neither a list nor a watch.
#[tokio::test(start_paused = true)]
async fn an_object_that_cannot_be_read_stops_nothing() {
    let server = Server::new(&["one", "deep", "broken", "two"]);
    let mut stream = seeing(&server, None);
    assert_eq!(seen(&mut stream, 1).await, ["listed 3 at 4"], "one has no metadata");
    for name in ["three", "deep", "broken", "four"] {
        server.change(name);
    }
    server.bookmark(0, 8);
    assert_eq!(seen(&mut stream, 1).await, ["+three", "+deep", "+four", "up to 8"]);
    server.delete("deep");
    server.expire(0);
    assert_eq!(seen(&mut stream, 5).await, ["-deep", "error 410", "listed 4 at 9"]);
    assert_eq!(server.requests(), ["list", "4", "list", "9"], "nothing is requested again");
}

/// Pages become small at once after large objects, and gradually large after small ones.
#[test]
fn pages_depend_on_the_size_of_the_listed_objects() {
    let token = || Some("next".to_owned());
    let page = Page::FIRST.after(500, 500 * 1024, token()).expect("there is more");
    assert_eq!(page.objects, 1000, "twice as many");
    let page = page.smaller().smaller();
    assert_eq!((page.objects, page.token.as_deref()), (15, Some("next")), "the same page again");
    let page = page.after(15, 15 << 20, token()).expect("there is more");
    assert_eq!(page.objects, 3);
    let page = page.smaller();
    assert_eq!((page.objects, page.bytes_max()), (1, usize::MAX), "a single object is read whatever its size");
    assert_eq!(page.after(1, 1000, Some(String::new())), None, "the last");
    assert_eq!(Page::FIRST.after(0, 100, None), None);
}

#[test]
fn each_object_of_a_list_is_parsed_separately() {
    let read = |text: &str| {
        Reader::<u8>(|it| it.parse::<u8>().ok().map(|it| it / 2))
            .deserialize(&mut serde_json::Deserializer::from_str(text))
    };
    let list =
        read(r#"{"kind": "List", "metadata": {"resourceVersion": "7"}, "items": [4, [[]], 6]}"#).expect("a list");
    assert_eq!((list.items, list.metadata.resource_version.as_deref()), (vec![2, 3], Some("7")));
    assert_eq!(read(r#"{"metadata": {}, "items": null}"#).expect("a list").items, [0_u8; 0]);
    assert!(read(r#"{"items": []}"#).is_err(), "no list");
}
