//! Specs of the kinds that other operators define, as far as this one sets them. Pure.

use std::collections::BTreeMap;

use frappe_crds::{
    common::Resources,
    domain::{DomainHolder, FrappeDomainSpec},
    site::{GatewayReference, TlsTermination},
};
use k8s_openapi::{api::core::v1::SecretKeySelector, apimachinery::pkg::apis::meta::v1::LabelSelector};
use kube::{ResourceExt, api::ObjectMeta, core::DynamicObject};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use strum::IntoStaticStr;

use super::{
    key::Key,
    live,
    object::{Desired, Kind},
    typed::{self, specs},
};

specs! {
    DatabaseSpec => Database,
    UserSpec => User,
    GrantSpec => Grant,
    MariaDbSpec => MariaDb,
    ScaledObjectSpec => ScaledObject,
    TriggerAuthenticationSpec => TriggerAuthentication,
    ServiceMonitorSpec => ServiceMonitor,
    HttpRouteSpec => HttpRoute,
    RouteSpec => Route,
    FrappeDomainSpec => Domain,
}

/// What the MariaDB operator does on the server when an object is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, IntoStaticStr)]
pub enum Cleanup {
    /// Nothing: the default of this operator, so that no deletion by mistake reaches the server.
    Skip,
    /// Drop it: only while the site is being deleted.
    Delete,
}

/// The site that holds a FrappeDomain.
pub fn holder(domain: &DynamicObject) -> Option<DomainHolder> {
    live::field(domain, "/spec/site")
}

/// Names an object of the MariaDB operator's in any namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ServerReference {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
}

impl From<&Key> for ServerReference {
    fn from(key: &Key) -> Self {
        Self { name: key.name.clone(), namespace: key.namespace.clone() }
    }
}

/// k8s.mariadb.com Database.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DatabaseSpec {
    /// The server.
    pub maria_db_ref: ServerReference,
    /// Its name there.
    pub name: String,
    /// Its character set.
    pub character_set: &'static str,
    /// Its collation.
    pub collate: &'static str,
    /// What its deletion does.
    pub cleanup_policy: Cleanup,
}

/// k8s.mariadb.com User.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct UserSpec {
    /// The server.
    pub maria_db_ref: ServerReference,
    /// Its name there.
    pub name: String,
    /// Where it may log in from.
    pub host: &'static str,
    /// Its password.
    pub password_secret_key_ref: SecretKeySelector,
    /// Most connections at once.
    pub max_user_connections: i32,
    /// What its deletion does.
    pub cleanup_policy: Cleanup,
}

/// k8s.mariadb.com Grant.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GrantSpec {
    /// The server.
    pub maria_db_ref: ServerReference,
    /// What is granted.
    pub privileges: &'static [&'static str],
    /// The database that it is granted on.
    pub database: String,
    /// The table, or all of them.
    pub table: &'static str,
    /// To whom.
    pub username: String,
    /// Where that user logs in from.
    pub host: &'static str,
    /// Whether the user may grant it to others.
    pub grant_option: bool,
    /// What its deletion does.
    pub cleanup_policy: Cleanup,
}

/// The spec of a Database, a User or a Grant that exists, of which only the policy matters.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Existing {
    /// What its deletion does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cleanup_policy: Option<String>,
    /// Everything else, as it is.
    #[serde(flatten)]
    others: Map<String, Value>,
}

impl Existing {
    /// As it is.
    pub fn of(object: &DynamicObject) -> Self {
        live::spec(object)
    }

    /// With another policy; None if it has that one.
    pub fn with(self, cleanup: Cleanup) -> Option<Self> {
        let wanted: &str = cleanup.into();
        let differs = self.cleanup_policy.as_deref() != Some(wanted);
        differs.then(|| Self { cleanup_policy: Some(wanted.to_owned()), ..self })
    }

    /// The very object that is there, with this spec.
    pub fn desired(&self, kind: Kind, key: Key, live: &DynamicObject) -> Desired {
        let metadata = ObjectMeta { uid: live.uid(), labels: Some(live.labels().clone()), ..ObjectMeta::default() };
        typed::with_spec(kind, key, metadata, self)
    }
}

/// k8s.mariadb.com MariaDB.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MariaDbSpec {
    /// Image of the server.
    pub image: String,
    /// Its administrator's password.
    pub root_password_secret_key_ref: SecretKeySelector,
    /// Its volume.
    pub storage: MariaDbStorage,
    /// Number of servers.
    pub replicas: i32,
    /// Port of the server.
    pub port: i32,
    /// Settings of the server, as a file of MariaDB's.
    pub my_cnf: &'static str,
    /// Requests and limits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
}

/// Volume of a MariaDB.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MariaDbStorage {
    /// Its size.
    pub size: String,
    /// Whether it may grow while it is used.
    pub resize_in_use_volumes: bool,
    /// When it goes.
    pub pvc_retention_policy: RetentionPolicy,
}

/// When the volume of a MariaDB goes.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RetentionPolicy {
    /// With the object.
    pub when_deleted: &'static str,
    /// With fewer servers.
    pub when_scaled: &'static str,
}

/// keda.sh ScaledObject.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ScaledObjectSpec {
    /// What is scaled.
    pub scale_target_ref: ScaleTarget,
    /// Fewest replicas.
    pub min_replica_count: i32,
    /// Most replicas.
    pub max_replica_count: i32,
    /// Seconds between two looks.
    pub polling_interval: i32,
    /// Seconds without anything to do before the last replica goes.
    pub cooldown_period: i32,
    /// The same for an object that was never active.
    pub initial_cooldown_period: i32,
    /// What is done when nothing can be seen.
    pub fallback: Fallback,
    /// How the autoscaler that KEDA makes is set.
    pub advanced: Advanced,
    /// What the number of replicas follows.
    pub triggers: Vec<Trigger>,
}

/// What a ScaledObject scales.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ScaleTarget {
    /// Group and version of its kind.
    pub api_version: &'static str,
    /// Its kind.
    pub kind: &'static str,
    /// Its name.
    pub name: String,
}

/// What KEDA does when it cannot see what it scales by.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Fallback {
    /// Looks that fail before that.
    pub failure_threshold: i32,
    /// Replicas then.
    pub replicas: i32,
    /// Whether that is the least number or the number.
    pub behavior: &'static str,
}

/// See [`ScaledObjectSpec::advanced`].
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Advanced {
    /// The HorizontalPodAutoscaler that KEDA makes.
    pub horizontal_pod_autoscaler_config: AutoscalerConfig,
}

/// How the HorizontalPodAutoscaler of a ScaledObject is called and behaves.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AutoscalerConfig {
    /// Its name.
    pub name: String,
    /// How fast it scales.
    pub behavior: k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscalerBehavior,
}

/// What the number of replicas follows.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Trigger {
    /// Kind of trigger.
    #[serde(rename = "type")]
    pub type_: &'static str,
    /// Its name.
    pub name: String,
    /// Its settings.
    pub metadata: BTreeMap<&'static str, String>,
    /// The TriggerAuthentication by which it reads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authentication_ref: Option<Named>,
}

/// Names an object of the same namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Named {
    /// Its name.
    pub name: String,
}

/// keda.sh TriggerAuthentication.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TriggerAuthenticationSpec {
    /// What is read from Secrets.
    pub secret_target_ref: Vec<SecretParameter>,
}

/// One setting of a trigger that a Secret holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SecretParameter {
    /// The setting.
    pub parameter: &'static str,
    /// The Secret.
    pub name: String,
    /// Its key.
    pub key: String,
}

/// monitoring.coreos.com ServiceMonitor.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ServiceMonitorSpec {
    /// Which Services.
    pub selector: LabelSelector,
    /// What of them is scraped.
    pub endpoints: Vec<Endpoint>,
}

/// What of a Service is scraped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Endpoint {
    /// Name of the port.
    pub port: &'static str,
    /// Path of the metrics.
    pub path: String,
    /// Time between two scrapes.
    pub interval: String,
}

/// gateway.networking.k8s.io HTTPRoute.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HttpRouteSpec {
    /// Gateways that it is attached to.
    pub parent_refs: Vec<GatewayReference>,
    /// Hosts.
    pub hostnames: Vec<String>,
    /// Where requests go.
    pub rules: Vec<HttpRouteRule>,
}

/// Where requests of an HTTPRoute go.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HttpRouteRule {
    /// The Services.
    pub backend_refs: Vec<BackendReference>,
}

/// A Service that an HTTPRoute routes to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BackendReference {
    /// Its name.
    pub name: String,
    /// Its port.
    pub port: i32,
}

/// route.openshift.io Route.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteSpec {
    /// The host.
    pub host: String,
    /// The Service that it routes to.
    pub to: RouteTarget,
    /// The port there.
    pub port: RoutePort,
    /// Who ends TLS, and what becomes of requests without.
    pub tls: RouteTls,
    /// Which hosts below its own it serves.
    pub wildcard_policy: &'static str,
}

/// The target of a Route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RouteTarget {
    /// Its kind.
    pub kind: &'static str,
    /// Its name.
    pub name: String,
    /// Its share of the requests.
    pub weight: i32,
}

/// The port that a Route routes to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RoutePort {
    /// Its name.
    pub target_port: &'static str,
}

/// TLS of a Route.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteTls {
    /// Who ends it.
    pub termination: TlsTermination,
    /// What becomes of requests without it.
    pub insecure_edge_termination_policy: &'static str,
}
