//! The operator's ConfigMap `frappe-operator-config`: its keys and their validation. Pure.

use std::collections::BTreeMap;

use kube_sharding::SLOTS;
use serde::Deserialize;

use crate::domain::key::Key;

/// Name of the ConfigMap, in the operator's own namespace.
pub const CONFIG_MAP: &str = "frappe-operator-config";

/// Settings that take effect without a restart. `Default` has the defaults of missing keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperatorConfig {
    /// `defaultFrappeImage`: image of benches without a repository.
    pub default_frappe_image: Option<String>,
    /// `defaultMariaDBImage`.
    pub default_mariadb_image: String,
    /// `defaultMariaDB`: namespace and name of the MariaDB of sites for which neither site nor bench sets one.
    pub default_mariadb: Option<Key>,
    /// `defaultPostgresImage`.
    pub default_postgres_image: String,
    /// `defaultRedisImage`.
    pub default_redis_image: String,
    /// `defaultNginxImage`.
    pub default_nginx_image: String,
    /// `defaultDomainSuffix`: appended to a siteName without a dot.
    pub default_domain_suffix: Option<String>,
    /// `ingressControllerService`.
    pub ingress_controller_service: Option<String>,
    /// `ingressControllerNamespace`.
    pub ingress_controller_namespace: Option<String>,
    /// `kedaNamespace`: namespace of KEDA, which may connect to the queues' Redis.
    pub keda_namespace: String,
    /// `gitEnabled`: whether apps may be installed from Git.
    pub git_enabled: bool,
    /// `maxConcurrentSiteReconciles`: concurrent reconciles of one bench's sites, 1 to 1000.
    pub max_concurrent_site_reconciles: usize,
    /// `maxConcurrentSiteJobs`: concurrent site Jobs of one bench in the cluster, 1 to 1000.
    pub max_concurrent_site_jobs: usize,
    /// `siteReconcileConcurrencyScope`: whether the limit of a bench applies to each replica, or is shared by all.
    pub concurrency_scope: ConcurrencyScope,
    /// `memberReconcilesPerSecond`: site reconciles that a replica starts per second; 0 for no limit.
    pub member_reconciles_per_second: u32,
    /// `benchReconcilesPerSecond`: the same for the sites of one bench.
    pub bench_reconciles_per_second: u32,
    /// `fpmCliPath`.
    pub fpm_cli_path: String,
    /// `allowedRouteAnnotations`: annotations of routes that sites may set, beyond the harmless ones.
    pub allowed_route_annotations: Vec<String>,
    /// `allowedSiteConfigKeys`: entries of `siteConfig` that every site may set, beyond the harmless ones.
    pub allowed_site_config_keys: Vec<String>,
    /// `allowedSiteCommands`: commands of Frappe that SiteJobs may run, beyond the harmless ones.
    pub allowed_site_commands: Vec<String>,
    /// `allowedDatabaseImages`: images that a site may choose for a dedicated server.
    pub allowed_database_images: Vec<String>,
    /// `allowedDomainSuffixes`: allowed hosts by the site's namespace, `*` for all; None allows any.
    pub allowed_domain_suffixes: Option<BTreeMap<String, Vec<String>>>,
    /// `allowedIngressClasses`: allowed ingress classes; None allows any, also for the next two.
    pub allowed_ingress_classes: Option<Vec<String>>,
    /// `allowedIssuers`: issuers of cert-manager.
    pub allowed_issuers: Option<Vec<String>>,
    /// `allowedGateways`: `NAMESPACE/NAME` of Gateways.
    pub allowed_gateways: Option<Vec<String>>,
    /// `fpmRepositories`: a JSON array.
    pub fpm_repositories: Vec<FpmRepository>,
}

/// Placeholder for the site's namespace in a suffix.
const OWN_NAMESPACE: &str = "{namespace}";

/// Scope of a bench's limit of concurrent reconciles.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ConcurrencyScope {
    /// Each replica: the default.
    #[default]
    Member,
    /// All replicas together: each has the share of its slots, and at least one.
    Cluster,
}

impl OperatorConfig {
    /// The allowed suffixes for sites of a namespace; None if the platform allows any.
    pub fn suffixes_of(&self, namespace: &str) -> Option<Vec<String>> {
        let all = self.allowed_domain_suffixes.as_ref()?;
        let named = [namespace, "*"].into_iter().filter_map(|it| all.get(it)).flatten();
        Some(named.map(|suffix| suffix.replace(OWN_NAMESPACE, namespace)).collect())
    }

    /// Limit of concurrent site Jobs of a bench: the bench's own, else the ConfigMap's.
    pub fn site_job_limit(&self, own: Option<i32>) -> usize {
        own.and_then(|number| usize::try_from(number).ok()).unwrap_or(self.max_concurrent_site_jobs).max(1)
    }

    /// Limit of concurrent reconciles of a bench's sites in a replica: the greater of the ConfigMap's and the bench's, or the
    /// share of it for `slots` of the 256.
    pub fn site_limit(&self, own: Option<i32>, slots: usize) -> usize {
        let own = own.and_then(|number| usize::try_from(number).ok()).unwrap_or(0);
        let limit = self.max_concurrent_site_reconciles.max(own);
        match self.concurrency_scope {
            ConcurrencyScope::Member => limit,
            ConcurrencyScope::Cluster => (limit * slots / SLOTS).max(1),
        }
    }
}

/// One entry of `fpmRepositories`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct FpmRepository {
    /// Name of the repository.
    pub name: String,
    /// URL of the repository.
    pub url: String,
    /// Repositories with a higher priority are used first.
    #[serde(default = "default_priority")]
    pub priority: i32,
}

fn default_priority() -> i32 {
    50
}

impl Default for OperatorConfig {
    fn default() -> Self {
        Self {
            default_frappe_image: None,
            default_mariadb_image: "docker.io/library/mariadb:10.6".to_owned(),
            default_mariadb: None,
            default_postgres_image: "docker.io/library/postgres:15-alpine".to_owned(),
            default_redis_image: "docker.io/library/redis:7-alpine".to_owned(),
            default_nginx_image: "docker.io/library/nginx:1.25-alpine".to_owned(),
            default_domain_suffix: None,
            ingress_controller_service: None,
            ingress_controller_namespace: None,
            keda_namespace: "keda".to_owned(),
            git_enabled: false,
            max_concurrent_site_reconciles: 10,
            max_concurrent_site_jobs: 10,
            concurrency_scope: ConcurrencyScope::default(),
            member_reconciles_per_second: 500,
            bench_reconciles_per_second: 250,
            fpm_cli_path: "/usr/local/bin/fpm".to_owned(),
            allowed_route_annotations: Vec::new(),
            allowed_site_config_keys: Vec::new(),
            allowed_site_commands: Vec::new(),
            allowed_database_images: Vec::new(),
            allowed_domain_suffixes: None,
            allowed_ingress_classes: None,
            allowed_issuers: None,
            allowed_gateways: None,
            fpm_repositories: Vec::new(),
        }
    }
}

/// An invalid value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadValue {
    /// Key of the ConfigMap.
    pub key: String,
    /// What is wrong and how to correct it.
    pub problem: String,
}

/// Parses a ConfigMap's data. A key with an invalid value keeps its value of `last_good`; a missing key has its default.
pub fn parse(data: &BTreeMap<String, String>, last_good: &OperatorConfig) -> (OperatorConfig, Vec<BadValue>) {
    let mut config = OperatorConfig::default();
    let mut bad = Vec::new();
    for (key, value) in data {
        if let Err(problem) = set(&mut config, key, value.trim()) {
            keep(&mut config, key, last_good);
            bad.push(BadValue { key: key.clone(), problem });
        }
    }
    (config, bad)
}

fn set(config: &mut OperatorConfig, key: &str, value: &str) -> Result<(), String> {
    let optional = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    match key {
        "defaultFrappeImage" => config.default_frappe_image = Some(image(value)?),
        "defaultMariaDBImage" => config.default_mariadb_image = image(value)?,
        "defaultMariaDB" => config.default_mariadb = reference(value)?,
        "defaultPostgresImage" => config.default_postgres_image = image(value)?,
        "defaultRedisImage" => config.default_redis_image = image(value)?,
        "defaultNginxImage" => config.default_nginx_image = image(value)?,
        "defaultDomainSuffix" => config.default_domain_suffix = optional(value),
        "allowedRouteAnnotations" => config.allowed_route_annotations = list(value),
        "allowedSiteConfigKeys" => config.allowed_site_config_keys = list(value),
        "allowedSiteCommands" => config.allowed_site_commands = list(value),
        "allowedDatabaseImages" => {
            config.allowed_database_images = list(value).iter().map(|it| image(it)).collect::<Result<_, _>>()?;
        }
        "allowedDomainSuffixes" => config.allowed_domain_suffixes = Some(suffixes(value)?),
        "allowedIngressClasses" => config.allowed_ingress_classes = Some(list(value)),
        "allowedIssuers" => config.allowed_issuers = Some(list(value)),
        "allowedGateways" => config.allowed_gateways = Some(list(value)),
        "ingressControllerService" => config.ingress_controller_service = optional(value),
        "ingressControllerNamespace" => config.ingress_controller_namespace = optional(value),
        "kedaNamespace" => config.keda_namespace = namespace(value)?,
        "gitEnabled" => config.git_enabled = boolean(value)?,
        "maxConcurrentSiteReconciles" => config.max_concurrent_site_reconciles = concurrency(value)?,
        "maxConcurrentSiteJobs" => config.max_concurrent_site_jobs = concurrency(value)?,
        "siteReconcileConcurrencyScope" => config.concurrency_scope = scope(value)?,
        "memberReconcilesPerSecond" => config.member_reconciles_per_second = rate(value)?,
        "benchReconcilesPerSecond" => config.bench_reconciles_per_second = rate(value)?,
        "fpmCliPath" => value.clone_into(&mut config.fpm_cli_path),
        "fpmRepositories" => config.fpm_repositories = repositories(value)?,
        other => return Err(format!("unknown key {other}: remove it or correct its spelling")),
    }
    Ok(())
}

fn keep(config: &mut OperatorConfig, key: &str, last_good: &OperatorConfig) {
    match key {
        "defaultFrappeImage" => config.default_frappe_image.clone_from(&last_good.default_frappe_image),
        "defaultMariaDBImage" => config.default_mariadb_image.clone_from(&last_good.default_mariadb_image),
        "defaultMariaDB" => config.default_mariadb.clone_from(&last_good.default_mariadb),
        "defaultPostgresImage" => config.default_postgres_image.clone_from(&last_good.default_postgres_image),
        "defaultRedisImage" => config.default_redis_image.clone_from(&last_good.default_redis_image),
        "defaultNginxImage" => config.default_nginx_image.clone_from(&last_good.default_nginx_image),
        "kedaNamespace" => config.keda_namespace.clone_from(&last_good.keda_namespace),
        "gitEnabled" => config.git_enabled = last_good.git_enabled,
        "maxConcurrentSiteReconciles" => {
            config.max_concurrent_site_reconciles = last_good.max_concurrent_site_reconciles;
        }
        "maxConcurrentSiteJobs" => config.max_concurrent_site_jobs = last_good.max_concurrent_site_jobs,
        "siteReconcileConcurrencyScope" => config.concurrency_scope = last_good.concurrency_scope,
        "memberReconcilesPerSecond" => config.member_reconciles_per_second = last_good.member_reconciles_per_second,
        "benchReconcilesPerSecond" => config.bench_reconciles_per_second = last_good.bench_reconciles_per_second,
        "allowedDatabaseImages" => config.allowed_database_images.clone_from(&last_good.allowed_database_images),
        // A list that was never good opens nothing: without one, every host could be had.
        "allowedDomainSuffixes" => {
            config.allowed_domain_suffixes = Some(last_good.allowed_domain_suffixes.clone().unwrap_or_default());
        }
        "fpmRepositories" => config.fpm_repositories.clone_from(&last_good.fpm_repositories),
        _ => {}
    }
}

/// Lines of `NAMESPACE: SUFFIX, SUFFIX`.
fn suffixes(value: &str) -> Result<BTreeMap<String, Vec<String>>, String> {
    let mut found = BTreeMap::new();
    for line in value.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let parsed = line.split_once(':').map(|(namespace, suffixes)| (namespace.trim(), list(suffixes)));
        let good = parsed.filter(|(namespace, suffixes)| {
            (*namespace == "*" || is_name(namespace))
                && suffixes.iter().all(|it| is_name(&it.replacen(OWN_NAMESPACE, "a", 1)))
        });
        let Some((namespace, suffixes)) = good else {
            return Err(format!("{line:?} is not a line such as NAMESPACE: example.com, example.org"));
        };
        found.insert(namespace.to_owned(), suffixes);
    }
    Ok(found)
}

/// Whether a text has only characters of object and host names.
fn is_name(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|it| it.is_ascii_lowercase() || it.is_ascii_digit() || "-.".contains(it))
}

/// Names separated by commas or new lines.
fn list(value: &str) -> Vec<String> {
    value.split([',', '\n']).map(str::trim).filter(|it| !it.is_empty()).map(str::to_owned).collect()
}

fn reference(value: &str) -> Result<Option<Key>, String> {
    match value.split_once('/') {
        None if value.is_empty() => Ok(None),
        Some((namespace, object)) if is_name(namespace) && is_name(object) => Ok(Some(Key::new(namespace, object))),
        _ => Err(format!("{value} is not NAMESPACE/NAME of a MariaDB")),
    }
}

fn image(value: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-/:@".contains(c);
    if value.is_empty() || !value.chars().all(plain) || !value.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return Err(format!("{value:?} is not an image: write one such as docker.io/frappe/erpnext:latest"));
    }
    Ok(value.to_owned())
}

fn namespace(value: &str) -> Result<String, String> {
    let plain = |it: char| it.is_ascii_lowercase() || it.is_ascii_digit() || it == '-';
    if value.is_empty() || value.len() > 63 || !value.chars().all(plain) {
        return Err(format!("{value:?} is not the name of a namespace: write one such as keda"));
    }
    Ok(value.to_owned())
}

fn boolean(value: &str) -> Result<bool, String> {
    value.parse().map_err(|_| format!("{value:?} is neither \"true\" nor \"false\""))
}

fn concurrency(value: &str) -> Result<usize, String> {
    let wrong = || format!("{value:?} is not a number from 1 to 1000");
    value.parse().ok().filter(|number| (1..=1000).contains(number)).ok_or_else(wrong)
}

fn scope(value: &str) -> Result<ConcurrencyScope, String> {
    match value {
        "member" => Ok(ConcurrencyScope::Member),
        "cluster" => Ok(ConcurrencyScope::Cluster),
        _ => Err(format!("{value:?} is neither \"member\" nor \"cluster\"")),
    }
}

fn rate(value: &str) -> Result<u32, String> {
    let wrong = || format!("{value:?} is not a number from 0 (no limit) to 100000");
    value.parse().ok().filter(|number| *number <= 100_000).ok_or_else(wrong)
}

fn repositories(value: &str) -> Result<Vec<FpmRepository>, String> {
    serde_json::from_str(value).map_err(|error| format!("not a JSON array of {{name, url, priority}}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn the_guides_config_map_is_read() {
        let guide = data(&[
            ("defaultDomainSuffix", ".myplatform.com"),
            ("gitEnabled", "false"),
            ("maxConcurrentSiteReconciles", "25"),
            ("fpmRepositories", r#"[{"name": "frappe-community", "url": "https://fpm.frappe.io", "priority": 100}]"#),
            ("defaultFrappeImage", "docker.io/frappe/erpnext:latest"),
        ]);
        let (config, bad) = parse(&guide, &OperatorConfig::default());
        assert_eq!(bad, []);
        assert_eq!(config.max_concurrent_site_reconciles, 25);
        assert_eq!(config.fpm_repositories[0].priority, 100);
        assert_eq!(config.default_frappe_image.as_deref(), Some("docker.io/frappe/erpnext:latest"));
    }

    #[test]
    fn an_invalid_value_is_reported_and_the_last_valid_one_kept() {
        let (good, _) = parse(&data(&[("maxConcurrentSiteReconciles", "25")]), &OperatorConfig::default());
        for value in ["", "0", "1001", "many", "-1", "1.5"] {
            let (config, bad) = parse(&data(&[("maxConcurrentSiteReconciles", value)]), &good);
            assert_eq!(config.max_concurrent_site_reconciles, 25, "{value:?}");
            assert_eq!(bad.len(), 1, "{value:?}");
        }
    }

    #[test]
    fn a_key_that_is_removed_has_its_default_again() {
        let (good, _) = parse(&data(&[("maxConcurrentSiteReconciles", "25")]), &OperatorConfig::default());
        assert_eq!(parse(&BTreeMap::new(), &good).0, OperatorConfig::default());
    }

    #[test]
    fn a_limit_is_of_each_member_or_shared_by_slots() {
        let (config, bad) = parse(&data(&[("siteReconcileConcurrencyScope", "cluster")]), &OperatorConfig::default());
        assert_eq!(bad, []);
        assert_eq!(OperatorConfig::default().site_limit(Some(40), 51), 40);
        assert_eq!(
            [config.site_limit(Some(40), 51), config.site_limit(None, 51), config.site_limit(None, 2)],
            [7, 1, 1]
        );
        assert_eq!(config.site_limit(Some(2), 256), 10, "the greater of the two");
        for (key, value) in [("siteReconcileConcurrencyScope", "fleet"), ("memberReconcilesPerSecond", "-1")] {
            assert_eq!(parse(&data(&[(key, value)]), &config).1.len(), 1, "{key}");
        }
    }

    #[test]
    fn suffixes_of_hosts_are_by_namespace() {
        let text = "*: {namespace}.apps.example.com\ncustomer-a: a.example, .example.org\n";
        let (config, bad) = parse(&data(&[("allowedDomainSuffixes", text)]), &OperatorConfig::default());
        assert_eq!(bad, []);
        let of = |namespace: &str| config.suffixes_of(namespace).unwrap_or_default();
        assert_eq!(of("customer-a"), ["a.example", ".example.org", "customer-a.apps.example.com"]);
        assert_eq!(of("customer-b"), ["customer-b.apps.example.com"]);
        assert_eq!(OperatorConfig::default().suffixes_of("customer-a"), None);
        for wrong in ["a.example", "a b: example.com", "a: EXAMPLE.com", "a: *.example.com"] {
            let (kept, bad) = parse(&data(&[("allowedDomainSuffixes", wrong)]), &config);
            assert_eq!(bad.len(), 1, "{wrong}");
            assert_eq!(kept, config, "{wrong}");
            let (begun, _) = parse(&data(&[("allowedDomainSuffixes", wrong)]), &OperatorConfig::default());
            assert_eq!(begun.suffixes_of("a"), Some(Vec::new()), "{wrong}: no host, until the list is right");
        }
    }

    #[test]
    fn a_misspelt_key_is_named() {
        let (_, bad) = parse(&data(&[("maxConcurentSiteReconciles", "5")]), &OperatorConfig::default());
        assert_eq!(bad[0].key, "maxConcurentSiteReconciles");
    }

    /// The table of docs/configuration.md: every key once, with the default that counts where it is missing.
    #[test]
    fn the_page_has_every_key_with_its_default() {
        let page = include_str!("../docs/configuration.md");
        let section =
            page.split("\n## ").find(|it| it.starts_with("ConfigMap ")).expect("the section of the ConfigMap");
        let rows = section.lines().filter_map(|line| line.strip_prefix("| `")).map(|row| {
            let cells: Vec<&str> = row.split('|').map(|cell| cell.trim().trim_matches('`')).collect();
            (cells[0], cells[1])
        });
        let rows: BTreeMap<&str, &str> = rows.collect();
        for (key, default) in &rows {
            let known = |value: &str| set(&mut OperatorConfig::default(), key, value);
            assert!(known("").err().is_none_or(|problem| !problem.starts_with("unknown key")), "{key}");
            if !default.is_empty() {
                let (config, bad) = parse(&data(&[(key, default)]), &OperatorConfig::default());
                assert_eq!((config, bad), (OperatorConfig::default(), Vec::new()), "{key} is {default} by default");
            }
        }
        let source = include_str!("config.rs").split("fn set(").nth(1).and_then(|it| it.split("other =>").next());
        let keys =
            source.expect("the keys").lines().filter_map(|line| line.trim().strip_prefix('"')?.split_once("\" =>"));
        let missing: Vec<&str> = keys.map(|(key, _)| key).filter(|key| !rows.contains_key(key)).collect();
        assert_eq!(missing, Vec::<&str>::new(), "keys without a row");
        assert!(rows.len() >= 18, "{rows:?}");
    }
}
