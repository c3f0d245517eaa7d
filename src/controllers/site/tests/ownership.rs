//! An object belongs to a site by its uid, never by its name.

use super::*;
use crate::domain::labels::{self, SITE_UID};

fn server(name: &str, labels: Value) -> Arc<DynamicObject> {
    object(json!({
        "apiVersion": "k8s.mariadb.com/v1alpha1", "kind": "MariaDB", "spec": {"image": "theirs"},
        "metadata": {"name": name, "namespace": "default", "uid": "server-uid", "labels": labels},
    }))
}

fn message(plan: &Plan) -> String {
    let status = plan.status.clone().unwrap_or_default();
    condition::find(&status.conditions, "Ready").map(|it| it.message.clone()).unwrap_or_default()
}

/// a server with the name of a site's dedicated server is neither changed nor deleted with the site.
#[test]
fn another_owners_server_is_refused() {
    for labels in [
        json!({}),
        json!({"site": "shop"}),
        json!({labels::MANAGED_BY: labels::MANAGER, "site": "shop", labels::SITE_UID: "o", labels::SITE_NAMESPACE: "b"}),
        json!({labels::MANAGED_BY: labels::MANAGER, "site": "other", labels::SITE_UID: "other"}),
    ] {
        let mut world = observed(json!({"dbConfig": {"mode": "dedicated"}}));
        world.servers.push(server("shop-mariadb", labels.clone()));
        let refused = plan(&world);
        assert_eq!(reason(&refused), "WriteRejected", "{labels}");
        assert!(message(&refused).contains("MariaDb default/shop-mariadb"), "{}", message(&refused));
        assert!(refused.steps.is_empty() && refused.last.is_empty(), "nothing is created for it");
        being_deleted(&mut world);
        Arc::make_mut(&mut world.site).metadata.finalizers = Some(vec![labels::SITE_FINALIZER.to_owned()]);
        for _ in 0..8 {
            let next = plan(&world);
            let deleted = next.steps.iter().any(|it| matches!(it, Step::Delete(Kind::MariaDb, _)));
            assert!(!deleted, "{labels}");
            apply(&mut world, &next, "Complete");
        }
        assert!(world.site.finalizers().is_empty() && world.servers.len() == 2);
    }
}

/// a server kept from a deleted site of this name belongs to the new site.
#[test]
fn a_server_that_was_kept_is_used_again() {
    let mut world = observed(json!({"dbConfig": {"mode": "dedicated"}}));
    let kept = json!({labels::MANAGED_BY: labels::MANAGER, "site": "shop", labels::SITE_UID: "gone"});
    world.servers.push(server("shop-mariadb", kept));
    converge(&mut world, "Complete");
    assert_eq!(world.site.status.as_ref().map(|it| it.phase), Some(SitePhase::Ready));
}

/// Without the uid its watch would not count the Secret as the site's.
#[test]
fn a_kept_secret_is_labelled_with_the_uid_of_the_new_site() {
    let mut world = observed(json!({}));
    converge(&mut world, "Complete");
    let mut kept = DynamicObject::clone(world.credentials.as_ref().expect("a Secret"));
    kept.labels_mut().insert(SITE_UID.to_owned(), "former".to_owned());
    world.credentials = Some(Arc::new(kept));
    let labelled = plan(&world).steps.into_iter().find_map(|step| match step {
        Step::LabelSecret(_, metadata) => labels_of(&metadata).remove(SITE_UID),
        _ => None,
    });
    assert_eq!((labelled.is_some(), labelled), (true, world.site.uid()));
}
