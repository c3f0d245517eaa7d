//! Names of created objects and of databases.

use sha2::{Digest, Sha256};

/// Maximum length of a name that becomes a label or a DNS label.
const NAME_MAX_CHARACTERS: usize = 63;
/// Hex digits of the hash in a shortened name.
const SHORT_HASH_DIGITS: usize = 8;
/// Characters of the site's name in a database name.
const DATABASE_STEM_CHARACTERS: usize = 8;
/// Hex digits of the hash in a database name.
const DATABASE_HASH_DIGITS: usize = 24;

/// Name of an app's Python module, which Frappe uses: the repository may be named `custom-app`.
pub fn module(app: &str) -> String {
    app.replace('-', "_")
}

/// The first hex digits of SHA-256 of some text.
pub fn hash_hex(text: &str, digits: usize) -> String {
    let mut whole = hex(&Sha256::digest(text.as_bytes()));
    whole.truncate(digits);
    whole
}

/// Bytes as hex digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]).map(hex_digit).collect()
}

fn hex_digit(nibble: u8) -> char {
    char::from_digit(u32::from(nibble), 16).expect("a nibble is below 16")
}

/// `OWNER-SUFFIX`, shortened to 63 characters with a hash of the whole where it is longer.
pub fn child(owner: &str, suffix: &str) -> String {
    let whole = format!("{owner}-{suffix}");
    if whole.len() <= NAME_MAX_CHARACTERS {
        return whole;
    }
    let kept = NAME_MAX_CHARACTERS.saturating_sub(suffix.len() + SHORT_HASH_DIGITS + 2);
    let stem: String = owner.chars().take(kept).collect();
    format!("{}-{}-{suffix}", stem.trim_end_matches(['-', '.']), hash_hex(&whole, SHORT_HASH_DIGITS))
}

/// The same for an object whose name becomes that of a Service: a DNS label that begins with a letter (RFC 1035). Another name of the owner
/// is changed to one, with a hash of it, so that `a.b` and `a-b` have different objects.
pub fn service_child(owner: &str, suffix: &str) -> String {
    let begins = owner.starts_with(|first: char| first.is_ascii_lowercase());
    if begins && !owner.contains('.') {
        return child(owner, suffix);
    }
    let letter = if begins { "" } else { "s" };
    child(&format!("{letter}{}-{}", owner.replace('.', "-"), hash_hex(owner, SHORT_HASH_DIGITS)), suffix)
}

/// Whether a name has a part that looks like the hash of a shortened name or of a namespace: another object may have been named
/// to collide with it.
pub fn has_short_hash(name: &str) -> bool {
    let is_hash = |part: &str| {
        part.len() == SHORT_HASH_DIGITS && part.bytes().all(|it| it.is_ascii_digit() || (b'a'..=b'f').contains(&it))
    };
    name.split(['-', '.']).any(is_hash)
}

/// Name of the Job for the n-th attempt of an operation: `SITE-init`, then `SITE-init-2`.
pub fn operation_job(site: &str, operation: &str, attempt: i32) -> String {
    if attempt <= 1 { child(site, operation) } else { child(site, &format!("{operation}-{attempt}")) }
}

/// Name of a site's database and its user: `[a-z][a-z0-9]*`, at most 32 characters.
///
/// Frappe before version 16 uses one name for both. An underscore would be a wildcard in a MariaDB grant. The hash is of
/// namespace, name and the random identity, so that no site can be named to collide with another site's database, and a name
/// proves its identity.
pub fn database(namespace: &str, site: &str, identity: &str) -> String {
    let letters: String = site.chars().filter(char::is_ascii_alphanumeric).collect();
    let lower = letters.to_ascii_lowercase();
    let stem = lower.trim_start_matches(|character: char| character.is_ascii_digit());
    let stem = if stem.is_empty() { "site" } else { stem };
    let short: String = stem.chars().take(DATABASE_STEM_CHARACTERS).collect();
    format!("{short}{}", hash_hex(&format!("{namespace}/{site}/{identity}"), DATABASE_HASH_DIGITS))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_those_of_the_guide() {
        assert_eq!(operation_job("customer-site", "init", 1), "customer-site-init");
        assert_eq!(operation_job("customer-site", "delete", 3), "customer-site-delete-3");
        assert_eq!(child("production-bench", "gunicorn"), "production-bench-gunicorn");
    }

    #[test]
    fn a_name_with_a_hash_is_recognized() {
        assert!(has_short_hash("shop-80a707af-db") && has_short_hash(&child(&"a".repeat(63), "db")));
        assert!(
            !has_short_hash("shop-db") && !has_short_hash("shop-mariadb-root") && !has_short_hash("shop-database-db")
        );
    }

    /// Pinned: a change would let no Secret that was kept prove its database's name.
    #[test]
    fn a_database_name_never_changes() {
        assert_eq!(database("default", "customer-site", "0123456789abcdef"), "customerb48a5ad0e85cc66c476da6cd");
        assert!(database("default", "123", "0").starts_with("site"));
    }

    proptest! {
        #[test]
        fn a_database_name_is_safe_in_every_grant(namespace in "[a-z]{1,9}", site in "[a-z0-9]([-.a-z0-9]{0,61}[a-z0-9])?") {
            let name = database(&namespace, &site, "1");
            prop_assert!(name.len() <= 32);
            prop_assert!(name.starts_with(|c: char| c.is_ascii_lowercase()));
            prop_assert!(name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit()));
            prop_assert_ne!(&name, &database(&format!("{namespace}x"), &site, "1"));
            prop_assert_ne!(name, database(&namespace, &site, "2"));
        }

        #[test]
        fn a_child_name_fits_and_differs(a in "[a-z]([-a-z0-9]{0,61}[a-z0-9])?", b in "[a-z]([-a-z0-9]{0,61}[a-z0-9])?") {
            let (first, second) = (child(&a, "admin-password"), child(&b, "admin-password"));
            prop_assert!(first.len() <= 63);
            prop_assert_eq!(a == b, first == second);
        }
    }

    #[test]
    fn names_of_services_are_labels_and_stay_apart() {
        assert_eq!(service_child("shop", "mariadb"), "shop-mariadb");
        let named = ["shop.example.com", "shop-example-com", "shop-example.com", "1shop"]
            .map(|it| service_child(it, "mariadb"));
        let is_label = |it: &String| {
            it.len() <= NAME_MAX_CHARACTERS
                && it.starts_with(|first: char| first.is_ascii_lowercase())
                && !it.contains('.')
        };
        assert!(named.iter().all(is_label), "{named:?}");
        assert!((0..4).all(|at| !named[at + 1..].contains(&named[at])), "{named:?}");
        assert!(is_label(&service_child(&"long.".repeat(20), "mariadb")));
    }
}
