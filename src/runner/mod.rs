//! The site runner: a few Python files that do all work inside a bench's image. They are shipped through a ConfigMap.

/// Name of the file that is run.
pub const FILE_NAME: &str = "site_runner.py";
/// Every file, by name.
pub const FILES: [(&str, &str); 20] = [
    (FILE_NAME, include_str!("site_runner.py")),
    ("runner_apps.py", include_str!("runner_apps.py")),
    ("runner_assets.py", include_str!("runner_assets.py")),
    ("runner_backup.py", include_str!("runner_backup.py")),
    ("runner_bench.py", include_str!("runner_bench.py")),
    ("runner_call.py", include_str!("runner_call.py")),
    ("runner_code.py", include_str!("runner_code.py")),
    ("runner_common.py", include_str!("runner_common.py")),
    ("runner_database.py", include_str!("runner_database.py")),
    ("runner_frappe.py", include_str!("runner_frappe.py")),
    ("runner_hold.py", include_str!("runner_hold.py")),
    ("runner_jobs.py", include_str!("runner_jobs.py")),
    ("runner_maintenance.py", include_str!("runner_maintenance.py")),
    ("runner_nginx.py", include_str!("runner_nginx.py")),
    ("runner_revisions.py", include_str!("runner_revisions.py")),
    ("runner_routes.py", include_str!("runner_routes.py")),
    ("runner_run.py", include_str!("runner_run.py")),
    ("runner_site.py", include_str!("runner_site.py")),
    ("runner_update.py", include_str!("runner_update.py")),
    ("runner_volume.py", include_str!("runner_volume.py")),
];
/// Home of the runner: memory, so that what it writes there (a database client's password file) is on no disk.
pub const HOME: &str = "/run/frappe-home";
/// Folder with the site's secrets, one file each.
pub const SECRETS: &str = "/run/frappe-secrets";
/// Folder with the script of a SiteJob.
pub const SCRIPTS: &str = "/run/frappe-script";
/// Name of its file there.
pub const SCRIPT: &str = "script";
/// Exit code for a request or a Secret that is not valid.
pub const INVALID: i32 = 2;
