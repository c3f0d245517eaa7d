//! `check`: reads what `prerequisites` evaluates.

use std::collections::BTreeMap;

use anyhow::Context as _;
use frappe_crds::{FrappeBench, FrappeSite};
use futures::StreamExt as _;
use k8s_openapi::{
    api::{
        apps::v1::Deployment,
        authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec},
        core::v1::{ConfigMap, ServiceAccount},
        storage::v1::StorageClass,
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Client, ResourceExt,
    api::{ListParams, PostParams},
    core::{DynamicObject, PartialObjectMeta},
};

use super::{
    manifests,
    output::{connect, counted, print},
    prerequisites::{Definition, Facts, Level, Server, findings, table},
    shards,
};
use crate::{
    cli::{CheckArguments, TargetArguments},
    config::{CONFIG_MAP, OperatorConfig, parse},
    domain::{
        diff::first_difference,
        key::Key,
        kinds::Kind,
        rights::{Rights, Rule},
    },
    fleet_report::{names, report},
};

/// Concurrent SubjectAccessReviews.
const QUESTIONS_AT_ONCE: usize = 8;
/// Annotation of the default StorageClass.
const DEFAULT_CLASS: &str = "storageclass.kubernetes.io/is-default-class";
/// Default of the MariaDB operator's --max-concurrent-reconciles.
const MARIADB_RECONCILES_DEFAULT: u32 = 1;

/// Prints the findings; fails if the operator does not work in this cluster.
pub async fn check(arguments: CheckArguments, target: &TargetArguments) -> anyhow::Result<()> {
    let client = connect(target).await?.client;
    let findings = findings(&read(&client, &arguments).await?);
    if arguments.json {
        print(&format!("{}\n", serde_json::to_string_pretty(&findings)?))?;
    } else {
        print(&table(&findings))?;
    }
    let bad = findings.iter().filter(|it| it.level == Level::Bad).count();
    let they = if bad == 1 { "it passes" } else { "they pass" };
    anyhow::ensure!(
        bad == 0,
        "{} failed: the operator does not work in this cluster until {they}",
        counted(bad, "check")
    );
    Ok(())
}

async fn read(client: &Client, arguments: &CheckArguments) -> anyhow::Result<Facts> {
    let version = client.apiserver_version().await.context("get the API server's version")?;
    let minor = version.minor.chars().take_while(char::is_ascii_digit).collect::<String>().parse().unwrap_or(0);
    let found = Api::<PartialObjectMeta<CustomResourceDefinition>>::all(client.clone());
    let found = found.list_metadata(&ListParams::default()).await.context("list the CRDs")?;
    let classes: Api<StorageClass> = Api::all(client.clone());
    let classes = classes.list(&ListParams::default()).await.context("list the storage classes")?;
    let is_default = |it: &&StorageClass| it.annotations().get(DEFAULT_CLASS).is_some_and(|it| it == "true");
    let serving = found.iter().filter(|it| it.metadata.deletion_timestamp.is_none());
    let optional = serving.map(ResourceExt::name_any).collect();
    let definitions = definitions(client).await?;
    let ours = definitions.values().all(|it| *it != Definition::Missing);
    let names = names(&arguments.operator_namespace);
    let replicas = shards::read(client, &names).await;
    Ok(Facts {
        version: (minor, version.git_version),
        default_storage_class: classes.iter().find(is_default).map(ResourceExt::name_any),
        storage_classes: classes.items.len(),
        rights: lacking(client, arguments).await,
        replicas: replicas
            .map(|(map, leases)| report(&names, map.as_ref(), &leases))
            .map_err(|error| format!("unknown: {error:#}")),
        sites: if ours { count_sites(client).await? } else { 0 },
        benches: if ours { benches(client).await? } else { Vec::new() },
        config: config(client, &arguments.operator_namespace).await?,
        mariadb_operators: mariadb_operators(client).await?,
        servers: servers(client, &optional).await?,
        optional,
        definitions,
    })
}

/// States of this program's CRDs in the cluster.
async fn definitions(client: &Client) -> anyhow::Result<BTreeMap<String, Definition>> {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    let mut definitions = BTreeMap::new();
    for wanted in manifests::definitions() {
        let name = wanted.name_any();
        let state = match api.get_opt(&name).await.with_context(|| format!("read CRD {name}"))? {
            None => Definition::Missing,
            Some(found) => {
                let [wanted, found] = [&wanted.spec.versions, &found.spec.versions].map(serde_json::to_value);
                let same = first_difference(&wanted?, &found?).is_none();
                if same { Definition::Same } else { Definition::Differs }
            }
        };
        definitions.insert(name, state);
    }
    Ok(definitions)
}

/// Permissions that the operator's ServiceAccount lacks, and how many were checked.
async fn lacking(client: &Client, arguments: &CheckArguments) -> Result<(Vec<String>, usize), String> {
    let rights = Rights::needed();
    let own = Some(arguments.operator_namespace.as_str());
    let of = |rules: &[Rule], namespace: Option<&str>| {
        rules.iter().flat_map(|rule| questions(rule, namespace)).collect::<Vec<_>>()
    };
    let watched = &arguments.watch_namespaces;
    let mut questions = [of(&rights.cluster, None), of(&rights.own, own)].concat();
    if watched.is_empty() {
        questions.extend(of(&rights.namespaces, None));
    }
    questions.extend(watched.iter().flat_map(|namespace| of(&rights.namespaces, Some(namespace))));
    let count = questions.len();
    let answers = futures::stream::iter(questions)
        .map(|question| ask(client, arguments, question))
        .buffered(QUESTIONS_AT_ONCE)
        .collect::<Vec<_>>()
        .await;
    let refused = answers.into_iter().collect::<Result<Vec<_>, _>>().map_err(|error| error.to_string())?;
    let lacking: Vec<String> = refused.into_iter().flatten().collect();
    let (namespace, name) = (&arguments.operator_namespace, &arguments.service_account);
    let accounts: Api<PartialObjectMeta<ServiceAccount>> = Api::namespaced(client.clone(), namespace);
    // Nothing may be done by an account that is not there: one thing to be told, not one for each right.
    if !lacking.is_empty() && matches!(accounts.get_metadata_opt(name).await, Ok(None)) {
        return Err(format!(
            "ServiceAccount {namespace}/{name} does not exist: install the operator, or set \
             --operator-namespace and --service-account"
        ));
    }
    Ok((lacking, count))
}

/// One review for each group, resource, name and verb of a rule.
fn questions(rule: &Rule, namespace: Option<&str>) -> Vec<ResourceAttributes> {
    let mut questions = Vec::new();
    for (group, resource) in rule.api_groups.iter().flat_map(|group| rule.resources.iter().map(move |it| (group, it))) {
        let (resource, subresource) = resource.split_once('/').map_or((resource.as_str(), None), |(a, b)| (a, Some(b)));
        let names = rule.resource_names.iter().cloned().map(Some);
        let names: Vec<Option<String>> = if rule.resource_names.is_empty() { vec![None] } else { names.collect() };
        let each = names.iter().flat_map(|name| rule.verbs.iter().map(move |verb| (name, verb)));
        questions.extend(each.map(|(name, verb)| ResourceAttributes {
            group: Some(group.clone()),
            resource: Some(resource.to_owned()),
            name: name.clone(),
            subresource: subresource.map(str::to_owned),
            verb: Some(verb.clone()),
            namespace: namespace.map(str::to_owned),
            ..ResourceAttributes::default()
        }));
    }
    questions
}

/// The permission, if the operator's ServiceAccount lacks it; else None.
async fn ask(
    client: &Client,
    arguments: &CheckArguments,
    question: ResourceAttributes,
) -> Result<Option<String>, kube::Error> {
    let namespace = &arguments.operator_namespace;
    let review = SubjectAccessReview {
        spec: SubjectAccessReviewSpec {
            user: Some(format!("system:serviceaccount:{namespace}:{}", arguments.service_account)),
            groups: Some(vec![
                "system:serviceaccounts".to_owned(),
                format!("system:serviceaccounts:{namespace}"),
                "system:authenticated".to_owned(),
            ]),
            resource_attributes: Some(question.clone()),
            ..SubjectAccessReviewSpec::default()
        },
        ..SubjectAccessReview::default()
    };
    let reviews: Api<SubjectAccessReview> = Api::all(client.clone());
    if reviews.create(&PostParams::default(), &review).await?.status.is_some_and(|it| it.allowed) {
        return Ok(None);
    }
    let part = |it: Option<String>| it.unwrap_or_default();
    let subresource = question.subresource.map(|it| format!("/{it}")).unwrap_or_default();
    let group = question.group.filter(|it| !it.is_empty()).map(|it| format!(".{it}")).unwrap_or_default();
    let place = question.namespace.map(|it| format!(" in {it}")).unwrap_or_default();
    let name = question.name.map(|it| format!(" {it}")).unwrap_or_default();
    Ok(Some(format!("{} {}{group}{subresource}{name}{place}", part(question.verb), part(question.resource))))
}

async fn count_sites(client: &Client) -> anyhow::Result<u64> {
    let sites: Api<FrappeSite> = Api::all(client.clone());
    let page = sites.list_metadata(&ListParams::default().limit(1)).await.context("count the sites")?;
    let rest = page.metadata.remaining_item_count.and_then(|it| u64::try_from(it).ok());
    Ok(page.items.len() as u64 + rest.unwrap_or(0))
}

async fn benches(client: &Client) -> anyhow::Result<Vec<FrappeBench>> {
    let benches: Api<FrappeBench> = Api::all(client.clone());
    Ok(benches.list(&ListParams::default()).await.context("list the benches")?.items)
}

async fn config(client: &Client, namespace: &str) -> anyhow::Result<OperatorConfig> {
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let map = maps.get_opt(CONFIG_MAP).await.context("read the operator's ConfigMap")?;
    let data = map.and_then(|it| it.data).unwrap_or_default();
    Ok(parse(&data, &OperatorConfig::default()).0)
}

/// The MariaDB operators of the cluster, by the labels of their chart.
async fn mariadb_operators(client: &Client) -> anyhow::Result<Vec<(Key, u32)>> {
    let deployments: Api<Deployment> = Api::all(client.clone());
    let labelled = ListParams::default().labels("app.kubernetes.io/name=mariadb-operator");
    let found = deployments.list(&labelled).await.context("list the Deployments of MariaDB operators")?;
    let operators = found.iter().filter_map(|deployment| {
        let containers = &deployment.spec.as_ref()?.template.spec.as_ref()?.containers;
        let arguments: Vec<&String> = containers.iter().filter_map(|it| it.args.as_ref()).flatten().collect();
        // Its webhook and certificate controller have the same label and other commands.
        let is_another = arguments.iter().any(|it| ["webhook", "cert-controller"].contains(&it.as_str()));
        (!is_another).then(|| (Key::of(deployment), reconciles(&arguments)))
    });
    Ok(operators.collect())
}

/// `--max-concurrent-reconciles=N`, or N as the next argument.
fn reconciles(arguments: &[&String]) -> u32 {
    const FLAG: &str = "--max-concurrent-reconciles";
    let place = arguments.iter().position(|it| it.starts_with(FLAG));
    let number = place.and_then(|place| match arguments[place].strip_prefix(FLAG)?.strip_prefix('=') {
        Some(number) => number.parse().ok(),
        None => arguments.get(place + 1)?.parse().ok(),
    });
    number.unwrap_or(MARIADB_RECONCILES_DEFAULT)
}

async fn servers(client: &Client, optional: &std::collections::BTreeSet<String>) -> anyhow::Result<Vec<Server>> {
    if !optional.contains(&Kind::MariaDb.definition()) {
        return Ok(Vec::new());
    }
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &Kind::MariaDb.resource());
    let found = api.list(&ListParams::default()).await.context("list the MariaDB objects")?;
    let server = |it: &DynamicObject| {
        let conditions = it.data["status"]["conditions"].as_array().cloned().unwrap_or_default();
        Server {
            key: Key::of(it),
            ready: conditions.iter().any(|it| it["type"] == "Ready" && it["status"] == "True"),
            connections_max: it.data["spec"]["myCnf"].as_str().and_then(connections_max),
        }
    };
    Ok(found.iter().map(server).collect())
}

/// `max_connections` of a my.cnf: the last one, with an underscore or a hyphen.
fn connections_max(my_cnf: &str) -> Option<u32> {
    let settings = my_cnf.lines().filter_map(|line| line.split('#').next()?.split_once('='));
    let mut named = settings.filter(|(name, _)| name.trim().replace('-', "_") == "max_connections").rev();
    named.find_map(|(_, value)| value.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_of_other_operators_are_read() {
        let of = |arguments: &[&str]| {
            let owned: Vec<String> = arguments.iter().map(|it| (*it).to_owned()).collect();
            reconciles(&owned.iter().collect::<Vec<_>>())
        };
        assert_eq!(of(&["--max-concurrent-reconciles=12"]), 12);
        assert_eq!(of(&["a", "--max-concurrent-reconciles", "7"]), 7);
        assert_eq!(of(&["--log-level=info"]), 1);
        let cnf = "[mariadb]\nbind-address=*\nmax_connections = 400 # many\n# max_connections=9\nmax-connections=500\n";
        assert_eq!(connections_max(cnf), Some(500));
        assert_eq!(connections_max("[mariadb]"), None);
    }

    #[test]
    fn each_permission_is_checked_once() {
        let rule = Rule {
            api_groups: vec!["vyogo.tech".into()],
            resource_names: Vec::new(),
            resources: vec!["frappesites".into(), "frappesites/status".into()],
            verbs: vec!["update".into(), "patch".into()],
        };
        let asked = questions(&rule, None);
        assert_eq!(asked.len(), 4);
        assert_eq!(asked[2].subresource.as_deref(), Some("status"));
        assert_eq!(asked[2].resource.as_deref(), Some("frappesites"));
    }
}
