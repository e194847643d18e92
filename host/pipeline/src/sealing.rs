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
//! accounts.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};

/// Bytes of a key.
const KEY: usize = 32;
/// Bytes of a key's id.
const ID: usize = 8;
/// Bytes of GCM's tag.
const TAG: usize = 16;
/// The envelope of this release.
const VERSION: u8 = 1;

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
    #[error("it is not a sealed secret that this release can read")]
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
    /// With keys as base64 text: the one that seals, and former ones that only unseal.
    ///
    /// # Errors
    /// The number of the text that is not a key of 32 bytes.
    pub fn from_texts(current: &SecretString, former: &[SecretString]) -> Result<Self, usize> {
        let key = |(index, text)| Key::from_text(text).ok_or(index);
        let former = former.iter().enumerate().map(|(index, text)| key((index + 1, text))).collect::<Result<_, _>>()?;
        Ok(Self { current: key((0, current))?, former })
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

    /// Whether an envelope names a key that is configured.
    #[must_use]
    pub fn knows(&self, envelope: &[u8]) -> bool {
        let keys = || std::iter::once(&self.current).chain(&self.former);
        parts(envelope).is_ok_and(|(id, _)| keys().any(|key| key.id == *id))
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
}
