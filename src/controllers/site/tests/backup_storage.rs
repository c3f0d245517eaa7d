//! Storages of SiteBackups: their credentials, and what the transfer is told.

use super::{
    backups::{backup, carried, served, settle},
    *,
};

#[test]
fn only_the_transfer_gets_the_keys_of_azure_and_google_as_files() {
    let azure = json!({"account": "frappe", "container": "backups", "prefix": "team/a", "credentialsSecretRef": {"name": "keys"},
                       "caSecretRef": {"name": "ca"}});
    let gcs = json!({"bucket": "backups", "endpoint": "https://storage.example.com", "credentialsSecretRef": {"name": "keys"}});
    for (name, storage, place, folder, files, needs) in [
        (
            "azure",
            azure,
            json!({"account": "frappe", "container": "backups", "secret": "keys"}),
            "team/a/default/shop",
            vec!["accountKey", "sasToken", "ca.crt"],
            json!({"ca.crt": ["ca", "ca.crt"]}),
        ),
        (
            "gcs",
            gcs,
            json!({"bucket": "backups", "endpoint": "https://storage.example.com", "secret": "keys"}),
            "default/shop",
            vec!["serviceAccountKey"],
            json!({"serviceAccountKey": ["keys", "serviceAccountKey"]}),
        ),
    ] {
        let mut world = served(vec![backup("it", json!({"storage": {name: storage}}))]);
        user_secret(&mut world, "keys");
        user_secret(&mut world, "ca");
        let made = settle(&mut world);
        let told = json!(carried(&made[0]));
        assert_eq!((&told["place"], told["folder"].as_str()), (&json!({name: place}), Some(folder)));
        assert_eq!(told["needs"], needs);
        let pod = &made[0].body["spec"]["template"]["spec"];
        let volumes = pod["volumes"].as_array().expect("volumes");
        let volume = volumes.iter().find(|it| it["name"] == "storage").expect("the Secrets");
        let sources = volume["projected"]["sources"].as_array().expect("sources").iter();
        let items = sources.flat_map(|it| it["secret"]["items"].as_array().cloned().unwrap_or_default());
        assert_eq!(items.map(|it| it["path"].as_str().unwrap_or_default().to_owned()).collect::<Vec<_>>(), files);
        let all =
            ["initContainers", "containers"].into_iter().flat_map(|it| pod[it].as_array().cloned().unwrap_or_default());
        let mounting = all.filter(|it| it["volumeMounts"].to_string().contains("\"storage\""));
        assert_eq!(mounting.map(|it| it["name"].clone()).collect::<Vec<_>>(), ["transfer"]);
    }
}

#[test]
fn checksums_of_a_bucket_are_sent_unless_its_service_rejects_them() {
    for (checksum, told) in [(json!(null), json!(null)), (json!("SHA256"), json!(null)), (json!("None"), json!(true))] {
        let storage = json!({"s3": {"bucket": "backups", "checksum": checksum}});
        let made = settle(&mut served(vec![backup("it", json!({"storage": storage}))]));
        assert_eq!(json!(carried(&made[0]))["place"]["s3"]["noChecksum"], told, "{checksum}");
    }
}

#[test]
fn a_staging_volume_lives_as_long_as_its_pod() {
    let storage = json!({"s3": {"bucket": "backups"}, "stagingVolume": {"storageClassName": "fast", "size": "500Gi"}});
    let made = settle(&mut served(vec![backup("it", json!({"storage": storage}))]));
    let pod = &made[0].body["spec"]["template"]["spec"];
    let volumes = pod["volumes"].as_array().expect("volumes");
    let staging = volumes.iter().find(|it| it["name"] == "staging").expect("a volume");
    let claim = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "500Gi"}}, "storageClassName": "fast"});
    assert_eq!(staging, &json!({"name": "staging", "ephemeral": {"volumeClaimTemplate": {"spec": claim}}}));
    for container in ["initContainers", "containers"].into_iter().flat_map(|it| pod[it].as_array().expect("containers"))
    {
        assert!(container["volumeMounts"].to_string().contains("/run/frappe-backup\""), "{container}");
    }
    assert_eq!(lint(&made[0]), Vec::<String>::new());
}
