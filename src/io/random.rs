//! Passwords and ids, from a cryptographic generator that the system seeds.
#![allow(clippy::disallowed_methods, reason = "random values are made here and nowhere else")]

use base64::{Engine, engine::general_purpose::URL_SAFE};
use rand::RngExt;

/// Characters of a password: no character that a shell, SQL or a configuration file treats specially.
const PASSWORD_CHARACTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
/// Characters of a generated password: 190 bits.
const PASSWORD_LENGTH: usize = 32;

/// A new password.
pub fn password() -> String {
    let mut rng = rand::rng();
    (0..PASSWORD_LENGTH)
        .map(|_| char::from(PASSWORD_CHARACTERS[rng.random_range(0..PASSWORD_CHARACTERS.len())]))
        .collect()
}

/// A new encryption key as Frappe reads it: 32 random bytes in URL-safe base64 (a Fernet key).
pub fn encryption_key() -> String {
    URL_SAFE.encode(rand::rng().random::<[u8; 32]>())
}

/// A new id: 16 hex digits.
pub fn id() -> String {
    format!("{:016x}", rand::rng().random::<u64>())
}
