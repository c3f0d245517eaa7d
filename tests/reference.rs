//! The reference pages of `docs` match the code. `make docs` regenerates them.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::{collections::BTreeSet, fmt::Write as _, fs, path::Path};

use frappe_operator::parts::{Api, Kind, KnownBy, METRICS, Narrowing, Place, Rights, Rule, Wakes, grants};
use serde_json::Value;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Compares a file with the expected text, or writes it if `UPDATE_DOCS` is set.
fn compare(name: &str, text: &str) {
    let path = root().join(name);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, text).unwrap();
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    assert!(found == text, "{name} is out of date: make docs");
}

/// Escapes text for a cell of a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn the_api_page_matches_the_types() {
    let mut text = String::from(
        "# API reference\n\nGroup `vyogo.tech`, version `v1alpha1`. Generated from the types by `make docs`; `kubectl explain` shows the same. \
         Fields without *required* are optional.\n",
    );
    for crd in frappe_crds::manifest::definitions() {
        let json = serde_json::to_value(&crd).unwrap();
        let schema = &json["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        let names = &json["spec"]["names"];
        let short: Vec<&str> = names["shortNames"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let scope = json["spec"]["scope"].as_str().unwrap().to_lowercase();
        let also = if short.is_empty() { String::new() } else { format!(", short {}", short.join(", ")) };
        let description = schema["description"].as_str().unwrap_or_default();
        let kind = names["kind"].as_str().unwrap();
        write!(text, "\n## {kind}\n\n{description} (`{}`{also}; {scope})\n", names["plural"].as_str().unwrap())
            .unwrap();
        rules(&schema["x-kubernetes-validations"], "", &mut text);
        for part in ["spec", "status"] {
            let schema = &schema["properties"][part];
            if schema.is_object() {
                write!(text, "\n### {kind} {part}\n\n| field | type | description |\n|---|---|---|\n").unwrap();
                fields(schema, "", &mut text);
            }
            rules(&schema["x-kubernetes-validations"], "", &mut text);
        }
    }
    compare("docs/api.md", &text);
}

/// Validation rules of several fields.
fn rules(rules: &Value, indent: &str, text: &mut String) {
    let messages = rules.as_array().into_iter().flatten().filter_map(|rule| rule["message"].as_str());
    let messages: Vec<String> = messages.map(|it| format!("{indent}- {it}\n")).collect();
    if !messages.is_empty() {
        write!(text, "\n{}", messages.concat()).unwrap();
    }
}

/// A row for each field and its nested fields.
fn fields(schema: &Value, path: &str, text: &mut String) {
    let required: BTreeSet<&str> =
        schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        let mut what = cell(field["description"].as_str().unwrap_or_default());
        if required.contains(name.as_str()) {
            what.insert_str(0, "*required* ");
        }
        let limits = limits(field);
        writeln!(text, "| `{path}` | {} | {} |", kind(field), cell(&format!("{what}{limits}"))).unwrap();
        // A type of Kubernetes.
        if path.ends_with("conditions") {
            continue;
        }
        fields(field, &path, text);
        fields(&field["items"], &format!("{path}[]"), text);
        fields(&field["additionalProperties"], &format!("{path}.*"), text);
    }
}

fn kind(field: &Value) -> String {
    if field["x-kubernetes-int-or-string"] == true {
        return "integer or string".to_owned();
    }
    match field["type"].as_str() {
        Some("array") => format!("{}[]", kind(&field["items"])),
        Some("object") if field["additionalProperties"].is_object() => {
            format!("map of {}", kind(&field["additionalProperties"]))
        }
        Some(kind) => kind.to_owned(),
        None => "any".to_owned(),
    }
}

fn limits(field: &Value) -> String {
    let mut limits = Vec::new();
    if let Some(values) = field["enum"].as_array() {
        let values: Vec<String> = values
            .iter()
            .filter(|it| !it.is_null())
            .map(|it| format!("`{}`", it.to_string().trim_matches('"')))
            .collect();
        limits.push(format!("one of {}", values.join(", ")));
    }
    for (key, word) in [("minimum", "at least"), ("maximum", "at most")] {
        if let Some(number) = field[key].as_f64() {
            limits.push(format!("{word} {number}"));
        }
    }
    if let Some(value) = field.get("default").filter(|it| !it.is_null()) {
        limits.push(format!("default `{value}`"));
    }
    let messages = field["x-kubernetes-validations"].as_array().into_iter().flatten();
    limits.extend(messages.filter_map(|rule| Some(rule["message"].as_str()?.to_owned())));
    if limits.is_empty() { String::new() } else { format!(" ({})", limits.join("; ")) }
}

#[test]
fn the_metrics_page_matches_the_code() {
    let mut text = String::from(
        "# Metrics and alerts\n\nGenerated from the code by `make docs`. Every replica serves the metrics at `:8080/metrics`. Names follow controller-runtime where it has the \
         same metric. No label contains an object's name. `controller` and `name` are `frappesite`, `sitebackup`, `sitejob` or `frappebench`.\n\n\
         | metric | type | labels | description |\n|---|---|---|---|\n",
    );
    for metric in METRICS {
        let labels: Vec<String> = metric.labels.iter().map(|it| format!("`{it}`")).collect();
        let kind = format!("{:?}", metric.kind).to_lowercase();
        writeln!(text, "| `{}` | {kind} | {} | {} |", metric.name, labels.join(", "), cell(metric.help)).unwrap();
    }
    text.push_str("\n## Alerts\n\nThe chart installs these alerts with `prometheusRule.enabled=true`. Without the chart, use `helm/frappe-operator/files/alerts.yaml`.\n\n");
    text.push_str("| alert | severity | for | expression | description |\n|---|---|---|---|---|\n");
    let file = fs::read_to_string(root().join("helm/frappe-operator/files/alerts.yaml")).unwrap();
    let alerts: Value = serde_yaml_ng::from_str(&file).unwrap();
    for rule in alerts["groups"][0]["rules"].as_array().unwrap() {
        let of = |value: &Value| cell(value.as_str().unwrap_or("at once"));
        let annotations = &rule["annotations"];
        writeln!(
            text,
            "| {} | {} | {} | `{}` | {}. {} |",
            of(&rule["alert"]),
            of(&rule["labels"]["severity"]),
            of(&rule["for"]),
            of(&rule["expr"]),
            of(&annotations["summary"]),
            of(&annotations["description"])
        )
        .unwrap();
    }
    compare("docs/metrics.md", &text);
}

/// Every metric that the code sets is described, with its labels, and every described metric is set.
#[test]
fn every_metric_is_described_and_set() {
    let mut set = BTreeSet::new();
    for folder in ["src", "sharding/src"] {
        sources(&root().join(folder), &mut set);
    }
    let described: BTreeSet<String> = METRICS.iter().map(|it| it.name.to_owned()).collect();
    assert_eq!(described.len(), METRICS.len(), "a metric is described twice");
    assert_eq!(set, described);
}

fn sources(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        if entry.path().is_dir() {
            sources(&entry.path(), found);
            continue;
        }
        let text = fs::read_to_string(entry.path()).unwrap_or_default();
        // The names that the sharding is given.
        let given = text.split("= MetricNames {").nth(1).and_then(|rest| rest.split("};").next()).unwrap_or_default();
        found.extend(given.split('"').skip(1).step_by(2).map(str::to_owned));
        for word in ["counter!(", "gauge!(", "histogram!("] {
            let names =
                text.split(word).skip(1).filter_map(|rest| rest.trim_start().strip_prefix('"')?.split('"').next());
            found.extend(names.map(str::to_owned));
        }
    }
}

/// The objects of a kind that a watch contains.
fn shown(narrowing: Narrowing) -> &'static str {
    match narrowing {
        Narrowing::Slots => "in the slots that the replica owns",
        Narrowing::OfSites => "of sites in the slots that the replica owns",
        Narrowing::Unlabelled => "without a slot label",
        Narrowing::OfBenches => "of benches; only by the coordinator",
        Narrowing::Marked => "with the label `frappe.vyogo.tech/watched`",
        Narrowing::Everything => "all; by every replica",
        Narrowing::Named => "one by its name, if it is needed (metadata)",
        Narrowing::Settings => "`frappe-operator-config` in the operator's namespace",
    }
}

/// The objects whose reconcile a change triggers.
fn triggered(wakes: Wakes) -> &'static str {
    match wakes {
        Wakes::Site => {
            "the site; after its deletion, its SiteBackups and SiteJobs, and its bench if that is being deleted"
        }
        Wakes::Bench => "the bench; its sites if spec, readiness, suffix or deletion changed",
        Wakes::ItsSite => "its site",
        Wakes::ItsBench => "its bench",
        Wakes::BenchOfFailingPod => "its bench, if the pod cannot run",
        Wakes::Companions => "the objects of its kind of its site",
        Wakes::SitesOfHost => "the site that uses the host; after a deletion, the sites that want the host",
        Wakes::SitesOfNamespace => "sites in it or on its benches, if its labels changed or it is being deleted",
        Wakes::SitesOfServer => "its site if it is dedicated, else every site",
        Wakes::Referrers => "benches, sites and SiteBackups that reference it",
        Wakes::UsersOfApi => "benches or sites that use an optional API (below)",
        Wakes::Benches => "every bench",
        Wakes::UsersOfSetting => "benches and sites that the changed keys affect",
    }
}

fn api_group(kind: Kind) -> String {
    let group = kind.resource().group;
    if group.is_empty() { "core".to_owned() } else { group }
}

#[test]
fn the_permissions_page_matches_the_table_of_kinds() {
    let mut text = String::from(
        "# Watches and permissions\n\nGenerated from the table of kinds (`src/domain/kinds.rs`) by `make docs`.\n\n\
         ## Watches\n\n*Metadata* means that only metadata is transferred. A change of the object itself is reconciled at once; changes of \
         other objects are batched for 100 ms. With `watchNamespaces`, namespaced kinds are watched only in those namespaces.\n\n\
         | kind | objects | a change triggers a reconcile of |\n|---|---|---|\n",
    );
    for kind in Kind::ALL {
        let (row, name) = (kind.row(), kind.resource().kind);
        for watch in row.watches {
            let of = shown(watch.narrowing);
            let is_single = matches!(watch.narrowing, Narrowing::Named | Narrowing::Settings);
            let metadata = if row.metadata_only && !is_single { " (metadata)" } else { "" };
            writeln!(text, "| {name} ({}) | {of}{metadata} | {} |", api_group(*kind), triggered(watch.wakes)).unwrap();
        }
    }
    text.push_str(
        "\n## Optional APIs\n\nThe operator detects when an API is installed or removed, without a restart.\n\n\
         | API | detected by these CRDs | kinds | without it |\n|---|---|---|---|\n",
    );
    for api in Api::ALL {
        let row = api.row();
        let kinds: Vec<String> = api.kinds().map(|it| it.resource().kind).collect();
        let definitions: Vec<String> = api.kinds().map(|it| format!("`{}`", it.definition())).collect();
        let known = match row.known_by {
            KnownBy::ItsKinds => definitions.join(", "),
            KnownBy::ItsKindsOr(other) => format!("{}, or `{other}`", definitions.join(", ")),
            KnownBy::Definition(name) => format!("`{name}`"),
        };
        let kinds = if kinds.is_empty() { "-".to_owned() } else { kinds.join(", ") };
        writeln!(text, "| {} | {known} | {kinds} | {} |", row.title, row.without).unwrap();
    }
    text.push_str(
        "\n## Permissions\n\nThe chart's roles (`helm/frappe-operator/files/rights.yaml`) are generated from the same table; `frappe-operator check` \
         verifies each permission.\n\n| resource | verbs | where | purpose |\n|---|---|---|---|\n",
    );
    for grant in grants() {
        let place = match grant.place {
            Place::Cluster => "cluster",
            Place::Namespaces => "watched namespaces",
            Place::Own => "the operator's namespace",
        };
        let names: Vec<String> = grant.names.iter().map(|name| format!(" `{name}`")).collect();
        let resource = format!("{}{}", grant.resource, names.join(","));
        writeln!(text, "| {resource} | {} | {place} | {} |", grant.verbs.join(", "), grant.why).unwrap();
    }
    compare("docs/permissions.md", &text);
}

#[test]
fn the_permissions_of_the_chart_match_the_table() {
    let rights = Rights::needed();
    let mut text = String::from(
        "# Permissions of the operator, generated from the table of kinds by `make docs`; purpose of each: docs/permissions.md.\n\
         # `frappe-operator check` verifies each.\n",
    );
    let places = [
        ("Cluster-scoped.", "cluster", &rights.cluster),
        ("In every watched namespace: all, unless watchNamespaces is set.", "namespaces", &rights.namespaces),
        ("In the operator's namespace.", "own", &rights.own),
    ];
    let list = |items: &[String]| {
        let quoted = items.iter().map(|it| if it.is_empty() { "\"\"" } else { it }).collect::<Vec<_>>();
        format!("[{}]", quoted.join(", "))
    };
    for (comment, name, rules) in places {
        write!(text, "\n# {comment}\n{name}:\n").unwrap();
        for Rule { api_groups, resources, resource_names, verbs } in rules {
            let names = if resource_names.is_empty() {
                String::new()
            } else {
                format!(", resourceNames: {}", list(resource_names))
            };
            let (groups, resources, verbs) = (list(api_groups), list(resources), list(verbs));
            writeln!(text, "  - {{apiGroups: {groups}, resources: {resources}{names}, verbs: {verbs}}}").unwrap();
        }
    }
    compare("helm/frappe-operator/files/rights.yaml", &text);
}
