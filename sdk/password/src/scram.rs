//! SCRAM-SHA-256 verifiers (RFC 5802, RFC 7677) in the form that PostgreSQL stores, so that a
//! password is set without ever being sent.

use std::num::NonZeroU32;

use aws_lc_rs::{digest, hmac, pbkdf2};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rand::Rng as _;
use secrecy::{ExposeSecret as _, SecretString};
use zeroize::Zeroizing;

/// The most iterations that a plugin or a caller can ask for. More would keep a processor busy for seconds.
pub const MAX_ITERATIONS: u32 = 1_000_000;

/// Bytes of salt, as PostgreSQL itself uses.
const SALT: usize = 16;

/// Why there is no verifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ScramError {
    /// RFC 4013 would have to normalise it, and servers differ when a text cannot be normalised.
    #[error("a password for SCRAM must have printable ASCII characters only")]
    NotAscii,
}

/// A verifier with a new random salt. Takes some 0.15 µs per iteration. Iterations are kept within
/// `1..=`[`MAX_ITERATIONS`].
///
/// # Errors
/// When the password has characters that would need normalising.
pub fn verifier(password: &SecretString, iterations: u32) -> Result<Zeroizing<String>, ScramError> {
    let mut salt = [0_u8; SALT];
    rand::rng().fill_bytes(&mut salt);
    with_salt(password, iterations, &salt)
}

fn with_salt(password: &SecretString, iterations: u32, salt: &[u8]) -> Result<Zeroizing<String>, ScramError> {
    let password = password.expose_secret();
    if password.is_empty() || !password.bytes().all(|b| (0x20..0x7f).contains(&b)) {
        return Err(ScramError::NotAscii);
    }
    Ok(unchecked(password, iterations, salt))
}

/// Of any password, also of one that no server takes.
pub(crate) fn unchecked(password: &str, iterations: u32, salt: &[u8]) -> Zeroizing<String> {
    let iterations = NonZeroU32::new(iterations.min(MAX_ITERATIONS)).unwrap_or(NonZeroU32::MIN);
    let mut salted = Zeroizing::new([0_u8; 32]);
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, iterations, salt, password.as_bytes(), salted.as_mut_slice());
    let key = hmac::Key::new(hmac::HMAC_SHA256, salted.as_slice());
    let client_key = hmac::sign(&key, b"Client Key");
    let stored_key = digest::digest(&digest::SHA256, client_key.as_ref());
    let server_key = hmac::sign(&key, b"Server Key");
    Zeroizing::new(format!(
        "SCRAM-SHA-256${iterations}:{}${}:{}",
        STANDARD.encode(salt),
        STANDARD.encode(stored_key),
        STANDARD.encode(server_key)
    ))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    /// RFC 7677, section 3: user `user`, password `pencil`. The RFC gives the proof and the
    /// server's signature of an exchange; both are recomputed here from the verifier alone.
    #[test]
    fn the_exchange_of_rfc_7677_holds_with_our_verifier() {
        let salt = STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        let verifier = with_salt(&SecretString::from("pencil"), 4_096, &salt).unwrap();
        let rest = verifier.strip_prefix("SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$").unwrap();
        let (stored, server) = rest.split_once(':').unwrap();
        let (stored, server) = (STANDARD.decode(stored).unwrap(), STANDARD.decode(server).unwrap());

        let exchange = "n=user,r=rOprNGfwEbeRWgbNEkqO,\
            r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,\
            c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
        let sign = |key: &[u8]| hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), exchange.as_bytes());
        assert_eq!(STANDARD.encode(sign(&server)), "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");

        // The client's key is its proof xor its signature; the server compares the key's hash.
        let proof = STANDARD.decode("dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=").unwrap();
        let client_key: Vec<u8> = proof.iter().zip(sign(&stored).as_ref()).map(|(p, s)| p ^ s).collect();
        assert_eq!(digest::digest(&digest::SHA256, &client_key).as_ref(), stored);
    }

    #[test]
    fn salts_differ_and_iterations_stay_in_range() {
        let password = SecretString::from("correct horse");
        assert_ne!(*verifier(&password, 1).unwrap(), *verifier(&password, 1).unwrap());
        assert!(verifier(&password, 0).unwrap().starts_with("SCRAM-SHA-256$1:"));
        for odd in ["", "größe", "a\nb", "a\0"] {
            assert_eq!(verifier(&SecretString::from(odd), 1), Err(ScramError::NotAscii), "{odd:?}");
        }
    }
}
