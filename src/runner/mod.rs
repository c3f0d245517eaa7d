//! The site runner: one Python file that does all work inside a bench's image. It is shipped through a ConfigMap.

/// Name of the file.
pub const FILE_NAME: &str = "site_runner.py";
/// The file.
pub const SOURCE: &str = include_str!("site_runner.py");
/// Home of the runner: memory, so that what it writes there (a database client's password file) is on no disk.
pub const HOME: &str = "/run/frappe-home";
/// Folder with the site's secrets, one file each.
pub const SECRETS: &str = "/run/frappe-secrets";
