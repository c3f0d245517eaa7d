//! What was decided of a site, and what of its spec is refused, as data.

use super::plan::{Report, Stage};
use crate::{controllers::site::reason::Reason, domain::key::Key};

/// What is known of a site's database before the spec is asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// Identity of the site.
    pub identity: String,
    /// Name of its database.
    pub name: String,
    /// Name of its account.
    pub user: String,
    /// Where the database is, as far as that was decided.
    pub choice: Option<Choice>,
}

/// Where a database is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    /// On a server of the site's own.
    Dedicated,
    /// On this server.
    Shared(Key),
    /// Wherever the Secret says that the site names.
    Existing(&'static str),
}

/// A site's database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Database {
    /// The MariaDB operator makes it on a server.
    Made(Server),
    /// It exists, with an account.
    Existing(Existing),
}

/// A MariaDB object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Its namespace and name.
    pub key: Key,
    /// Whether it is of this site alone, and is deleted with it.
    pub dedicated: bool,
    /// Host name.
    pub host: String,
    /// Port.
    pub port: i64,
}

/// A database that exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Existing {
    /// `mariadb` or `postgres`, as Frappe calls it.
    pub engine: &'static str,
    /// Secret with the account, in the site's namespace.
    pub secret: String,
    /// Host name, unless the Secret holds it.
    pub host: Option<String>,
    /// Port, unless the Secret holds it.
    pub port: Option<i64>,
}

impl Database {
    /// What is decided, as the annotation of the site's Secret repeats it.
    pub fn decision(&self) -> String {
        match self {
            Self::Made(server) if server.dedicated => "dedicated".to_owned(),
            Self::Made(server) => format!("shared {}", server.key),
            Self::Existing(existing) => format!("existing {}", existing.engine),
        }
    }

    /// The account's Secret, where the site names it.
    pub fn connection_secret(&self) -> Option<&str> {
        match self {
            Self::Made(_) => None,
            Self::Existing(existing) => Some(&existing.secret),
        }
    }
}

/// What is withheld of a site that exists while something of its spec is refused. Everything else of it goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Nothing but the Job that would change its settings.
    Settings,
    /// Its server is not changed either.
    Server,
    /// Its hosts and routes are not changed either.
    Route,
}

/// Something that a site asks for and that is not its own to decide.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What is withheld.
    pub part: Part,
    /// Why, as conditions say it.
    pub reason: Reason,
    /// Message for users.
    pub message: String,
}

impl Refusal {
    /// A refusal.
    pub fn new(part: Part, reason: Reason, message: String) -> Self {
        Self { part, reason, message }
    }

    /// A site that is not there yet is not made.
    pub fn stops(&self) -> Report {
        Report::failed(Stage::Database, self.stage(), self.reason, self.message.clone())
    }

    /// A site that exists stays as it is, and is not given what it asks for.
    pub fn withholds(&self) -> Report {
        let message = format!("{}; the site keeps its current configuration", self.message);
        Report::failed(Stage::Done, self.stage(), self.reason, message)
    }

    /// A site that has what it asks for, since that was allowed when it was made, keeps it.
    pub fn tells(&self) -> Report {
        Report::ready(self.reason, format!("the site stays available, but changes are not applied: {}", self.message))
    }

    /// The stage of the site's way that it is about.
    pub fn stage(&self) -> Stage {
        match self.part {
            Part::Settings => Stage::Init,
            Part::Server => Stage::Database,
            Part::Route => Stage::Route,
        }
    }
}
