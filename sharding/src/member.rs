//! Who a member is, and what its Lease says of it.

use std::{fmt, sync::Arc};

/// One life of one member: the pod it runs in, and a random id that is new at every start.
///
/// An incarnation that was fenced is permanently dead; the process joins again as another. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Incarnation(Arc<str>);

impl Incarnation {
    /// Most bytes of the whole: what the slot map's definition lets be stored.
    pub const LENGTH_MAX: usize = 128;

    /// The life with this `nonce` in the pod with this uid (or another id that no two processes share at one time).
    ///
    /// # Panics
    /// If either is empty, the nonce has an underscore (what is before the last one is the pod), or the whole is longer
    /// than [`Incarnation::LENGTH_MAX`].
    pub fn new(pod: &str, nonce: &str) -> Self {
        assert!(!pod.is_empty() && !nonce.is_empty(), "a member has a pod and a nonce");
        assert!(!nonce.contains('_'), "the nonce {nonce:?} has an underscore: the pod could not be told from it");
        let whole = format!("{pod}_{nonce}");
        assert!(whole.len() <= Self::LENGTH_MAX, "{whole:?} is longer than {} bytes", Self::LENGTH_MAX);
        Self(whole.into())
    }

    /// Reads the form that [`fmt::Display`] writes.
    pub fn parse(text: &str) -> Option<Self> {
        let (pod, nonce) = text.rsplit_once('_')?;
        (!pod.is_empty() && !nonce.is_empty() && text.len() <= Self::LENGTH_MAX).then(|| Self(text.into()))
    }

    /// uid of the pod.
    pub fn pod(&self) -> &str {
        self.0.rsplit_once('_').map_or("", |(pod, _)| pod)
    }

    /// The whole, as it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the other is an earlier or later life in the same pod. A pod's container is started again only after
    /// the kubelet saw the former one end, so such a predecessor is dead.
    pub fn same_pod(&self, other: &Self) -> bool {
        self.pod() == other.pod()
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// Whether a member may be given slots.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Readiness {
    /// Its shared caches are not synced yet.
    #[default]
    Joining,
    /// It may be given slots.
    Ready,
    /// It is about to end and gives its slots away.
    Leaving,
}

impl Readiness {
    /// The word in the Lease's annotation.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Joining => "joining",
            Self::Ready => "ready",
            Self::Leaving => "leaving",
        }
    }

    /// Reads [`Readiness::word`]; anything else may be given nothing.
    pub fn parse(word: &str) -> Self {
        match word {
            "ready" => Self::Ready,
            "leaving" => Self::Leaving,
            _ => Self::Joining,
        }
    }
}

/// What a member tells the others of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Facts {
    /// Whether it may be given slots.
    pub readiness: Readiness,
    /// Which build it is, such as a pod-template-hash.
    pub template: String,
    /// Generation of the newest slot map it saw.
    pub generation: u64,
    /// Handovers by this incarnation so far: swaps that gave slots to another.
    pub handovers: u64,
    /// Objects in its slots, as its user counts them.
    pub objects: u64,
}

/// Where an object stands: its uid and resourceVersion. Of one uid, a higher version is newer (KEP-5504).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Version {
    /// uid of the object.
    pub uid: Arc<str>,
    /// Its resourceVersion.
    pub number: u64,
}

/// A member's Lease, as read.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LeaseRecord {
    /// Name of the Lease: the member's, such as the pod's name.
    pub name: Arc<str>,
    /// Where it stands.
    pub version: Version,
    /// When the server created it, in seconds since 1970: one clock for all, so that Leases can be ordered by age.
    pub created_seconds: i64,
    /// How long it counts after it was renewed, in seconds, as its holder says; 0 where it says nothing.
    pub duration_seconds: u32,
    /// The holder; None after a fence.
    pub holder: Option<Incarnation>,
    /// The attempt that wrote it last.
    pub attempt: u64,
    /// The last incarnation that was proven dead in this Lease.
    pub ended: Option<Incarnation>,
    /// What the holder tells.
    pub facts: Facts,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_incarnation_is_read_as_it_was_written() {
        let life = Incarnation::new("f81d4fae-7dec", "42");
        assert_eq!(Incarnation::parse(life.as_str()), Some(life.clone()));
        assert_eq!(life.pod(), "f81d4fae-7dec");
        assert_eq!(Incarnation::parse(""), None);
        assert_eq!(Incarnation::parse("no-nonce"), None);
        assert!(Incarnation::parse(&format!("{}_1", "a".repeat(126))).is_some());
        assert_eq!(Incarnation::parse(&format!("{}_1", "a".repeat(127))), None, "it could not be stored");
    }

    #[test]
    fn incarnations_of_one_pod_are_recognized_whatever_its_name() {
        let (first, second) = (Incarnation::new("my_pod", "1"), Incarnation::new("my_pod", "2"));
        assert!(first.same_pod(&second) && !first.same_pod(&Incarnation::new("my", "1")));
        assert_eq!(second.pod(), "my_pod");
    }

    #[test]
    #[should_panic(expected = "has an underscore")]
    fn a_nonce_with_an_underscore_is_refused() {
        Incarnation::new("pod", "a_b");
    }

    #[test]
    fn readiness_is_read_as_it_was_written_and_nonsense_gives_nothing() {
        for readiness in [Readiness::Joining, Readiness::Ready, Readiness::Leaving] {
            assert_eq!(Readiness::parse(readiness.word()), readiness);
        }
        assert_eq!(Readiness::parse("steady"), Readiness::Joining);
    }
}
