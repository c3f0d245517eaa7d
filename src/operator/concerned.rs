//! The reconciles that a change of the operator's settings triggers. Pure.

use crate::config::OperatorConfig;

/// What a change of settings affects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Concerned {
    /// Sites: what they may request, or what is created for them, differs.
    pub sites: bool,
    /// Benches: their objects, or what they may request, differ.
    pub benches: bool,
    /// The queues: the limits of concurrent reconciles, or of reconciles per second.
    pub queues: bool,
}

impl Concerned {
    /// Every setting is named here, so that a new one is not forgotten.
    pub fn by(before: &OperatorConfig, after: &OperatorConfig) -> Self {
        let OperatorConfig {
            default_frappe_image,
            default_mariadb_image,
            default_mariadb,
            default_postgres_image: _,
            default_redis_image,
            default_nginx_image: _,
            default_domain_suffix,
            ingress_controller_service,
            ingress_controller_namespace,
            keda_namespace,
            git_enabled,
            max_concurrent_site_reconciles,
            max_concurrent_site_jobs,
            concurrency_scope,
            member_reconciles_per_second,
            bench_reconciles_per_second,
            fpm_cli_path: _,
            allowed_route_annotations,
            allowed_site_config_keys,
            allowed_site_commands,
            allowed_database_images,
            allowed_domain_suffixes,
            allowed_ingress_classes,
            allowed_issuers,
            allowed_gateways,
            fpm_repositories,
        } = before;
        let sites = *default_mariadb_image != after.default_mariadb_image
            || *default_mariadb != after.default_mariadb
            || *default_domain_suffix != after.default_domain_suffix
            // Sites that wait for a job slot request it again.
            || *max_concurrent_site_jobs != after.max_concurrent_site_jobs
            || *allowed_route_annotations != after.allowed_route_annotations
            || *allowed_site_config_keys != after.allowed_site_config_keys
            || *allowed_site_commands != after.allowed_site_commands
            || *allowed_database_images != after.allowed_database_images
            || *allowed_domain_suffixes != after.allowed_domain_suffixes
            || *allowed_ingress_classes != after.allowed_ingress_classes
            || *allowed_issuers != after.allowed_issuers
            || *allowed_gateways != after.allowed_gateways;
        let benches = *default_frappe_image != after.default_frappe_image
            || *default_redis_image != after.default_redis_image
            || *default_domain_suffix != after.default_domain_suffix
            || *ingress_controller_service != after.ingress_controller_service
            || *ingress_controller_namespace != after.ingress_controller_namespace
            || *keda_namespace != after.keda_namespace
            || *git_enabled != after.git_enabled
            || *fpm_repositories != after.fpm_repositories;
        let queues = *max_concurrent_site_reconciles != after.max_concurrent_site_reconciles
            || *concurrency_scope != after.concurrency_scope
            || *member_reconciles_per_second != after.member_reconciles_per_second
            || *bench_reconciles_per_second != after.bench_reconciles_per_second;
        // A new site's Job runs the image of its bench.
        Self { sites: sites || *default_frappe_image != after.default_frappe_image, benches, queues }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::config;

    /// Each key of the ConfigMap alone triggers its readers; a key without readers triggers nothing.
    #[test]
    fn a_setting_triggers_only_affected_reconciles() {
        let (sites, benches, queues, nobody) = ("sites", "benches", "queues", "");
        let table = [
            ("defaultFrappeImage", "example.com/erpnext", vec![sites, benches]),
            ("defaultMariaDBImage", "example.com/mariadb:1", vec![sites]),
            ("defaultMariaDB", "databases/main", vec![sites]),
            ("defaultPostgresImage", "example.com/postgres:1", vec![nobody]),
            ("defaultRedisImage", "example.com/redis:1", vec![benches]),
            ("defaultNginxImage", "example.com/nginx:1", vec![nobody]),
            ("defaultDomainSuffix", ".example.com", vec![sites, benches]),
            ("ingressControllerService", "ingress", vec![benches]),
            ("ingressControllerNamespace", "ingress", vec![benches]),
            ("kedaNamespace", "scaling", vec![benches]),
            ("gitEnabled", "true", vec![benches]),
            ("maxConcurrentSiteReconciles", "33", vec![queues]),
            ("siteReconcileConcurrencyScope", "cluster", vec![queues]),
            ("maxConcurrentSiteJobs", "33", vec![sites]),
            ("memberReconcilesPerSecond", "33", vec![queues]),
            ("benchReconcilesPerSecond", "33", vec![queues]),
            ("fpmCliPath", "/bin/fpm", vec![nobody]),
            ("fpmRepositories", r#"[{"name": "a", "url": "https://example.com", "priority": 1}]"#, vec![benches]),
            ("allowedRouteAnnotations", "example.com/a", vec![sites]),
            ("allowedSiteConfigKeys", "a", vec![sites]),
            ("allowedSiteCommands", "a", vec![sites]),
            ("allowedDatabaseImages", "example.com/mariadb:1", vec![sites]),
            ("allowedDomainSuffixes", "*: example.com", vec![sites]),
            ("allowedIngressClasses", "public", vec![sites]),
            ("allowedIssuers", "letsencrypt", vec![sites]),
            ("allowedGateways", "ingress/public", vec![sites]),
        ];
        let before = OperatorConfig::default();
        for (key, value, wanted) in table {
            let data = BTreeMap::from([(key.to_owned(), value.to_owned())]);
            let (after, bad) = config::parse(&data, &before);
            assert!(bad.is_empty() && after != before, "{key}: {bad:?}");
            let Concerned { sites: of_sites, benches: of_benches, queues: of_queues } = Concerned::by(&before, &after);
            let found = [(of_sites, sites), (of_benches, benches), (of_queues, queues)];
            let found: Vec<&str> = found.into_iter().filter(|it| it.0).map(|it| it.1).collect();
            assert_eq!(found, wanted.into_iter().filter(|it| !it.is_empty()).collect::<Vec<_>>(), "{key}");
            assert_eq!(Concerned::by(&after, &after), Concerned::default());
        }
    }
}
