//! The program is killed at each of its requests, before and after the server receives it, and run again.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use axum::{Router, body::Bytes, extract::State, response::IntoResponse};
use http::{HeaderMap, Method, StatusCode, Uri};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::{
    servers::{Kind, each_kind},
    support::{Bed, Ended, Folder, NAME},
};

/// A multipart upload of two pieces, and a small part.
const BYTES: usize = 20 << 20;

/// Which process to kill, and at which request.
#[derive(Default)]
struct Plan {
    seen: AtomicUsize,
    /// Twice the number of the request, plus one if the server receives it first; 0 for never.
    at: AtomicUsize,
    process: AtomicUsize,
    /// Whether it was killed: no request of a dead process reaches the server.
    dead: AtomicBool,
    /// One request at a time, so that no other is in flight when the process is killed.
    turn: tokio::sync::Mutex<()>,
    /// Whether headers with checksums are rejected.
    without_checksums: AtomicBool,
}

impl Plan {
    fn reached(&self, moment: usize) -> bool {
        if self.at.load(Ordering::SeqCst) != moment {
            return false;
        }
        self.dead.store(true, Ordering::SeqCst);
        let process = i32::try_from(self.process.load(Ordering::SeqCst)).unwrap();
        kill_process(Pid::from_raw(process).unwrap(), Signal::KILL).unwrap();
        true
    }
}

#[derive(Clone)]
struct Proxy {
    plan: Arc<Plan>,
    server: String,
    client: reqwest::Client,
}

async fn pass(
    State(it): State<Proxy>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> axum::response::Response {
    let _turn = it.plan.turn.lock().await;
    if it.plan.dead.load(Ordering::SeqCst) {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    let number = it.plan.seen.fetch_add(1, Ordering::SeqCst) + 1;
    if it.plan.reached(2 * number) {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    let unsupported = headers.keys().any(|it| it.as_str().starts_with("x-amz-checksum-"));
    if unsupported && it.plan.without_checksums.load(Ordering::SeqCst) {
        return (StatusCode::BAD_REQUEST, "<Error><Code>InvalidArgument</Code></Error>").into_response();
    }
    // With the host of the signature.
    let answer =
        it.client.request(method, format!("{}{uri}", it.server)).headers(headers).body(body).send().await.unwrap();
    let (status, mut headers, body) = (answer.status(), answer.headers().clone(), answer.bytes().await.unwrap());
    // The body is whole now.
    headers.remove(http::header::TRANSFER_ENCODING);
    it.plan.reached(2 * number + 1);
    (status, headers, body).into_response()
}

/// A proxy of the server, which kills processes.
async fn proxy(bed: &Bed) -> (u16, Arc<Plan>) {
    let plan = Arc::new(Plan::default());
    let state = Proxy {
        plan: plan.clone(),
        server: format!("http://127.0.0.1:{}", bed.port()),
        client: reqwest::Client::builder().no_proxy().build().unwrap(),
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let routes = Router::new().fallback(pass).with_state(state);
    let routes = routes.layer(axum::extract::DefaultBodyLimit::disable());
    tokio::spawn(async move { axum::serve(listener, routes).await });
    (port, plan)
}

/// Runs the program, which is killed at this moment.
async fn killed_at(bed: &Bed, plan: &Plan, moment: usize, request: &serde_json::Value, staging: &Folder) -> Ended {
    let logs = Folder::new();
    let log = logs.path().join("termination");
    plan.seen.store(0, Ordering::SeqCst);
    plan.at.store(moment, Ordering::SeqCst);
    let child = bed.begin(request, staging, &log);
    plan.process.store(usize::try_from(child.id()).unwrap(), Ordering::SeqCst);
    let ended = tokio::task::block_in_place(|| Bed::ended(child, &log));
    plan.at.store(0, Ordering::SeqCst);
    let _turn = plan.turn.lock().await;
    plan.dead.store(false, Ordering::SeqCst);
    ended
}

each_kind! {
    an_upload_killed_at_every_request_and_run_again_is_complete_and_leaves_nothing
    a_retention_killed_at_every_request_and_run_again_succeeds
    a_removal_killed_at_every_request_and_run_again_leaves_nothing
}

async fn an_upload_killed_at_every_request_and_run_again_is_complete_and_leaves_nothing(kind: Kind) {
    let bed = Bed::of(kind).await;
    let (port, plan) = proxy(&bed).await;
    let staging = Bed::staging(BYTES);
    let request = bed.to_port(bed.store(NAME), port);
    let mut moments = 0;
    for moment in 2.. {
        for key in bed.keys().await {
            object_store::ObjectStoreExt::delete(&bed.store, &key.as_str().into()).await.unwrap();
        }
        let first = killed_at(&bed, &plan, moment, &request, &staging).await;
        let again = tokio::task::block_in_place(|| bed.run(&request, &staging));
        assert!(again.ok, "moment {moment}: {again:?}");
        let expected = ["contents", "database.sql.gz", "manifest.json", "public-files.tgz"]
            .map(|it| format!("default/shop/{NAME}/{it}"));
        assert_eq!(bed.keys().await, expected[1..], "moment {moment}");
        assert_eq!(bed.unfinished(), Vec::<std::path::PathBuf>::new(), "moment {moment}");
        if !first.killed {
            assert!(first.ok, "{first:?}");
            break;
        }
        moments += 1;
    }
    let fetched = Folder::new();
    assert!(bed.run(&bed.fetch(NAME), &fetched).ok);
    assert_eq!(fetched.files(), staging.files());
    assert!(moments > 20, "{moments}");
    println!("upload: killed at {moments} moments of its requests and run again, complete every time, nothing left");
}

async fn a_retention_killed_at_every_request_and_run_again_succeeds(kind: Kind) {
    let bed = Bed::of(kind).await;
    let (port, plan) = proxy(&bed).await;
    let rule = json!({"siteBackup": "daily-backup", "identity": "id-1", "days": 30, "keepLast": 1});
    let mut request = bed.to_port(bed.store(NAME), port);
    request.as_object_mut().unwrap().remove("store");
    request["retention"] = rule;
    let mut moments = 0;
    for moment in 2.. {
        for (name, at) in [("daily-backup-2020-01-01-0200", "2020-01-01T02:00:00Z"), (NAME, "2026-11-26T02:00:00Z")] {
            let mut store = bed.store(name);
            store["store"]["scheduledAt"] = json!(at);
            assert!(tokio::task::block_in_place(|| bed.run(&store, &Bed::staging_of(name.as_bytes()))).ok);
        }
        bed.put("default/shop/daily-backup-2020-02-01-0200/database.sql.gz", b"half").await;
        let first = killed_at(&bed, &plan, moment, &request, &Folder::new()).await;
        let again = tokio::task::block_in_place(|| bed.run(&request, &Folder::new()));
        assert!(again.ok, "moment {moment}: {again:?}");
        assert_eq!(bed.folders().await, [NAME], "moment {moment}");
        if !first.killed {
            break;
        }
        moments += 1;
    }
    assert!(moments > 10, "{moments}");
    println!("retention: killed at {moments} moments of its requests and run again, the same result every time");
}

///
async fn a_removal_killed_at_every_request_and_run_again_leaves_nothing(kind: Kind) {
    let bed = Bed::of(kind).await;
    let (port, plan) = proxy(&bed).await;
    let request = bed.to_port(bed.removal(), port);
    let mut moments = 0;
    for moment in 2.. {
        for name in ["daily-backup-2020-01-01-0200", NAME] {
            let store = bed.store(name);
            assert!(tokio::task::block_in_place(|| bed.run(&store, &Bed::staging_of(name.as_bytes()))).ok);
        }
        bed.put("default/shop/daily-backup-2020-02-01-0200/database.sql.gz", b"half").await;
        let first = killed_at(&bed, &plan, moment, &request, &Folder::new()).await;
        let again = tokio::task::block_in_place(|| bed.run(&request, &Folder::new()));
        assert!(again.ok, "moment {moment}: {again:?}");
        assert_eq!(bed.keys().await, Vec::<String>::new(), "moment {moment}");
        if !first.killed {
            break;
        }
        moments += 1;
    }
    assert!(moments > 10, "{moments}");
    println!("removal: killed at {moments} moments of its requests and run again, nothing left every time");
}

/// Services such as Backblaze B2 respond so to headers that they do not support.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_service_that_rejects_checksums_stores_backups_without_them() {
    let bed = Bed::start().await;
    let (port, plan) = proxy(&bed).await;
    plan.without_checksums.store(true, Ordering::SeqCst);
    let staging = Bed::staging(BYTES);
    let mut request = bed.to_port(bed.store(NAME), port);
    let failed = tokio::task::block_in_place(|| bed.run(&request, &staging));
    assert_eq!(failed.error(), "StorageFailed: the storage service returned 400 InvalidArgument");
    request["place"]["s3"]["noChecksum"] = json!(true);
    let stored = tokio::task::block_in_place(|| bed.run(&request, &staging));
    assert!(stored.ok, "{stored:?}");
    let fetched = Folder::new();
    assert!(bed.run(&bed.fetch(NAME), &fetched).ok);
    assert_eq!(fetched.files(), staging.files());
}
