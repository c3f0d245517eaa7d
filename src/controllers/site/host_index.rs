//! Which hosts each site holds, by what the watch of FrappeDomains shows: a site that wants a host no longer must find
//! the claim that it made for it, also after a crash.

use kube::core::DynamicObject;

use crate::{
    domain::foreign::holder,
    io::index::{By, Index},
};

/// FrappeDomains, which are named like their hosts, by the uid of the site that holds them.
pub struct ByHolder;

/// Hosts by the uid of the site that holds them.
pub type Claims = Index<ByHolder>;

impl By for ByHolder {
    type Of = String;
    type Note = ();

    fn of(domain: &DynamicObject) -> Option<String> {
        holder(domain).map(|it| it.uid)
    }

    fn note(_: &DynamicObject) {}
}
