//! Sealed secrets: what the store may hold of a password is unreadable without a key from outside
//! of the store (NO-STORED-SECRET).
//!
//! AES-256-GCM with a random nonce for each sealing. What a secret is for (purpose, names, number)
//! is authenticated with it: a sealed secret that somebody moves to another place in the store, or
//! sets back to an older one of another number, cannot be unsealed there.
//!
//! ```text
//! envelope = version (1 byte, 1) ‖ key id (8 bytes) ‖ nonce (12 bytes) ‖ ciphertext ‖ tag (16 bytes)
//! key id   = the first 8 bytes of SHA-256 of the key
//! ```
//! A new key seals; former ones only unseal, until everything was written anew.
//!
//! Trusted with: who has the key and a copy of the store has the current passwords of rotating
//! accounts. So the key's file is refused when anybody but its owner may read it.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};

use jit_config::{SecretError, SecretRef};

/// Bytes of a key.
const KEY: usize = 32;
/// Bytes of a key's id.
const ID: usize = 8;
/// Bytes of GCM's tag.
const TAG: usize = 16;
/// The envelope of this release.
const VERSION: u8 = 1;
/// The longest key file, in bytes.
const MAX_FILE: u64 = 4 * 1024;

/// Why there is no key to seal with.
#[derive(Debug, thiserror::Error)]
pub enum SealingKeyError {
    /// There is none.
    #[error("there is no sealing key at {}; `jit-broker store key {}` makes one", .0.display(), .0.display())]
    Missing(PathBuf),
    /// The file system said no.
    #[error("the sealing key {}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// Others may read it.
    #[error(
        "the sealing key {} may be read or written by others (mode {mode:04o}): \
         use `chmod 600`, and a new key if others had access", path.display()
    )]
    Exposed {
        /// Which file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// It cannot be had from where the configuration says.
    #[error("the sealing key")]
    Secret(#[from] SecretError),
    /// It is not a key.
    #[error("{0} is no sealing key: it has to be 32 bytes as base64 text, as `jit-broker store key` makes it")]
    Content(String),
}

/// Why something cannot be unsealed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnsealError {
    /// It was sealed with a key that is not configured.
    #[error("it was sealed with the key {0}, which is neither sealing_key nor among former_sealing_keys")]
    UnknownKey(String),
    /// It is not what was sealed for this place.
    #[error("it was changed, or sealed for another place")]
    Altered,
    /// Of a later release, or no envelope at all.
    #[error("it is no sealed secret that this release knows")]
    Unreadable,
}

/// Sealing failed, which the cryptographic library does for no reason that can be mended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a secret cannot be sealed")]
pub struct SealError;

/// What a secret is for: unsealed for anything else, it is refused.
#[derive(Debug, Clone, Copy)]
pub struct Label<'a> {
    /// What kind of secret.
    pub purpose: &'static str,
    /// Whose.
    pub names: &'a [&'a str],
    /// Which one of them.
    pub number: u64,
}

impl Label<'_> {
    /// Each part with its length, so that no two labels are the same bytes.
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        for part in std::iter::once(&self.purpose).chain(self.names) {
            bytes.extend((part.len() as u64).to_be_bytes());
            bytes.extend(part.as_bytes());
        }
        bytes.extend(self.number.to_be_bytes());
        bytes
    }
}

struct Key {
    id: [u8; ID],
    aead: RandomizedNonceKey,
}

impl Key {
    fn new(bytes: &[u8; KEY]) -> Option<Self> {
        let mut id = [0; ID];
        id.copy_from_slice(&Sha256::digest(bytes)[..ID]);
        Some(Self { id, aead: RandomizedNonceKey::new(&AES_256_GCM, bytes).ok()? })
    }

    fn from_text(text: &SecretString) -> Option<Self> {
        // More room than a key needs: the decoder wants whole groups, and a longer text is no key.
        let mut decoded = Zeroizing::new([0_u8; KEY + 4]);
        let length = STANDARD.decode_slice(text.expose_secret().trim(), decoded.as_mut_slice()).ok()?;
        Self::new(decoded[..length].try_into().ok()?)
    }
}

/// Seals and unseals.
pub struct Sealer {
    current: Key,
    former: Vec<Key>,
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealer").field("key", &self.key_id()).finish_non_exhaustive()
    }
}

impl Sealer {
    /// With the keys from where the configuration says. Waits for the disk.
    ///
    /// # Errors
    /// [`SealingKeyError`], without any of a key.
    pub fn load(current: &SecretRef, former: &[SecretRef]) -> Result<Self, SealingKeyError> {
        let former = former.iter().map(load).collect::<Result<_, _>>()?;
        Ok(Self { current: load(current)?, former })
    }

    /// With a key of 32 bytes.
    ///
    /// # Errors
    /// [`SealError`] when the library refuses it.
    pub fn new(key: &[u8; 32]) -> Result<Self, SealError> {
        Ok(Self { current: Key::new(key).ok_or(SealError)?, former: Vec::new() })
    }

    /// The same, which unseals with that key of 32 bytes too.
    ///
    /// # Errors
    /// [`SealError`] when the library refuses it.
    pub fn with_former(mut self, key: &[u8; 32]) -> Result<Self, SealError> {
        self.former.push(Key::new(key).ok_or(SealError)?);
        Ok(self)
    }

    /// The id of the key that seals, in hexadecimal.
    #[must_use]
    pub fn key_id(&self) -> String {
        hex::encode(self.current.id)
    }

    /// Seals a text.
    ///
    /// # Errors
    /// [`SealError`].
    pub fn seal(&self, label: Label<'_>, secret: &SecretString) -> Result<Vec<u8>, SealError> {
        let plain = secret.expose_secret().as_bytes();
        // Its final size at once, so that no copy stays behind in memory when it grows.
        let mut sealed = Zeroizing::new(Vec::with_capacity(plain.len() + TAG));
        sealed.extend_from_slice(plain);
        let aad = Aad::from(label.bytes());
        let nonce = self.current.aead.seal_in_place_append_tag(aad, &mut *sealed).map_err(|_| SealError)?;
        let mut envelope = Vec::with_capacity(1 + ID + NONCE_LEN + sealed.len());
        envelope.push(VERSION);
        envelope.extend(self.current.id);
        envelope.extend(nonce.as_ref());
        envelope.extend(sealed.iter());
        Ok(envelope)
    }

    /// Unseals a text that was sealed for the same label.
    ///
    /// # Errors
    /// [`UnsealError`].
    pub fn unseal(&self, label: Label<'_>, envelope: &[u8]) -> Result<SecretString, UnsealError> {
        let (id, rest) = parts(envelope)?;
        let key = std::iter::once(&self.current).chain(&self.former).find(|key| key.id == *id);
        let key = key.ok_or_else(|| UnsealError::UnknownKey(hex::encode(id)))?;
        let (nonce, sealed) = rest.split_at_checked(NONCE_LEN).ok_or(UnsealError::Unreadable)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| UnsealError::Unreadable)?;
        let mut buffer = Zeroizing::new(sealed.to_vec());
        let aad = Aad::from(label.bytes());
        let plain = key.aead.open_in_place(nonce, aad, &mut buffer).map_err(|_| UnsealError::Altered)?;
        let text = std::str::from_utf8(plain).map_err(|_| UnsealError::Unreadable)?;
        Ok(SecretString::from(text))
    }

    /// Whether an envelope was sealed with a former key: it is to be sealed anew when it is written.
    #[must_use]
    pub fn is_former(&self, envelope: &[u8]) -> bool {
        parts(envelope).is_ok_and(|(id, _)| *id != self.current.id)
    }
}

/// An envelope's key id, and what follows it.
fn parts(envelope: &[u8]) -> Result<(&[u8; ID], &[u8]), UnsealError> {
    match envelope.split_first() {
        Some((&VERSION, rest)) => rest.split_first_chunk::<ID>().ok_or(UnsealError::Unreadable),
        _ => Err(UnsealError::Unreadable),
    }
}

fn load(place: &SecretRef) -> Result<Key, SealingKeyError> {
    let text = match place {
        SecretRef::File(path) => read_private(path)?,
        SecretRef::Env(_) => place.resolve()?,
    };
    Key::from_text(&text).ok_or_else(|| SealingKeyError::Content(place.to_string()))
}

fn failed(path: &Path) -> impl Fn(io::Error) -> SealingKeyError {
    let path = path.to_owned();
    move |source| match source.kind() {
        io::ErrorKind::NotFound => SealingKeyError::Missing(path.clone()),
        _ => SealingKeyError::File { path: path.clone(), source },
    }
}

fn read_private(path: &Path) -> Result<SecretString, SealingKeyError> {
    let refused = |why: &str| SealingKeyError::File { path: path.to_owned(), source: io::Error::other(why.to_owned()) };
    // Asked before opening: opening a pipe waits for its writer.
    if !std::fs::metadata(path).map_err(failed(path))?.is_file() {
        return Err(refused("not a regular file"));
    }
    let file = File::open(path).map_err(failed(path))?;
    // Of the open file, not of the path: nobody can swap it in between.
    let metadata = file.metadata().map_err(failed(path))?;
    if !metadata.is_file() {
        return Err(refused("not a regular file"));
    }
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(SealingKeyError::Exposed { path: path.to_owned(), mode });
    }
    let mut text = Zeroizing::new(String::with_capacity(MAX_FILE as usize));
    match file.take(MAX_FILE).read_to_string(&mut text) {
        Ok(_) => Ok(SecretString::from(text.as_str())),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            Err(SealingKeyError::Content(format!("{}", path.display())))
        }
        Err(error) => Err(failed(path)(error)),
    }
}

/// Makes a key and its file (0600), whose folder exists. It never replaces one.
///
/// # Errors
/// [`SealingKeyError::File`], also when there is one already.
pub fn generate(path: &Path) -> Result<(), SealingKeyError> {
    use rand::Rng as _;
    let mut key = Zeroizing::new([0_u8; KEY]);
    rand::rng().fill_bytes(key.as_mut_slice());
    let mut text = Zeroizing::new(STANDARD.encode(key.as_slice()));
    text.push('\n');
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}.new", std::process::id()));
    let beside = PathBuf::from(beside);
    let write = || -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        // Linked, not renamed: fails where a key is, and a half-written one is never seen.
        std::fs::hard_link(&beside, path)?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(folder)?.sync_all()
    };
    let written = write();
    let _left_behind = std::fs::remove_file(&beside);
    written.map_err(|source| SealingKeyError::File { path: path.to_owned(), source })
}

/// The sealer of a configuration: none where it names no key. Waits for the disk.
///
/// # Errors
/// [`SealingKeyError`].
pub fn of_config(store: &jit_config::Store) -> Result<Option<Sealer>, SealingKeyError> {
    store.sealing_key.as_ref().map(|key| Sealer::load(key, &store.former_sealing_keys)).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LABEL: Label<'static> = Label { purpose: "rotation", names: &["shop", "app_user"], number: 3 };

    fn sealer() -> Sealer {
        Sealer::new(&[7; 32]).unwrap()
    }

    fn password() -> SecretString {
        SecretString::from("correct-horse")
    }

    #[test]
    fn what_is_sealed_is_unsealed_for_the_same_place_only() {
        let sealed = sealer().seal(LABEL, &password()).unwrap();
        assert!(!sealed.windows(13).any(|bytes| bytes == b"correct-horse"));
        assert_eq!(sealer().unseal(LABEL, &sealed).unwrap().expose_secret(), "correct-horse");
        for other in [
            Label { purpose: "session", ..LABEL },
            Label { number: 2, ..LABEL },
            Label { names: &["shop", "app_use"], ..LABEL },
            Label { names: &["shopapp_user"], ..LABEL },
            Label { names: &["shop", "app", "_user"], ..LABEL },
        ] {
            assert_eq!(sealer().unseal(other, &sealed).unwrap_err(), UnsealError::Altered, "{other:?}");
        }
    }

    #[test]
    fn each_sealing_is_another() {
        assert_ne!(sealer().seal(LABEL, &password()).unwrap(), sealer().seal(LABEL, &password()).unwrap());
    }

    #[test]
    fn no_changed_byte_goes_unseen() {
        let sealed = sealer().seal(LABEL, &password()).unwrap();
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert!(sealer().unseal(LABEL, &changed).is_err(), "byte {at}");
            assert!(sealer().unseal(LABEL, &sealed[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn a_former_key_unseals_and_a_lost_one_is_named() {
        let sealed = sealer().seal(LABEL, &password()).unwrap();
        let new = Sealer::new(&[8; 32]).unwrap();
        assert_eq!(new.unseal(LABEL, &sealed).unwrap_err(), UnsealError::UnknownKey(sealer().key_id()));
        let both = new.with_former(&[7; 32]).unwrap();
        assert_eq!(both.unseal(LABEL, &sealed).unwrap().expose_secret(), "correct-horse");
        assert!(both.is_former(&sealed));
        assert!(!both.is_former(&both.seal(LABEL, &password()).unwrap()));
    }

    #[test]
    fn a_key_is_made_once_and_only_for_its_owner() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sealing.key");
        let place = SecretRef::File(path.clone());
        let missing = Sealer::load(&place, &[]).unwrap_err();
        assert!(missing.to_string().contains("jit-broker store key"), "{missing}");
        generate(&path).unwrap();
        let sealed = Sealer::load(&place, &[]).unwrap().seal(LABEL, &password()).unwrap();
        assert!(generate(&path).is_err(), "it is not replaced");
        assert!(Sealer::load(&place, &[]).unwrap().unseal(LABEL, &sealed).is_ok());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        for mode in [0o640, 0o604, 0o620] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            assert!(matches!(Sealer::load(&place, &[]), Err(SealingKeyError::Exposed { .. })), "{mode:o}");
        }
    }

    #[test]
    fn what_is_no_key_is_refused_and_not_repeated() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sealing.key");
        let long = STANDARD.encode([1; 33]);
        let short = STANDARD.encode([1; 31]);
        for content in ["", "hunter2hunter2", &long, &short, &"x".repeat(10_000)] {
            std::fs::write(&path, content).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
            let error = Sealer::load(&SecretRef::File(path.clone()), &[]).unwrap_err();
            assert!(matches!(error, SealingKeyError::Content(_)), "{error:?}");
            assert!(!format!("{error:?}{error}").contains("hunter2"));
        }
        assert!(matches!(
            Sealer::load(&SecretRef::File(folder.path().to_owned()), &[]),
            Err(SealingKeyError::File { .. })
        ));
    }
}
