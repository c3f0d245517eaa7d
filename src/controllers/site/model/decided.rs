//! Data: the recorded decisions about a site's database, and refused parts of its spec.

use super::plan::{Report, Stage};
use crate::{controllers::site::reason::Reason, domain::key::Key};

/// What is recorded of a site's database, independent of the spec.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// Identity of the site.
    pub identity: String,
    /// Name of the database.
    pub name: String,
    /// Name of the database user.
    pub user: String,
    /// Location of the database, if it was decided.
    pub choice: Option<Choice>,
}

/// Location of a database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    /// On a dedicated server.
    Dedicated,
    /// On this shared server.
    Shared(Key),
    /// An existing database, given by the referenced Secret.
    Existing(&'static str),
}

/// A site's database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Database {
    /// Created by the MariaDB operator on a server.
    Made(Server),
    /// An existing database with an existing user.
    Existing(Existing),
}

/// A MariaDB object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Namespace and name.
    pub key: Key,
    /// Whether it is dedicated to this site, and deleted with it.
    pub dedicated: bool,
    /// Host name.
    pub host: String,
    /// Port.
    pub port: i64,
}

/// An existing database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Existing {
    /// `mariadb` or `postgres`, as Frappe calls it.
    pub engine: &'static str,
    /// Secret with the user's credentials, in the site's namespace.
    pub secret: String,
    /// Host name, unless the Secret holds it.
    pub host: Option<String>,
    /// Port, unless the Secret holds it.
    pub port: Option<i64>,
}

impl Database {
    /// The decision, as written into the annotation of the site's Secret.
    pub fn decision(&self) -> String {
        match self {
            Self::Made(server) if server.dedicated => "dedicated".to_owned(),
            Self::Made(server) => format!("shared {}", server.key),
            Self::Existing(existing) => format!("existing {}", existing.engine),
        }
    }

    /// The Secret with the user's credentials, if the site references one.
    pub fn connection_secret(&self) -> Option<&str> {
        match self {
            Self::Made(_) => None,
            Self::Existing(existing) => Some(&existing.secret),
        }
    }
}

/// The part of an existing site that is not changed while its spec is refused. Everything else is reconciled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Only the Job that changes the site's settings.
    Settings,
    /// Also the database server.
    Server,
    /// Also hosts and routes.
    Route,
}

/// A part of a site's spec that is not allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The part that is not changed.
    pub part: Part,
    /// Reason for the conditions.
    pub reason: Reason,
    /// Message for users.
    pub message: String,
}

impl Refusal {
    /// A refusal.
    pub fn new(part: Part, reason: Reason, message: String) -> Self {
        Self { part, reason, message }
    }

    /// The report for a new site, which is not created.
    pub fn new_site_report(&self) -> Report {
        Report::failed(Stage::Database, self.stage(), self.reason, self.message.clone())
    }

    /// The report for an existing site, which keeps its current configuration.
    pub fn existing_site_report(&self) -> Report {
        let message = format!("{}; the site keeps its current configuration", self.message);
        Report::failed(Stage::Done, self.stage(), self.reason, message)
    }

    /// The report for an existing site that already has what is no longer allowed, and keeps it.
    pub fn kept_report(&self) -> Report {
        Report::ready(self.reason, format!("the site stays available, but changes are not applied: {}", self.message))
    }

    /// The stage that the refusal is about.
    pub fn stage(&self) -> Stage {
        match self.part {
            Part::Settings => Stage::Init,
            Part::Server => Stage::Database,
            Part::Route => Stage::Route,
        }
    }
}
