//! Index of claimed hosts by site, from the watch of FrappeDomains: a site must find the claims of its former hosts, also after
//! a crash.

use kube_sharding::index::{By, Index};

use crate::{domain::foreign::holder, io::compact::Compact};

/// FrappeDomains, which are named like their hosts, by the uid of their site.
pub struct ByHolder;

/// Hosts by the uid of the site that holds them.
pub type Claims = Index<ByHolder>;

impl By for ByHolder {
    type Form = Compact;
    type Of = String;
    type Note = ();

    fn of(domain: &Compact) -> Option<(String, ())> {
        holder(&domain.open()).map(|it| (it.uid, ()))
    }
}
