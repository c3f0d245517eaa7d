//! The result of validation: a phase that receives one knows that the spec is valid. Pure.

use crate::controllers::site::{
    hosts::Hosts,
    model::decided::{Database, Part, Refusal},
    place::Place,
};

/// What a spec means in the world that it names. Nothing but validation makes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Validated {
    /// Where the site's objects live.
    pub place: Place,
    /// Hosts that the site is reached at.
    pub hosts: Hosts,
    /// Its database.
    pub database: Database,
    /// Most connections of the site's account.
    pub connections_max: i32,
    /// Apps to install, without frappe.
    pub apps: Vec<String>,
    /// Apps that the site must not have: module names.
    pub removed_apps: Vec<String>,
    /// Secret with the password of Administrator, in the site's own namespace.
    pub admin_secret: String,
    /// What the bench's web servers let pass.
    pub limits: RequestLimits,
    /// What a site that exists asks for and does not get.
    pub refused: Vec<Refusal>,
    pub(super) seal: (),
}

/// Limits of requests that a bench sets; the routes to its sites let as much pass.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestLimits {
    /// Maximum size of a request's body, in nginx syntax.
    pub body_size: Option<String>,
    /// Longest time of a request, in seconds.
    pub seconds: Option<i32>,
}

impl Validated {
    /// Whether a part of the site is left as it is.
    pub fn withholds(&self, part: Part) -> bool {
        self.refused.iter().any(|it| it.part == part)
    }
}
