//! What was decided of a site and what its spec means, as data.

use frappe_crds::FrappeSite;
use kube::ResourceExt;
use serde_json::{Value, json};

use super::plan::{Report, Stage};
use crate::{
    controllers::site::{hosts::Hosts, place::Place, reason::Reason},
    domain::{key::Key, labels},
};

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
    /// Whether it is of this site alone, and goes with it.
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

/// The answers.
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
    /// What a site that exists asks for and does not get.
    pub refused: Vec<Refusal>,
}

impl Validated {
    /// Whether a part of the site is left as it is.
    pub fn withholds(&self, part: Part) -> bool {
        self.refused.iter().any(|it| it.part == part)
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
    /// The same for people.
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
        let message = format!("{}; the site is served as it was", self.message);
        Report::failed(Stage::Done, self.stage(), self.reason, message)
    }

    /// A site that has what it asks for, since that was allowed when it was made, keeps it.
    pub fn tells(&self) -> Report {
        Report::ready(self.reason, format!("the site is served as it was, and not changed any more: {}", self.message))
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

/// What the builders need to know of a site.
pub struct Input<'a> {
    /// The site.
    pub site: &'a FrappeSite,
    /// What validation made of its spec.
    pub valid: &'a Validated,
    /// What was decided about it: the identity that its Secret, its Jobs and its directory on the volume agree on, and the
    /// names of its database and account, where this operator made them.
    pub known: &'a Known,
}

impl Input<'_> {
    /// Name of the site.
    pub fn name(&self) -> String {
        self.site.name_any()
    }

    /// Name of an object of the site, in the namespace of its bench.
    pub fn key(&self, suffix: &str) -> Key {
        self.valid.place.key(suffix)
    }

    /// Metadata of an object that must outlive a mistake: labels, but no owner that would take it along.
    pub fn kept_metadata(&self) -> Value {
        json!({"labels": self.labels()})
    }

    /// Metadata of an object that goes with the site. An owner must be in the same namespace: an object in another is
    /// removed by the finalizer.
    pub fn owned_metadata(&self) -> Value {
        if self.valid.place.is_foreign() {
            return self.kept_metadata();
        }
        json!({"labels": self.labels(), "ownerReferences": [{
            "apiVersion": "vyogo.tech/v1alpha1", "kind": "FrappeSite", "name": self.name(),
            "uid": self.site.uid().unwrap_or_default(), "controller": true, "blockOwnerDeletion": true,
        }]})
    }

    /// Labels of every object of the site.
    pub fn labels(&self) -> std::collections::BTreeMap<String, String> {
        let mut labels =
            labels::site(&self.site.spec.bench_ref.name, &self.name(), &self.site.uid().unwrap_or_default());
        let place = &self.valid.place;
        labels.extend(place.is_foreign().then(|| (labels::SITE_NAMESPACE.to_owned(), place.own.clone())));
        labels
    }
}
