//! Watches several namespaces as one collection: a list is of all of them.

use std::pin::Pin;

use futures::{
    Stream, StreamExt,
    stream::{self, SelectAll},
};
use kube::{Client, Resource};

use crate::watch::{Query, Read, Seen, follow};

type Follow<K> = Pin<Box<dyn Stream<Item = Result<Seen<K>, kube::Error>> + Send>>;

/// Like [`follow`], of the namespaces that the query names. Of several it cannot go on from a version, since each has its own:
/// it lists. Where one of them must be listed again, all are, so that a list is always of everything.
pub fn follow_namespaces<K>(client: Client, query: &Query, read: Read<K>, from: Option<String>) -> Follow<K>
where
    K: Resource + Send + 'static,
{
    let mut queries = query.each();
    if queries.len() == 1 {
        return Box::pin(follow(client, queries.remove(0), read, from));
    }
    let begin = move || {
        queries.iter().map(|query| Box::pin(follow(client.clone(), query.clone(), read, None)) as Follow<K>).collect()
    };
    Box::pin(together(begin))
}

/// Where several watches are.
struct Together<K, B> {
    begin: B,
    /// Not listed yet.
    waiting: Vec<Follow<K>>,
    /// Listed.
    running: SelectAll<Follow<K>>,
    objects: Vec<K>,
    /// The oldest version of the lists.
    version: Option<u64>,
}

fn together<K, B>(begin: B) -> impl Stream<Item = Result<Seen<K>, kube::Error>> + Send
where
    K: Send + 'static,
    B: Fn() -> Vec<Follow<K>> + Send,
{
    let waiting = begin();
    let state = Together { begin, waiting, running: SelectAll::new(), objects: Vec::new(), version: None };
    stream::unfold(state, |mut state| async move {
        loop {
            if let Some(item) = state.next().await {
                return Some((item, state));
            }
        }
    })
}

impl<K, B: Fn() -> Vec<Follow<K>>> Together<K, B> {
    /// One step; nothing where there is more to list.
    async fn next(&mut self) -> Option<Result<Seen<K>, kube::Error>> {
        let Some(first) = self.waiting.last_mut() else {
            return match self.running.next().await? {
                // It was lost and listed again; what the others have is not known here: all are listed again.
                Ok(Seen::Listed(..)) => {
                    self.running = SelectAll::new();
                    self.waiting = (self.begin)();
                    None
                }
                other => Some(other),
            };
        };
        match first.next().await? {
            Ok(Seen::Listed(objects, version)) => {
                self.objects.extend(objects);
                let version = version.parse().unwrap_or(0);
                self.version = Some(self.version.map_or(version, |oldest| oldest.min(version)));
                self.running.extend(self.waiting.pop());
                let whole = self.waiting.is_empty();
                let objects = whole.then(|| std::mem::take(&mut self.objects))?;
                Some(Ok(Seen::Listed(objects, self.version.take().unwrap_or(0).to_string())))
            }
            // A list comes first.
            Ok(_) => None,
            Err(error) => Some(Err(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
        time::Duration,
    };

    use super::*;

    #[allow(clippy::unnecessary_wraps, reason = "the form that a watch tells")]
    fn listed(objects: &[u8], version: &str) -> Result<Seen<u8>, kube::Error> {
        Ok(Seen::Listed(objects.to_vec(), version.to_owned()))
    }

    fn shown(item: &Result<Seen<u8>, kube::Error>) -> String {
        match item {
            Ok(Seen::Listed(objects, version)) => {
                let mut objects = objects.clone();
                objects.sort_unstable();
                format!("listed {objects:?} at {version}")
            }
            Ok(Seen::Applied(object)) => format!("applied {object}"),
            Ok(Seen::Deleted(object)) => format!("deleted {object}"),
            Ok(Seen::UpTo(version)) => format!("up to {version}"),
            Err(error) => format!("{error}"),
        }
    }

    /// A list of one namespace alone is never returned: a reader that takes it for all would drop the other objects.
    #[tokio::test(start_paused = true)]
    async fn a_list_is_always_of_every_namespace() {
        let begun = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&begun);
        let begin = move || {
            let round = count.fetch_add(1, Ordering::SeqCst);
            let left: Vec<_> = match round {
                0 => vec![listed(&[1], "7"), Ok(Seen::Applied(2)), listed(&[2], "20")],
                _ => vec![listed(&[2], "21"), Ok(Seen::Deleted(2))],
            };
            let right = vec![Err(kube::Error::Service("away".into())), listed(&[5], "9")];
            [left, right].map(|items| Box::pin(stream::iter(items).chain(stream::pending())) as Follow<u8>).into()
        };
        let seen = Box::pin(together(begin)).take(6).map(|item| shown(&item)).collect::<Vec<_>>();
        let seen = tokio::time::timeout(Duration::from_secs(60), seen).await.expect("six things are told");
        assert_eq!(
            seen,
            [
                "ServiceError: away",
                "listed [1, 5] at 7",
                "applied 2",
                "ServiceError: away",
                "listed [2, 5] at 9",
                "deleted 2",
            ]
        );
        assert_eq!(begun.load(Ordering::SeqCst), 2);
    }

    #[test]
    fn a_namespace_comes_before_the_kind() {
        let query = Query { path: "/apis/example.com/v1/widgets".into(), ..Query::default() };
        let paths = |query: &Query| query.each().into_iter().map(|it| it.path).collect::<Vec<_>>();
        assert_eq!(paths(&query), ["/apis/example.com/v1/widgets"]);
        let within = query.within(&["a".to_owned(), "b".to_owned()]);
        assert_eq!(
            paths(&within),
            ["/apis/example.com/v1/namespaces/a/widgets", "/apis/example.com/v1/namespaces/b/widgets"]
        );
    }
}
