//! Encryption at rest, in the format of age (age-encryption.org/v1): a part can be opened with `age --decrypt` and the key
//! alone, without this operator.

use std::{
    fs::File,
    io::{self, BufReader, BufWriter, Read, Write as _},
    iter,
    path::Path,
};

use age::{Decryptor, Encryptor, x25519::Identity};

use super::report::Failure;

/// File with the key, an X25519 identity as `age-keygen` writes it.
pub const FILE_NAME: &str = "identity";
/// What the name of an encrypted file ends with.
pub const SUFFIX: &str = ".age";
/// Bytes that are copied at once.
const BUFFER_BYTES: usize = 1 << 20;

/// The key of a storage.
pub struct Key(Identity);

impl Key {
    /// The key in a folder, or nothing where there is none. Comments and empty lines are passed over, as age does.
    pub fn read(folder: &Path) -> Result<Option<Self>, Failure> {
        let Ok(text) = std::fs::read_to_string(folder.join(FILE_NAME)) else { return Ok(None) };
        let line = text.lines().map(str::trim).find(|it| !it.is_empty() && !it.starts_with('#')).unwrap_or_default();
        let wrong = |_| {
            let message = "the Secret's key identity is none that age-keygen writes: AGE-SECRET-KEY-1…".to_owned();
            Failure { step: "key", word: "EncryptionKeyWrong", message }
        };
        line.parse().map(|it| Some(Self(it))).map_err(wrong)
    }

    /// Encrypts a file into another.
    pub fn encrypt(&self, from: &Path, to: &Path) -> Result<(), Failure> {
        let recipient = self.0.to_public();
        let write = || -> io::Result<()> {
            let encryptor =
                Encryptor::with_recipients(iter::once(&recipient as &dyn age::Recipient)).map_err(io::Error::other)?;
            let mut output = encryptor.wrap_output(BufWriter::with_capacity(BUFFER_BYTES, File::create(to)?))?;
            io::copy(&mut BufReader::with_capacity(BUFFER_BYTES, File::open(from)?), &mut output)?;
            output.finish()?.flush()
        };
        write().map_err(|error| Failure::of_disk("encrypt", to, &error))
    }

    /// Decrypts a file into `sink`.
    pub fn decrypt(&self, from: &Path, mut sink: impl FnMut(&[u8]) -> Result<(), Failure>) -> Result<(), Failure> {
        let file = File::open(from).map_err(|error| Failure::of_disk("decrypt", from, &error))?;
        let refused = |error: age::DecryptError| {
            let message = format!("the backup cannot be opened with the storage's key: {error}");
            Failure { step: "decrypt", word: "EncryptionKeyWrong", message }
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

/// The backup is encrypted, and no key was given.
pub fn missing() -> Failure {
    let message = "the backup is encrypted: set storage.encryptionKeySecretRef to the Secret with its key".to_owned();
    Failure { step: "decrypt", word: "EncryptionKeyMissing", message }
}
