//! The YAML files beside `Cargo.toml` are what the Rust types say.

use std::{fs, path::Path};

/// Largest CustomResourceDefinition as JSON, in bytes: a client-side `kubectl apply` keeps a second copy in an annotation of at most
/// 262,144 bytes, and Helm keeps all files, compressed, in one Secret of 1 MiB.
const JSON_SIZE_MAX_BYTES: usize = 220_000;

#[test]
fn the_yaml_files_are_generated_from_the_types() {
    for (name, yaml) in frappe_crds::manifest::files() {
        let on_disk = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(&name)).unwrap_or_default();
        assert!(on_disk == yaml, "crds/{name} is out of date: run `cargo run -p frappe-crds --example crdgen`");
    }
    for crd in frappe_crds::manifest::definitions() {
        let size = serde_json::to_string(&crd).expect("a CustomResourceDefinition serializes").len();
        assert!(size < JSON_SIZE_MAX_BYTES, "{} has {size} bytes", crd.spec.names.plural);
    }
}

#[test]
fn every_property_has_a_description() {
    fn walk(path: &str, schema: &serde_json::Value, missing: &mut Vec<String>) {
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            let path = format!("{path}.{name}");
            if property["description"].as_str().unwrap_or_default().is_empty() && !path.ends_with(".metadata") {
                missing.push(path.clone());
            }
            walk(&path, property, missing);
        }
        if schema["items"].is_object() {
            walk(path, &schema["items"], missing);
        }
        if schema["additionalProperties"].is_object() {
            walk(path, &schema["additionalProperties"], missing);
        }
    }
    let mut missing = Vec::new();
    for crd in frappe_crds::manifest::definitions() {
        let json = serde_json::to_value(&crd).expect("a CustomResourceDefinition serializes");
        let schema = &json["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        for part in ["spec", "status"] {
            walk(&format!("{}.{part}", crd.spec.names.kind), &schema["properties"][part], &mut missing);
        }
    }
    assert!(missing.is_empty(), "without a description: {missing:#?}");
}

/// Whoever writes an object decides how large it is, up to what its definition lets pass.
#[test]
fn everything_that_a_person_writes_has_a_bound() {
    fn walk(path: &str, schema: &serde_json::Value, without: &mut Vec<String>) {
        let is = |kind: &str| schema["type"] == kind;
        let lacks = |word: &str| !schema[word].is_number();
        let text = is("string") && schema["enum"].is_null() && schema["format"].is_null();
        let any = schema["x-kubernetes-preserve-unknown-fields"] == true;
        let map = schema["additionalProperties"].is_object();
        if (text || any) && lacks("maxLength")
            || (is("array") || any) && lacks("maxItems")
            || (map || any) && lacks("maxProperties")
        {
            without.push(path.to_owned());
        }
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            walk(&format!("{path}.{name}"), property, without);
        }
        for part in ["items", "additionalProperties"].iter().filter(|part| schema[**part].is_object()) {
            walk(&format!("{path}[]"), &schema[*part], without);
        }
    }
    let mut without = Vec::new();
    for definition in frappe_crds::manifest::definitions() {
        let json = serde_json::to_value(&definition).expect("a CustomResourceDefinition serializes");
        let schema = &json["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
        walk(&definition.spec.names.kind, schema, &mut without);
    }
    assert!(without.is_empty(), "without a bound: {without:#?}");
}
