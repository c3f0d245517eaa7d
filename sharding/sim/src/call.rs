//! A request, as the server parses it.

use std::collections::BTreeMap;

use serde_json::Value;

/// Sender of requests by the test itself.
pub const BY_HAND: usize = usize::MAX;

/// The path of an object, or of a collection if it has no name.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// Path of the kind's collection in the whole cluster: `/api/v1/configmaps`.
    pub resource: String,
    /// Namespace; empty for the collection of the whole cluster.
    pub namespace: String,
    /// Name; empty for a collection.
    pub name: String,
}

impl Place {
    /// Parses the path of a request, and its subresource.
    pub fn parse(path: &str) -> (Self, Option<String>) {
        let words: Vec<&str> = path.split('/').filter(|it| !it.is_empty()).collect();
        let group = if words.first() == Some(&"api") { 2 } else { 3 }.min(words.len());
        let (group, rest) = words.split_at(group);
        let (namespace, rest) = match rest {
            ["namespaces", namespace, inner @ ..] if !inner.is_empty() && inner[0] != "status" => (*namespace, inner),
            other => ("", other),
        };
        let resource = format!("/{}/{}", group.join("/"), rest.first().copied().unwrap_or_default());
        let name = rest.get(1).copied().unwrap_or_default().to_owned();
        (Self { resource, namespace: namespace.to_owned(), name }, rest.get(2).map(|it| (*it).to_owned()))
    }

    /// The object of this name in the same collection.
    #[must_use]
    pub fn named(&self, name: &str) -> Self {
        Self { name: name.to_owned(), ..self.clone() }
    }

    /// Plural of the kind: `configmaps`.
    pub fn plural(&self) -> &str {
        self.resource.rsplit('/').next().unwrap_or_default()
    }

    /// Whether an object at `other` is in this collection.
    pub(crate) fn holds(&self, other: &Self) -> bool {
        self.resource == other.resource && (self.namespace.is_empty() || self.namespace == other.namespace)
    }

    /// Whether the kind is built in: its group has no domain, or that of Kubernetes.
    pub(crate) fn is_built_in(&self) -> bool {
        let group = self.resource.split('/').nth(2).unwrap_or_default();
        !group.contains('.') || group.ends_with(".k8s.io")
    }
}

/// A request.
#[derive(Clone, Debug)]
pub struct Call {
    /// HTTP method.
    pub method: http::Method,
    /// The object or collection.
    pub place: Place,
    /// Subresource, such as `status`.
    pub subresource: Option<String>,
    /// Query parameters.
    pub query: BTreeMap<String, String>,
    /// The body, or null.
    pub body: Value,
    /// Whether the body is a server-side apply.
    pub applies: bool,
    /// Whether only metadata is requested.
    pub metadata_only: bool,
    /// The process that sent it.
    pub sender: usize,
}

impl Call {
    /// A request by the test itself.
    pub(crate) fn by_hand(method: http::Method, place: Place, body: Value) -> Self {
        Self {
            method,
            place,
            subresource: None,
            query: BTreeMap::new(),
            body,
            applies: false,
            metadata_only: false,
            sender: BY_HAND,
        }
    }

    /// Parses an HTTP request.
    pub(crate) fn read(parts: &http::request::Parts, body: &[u8], sender: usize) -> Self {
        let (place, subresource) = Place::parse(parts.uri.path());
        let header = |name| parts.headers.get(name).and_then(|it| it.to_str().ok()).unwrap_or_default();
        Self {
            method: parts.method.clone(),
            place,
            subresource,
            query: parameters(parts.uri.query().unwrap_or_default()),
            body: serde_json::from_slice(body).unwrap_or(Value::Null),
            applies: header(http::header::CONTENT_TYPE).contains("apply-patch"),
            metadata_only: header(http::header::ACCEPT).contains("as=PartialObjectMetadata"),
            sender,
        }
    }

    /// The same without a query parameter.
    pub(crate) fn without(&self, parameter: &str) -> Self {
        let mut call = self.clone();
        call.query.remove(parameter);
        call
    }

    /// Whether it is a watch.
    pub fn is_watch(&self) -> bool {
        self.query.get("watch").is_some_and(|it| it == "true" || it == "1")
    }

    /// Whether it is a write.
    pub fn is_write(&self) -> bool {
        self.method != http::Method::GET
    }

    /// A query parameter; empty if it is not set.
    pub fn parameter(&self, name: &str) -> &str {
        self.query.get(name).map(String::as_str).unwrap_or_default()
    }

    /// The manager of the fields that the request sets.
    pub(crate) fn manager(&self) -> String {
        match self.parameter("fieldManager") {
            "" if self.sender == BY_HAND => "by-hand".to_owned(),
            "" => "unknown".to_owned(),
            name => name.to_owned(),
        }
    }
}

fn parameters(query: &str) -> BTreeMap<String, String> {
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs.map(|(key, value)| (decode(key), decode(value))).collect()
}

/// Decodes percent-encoding.
fn decode(text: &str) -> String {
    let (mut bytes, mut rest) = (Vec::new(), text.as_bytes());
    while let [first, after @ ..] = rest {
        let code = (*first == b'%' && after.len() >= 2)
            .then(|| std::str::from_utf8(&after[..2]).ok().and_then(|it| u8::from_str_radix(it, 16).ok()));
        match (first, code.flatten()) {
            (_, Some(byte)) => {
                bytes.push(byte);
                rest = &after[2..];
                continue;
            }
            (b'+', None) => bytes.push(b' '),
            (other, None) => bytes.push(*other),
        }
        rest = after;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_name_kind_namespace_name_and_subresource() {
        let table = [
            ("/api/v1/configmaps", ("/api/v1/configmaps", "", "", None)),
            ("/api/v1/namespaces/a", ("/api/v1/namespaces", "", "a", None)),
            ("/api/v1/namespaces/a/status", ("/api/v1/namespaces", "", "a", Some("status"))),
            ("/api/v1/namespaces/a/secrets/b", ("/api/v1/secrets", "a", "b", None)),
            ("/apis/g.io/v1/namespaces/a/widgets/b/status", ("/apis/g.io/v1/widgets", "a", "b", Some("status"))),
            ("/apis/g.io/v1/widgets/b", ("/apis/g.io/v1/widgets", "", "b", None)),
        ];
        for (path, (resource, namespace, name, subresource)) in table {
            let place = Place { resource: resource.into(), namespace: namespace.into(), name: name.into() };
            assert_eq!(Place::parse(path), (place, subresource.map(str::to_owned)), "{path}");
        }
    }

    #[test]
    fn parameters_are_decoded() {
        let read = parameters("labelSelector=a%3Db%2Cc+in+%28d%29&watch=true");
        assert_eq!((read["labelSelector"].as_str(), read["watch"].as_str()), ("a=b,c in (d)", "true"));
    }
}
