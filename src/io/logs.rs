//! Logs of pods, for a command that a user runs: with the user's own rights.

use futures::{AsyncBufReadExt, Stream, TryStreamExt};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client,
    api::{ListParams, LogParams},
};

/// The pods with these labels.
pub async fn pods(client: &Client, namespace: &str, labels: &str) -> Result<Vec<Pod>, kube::Error> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    Ok(pods.list(&ListParams::default().labels(labels)).await?.items)
}

/// The lines that a container has logged, from the last `tail` on, and with `follow` those that it logs until its end.
pub async fn lines(
    client: &Client,
    namespace: &str,
    pod: &str,
    container: &str,
    follow: bool,
    tail: Option<i64>,
) -> Result<impl Stream<Item = std::io::Result<String>> + use<>, kube::Error> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let parameters =
        LogParams { container: Some(container.to_owned()), follow, tail_lines: tail, ..LogParams::default() };
    Ok(pods.log_stream(pod, &parameters).await?.lines().into_stream())
}

#[cfg(test)]
mod tests {
    use axum::{Router, extract::Request};
    use kube::Config;

    use super::*;
    use crate::io::client::for_commands;

    /// Answers each request with its own path and query, and another line.
    async fn client() -> Client {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let answer = |request: Request| async move { format!("{}\nthe end", request.uri()) };
        tokio::spawn(async move { axum::serve(listener, Router::new().fallback(answer)).await });
        for_commands(Config::new(format!("http://{address}").parse().unwrap())).unwrap()
    }

    #[tokio::test]
    async fn the_lines_of_a_container_are_read_to_their_end() {
        let found = lines(&client().await, "shops", "shop-init-1", "init", true, Some(5)).await.unwrap();
        let found: Vec<String> = found.try_collect().await.unwrap();
        assert_eq!(found.len(), 2);
        assert!(found[0].starts_with("/api/v1/namespaces/shops/pods/shop-init-1/log?"), "{found:?}");
        assert!(["container=init", "follow=true", "tailLines=5"].iter().all(|it| found[0].contains(it)), "{found:?}");
        assert_eq!(found[1], "the end");
    }
}
