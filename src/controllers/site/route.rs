//! Choice of the site's route. Pure.

use super::model::Observed;

/// Kind of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// OpenShift's Route.
    Route,
    /// The Gateway API's HTTPRoute.
    HttpRoute,
    /// The Ingress.
    Ingress,
}

impl Way {
    /// Its kind.
    pub fn name(self) -> &'static str {
        match self {
            Self::Route => "Route",
            Self::HttpRoute => "HTTPRoute",
            Self::Ingress => "Ingress",
        }
    }
}

/// The chosen route, and why others of the spec are not used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Choice {
    /// The chosen route; None if the spec has none, or its API does not exist.
    pub way: Option<Way>,
    /// Message about unused routes of the spec.
    pub unused: Vec<String>,
}

/// The first of Route, HTTPRoute and Ingress that is configured and whose API exists. The Ingress is enabled by default.
pub fn choose(observed: &Observed) -> Choice {
    let spec = &observed.site.spec;
    let ingress = spec.ingress.as_ref().and_then(|ingress| ingress.enabled);
    let asked = [
        (Way::Route, spec.route_config.as_ref().is_some_and(|it| it.enabled), true, observed.capabilities.routes),
        (Way::HttpRoute, spec.http_route.as_ref().is_some_and(|it| it.enabled), true, observed.capabilities.gateway),
        (Way::Ingress, ingress.unwrap_or(true), ingress == Some(true), true),
    ];
    let mut choice = Choice::default();
    for (way, wanted, explicit, exists) in asked {
        let field = match way {
            Way::Route => "routeConfig",
            Way::HttpRoute => "httpRoute",
            Way::Ingress => "ingress",
        };
        match choice.way {
            _ if !wanted => {}
            None if exists => choice.way = Some(way),
            None => choice.unused.push(format!("{field} is not used: the cluster has no {} API", way.name())),
            Some(used) if explicit => {
                choice.unused.push(format!("{field} is not used: {} routes to the site", used.name()));
            }
            Some(_) => {}
        }
    }
    choice
}

/// URL of a host.
pub fn url(host: &str, encrypted: bool) -> String {
    let scheme = if encrypted { "https" } else { "http" };
    format!("{scheme}://{host}")
}

/// Whether the site uses TLS: if the spec says so, and always with a Route.
pub fn encrypted(observed: &Observed) -> bool {
    let asked = observed.site.spec.tls.as_ref().is_some_and(|tls| tls.enabled);
    asked || choose(observed).way == Some(Way::Route)
}
