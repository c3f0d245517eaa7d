//! The claim of a host name.

use kube::ResourceExt;
use serde_json::json;

use crate::{
    controllers::site::model::Input,
    domain::{
        key::Key,
        object::{Desired, Kind},
    },
};

/// The FrappeDomain named like the host. Whoever creates it holds the host.
pub fn claim(input: &Input, host: &str) -> Desired {
    let holder = json!({"site": {
        "namespace": input.site.namespace().unwrap_or_default(), "name": input.name(),
        "uid": input.site.uid().unwrap_or_default(),
    }});
    Desired::untyped(Kind::Domain, Key::new("", host), input.kept_metadata(), &holder)
}
