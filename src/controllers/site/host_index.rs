//! Index of claimed hosts by site, from the watch of FrappeDomains: a site must find the claims of its former hosts, also after
//! a crash.

use kube::core::DynamicObject;

use crate::{
    domain::foreign::holder,
    io::index::{By, Index},
};

/// FrappeDomains, which are named like their hosts, by the uid of their site.
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
