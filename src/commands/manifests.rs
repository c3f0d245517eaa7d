//! Commands that need no cluster: `crds`, `render`, `admission-fence`, `admission-references`, `completions`.

use std::{collections::BTreeMap, io::Read as _, path::Path};

use anyhow::{Context as _, bail};
use clap::CommandFactory as _;
use frappe_crds::FrappeBench;
use k8s_openapi::{
    api::core::v1::ConfigMap, apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::ResourceExt;
use serde::Deserialize as _;
use serde_json::Value;

use super::output::print;
use crate::{
    admission, admission_policy,
    cli::{Cli, FenceArguments, RenderArguments},
    config::{self, OperatorConfig},
    controllers::bench::{build, model::Input, validate},
    domain::{capabilities::Capabilities, key::Key, labels::APPLIED_HASH, object::Desired},
    fleet_report::names,
};

/// All CustomResourceDefinitions of this program: the API's and the slot map's.
pub(super) fn definitions() -> Vec<CustomResourceDefinition> {
    let mut definitions = frappe_crds::manifest::definitions();
    definitions.push(names("").definition());
    definitions
}

/// Prints the CustomResourceDefinitions as YAML documents.
pub fn crds() -> anyhow::Result<()> {
    for definition in definitions() {
        print(&format!("---\n{}", serde_yaml_ng::to_string(&definition)?))?;
    }
    Ok(())
}

/// Prints the admission fence as YAML documents that kubectl applies. (JSON is YAML.)
pub fn admission_fence(arguments: &FenceArguments) -> anyhow::Result<()> {
    for document in admission_policy::policy(&arguments.namespace, &arguments.service_account) {
        print(&format!("---\n{}\n", serde_json::to_string_pretty(&document)?))?;
    }
    Ok(())
}

/// Prints the policies for references, as YAML documents that kubectl applies.
pub fn admission_references() -> anyhow::Result<()> {
    for document in admission::policies() {
        print(&format!("---\n{}\n", serde_json::to_string_pretty(&document)?))?;
    }
    Ok(())
}

/// Prints shell completions.
pub fn completions(shell: clap_complete::Shell) -> anyhow::Result<()> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "frappe-operator", &mut text);
    print(&String::from_utf8(text)?)
}

/// Prints the objects of benches as YAML documents in JSON form, because kubectl reads a plain `no` (an argument of Redis) as false.
pub fn render(arguments: &RenderArguments) -> anyhow::Result<()> {
    let text = read(&arguments.file)?;
    let config = match &arguments.config {
        Some(file) => configuration(&read(file)?).with_context(|| format!("read {}", file.display()))?,
        None => OperatorConfig::default(),
    };
    let capabilities = Capabilities::of(|api| arguments.with.contains(&api));
    for object in objects(&text, &arguments.namespace, &config, capabilities)? {
        print(&format!("---\n{}\n", serde_json::to_string_pretty(&object.body)?))?;
    }
    Ok(())
}

fn read(file: &Path) -> anyhow::Result<String> {
    let mut text = String::new();
    if file == Path::new("-") {
        std::io::stdin().read_to_string(&mut text).context("read standard input")?;
        return Ok(text);
    }
    std::fs::read_to_string(file).with_context(|| format!("read {}", file.display()))
}

fn configuration(text: &str) -> anyhow::Result<OperatorConfig> {
    let map: ConfigMap = serde_yaml_ng::from_str(text)?;
    let data: BTreeMap<String, String> = map.data.unwrap_or_default();
    let (config, bad) = config::parse(&data, &OperatorConfig::default());
    match bad.first() {
        Some(bad) => bail!("{}: {}", bad.key, bad.problem),
        None => Ok(config),
    }
}

/// The objects of every bench in YAML documents.
pub fn objects(
    text: &str,
    namespace: &str,
    config: &OperatorConfig,
    capabilities: Capabilities,
) -> anyhow::Result<Vec<Desired>> {
    let mut objects = Vec::new();
    let mut benches = 0;
    for document in serde_yaml_ng::Deserializer::from_str(text) {
        let given = Value::deserialize(document).context("the file is not valid YAML")?;
        if given["kind"] != "FrappeBench" {
            continue;
        }
        benches += 1;
        let mut bench: FrappeBench = serde_json::from_value(given.clone()).context("parse a FrappeBench")?;
        let key = Key::new(bench.namespace().unwrap_or_else(|| namespace.to_owned()), bench.name_any());
        bench.metadata.namespace = Some(key.namespace.clone());
        if let Some(field) = unknown(&given["spec"], &serde_json::to_value(&bench.spec)?, "spec") {
            bail!("FrappeBench {key} has no field {field}");
        }
        let git = bench.spec.git_config.as_ref().and_then(|it| it.enabled).unwrap_or(config.git_enabled);
        if let Err(problem) = validate::validate(&bench, git) {
            bail!("FrappeBench {key} would be rejected: {}: {}", problem.reason, problem.message);
        }
        // One that is made now has a password of its Redis. The Secret that holds it is not rendered.
        let status = bench.status.get_or_insert_default();
        let is_new = status.desired_revision.is_none() && status.redis_protected.is_none();
        status.redis_protected = if is_new { Some(true) } else { status.redis_protected };
        let input = Input::of(&bench, config, capabilities).with_recorded_digest();
        let rendered = build::render(&input);
        // The hold Job exists only during the rollout of another image.
        objects.extend(rendered.all().filter(|it| **it != rendered.hold).map(as_applied));
    }
    anyhow::ensure!(benches > 0, "the file contains no FrappeBench");
    Ok(objects)
}

/// The object with its hash, as it is applied; a Job already has the hash of its configuration.
fn as_applied(desired: &Desired) -> Desired {
    let is_marked = desired.body["metadata"]["annotations"][APPLIED_HASH].is_string();
    Desired { body: if is_marked { desired.body.clone() } else { desired.stamped() }, ..desired.clone() }
}

/// The first unknown field.
fn unknown(given: &Value, known: &Value, path: &str) -> Option<String> {
    match (given, known) {
        (Value::Object(given), Value::Object(known)) => given.iter().find_map(|(name, value)| {
            let path = format!("{path}.{name}");
            match known.get(name) {
                Some(known) => unknown(value, known, &path),
                // What is nothing is omitted when it is written.
                None if value.is_null() || value == &serde_json::json!([]) || value == &serde_json::json!({}) => None,
                None => Some(path),
            }
        }),
        (Value::Array(given), Value::Array(known)) => {
            let mut both = given.iter().zip(known).enumerate();
            both.find_map(|(index, (given, known))| unknown(given, known, &format!("{path}[{index}]")))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(text: &str) -> anyhow::Result<Vec<Desired>> {
        objects(text, "default", &OperatorConfig::default(), Capabilities::default())
    }

    #[test]
    fn a_bench_is_rendered_and_other_objects_are_skipped() {
        let objects = rendered(include_str!("../../examples/basic.yaml")).expect("an example");
        let kinds: Vec<String> = objects.iter().map(|it| format!("{:?} {}", it.kind, it.key)).collect();
        assert!(kinds.contains(&"Deployment default/basic-bench-gunicorn".to_owned()), "{kinds:?}");
        assert!(kinds.contains(&"PersistentVolumeClaim default/basic-bench-sites".to_owned()), "{kinds:?}");
    }

    #[test]
    fn an_error_is_reported_with_its_position() {
        let bench = |spec: &str| format!("kind: FrappeBench\nmetadata: {{name: b}}\nspec: {spec}");
        let says = |text: &str| rendered(text).expect_err("it is wrong").to_string();
        assert_eq!(
            says(&bench("{frappeVersion: '15', apps: [], redisConfig: {typ: redis}}")),
            "FrappeBench default/b has no field spec.redisConfig.typ"
        );
        let git = says(&bench("{frappeVersion: '15', apps: [{name: hrms, source: git, gitUrl: 'https://a/b'}]}"));
        assert!(git.starts_with("FrappeBench default/b would be rejected: GitDisabled: apps: hrms"), "{git}");
        assert_eq!(says("kind: FrappeSite"), "the file contains no FrappeBench");
        assert!(says("{").contains("not valid YAML"));
    }

    #[test]
    fn an_invalid_config_map_is_rejected() {
        let error = configuration("data: {maxConcurrentSiteReconciles: many}").expect_err("a bad value");
        assert!(error.to_string().starts_with("maxConcurrentSiteReconciles: "), "{error}");
    }
}
