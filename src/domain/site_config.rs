//! Entries of a site's `site_config.json`: which a site may always set. Pure.
//!
//! Frappe has no list of its entries, and some run code in the processes that all sites of a bench share (`extra_config` names
//! a function that is called), open a shell (`backup_encryption_key` is put into a command), or connect the processes to another
//! server. The list has the entries that affect only the site's own data, each with the reason. A bench
//! (`allowedSites.siteConfigKeys`) or the platform (`allowedSiteConfigKeys`) can add others that its apps need.

/// Entries that a site may set, by what they are for.
pub const HARMLESS: [(&str, &[&str]); 4] = [
    (
        "its own mail, which its System Manager can also set up in Email Accounts",
        &[
            "always_use_account_email_id_as_sender",
            "always_use_account_name_as_sender_name",
            "auto_email_id",
            "email_sender_name",
            "mail_login",
            "mail_password",
            "mail_port",
            "mail_server",
            "mute_emails",
            "use_ssl",
            "use_tls",
        ],
    ),
    (
        "the number and size of requests that it accepts: the bench's nginx and gunicorn have their own limits",
        &["max_file_size", "rate_limit"],
    ),
    ("which users and which other web sites may use it", &["allow_cors", "deny_multiple_sessions"]),
    (
        "functions that it does not use",
        &["disable_global_search", "disable_website_cache", "dormant_days", "skip_setup_wizard"],
    ),
];

/// Entries that `siteConfig` must not set: they have their own field, or belong to the operator or to the bench.
const RESERVED: [&str; 16] = [
    "admin_password",
    "db_host",
    "db_name",
    "db_password",
    "db_port",
    "db_socket",
    "db_type",
    "db_user",
    "encryption_key",
    "host_name",
    "maintenance_mode",
    "pause_scheduler",
    "redis_cache",
    "redis_queue",
    "redis_socketio",
    "socketio_port",
];

/// Whether every site may set the entry.
pub fn is_harmless(entry: &str) -> bool {
    HARMLESS.iter().any(|(_, entries)| entries.contains(&entry))
}

/// Whether no site may set the entry: it is reserved, or not a valid name.
pub fn is_reserved(entry: &str) -> bool {
    let begins = entry.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_');
    let is_word = begins && entry.chars().all(|it| it.is_ascii_alphanumeric() || it == '_');
    !is_word || RESERVED.contains(&entry)
}

/// Whether `commonSiteConfig` of a bench must not set the entry: no site may, or it names the bench's queues.
pub fn is_reserved_in_bench(entry: &str) -> bool {
    is_reserved(entry) || entry == "bench_id"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_run_code_or_point_elsewhere_are_not_harmless() {
        for entry in [
            "extra_config",
            "developer_mode",
            "server_script_enabled",
            "local_infile",
            "backup_encryption_key",
            "replica_host",
            "read_from_replica",
            "allow_tests",
            "domains",
            "logging",
        ] {
            assert!(!is_harmless(entry) && !is_reserved(entry), "{entry}");
        }
        assert!(HARMLESS.iter().flat_map(|(_, entries)| *entries).all(|it| is_harmless(it) && !is_reserved(it)));
    }

    #[test]
    fn keys_of_the_operator_and_invalid_keys_are_reserved() {
        for entry in ["db_host", "encryption_key", "redis_cache", "", "a b", "1a", "a-b", "ä", "mute_emails\n"] {
            assert!(is_reserved(entry), "{entry:?}");
        }
    }

    #[test]
    fn the_page_on_sites_names_every_harmless_entry() {
        let page = include_str!("../../docs/sites.md");
        for (reason, entries) in HARMLESS {
            assert!(page.contains(reason), "{reason}");
            for entry in entries {
                assert!(page.contains(&format!("`{entry}`")), "{entry}");
            }
        }
    }
}
