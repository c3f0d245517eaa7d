//! Two tenants and a platform: whatever a tenant writes, no step for the tenant's sites writes, references or reads another one's
//! objects.

use std::sync::LazyLock;

use super::*;
use crate::{
    controllers::{objects::is_own_existing, site::place::Place, site::record},
    domain::{key::Key, labels, names::hash_hex, owner::Owner},
};

/// How the owner of an object is determined.
type Has = fn(&Owner, &DynamicObject) -> bool;

/// Every object, as in the API server.
#[derive(Clone)]
struct Cluster {
    objects: BTreeMap<(Kind, Key), Arc<DynamicObject>>,
    has: Has,
}

fn bench_in(namespace: &str) -> FrappeBench {
    let mut bench = bench();
    bench.metadata.namespace = Some(namespace.to_owned());
    // Everything is allowed except objects of other owners.
    let allowed = json!({"namespaces": {"from": "All"}, "databases": {"dedicated": true}});
    bench.spec.allowed_sites = serde_json::from_value(allowed).expect("allowed namespaces");
    bench.spec.domain_config = serde_json::from_value(json!({"allowedSuffixes": ["example.com"]})).expect("suffixes");
    bench
}

fn site_in(namespace: &str, name: &str, more: &Value) -> FrappeSite {
    let mut site = site(json!({"siteName": format!("{name}.{namespace}.example.com")}));
    site.metadata.name = Some(name.to_owned());
    site.metadata.namespace = Some(namespace.to_owned());
    site.metadata.uid = Some(format!("uid-of-{namespace}-{name}"));
    let mut spec = serde_json::to_value(&site.spec).expect("JSON");
    json_patch::merge(&mut spec, more);
    site.spec = serde_json::from_value(spec).expect("a spec");
    site
}

impl Cluster {
    fn get(&self, kind: Kind, key: &Key) -> Option<Arc<DynamicObject>> {
        self.objects.get(&(kind, key.clone())).cloned()
    }

    fn put(&mut self, kind: Kind, mut body: Value) {
        if kind == Kind::Secret {
            // Caches contain only this.
            body = json!({"apiVersion": "v1", "kind": "Secret", "metadata": body["metadata"]});
        }
        let object = object(body);
        self.objects.insert((kind, Key::of(object.as_ref())), object);
    }

    /// The observed state of a site, as by `observe`.
    fn view(&self, site: &FrappeSite) -> Observed {
        let (place, owner) = (Place::of(site), Owner::site(site));
        let own = |kind: Kind, suffix: &str| self.get(kind, &place.key(suffix)).filter(|it| (self.has)(&owner, it));
        let of_kind =
            |kind: Kind| self.objects.iter().filter(move |((it, _), _)| *it == kind).map(|(_, it)| it.clone());
        let mut world = observed(json!({}));
        world.site = Arc::new(site.clone());
        world.bench = Some(Arc::new(bench_in(&place.namespace)));
        world.hosts = hosts::resolve(&site.spec, world.bench.as_deref(), &world.config);
        world.claims.clear();
        for host in world.hosts.all() {
            let object = self.get(Kind::Domain, &Key::new("", host));
            let holder = object.as_ref().map(|it| it.data["spec"]["site"]["uid"] == json!(site.metadata.uid));
            let holder = match holder {
                None => Holder::Unclaimed,
                Some(true) => Holder::ThisSite,
                Some(false) => Holder::Other(Key::new("somebody", "else")),
            };
            world.claims.push(Claim { host: host.clone(), object, holder });
        }
        world.credentials = self.get(Kind::Secret, &place.credentials());
        world.servers = of_kind(Kind::MariaDb).collect();
        world.root_secret = own(Kind::Secret, "mariadb-root");
        world.sql = [own(Kind::Database, "db"), own(Kind::User, "user"), own(Kind::Grant, "grant")];
        world.routes.ingress = own(Kind::Ingress, "ingress");
        let jobs = of_kind(Kind::Job).filter(|it| it.namespace().as_ref() == Some(&place.namespace));
        let jobs = jobs.filter(|it| it.labels().get(labels::SITE_UID) == site.metadata.uid.as_ref());
        world.jobs = jobs.map(|it| (it.name_any(), it)).collect();
        let admin = place.generated_admin_password(&site.name_any());
        world.secrets.extend(self.get(Kind::Secret, &admin).map(|it| (admin.name, it)));
        let mounted: Vec<String> = world.secrets.keys().map(|it| place.mounted(it)).collect();
        let copy = |name: String| {
            let copy = self.get(Kind::Secret, &Key::new(&place.namespace, &name));
            copy.filter(|it| (self.has)(&owner, it)).map(|it| (name, it))
        };
        world.copies = mounted.into_iter().filter(|_| place.is_foreign()).filter_map(copy).collect();
        world.fresh.identity = hash_hex(&format!("{:?}", site.metadata.uid), 16);
        world
    }

    /// Writes an object as `execute` does; returns whether it is allowed.
    fn write(&mut self, desired: &Desired, creates: bool) -> bool {
        let live = self.get(desired.kind, &desired.key);
        if let Some(live) = &live {
            let may =
                if creates { is_own_existing(desired, live).is_ok() } else { (self.has)(&Owner::of(desired), live) };
            if !may {
                return false;
            }
        }
        let mut body = desired.stamped();
        let mut is_as_wanted = true;
        if let (true, Some(live)) = (creates, live) {
            let wanted = body["metadata"]["annotations"][labels::IDENTITY].as_str().map(str::to_owned);
            is_as_wanted = live.annotations().get(labels::IDENTITY) == wanted.as_ref();
            body["metadata"]["annotations"] = json!(live.annotations());
        }
        body["metadata"]["resourceVersion"] = json!("1");
        let done = json!({"type": "Complete", "status": "True", "lastTransitionTime": "1970-01-01T00:00:00Z"});
        let ready = json!({"type": "Ready", "status": "True", "reason": "", "message": "",
                           "lastTransitionTime": "1970-01-01T00:00:00Z"});
        body["status"] = json!({"conditions": [done, ready]});
        self.put(desired.kind, body);
        is_as_wanted
    }

    /// Plans and executes once for a site; returns every object that the plan uses.
    fn reconcile(&mut self, site: &mut FrappeSite) -> Vec<Desired> {
        let observed = self.view(site);
        let plan = plan(&observed);
        let mut wanted = Vec::new();
        for step in &plan.steps {
            if !self.take(site, step, &mut wanted) {
                return wanted;
            }
        }
        if let Some(status) = &plan.status {
            site.status = Some(status.clone());
        }
        if let Some(job) = &plan.job {
            wanted.push(job.clone());
            if self.get(Kind::Job, &job.key).is_none() {
                self.write(job, true);
            }
        }
        for step in &plan.last {
            if !self.take(site, step, &mut wanted) {
                return wanted;
            }
        }
        wanted
    }

    fn take(&mut self, site: &mut FrappeSite, step: &Step, wanted: &mut Vec<Desired>) -> bool {
        match step {
            Step::Patch(_, metadata) => {
                site.metadata.finalizers.clone_from(&metadata.finalizers);
                true
            }
            Step::Create(desired) => {
                wanted.push(desired.clone());
                self.write(desired, true)
            }
            Step::Ensure(desired) | Step::Adopt(desired) => {
                wanted.push(desired.clone());
                self.write(desired, false)
            }
            Step::CopySecret(from, desired) => {
                assert_eq!(
                    Some(&from.namespace),
                    site.namespace().as_ref(),
                    "only Secrets of its own namespace are read"
                );
                wanted.push(desired.clone());
                self.write(desired, false)
            }
            Step::Delete(kind, gone) => {
                self.objects.remove(&(*kind, Key::of(gone.as_ref())));
                true
            }
            Step::LabelSecret(secret, metadata) => {
                let mut secret = DynamicObject::clone(secret);
                secret.labels_mut().extend(super::labels_of(metadata));
                self.objects.insert((Kind::Secret, Key::of(&secret)), Arc::new(secret));
                true
            }
            other => panic!("not of these worlds: {other:?}"),
        }
    }
}

/// A name so long that names of its objects are shortened.
const LONG: &str = "a-site-of-the-platform-whose-name-is-so-long-that-it-is-cut";

/// Objects of others: the platform's servers, and Ready sites of a victim and of the platform.
static OTHERS: LazyLock<(Cluster, Vec<FrappeSite>)> = LazyLock::new(|| {
    let mut cluster = Cluster { objects: BTreeMap::new(), has: Owner::has };
    for (namespace, name) in [("platform", "shared"), ("a", "shared"), ("platform", "thief-mariadb"), ("b", "own")] {
        cluster.put(
            Kind::MariaDb,
            json!({
                "apiVersion": "k8s.mariadb.com/v1alpha1", "kind": "MariaDB", "spec": {"image": "theirs"},
                "metadata": {"name": name, "namespace": namespace, "annotations": {labels::ALLOWED_NAMESPACES: "*"}},
            }),
        );
    }
    let shared = |namespace: &str| json!({"dbConfig": {"mariadbRef": {"name": "shared", "namespace": namespace}}});
    let foreign = json!({"benchRef": {"name": "bench", "namespace": "platform"},
                         "dbConfig": {"mariadbRef": {"name": "shared", "namespace": "platform"}}});
    let mut former = site_in("b", "shop", &foreign);
    // Names of an earlier version for objects of a site of another namespace.
    former.status = Some(FrappeSiteStatus {
        object_prefix: Some(format!("shop-{}", hash_hex("b", 8))),
        ..FrappeSiteStatus::default()
    });
    let mut sites = vec![
        former,
        site_in("b", "market", &foreign),
        site_in("platform", "shop", &shared("platform")),
        site_in("platform", LONG, &shared("platform")),
        site_in("platform", "vault", &json!({"dbConfig": {"mode": "dedicated"}})),
    ];
    for site in &mut sites {
        for _ in 0..8 {
            cluster.reconcile(site);
        }
        let status = site.status.clone().unwrap_or_default();
        assert_eq!(status.phase, SitePhase::Ready, "{:?}", status.conditions);
    }
    (cluster, sites)
});

/// Names that an attacker would choose.
fn names() -> Vec<String> {
    let (cluster, _) = &*OTHERS;
    let stems = cluster.objects.keys().filter_map(|(kind, key)| match kind {
        Kind::Database => key.name.strip_suffix("-db"),
        Kind::Secret => key.name.strip_suffix("-db-password"),
        _ => None,
    });
    // An existing site keeps its objects: a site with the same name can only be in another namespace.
    let taken = ["shop", "vault", LONG];
    stems.filter(|it| !taken.contains(it)).chain(["thief", "mine"]).map(str::to_owned).collect()
}

/// Values in others' statuses.
fn words() -> Vec<String> {
    let decided = OTHERS.1.iter().filter_map(|it| it.status.as_ref()?.database.clone());
    let of = |it: frappe_crds::site::SiteDatabase| [Some(it.identity), it.name].into_iter().flatten();
    let uids = OTHERS.1.iter().filter_map(ResourceExt::uid);
    decided.flat_map(of).chain(uids).chain(["mysql", "root", "forged"].map(str::to_owned)).collect()
}

/// An object that a tenant writes in the tenant's namespace.
#[derive(Clone, Debug)]
struct Forged {
    kind: Kind,
    suffix: &'static str,
    labels: Vec<(&'static str, String)>,
    annotations: Vec<(&'static str, String)>,
}

fn forged() -> impl Strategy<Value = Forged> {
    let kinds = [
        (Kind::Secret, "db-password"),
        (Kind::Secret, "admin-password"),
        (Kind::Secret, "mariadb-root"),
        (Kind::Job, "init"),
        (Kind::Job, "delete"),
        (Kind::Ingress, "ingress"),
    ];
    let label = (
        prop::sample::select(vec![labels::MANAGED_BY, labels::SITE_UID, labels::SITE_NAMESPACE, "site", labels::SLOT]),
        prop::sample::select(
            [
                words(),
                vec![
                    labels::MANAGER.into(),
                    "thief".into(),
                    "shop".into(),
                    "b".into(),
                    "a".into(),
                    "7".into(),
                    "uid-of-a-thief".into(),
                    "uid-of-a-mine".into(),
                ],
            ]
            .concat(),
        ),
    );
    let annotation = (
        prop::sample::select(vec![
            labels::IDENTITY,
            labels::DATABASE,
            labels::DATABASE_USER,
            labels::DATABASE_KIND,
            labels::APPLIED_HASH,
        ]),
        prop::sample::select(
            [
                words(),
                vec![
                    "shared platform/shared".into(),
                    "shared b/own".into(),
                    "dedicated".into(),
                    "existing postgres".into(),
                ],
            ]
            .concat(),
        ),
    );
    (prop::sample::select(kinds.to_vec()), prop::collection::vec(label, 0..6), prop::collection::vec(annotation, 0..5))
        .prop_map(|((kind, suffix), labels, annotations)| Forged { kind, suffix, labels, annotations })
}

/// An attack: a site, additional objects, and when the site is deleted.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is one independent choice of the tenant's")]
struct Attack {
    namespace: &'static str,
    is_foreign: bool,
    name: String,
    is_dedicated: bool,
    has_own_labels: bool,
    forged: Vec<Forged>,
    rounds: usize,
    force: Option<&'static str>,
    retains: bool,
    has_finalizer: bool,
}

prop_compose! {
    fn attack()(
        in_platform in any::<bool>(), is_foreign in any::<bool>(), name in prop::sample::select(names()), is_dedicated in any::<bool>(),
        has_own_labels in any::<bool>(), forged in prop::collection::vec(forged(), 0..4), rounds in 0_usize..6,
        force in prop::sample::select(vec![None, Some("skip-job"), Some("skip-database")]), retains in any::<bool>(),
        has_finalizer in any::<bool>(),
    ) -> Attack {
        let namespace = if in_platform { "platform" } else { "a" };
        Attack { namespace, is_foreign, name, is_dedicated, has_own_labels, forged, rounds, force, retains, has_finalizer }
    }
}

/// Executes the attack; returns others' objects that a step wrote or referenced.
fn outcome(attack: &Attack, has: Has) -> Result<(), String> {
    let mut cluster = Cluster { has, ..OTHERS.0.clone() };
    let mut spec = if attack.is_dedicated { json!({"dbConfig": {"mode": "dedicated"}}) } else { json!({}) };
    if attack.namespace == "a" && attack.is_foreign {
        spec["benchRef"] = json!({"name": "bench", "namespace": "platform"});
    }
    if !attack.is_dedicated {
        let namespace = if attack.is_foreign { "platform" } else { attack.namespace };
        spec["dbConfig"] = json!({"mariadbRef": {"name": "shared", "namespace": namespace}});
    }
    if attack.retains {
        spec["deletionPolicy"] = json!("Retain");
    }
    let mut site = site_in(attack.namespace, &attack.name, &spec);
    if attack.has_finalizer {
        site.metadata.finalizers = Some(vec![labels::SITE_FINALIZER.to_owned()]);
    }
    // In another namespace, the attacker may only write sites.
    for it in attack.forged.iter().filter(|_| attack.namespace == "a") {
        let mut labels: BTreeMap<&str, &str> = it.labels.iter().map(|(key, value)| (*key, value.as_str())).collect();
        let uid = site.uid().unwrap_or_default();
        if attack.has_own_labels {
            labels.extend([
                (labels::MANAGED_BY, labels::MANAGER),
                ("site", attack.name.as_str()),
                (labels::SITE_UID, uid.as_str()),
            ]);
        }
        let annotations: BTreeMap<&str, &str> =
            it.annotations.iter().map(|(key, value)| (*key, value.as_str())).collect();
        cluster.put(
            it.kind,
            json!({
                "apiVersion": "v1", "kind": "Any", "spec": {}, "status": {},
                "metadata": {"name": format!("{}-{}", attack.name, it.suffix), "namespace": "a", "uid": "forged",
                             "resourceVersion": "1", "labels": labels, "annotations": annotations,
                             "creationTimestamp": "2020-01-01T00:00:00Z"},
            }),
        );
    }
    let mut wanted = Vec::new();
    for _ in 0..attack.rounds {
        wanted.extend(cluster.reconcile(&mut site));
    }
    site.metadata.deletion_timestamp = serde_json::from_value(json!("2026-01-02T00:00:00Z")).ok();
    site.metadata.annotations = attack.force.map(|it| [(labels::FORCE_DELETE.to_owned(), it.to_owned())].into());
    for _ in 0..6 {
        wanted.extend(cluster.reconcile(&mut site));
    }
    for ((kind, key), before) in &OTHERS.0.objects {
        if cluster.get(*kind, key).as_ref() != Some(before) {
            return Err(format!("{kind:?} {key} of another's was touched"));
        }
    }
    let known = record::known(&cluster.view(&site));
    wanted.iter().try_for_each(|desired| names_nobody_else(desired, &known.name))
}

/// Objects of a site reference no database, account, server or identity of others.
fn names_nobody_else(desired: &Desired, own: &str) -> Result<(), String> {
    let spec = &desired.body["spec"];
    let of_others: Vec<String> = words().into_iter().filter(|it| *it != "forged").collect();
    let is_anothers = |text: &str| of_others.iter().any(|it| it == text);
    let names = [&spec["name"], &spec["username"], &spec["database"]];
    if let Some(name) = names.into_iter().filter_map(Value::as_str).find(|it| is_anothers(it)) {
        return Err(format!("{:?} {} names {name}, not {own}", desired.kind, desired.key));
    }
    let server = &spec["mariaDbRef"];
    if *server == json!({"name": "own", "namespace": "b"})
        || server["name"] == "thief-mariadb" && server["namespace"] == "platform"
    {
        return Err(format!("{:?} {} is on another's server {server}", desired.kind, desired.key));
    }
    Ok(())
}

fn cases(few: u32) -> ProptestConfig {
    let asked = std::env::var("TENANT_CASES").ok().and_then(|it| it.parse().ok());
    ProptestConfig { cases: asked.unwrap_or(few), failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(cases(1_000))]

    /// whatever a tenant writes (names, labels, annotations, specs, Secrets, Jobs), no step for the tenant's sites writes
        /// or references objects of others.
    #[test]
    fn nothing_of_one_tenant_reaches_another(attack in attack()) {
        prop_assert_eq!(outcome(&attack, Owner::has), Ok(()));
    }
}

/// The property above can fail: if a name were enough to own an object, it would be detected.
#[test]
fn ownership_by_name_would_be_seen() {
    use proptest::test_runner::{TestError, TestRunner};
    let mut runner = TestRunner::new(cases(1_000));
    let result = runner.run(&attack(), |attack| {
        prop_assert_eq!(outcome(&attack, |_, _| true), Ok(()));
        Ok(())
    });
    assert!(matches!(result, Err(TestError::Fail(..))), "{result:?}");
}
