//! The commands of Frappe that a SiteJob may run. Pure.
//!
//! A command is allowed if it changes nothing but the site itself, does nothing that the operator does otherwise, and runs no code of its
//! arguments.

/// Commands that every SiteJob may run.
const ALLOWED: [&str; 17] = [
    "add-database-index",
    "build-search-index",
    "clear-cache",
    "clear-log-table",
    "clear-website-cache",
    "describe-database-table",
    "destroy-all-sessions",
    "disable-scheduler",
    "disable-user",
    "doctor",
    "enable-scheduler",
    "list-apps",
    "ready-for-migration",
    "rebuild-global-search",
    "reset-perms",
    "show-pending-jobs",
    "trigger-scheduler-event",
];

/// Commands that no setting allows, with what to do instead.
const OTHERWISE: [(&[&str], &str); 11] = [
    (&["migrate", "migrate-to"], "set the annotation frappe.vyogo.tech/migrate of the site"),
    (&["backup"], "create a SiteBackup"),
    (&["restore", "partial-restore"], "create a SiteBackup with spec.restore"),
    (&["new-site"], "create a FrappeSite"),
    (&["drop-site", "reinstall"], "delete the FrappeSite"),
    (
        &["install-app", "uninstall-app", "remove-from-installed-apps"],
        "change spec.apps and spec.removedApps of the site",
    ),
    (&["set-config", "show-config"], "use spec.siteConfig of the site"),
    (&["set-admin-password", "set-password"], "change the Secret with the password of Administrator"),
    (&["set-maintenance-mode"], "set spec.maintenanceMode of the site"),
    (&["scheduler"], "set spec.schedulerPaused of the site, or use enable-scheduler and disable-scheduler"),
    (
        &[
            "execute",
            "console",
            "mariadb",
            "postgres",
            "db-console",
            "jupyter",
            "request",
            "run-patch",
            "run-tests",
            "run-parallel-tests",
        ],
        "use spec.method or spec.script, which need a right of their own",
    ),
];

/// Why a command may not be run; None if it may. The platform allows `more` commands.
pub(super) fn refused(name: &str, more: &[String]) -> Option<String> {
    if let Some((_, instead)) = OTHERWISE.iter().find(|(names, _)| names.contains(&name)) {
        return Some(format!("command {name} is not run by a SiteJob: {instead}"));
    }
    let allowed = ALLOWED.contains(&name) || more.iter().any(|it| it == name);
    let known = || ALLOWED.join(", ");
    (!allowed).then(|| {
        format!(
            "command {name} is not allowed. Allowed are {}; allowedSiteCommands of the operator's ConfigMap adds others",
            known()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_adds_commands_but_none_that_the_operator_does_otherwise() {
        let more = ["trim-tables", "migrate", "execute"].map(str::to_owned);
        assert_eq!(refused("clear-cache", &[]), None);
        assert_eq!(refused("trim-tables", &more), None);
        assert!(refused("trim-tables", &[]).is_some_and(|it| it.contains("allowedSiteCommands")));
        assert!(refused("migrate", &more).is_some_and(|it| it.contains("frappe.vyogo.tech/migrate")));
        assert!(refused("execute", &more).is_some_and(|it| it.contains("spec.method")));
        let twice = OTHERWISE.iter().flat_map(|(names, _)| *names).filter(|name| ALLOWED.contains(name));
        assert_eq!(twice.count(), 0);
    }
}
