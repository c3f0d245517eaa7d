//! Encryption at rest, in the format of age (age-encryption.org/v1): a part can be decrypted with `age --decrypt` and the key,
//! without this operator. The manifest, which the key authenticates, lists the parts of the backup.

use std::{
    io::{self, BufReader, BufWriter, Read, Write as _},
    iter,
    path::Path,
};

use age::{Decryptor, Encryptor, secrecy::ExposeSecret as _, x25519::Identity};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use ring::hmac;

use super::{report::Failure, staging};
use crate::domain::code::Code;

/// File with the key, an X25519 identity as `age-keygen` writes it.
pub const FILE_NAME: &str = "identity";
/// Suffix of an encrypted file's name.
pub const SUFFIX: &str = ".age";
/// Size of the copy buffer.
const BUFFER_BYTES: usize = 1 << 20;

/// Domain separation: what the key authenticates is a manifest.
const MANIFEST: &[u8] = b"frappe-operator backup manifest 1\0";

/// The key of a storage.
pub struct Key(Identity);

impl Key {
    /// The key in a directory, or None. Comments and empty lines are skipped, as age does.
    pub fn read(folder: &Path) -> Result<Option<Self>, Failure> {
        let Ok(text) = std::fs::read_to_string(folder.join(FILE_NAME)) else { return Ok(None) };
        let line = text.lines().map(str::trim).find(|it| !it.is_empty() && !it.starts_with('#')).unwrap_or_default();
        let wrong = |_| {
            let message =
                "identity in the Secret must be an age identity as written by age-keygen: AGE-SECRET-KEY-1…".to_owned();
            Failure { step: "key", code: Code::EncryptionKeyWrong, message }
        };
        line.parse().map(|it| Some(Self(it))).map_err(wrong)
    }

    /// Authentication code of a manifest.
    pub fn authentication(&self, manifest: &[u8]) -> String {
        let mut context = hmac::Context::with_key(&self.of_manifests());
        context.update(MANIFEST);
        context.update(manifest);
        STANDARD.encode(context.sign())
    }

    /// Whether a manifest is authentic for this key.
    pub fn authenticates(&self, manifest: &[u8], authentication: &str) -> bool {
        let Ok(tag) = STANDARD.decode(authentication) else { return false };
        hmac::verify(&self.of_manifests(), &[MANIFEST, manifest].concat(), &tag).is_ok()
    }

    fn of_manifests(&self) -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, self.0.to_string().expose_secret().as_bytes())
    }

    /// Encrypts a file into another.
    pub fn encrypt(&self, from: &Path, to: &Path) -> Result<(), Failure> {
        let recipient = self.0.to_public();
        let write = || -> io::Result<()> {
            let encryptor =
                Encryptor::with_recipients(iter::once(&recipient as &dyn age::Recipient)).map_err(io::Error::other)?;
            let mut output = encryptor.wrap_output(BufWriter::with_capacity(BUFFER_BYTES, staging::create(to)?))?;
            io::copy(&mut BufReader::with_capacity(BUFFER_BYTES, staging::open(from)?), &mut output)?;
            output.finish()?.flush()
        };
        write().map_err(|error| Failure::of_disk("encrypt", to, &error))
    }

    /// Decrypts a file into `sink`.
    pub fn decrypt(&self, from: &Path, mut sink: impl FnMut(&[u8]) -> Result<(), Failure>) -> Result<(), Failure> {
        let file = staging::open(from).map_err(|error| Failure::of_disk("decrypt", from, &error))?;
        let refused = |error: age::DecryptError| {
            let message = format!("the backup cannot be decrypted with the storage's key: {error}");
            Failure { step: "decrypt", code: Code::EncryptionKeyWrong, message }
        };
        let decryptor = Decryptor::new_buffered(BufReader::with_capacity(BUFFER_BYTES, file)).map_err(refused)?;
        let mut plain = decryptor.decrypt(iter::once(&self.0 as &dyn age::Identity)).map_err(refused)?;
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            match plain.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(length) => sink(&buffer[..length])?,
                Err(error) => return Err(Failure::broken("decrypt", format!("{}: {error}", from.display()))),
            }
        }
    }
}

/// Failure: the backup is encrypted, but there is no key.
pub fn missing() -> Failure {
    let message = "the backup is encrypted: set storage.encryptionKeySecretRef to the Secret with its key".to_owned();
    Failure { step: "decrypt", code: Code::EncryptionKeyMissing, message }
}
