//! Recorded decisions about a site: its identity, and the server, name and user of its database. Pure.
//!
//! They are in the status, which no tenant may write. The annotations of the site's Secret are a copy, which is used only for a
//! site without a status (its Secret was kept or restored), and only if verified: by the MariaDB operator's objects of this site,
//! which tenants may not write either, or by a name derived from the identity.

use frappe_crds::{
    common::NamespacedReference,
    site::{DatabaseKind, SiteDatabase},
};
use kube::{ResourceExt, core::DynamicObject};

use super::{
    model::{Choice, Database, Existing, Known, Observed, Report, Stage},
    place::Place,
    reason::Reason,
};
use crate::domain::{key::Key, labels, live, names, owner::Owner};

/// The decisions: from the status, else from the objects of a site of an older version, else from kept or restored objects, else new
/// ones.
pub fn known(observed: &Observed) -> Known {
    let status = observed.site.status.clone().unwrap_or_default();
    let of_secret = annotation(observed, labels::IDENTITY).filter(|_| is_own_secret(observed));
    // Until something is created with it, an identity may be replaced by a kept one.
    let stands = |it: &SiteDatabase| {
        status.identity.is_some() || of_secret.as_ref().is_none_or(|identity| *identity == it.identity)
    };
    if let Some(database) = status.database.as_ref().filter(|it| stands(it)) {
        return recorded(observed, database);
    }
    let made = status.identity.is_some();
    let identity = status.identity.or(of_secret).unwrap_or_else(|| observed.fresh.identity.clone());
    let object = |index: usize, found: Option<&DynamicObject>| {
        let name = |it: &DynamicObject| live::field(it, "/spec/name");
        observed.sql[index].as_deref().or(found).and_then(name)
    };
    let derived = || names::database(&Key::of(observed.site.as_ref()).namespace, &observed.site.name_any(), &identity);
    let name = status
        .database_name
        .filter(|_| made)
        .or_else(|| object(0, observed.adoptable.database.as_ref()))
        .unwrap_or_else(derived);
    let user = object(1, observed.adoptable.user.as_ref()).unwrap_or_else(|| name.clone());
    let choice = engine(observed).filter(|_| made).map(Choice::Existing).or_else(|| on_server_of_objects(observed));
    Known { identity, name, user, choice }
}

fn recorded(observed: &Observed, database: &SiteDatabase) -> Known {
    let server = database.server.clone().unwrap_or_default();
    let choice = match database.kind {
        DatabaseKind::Dedicated => Choice::Dedicated,
        DatabaseKind::Shared => Choice::Shared(Key::new(
            server.namespace.unwrap_or_else(|| Place::of(&observed.site).namespace),
            server.name,
        )),
        DatabaseKind::Existing => Choice::Existing(word(database.engine.as_deref())),
    };
    let name = database.name.clone().unwrap_or_default();
    let user = database.user.clone().unwrap_or_else(|| name.clone());
    Known { identity: database.identity.clone(), name, user, choice: Some(choice) }
}

/// The record for the status.
pub fn record(known: &Known, database: &Database) -> SiteDatabase {
    let nothing = SiteDatabase { identity: known.identity.clone(), ..SiteDatabase::default() };
    match database {
        Database::Made(server) => SiteDatabase {
            kind: if server.dedicated { DatabaseKind::Dedicated } else { DatabaseKind::Shared },
            server: Some(NamespacedReference {
                name: server.key.name.clone(),
                namespace: Some(server.key.namespace.clone()),
            }),
            name: Some(known.name.clone()),
            user: Some(known.user.clone()).filter(|user| *user != known.name),
            ..nothing
        },
        Database::Existing(Existing { engine, .. }) => {
            SiteDatabase { kind: DatabaseKind::Existing, engine: Some((*engine).to_owned()), ..nothing }
        }
    }
}

/// Whether the Secret of the database user belongs to this site, by its labels or by the recorded identity.
pub fn is_own_secret(observed: &Observed) -> bool {
    observed.credentials.as_deref().is_some_and(|secret| is_own(observed, secret))
}

/// Whether a Secret belongs to this site, by its labels or, if they were removed, by the recorded identity.
pub fn is_own(observed: &Observed, secret: &DynamicObject) -> bool {
    let status = observed.site.status.clone().unwrap_or_default();
    let identity = status.identity.or(status.database.map(|it| it.identity));
    let same = identity.is_some() && secret.annotations().get(labels::IDENTITY) == identity.as_ref();
    same || Owner::site(observed.site.as_ref()).has(secret)
}

/// Report for a Secret with a needed name that does not belong to the site, or that contradicts the record.
pub fn foreign_secret(observed: &Observed, known: &Known, database: &Database) -> Option<Report> {
    let failed = |message| Some(Report::failed(Stage::Database, Stage::Database, Reason::SecretForeign, message));
    let generated = observed.site.spec.admin_password_secret_ref.is_none();
    let admin = observed.admin_secret().filter(|_| generated);
    let foreign = |it: &&DynamicObject| !is_own(observed, it) || !it.annotations().contains_key(labels::IDENTITY);
    if let Some(secret) = observed.credentials.as_deref().into_iter().chain(admin.map(|it| &**it)).find(foreign) {
        return failed(format!(
            "Secret {} exists and was not created for this site: rename or remove it",
            secret.name_any()
        ));
    }
    let made = matches!(database, Database::Made(_));
    let decided = [
        (labels::IDENTITY, &known.identity, true),
        (labels::DATABASE_KIND, &database.decision(), true),
        (labels::DATABASE, &known.name, made),
        (labels::DATABASE_USER, &known.user, made),
    ];
    let differs = |(label, wanted, counts): &(&str, &String, bool)| {
        annotation(observed, label).is_some_and(|it| !counts || it != **wanted)
    };
    let (label, _, _) = decided.iter().find(|it| differs(it))?;
    let name = observed.credentials.as_ref()?.name_any();
    failed(format!(
        "annotation {label} of Secret {name} differs from what was decided for this site, and is ignored: revert it, or \
         delete the Secret if the site was never created"
    ))
}

fn annotation(observed: &Observed, name: &str) -> Option<String> {
    observed.credentials.as_ref().and_then(|it| it.annotations().get(name).cloned())
}

/// Engine of the existing database of a site of an older version, which references a Secret and no database. Only the choice of
/// the client depends on it.
fn engine(observed: &Observed) -> Option<&'static str> {
    let status = observed.site.status.as_ref().filter(|it| it.database_name.is_none())?;
    status.database_credentials_secret.as_ref()?;
    let kind = annotation(observed, labels::DATABASE_KIND)?;
    kind.strip_prefix("existing ").map(|engine| word(Some(engine)))
}

fn word(engine: Option<&str>) -> &'static str {
    if engine == Some("postgres") { "postgres" } else { "mariadb" }
}

/// The server referenced by the MariaDB operator's objects of this site.
fn on_server_of_objects(observed: &Observed) -> Option<Choice> {
    let object = observed.sql.iter().flatten().next().map(|it| &**it).or(observed.adoptable.database.as_ref())?;
    let reference: NamespacedReference = live::field(object, "/spec/mariaDbRef")?;
    let namespace = reference.namespace.or_else(|| object.namespace()).unwrap_or_default();
    let key = Key::new(namespace, reference.name);
    let own = Place::of(&observed.site).own_server();
    Some(if key == own { Choice::Dedicated } else { Choice::Shared(key) })
}
