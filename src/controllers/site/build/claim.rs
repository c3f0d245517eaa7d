//! The claim of a host name.

use frappe_crds::{FrappeDomainSpec, domain::DomainHolder};

use crate::{
    controllers::site::model::Input,
    domain::{key::Key, object::Desired, uid},
};

/// The FrappeDomain with the host as its name. The site that creates it holds the host.
pub fn claim(input: &Input, host: &str) -> Desired {
    let site = DomainHolder {
        namespace: Key::of(input.site).namespace,
        name: input.name(),
        uid: uid::of(input.site).to_owned(),
    };
    input.kept(Key::new("", host), FrappeDomainSpec { site }).into()
}
