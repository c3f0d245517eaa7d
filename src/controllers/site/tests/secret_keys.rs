//! A Secret that lacks a key: the Job's pod starts, and says which; once it has the key, the creation is tried again.

use super::*;
use crate::{controllers::job::Failure, domain::code::Code};

fn with_secrets() -> Observed {
    let mut world = observed(json!({
        "adminPasswordSecretRef": {"name": "admin"},
        "siteConfigSecretRefs": {"mail_password": {"name": "mail", "key": "smtp"}},
    }));
    for name in ["admin", "mail"] {
        user_secret(&mut world, name);
    }
    world
}

/// Plans and executes until the Job exists.
fn job_of(world: &mut Observed) -> Desired {
    for _ in 0..8 {
        let next = plan(world);
        apply(world, &next, "Running");
        if let Some(job) = next.job {
            return job;
        }
    }
    panic!("no Job was planned: {:?}", plan(world).status)
}

/// The kubelet would keep a pod that lacks a key in ContainerCreating until the Job's deadline.
#[test]
fn a_missing_key_of_a_secret_does_not_keep_the_pod_from_starting() {
    let job = job_of(&mut with_secrets());
    let pod = &job.body["spec"]["template"]["spec"];
    let volumes = pod["volumes"].as_array().expect("volumes");
    let sources = volumes.iter().find_map(|it| it["projected"]["sources"].as_array()).expect("Secrets");
    let of_users = sources.iter().filter(|it| it["secret"]["items"].is_array());
    let optional: Vec<_> = of_users.map(|it| (&it["secret"]["name"], &it["secret"]["optional"])).collect();
    assert_eq!(optional, [(&json!("admin"), &json!(true)), (&json!("mail"), &json!(true))]);
    let request: Value =
        serde_json::from_str(pod["containers"][0]["args"][1].as_str().expect("a request")).expect("JSON");
    let origins = json!({"admin-password": ["admin", "password"], "config/mail_password": ["mail", "smtp"]});
    assert_eq!(request["secrets"], origins, "the runner's message names Secret and key");
}

#[test]
fn a_failed_creation_is_tried_again_when_a_secret_changes() {
    let mut world = with_secrets();
    world.failure =
        Some(Failure { code: Code::SecretInvalid, message: "the key password does not exist".into(), revision: None });
    for _ in 0..8 {
        let next = plan(&world);
        apply(&mut world, &next, "Failed");
        world.now = Timestamp::from_second(100_000).expect("a time");
    }
    assert_eq!(reason(&plan(&world)), "InitFailed");
    let mut secret = DynamicObject::clone(&world.secrets["admin"]);
    secret.metadata.resource_version = Some("2".to_owned());
    world.secrets.insert("admin".to_owned(), Arc::new(secret));
    let next = plan(&world);
    assert_eq!(
        (reason(&next).as_str(), next.job.map(|it| it.key.name).as_deref()),
        ("Initializing", Some("shop-init-4"))
    );
}
