//! `rollout undo`: sets the former image of a bench, or takes back one site that was migrated. What it changes, it changes as the user who runs it.

use anyhow::{Context as _, bail};
use frappe_crds::{FrappeBench, FrappeSite, site::UpdateResult};
use kube::Client;
use serde_json::{Value, json};

use super::{fleet::site_of, output::named_in};
use crate::{
    controllers::{bench::placed::revisions, site::watch::lane},
    domain::{image, key::Key, labels},
    io::decision::change_site,
};

/// Change of the bench that sets the image of the revision before the newest one, and a message.
pub fn of_bench(key: &Key, bench: &FrappeBench) -> anyhow::Result<(Value, String)> {
    let [.., former, newest] = revisions(bench) else {
        bail!("FrappeBench {key} has had only one revision: set its image")
    };
    if former.image == newest.image {
        bail!(
            "the revisions {} and {} of FrappeBench {key} have the same image {}, and differ by apps from Git or the annotation {}: set \
             these back",
            former.number,
            newest.number,
            former.image,
            labels::REDEPLOY
        );
    }
    let (repository, tag) =
        image::parts(&former.image).with_context(|| format!("image {} without a tag", former.image))?;
    let change = json!({"spec": {"imageConfig": {"repository": repository, "tag": tag}}});
    let message = format!(
        "undone: its image is {} again, as another revision. Sites that were not migrated move to it; one that was migrated stays, unless it is \
         named: kubectl frappe rollout {key} undo --site SITE",
        former.image
    );
    Ok((change, message))
}

/// Asks for the return of one site, and returns a message.
pub async fn of_site(client: &Client, bench: &Key, name: &str, dry_run: bool) -> anyhow::Result<String> {
    let key = named_in(&bench.namespace, name);
    let site = site_of(client, &key).await?;
    let (change, message) = change_of_site(bench, &key, &site)?;
    change_site(client, &key, change, dry_run).await.with_context(|| format!("change FrappeSite {key}"))?;
    Ok(message)
}

/// Change of a site that asks to undo its last update, and a message.
pub fn change_of_site(bench: &Key, key: &Key, site: &FrappeSite) -> anyhow::Result<(Value, String)> {
    if lane(site) != *bench {
        bail!("FrappeSite {key} is on FrappeBench {}", lane(site));
    }
    let Some(last) = site.status.as_ref().and_then(|it| it.last_update.as_ref()) else {
        bail!("FrappeSite {key} has not been updated yet");
    };
    let moves = last.moves.filter(|_| last.result == UpdateResult::Updated);
    let Some(moves) = moves else {
        bail!("the last update of FrappeSite {key} did not move it: {:?}; see kubectl frappe why {key}", last.result);
    };
    let change = json!({"metadata": {"annotations": {labels::ROLLBACK: last.id}}});
    let message = format!(
        "undoes the update {} of frappesite {key}: it returns to revision {}. If it was migrated, what was written since {} is lost to it, and \
         kept as a dump on the volume",
        last.id, moves.from, last.finished_at.0
    );
    Ok((change, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> Key {
        Key::new("shops", "prod")
    }

    fn bench(images: &[&str]) -> FrappeBench {
        let revision =
            |(number, image): (usize, &&str)| json!({"number": number + 1, "image": image, "cacheDatabase": 0});
        let revisions: Vec<Value> = images.iter().enumerate().map(revision).collect();
        serde_json::from_value(json!({
            "apiVersion": "vyogo.tech/v1alpha1", "kind": "FrappeBench", "metadata": {"name": "prod", "namespace": "shops"},
            "spec": {"frappeVersion": "15"}, "status": {"revisions": revisions},
        }))
        .expect("a bench")
    }

    fn site(last: &Value) -> FrappeSite {
        serde_json::from_value(json!({
            "apiVersion": "vyogo.tech/v1alpha1", "kind": "FrappeSite", "metadata": {"name": "shop", "namespace": "shops"},
            "spec": {"siteName": "shop", "benchRef": {"name": "prod"}}, "status": {"lastUpdate": last},
        }))
        .expect("a site")
    }

    #[test]
    fn the_image_of_the_revision_before_is_set() {
        let (change, message) =
            of_bench(&key(), &bench(&["a:1", "registry:5000/b/erpnext:v15.1.0", "docker.io/b:2"])).expect("a change");
        let wanted = json!({"spec": {"imageConfig": {"repository": "registry:5000/b/erpnext", "tag": "v15.1.0"}}});
        assert_eq!(change, wanted);
        assert!(message.contains("registry:5000/b/erpnext:v15.1.0 again"), "{message}");
        for (images, why) in [(&["a:1"][..], "only one revision"), (&["a:1", "a:1"], "the same image a:1")] {
            let error = of_bench(&key(), &bench(images)).expect_err("nothing to undo").to_string();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn a_site_is_undone_by_the_name_of_its_update() {
        let last = json!({"id": "0123abcd", "result": "Updated", "target": "x", "moves": {"from": 1, "to": 2}, "finishedAt": "1970-01-01T00:00:00Z"});
        let name = Key::new("shops", "shop");
        let (change, message) = change_of_site(&key(), &name, &site(&last)).expect("a change");
        assert_eq!(change["metadata"]["annotations"][labels::ROLLBACK], "0123abcd");
        assert!(message.contains("revision 1") && message.contains("1970-01-01T00:00:00Z"), "{message}");
        let mut failed = last.clone();
        failed["result"] = json!("RolledBack");
        let mut in_place = last.clone();
        in_place["moves"] = Value::Null;
        for (last, why) in
            [(failed, "RolledBack"), (in_place, "did not move it"), (Value::Null, "has not been updated yet")]
        {
            let error = change_of_site(&key(), &name, &site(&last)).expect_err("nothing to undo").to_string();
            assert!(error.contains(why), "{error}");
        }
        let error =
            change_of_site(&Key::new("shops", "other"), &name, &site(&last)).expect_err("another bench").to_string();
        assert!(error.contains("is on FrappeBench shops/prod"), "{error}");
    }
}
