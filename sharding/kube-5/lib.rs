//! The tests of `kube-sharding` with kube 5, and the code of its README and guide.

/// Compiles the example of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

/// Compiles the example of the guide.
#[cfg(doctest)]
#[doc = include_str!("../GUIDE.md")]
struct Guide;
