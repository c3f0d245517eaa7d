//! Who a member is.

use std::fmt;

/// One life of one member: the pod it runs in, and a random id that is new at every start.
///
/// An incarnation that was fenced is dead for good; the process joins again as another.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Incarnation {
    /// uid of the pod, or another id that no two processes share at one time.
    pub pod: String,
    /// Random, new at every start.
    pub nonce: String,
}

impl Incarnation {
    /// Reads the form that [`fmt::Display`] writes.
    pub fn parse(text: &str) -> Option<Self> {
        let (pod, nonce) = text.rsplit_once('_')?;
        (!pod.is_empty() && !nonce.is_empty()).then(|| Self { pod: pod.to_owned(), nonce: nonce.to_owned() })
    }

    /// Whether the other is an earlier or later life in the same pod. A pod's container is started again only after
    /// the kubelet saw the former one end, so such a predecessor is dead.
    pub fn same_pod(&self, other: &Self) -> bool {
        self.pod == other.pod
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}_{}", self.pod, self.nonce)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_incarnation_is_read_as_it_was_written() {
        let life = Incarnation { pod: "f81d4fae-7dec".into(), nonce: "42".into() };
        assert_eq!(Incarnation::parse(&life.to_string()), Some(life));
        assert_eq!(Incarnation::parse(""), None);
        assert_eq!(Incarnation::parse("no-nonce"), None);
    }
}
