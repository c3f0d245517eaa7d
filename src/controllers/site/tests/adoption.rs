//! Adoption of another operator's site.

use super::*;
use crate::{
    controllers::site::model::Adoptable,
    domain::{labels, wire},
};

fn made_elsewhere(kind: &str, name: &str, spec: Value) -> Arc<DynamicObject> {
    object(json!({
        "apiVersion": "v1", "kind": kind, "spec": spec,
        "metadata": {"name": name, "namespace": "default", "uid": format!("uid-{name}"), "resourceVersion": "4"},
    }))
}

/// A site whose Secret, database and account have names that this operator does not choose.
fn adopted_site() -> Observed {
    let mut world = observed(json!({}));
    let mut bench = bench();
    bench.annotations_mut().insert(labels::ADOPT.to_owned(), "true".to_owned());
    world.bench = Some(Arc::new(bench));
    let reference = json!({"name": "mariadb"});
    let database = made_elsewhere("Database", "shop-db", json!({"name": "_1a2b3c4d_shop", "mariaDbRef": reference}));
    let user = made_elsewhere("User", "shop-user", json!({"name": "shop_user", "mariaDbRef": reference}));
    world.adoptable = Adoptable {
        credentials: Some(made_elsewhere("Secret", "shop-db-password", Value::Null)),
        has_admin_password: true,
        database: Some(DynamicObject::clone(&database)),
        user: Some(DynamicObject::clone(&user)),
    };
    world
}

/// The steps of a plan, as text.
fn does(plan: &Plan) -> Vec<String> {
    let said = |step: &Step| match step {
        Step::Adopt(it) => Some(format!("take over {}", it.key.name)),
        Step::CopySecret(from, it) => Some(format!("copy {} to {}", from.name, it.key.name)),
        Step::AdoptSecret(it, _) => Some(format!("adopt {}", it.name_any())),
        Step::Create(it) if it.kind == Kind::Secret => Some(format!("create {}", it.key.name)),
        Step::Delete(_, it) => Some(format!("delete {}", it.name_any())),
        _ => None,
    };
    plan.steps.iter().chain(&plan.last).filter_map(said).chain(plan.job.iter().map(|it| it.key.name.clone())).collect()
}

///
#[test]
fn its_passwords_and_names_stay_what_they_are() {
    let mut world = adopted_site();
    let first = plan(&world);
    assert_eq!(
        does(&first),
        [
            "copy shop-admin to shop-admin-password",
            "adopt shop-db-password",
            "take over shop-db",
            "take over shop-user",
            "take over shop-grant"
        ]
    );
    let body = first.steps.iter().chain(&first.last).find_map(|step| match step {
        Step::AdoptSecret(_, adoption) => Some(wire::json(adoption)),
        _ => None,
    });
    let body = body.expect("the Secret");
    assert_eq!(body["stringData"]["username"], "shop_user");
    assert_eq!(body["stringData"]["database"], "_1a2b3c4d_shop");
    assert!(body["stringData"]["password"].is_null(), "the password is not changed");
    assert_eq!(body["metadata"]["ownerReferences"], Value::Null);
    apply(&mut world, &first, "Complete");
    let (made, _) = converge(&mut world, "Complete");
    let status = world.site.status.clone().expect("a status");
    assert_eq!(status.phase, SitePhase::Ready, "{:?}", status.conditions);
    let user = made.iter().find(|it| it.kind == Kind::User).expect("the account");
    assert_eq!(user.body["spec"]["name"], "shop_user");
    let grant = made.iter().find(|it| it.kind == Kind::Grant).expect("the grant");
    assert_eq!(
        (&grant.body["spec"]["username"], &grant.body["spec"]["database"]),
        (&json!("shop_user"), &json!("_1a2b3c4d_shop"))
    );
    let jobs: Vec<_> = made.iter().filter(|it| it.kind == Kind::Job).collect();
    assert_eq!(jobs.len(), 1);
    assert_eq!(jobs[0].key.name, "shop-init-2", "the other operator's first Job may still exist");
    let request: Value = serde_json::from_str(
        jobs[0].body["spec"]["template"]["spec"]["containers"][0]["args"][1].as_str().expect("a request"),
    )
    .expect("JSON");
    assert_eq!((&request["adopt"], &request["database"]["user"]), (&json!(true), &json!("shop_user")));
    // Permanently.
    assert_eq!(super::super::record::known(&world).user, "shop_user");
}

/// until the site is verified to be the expected one, its routes are not changed.
#[test]
fn another_site_than_the_expected_one_gets_no_route() {
    let mut world = adopted_site();
    let (made, _) = converge(&mut world, "Failed");
    assert!(made.iter().all(|it| it.kind != Kind::Ingress), "{made:?}");
    assert!(world.routes.ingress.is_none());
}

/// without a request, nothing is read and nothing is adopted.
#[test]
fn a_site_is_not_adopted_without_a_request() {
    let mut world = adopted_site();
    world.bench = Some(Arc::new(bench()));
    world.adoptable = Adoptable::default();
    assert_eq!(does(&plan(&world)), ["create shop-db-password", "create shop-admin-password"]);
}

/// a dedicated server is not restarted.
#[test]
fn a_dedicated_server_is_not_changed() {
    let mut world = adopted_site();
    let site = Arc::make_mut(&mut world.site);
    site.spec.db_config = Some(serde_json::from_value(json!({"mode": "dedicated"})).expect("a database"));
    let reference = json!({"name": "shop-mariadb"});
    let mut server =
        DynamicObject::clone(&made_elsewhere("MariaDB", "shop-mariadb", json!({"image": "mariadb:10.11"})));
    world.servers.push(Arc::new(server.clone()));
    world.adoptable.database.as_mut().expect("a database").data["spec"]["mariaDbRef"] = reference;
    assert!(does(&plan(&world)).contains(&"take over shop-mariadb".to_owned()));
    server.annotations_mut().insert(labels::ADOPTED.to_owned(), "1".to_owned());
    server.labels_mut().extend(labels::site("bench", "shop", &world.site.uid().expect("a uid")));
    *world.servers.last_mut().expect("a server") = Arc::new(server);
    let touches = |step: &Step| matches!(step, Step::Ensure(it) | Step::Adopt(it) if it.kind == Kind::MariaDb);
    assert!(!plan(&world).steps.iter().any(touches));
}
