//! Hostile specs: specs that the API server accepts do no harm.

use super::*;

/// Text with a special meaning for shells, SQL, nginx, YAML, annotations or terminals.
fn hostile() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z0-9.-]{1,30}",
        ".{0,40}",
        Just("a'; DROP DATABASE mysql; --".to_owned()),
        Just("$(reboot)`id`\"\\\n".to_owned()),
        Just("../../etc/passwd".to_owned()),
        Just("a} server { listen 1; }".to_owned()),
        Just("ünïcödé\u{202e}\u{0}".to_owned()),
        Just("x".repeat(300)),
    ]
}

/// Every string in a JSON value.
fn strings(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::String(text) => found.push(text.clone()),
        Value::Array(items) => items.iter().for_each(|it| strings(it, found)),
        Value::Object(fields) => fields.iter().for_each(|(key, it)| {
            found.push(key.clone());
            strings(it, found);
        }),
        _ => {}
    }
}

prop_compose! {
    fn spec()(
        site_name in prop_oneof!["[a-z0-9-]{1,20}(.[a-z0-9]{1,5}){0,2}", hostile()],
        domain in proptest::option::of(hostile()), more in proptest::collection::vec(hostile(), 0..3),
        apps in proptest::option::of(proptest::collection::vec(prop_oneof![Just("erpnext".to_owned()), hostile()], 0..3)),
        annotation in (hostile(), hostile()), entry in (hostile(), hostile()), secret in proptest::option::of(hostile()),
        class in proptest::option::of(hostile()), issuer in proptest::option::of(hostile()),
        flags in any::<[bool; 5]>(), enabled in any::<Option<bool>>(),
    ) -> Value {
        let (key, text) = annotation;
        let mut spec = json!({
            "siteName": site_name, "additionalDomains": more, "siteConfig": {entry.0.clone(): entry.1},
            "ingress": {"enabled": enabled, "className": class, "annotations": {key.clone(): text}},
            "tls": {"enabled": flags[0], "issuer": issuer, "secretName": secret},
            "maintenanceMode": flags[1],
        });
        if let Some(domain) = domain { spec["domain"] = json!(domain); }
        if let Some(apps) = apps { spec["apps"] = json!(apps); }
        if let Some(secret) = &secret { spec["adminPasswordSecretRef"] = json!({"name": secret}); }
        if flags[2] { spec["deletionPolicy"] = json!("Retain"); }
        if flags[3] { spec["dbConfig"] = json!({"mode": "dedicated"}); }
        if flags[4] { spec["siteConfig"] = json!({}); }
        spec
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10_000, ..ProptestConfig::default() })]

    /// no spec makes a plan panic; planned objects have valid names and hosts, and contain the spec's text only as data; without
        /// changes nothing is planned; a deletion completes.
    #[test]
    fn any_spec_is_planned_and_converges(spec in spec()) {
        let mut world = observed(spec);
        if let Some(name) = world.site.spec.admin_password_secret_ref.clone() { user_secret(&mut world, &name.name); }
        let (made, _) = converge(&mut world, "Complete");
        for desired in &made {
            prop_assert_eq!(lint(desired), Vec::<String>::new());
        }
        for job in made.iter().filter(|it| it.kind == Kind::Job) {
            let container = &job.body["spec"]["template"]["spec"]["containers"][0];
            prop_assert_eq!(&container["command"][0], "/home/frappe/frappe-bench/env/bin/python", "no shell");
            prop_assert_eq!(container["args"].as_array().map(Vec::len), Some(2));
            let request: Value = serde_json::from_str(container["args"][1].as_str().expect("text")).expect("JSON");
            prop_assert_eq!(&request["site"], &json!(world.site.spec.site_name));
            let mut names = Vec::new();
            strings(&request["hosts"], &mut names);
            for name in names {
                prop_assert!(name.chars().all(|it| it.is_ascii_alphanumeric() || ".-".contains(it)), "{}", name);
            }
        }
        for secret in made.iter().filter(|it| it.kind == Kind::Secret) {
            let mut texts = Vec::new();
            strings(&secret.body["stringData"], &mut texts);
            prop_assert!(texts.iter().all(|it| it.chars().all(|it| it.is_ascii_graphic())), "only generated values");
        }
        prop_assert!(is_empty(&world, &plan(&world)));
        being_deleted(&mut world);
        for _ in 0..10 {
            let next = plan(&world);
            apply(&mut world, &next, "Complete");
        }
        prop_assert!(world.site.finalizers().is_empty());
    }
}
