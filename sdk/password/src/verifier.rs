//! A verifier that a caller made, after its checks.

use std::fmt;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{self, Algorithm, SHA1_FOR_LEGACY_USE_ONLY, SHA512};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jit_contract::VerifierKind;
use rand::Rng as _;
use secrecy::{ExposeSecret as _, SecretString};
use zeroize::Zeroizing;

use crate::{mysql, salted, scram};

/// The longest verifier as text, in bytes.
pub const MAX_TEXT: usize = 512;
/// The least and most bytes of a salt that the caller chose, where the kind does not fix its length.
const SALT: std::ops::RangeInclusive<usize> = 16..=64;
/// The least iterations of SCRAM-SHA-256, as RFC 7677 asks: the broker does not know how good the password is.
const LEAST_SCRAM: u32 = 4_096;
/// The most rounds of `caching_sha2`. The server computes them at a login, so this is some 30 ms of its time.
const MOST_CACHING_SHA2: u32 = 100_000;
/// Bytes of a SHA-256 digest.
const SHA256_LENGTH: usize = 32;

/// The least iterations that the broker takes of this kind, whatever a target says; 0 where the kind has none.
#[must_use]
pub const fn least_iterations(kind: VerifierKind) -> u32 {
    match kind {
        VerifierKind::ScramSha256 => LEAST_SCRAM,
        VerifierKind::CachingSha2 => mysql::THOUSAND_ROUNDS as u32 * 1_000,
        VerifierKind::Ssha | VerifierKind::Ssha512 => 0,
    }
}

/// The most iterations that the broker takes of this kind; 0 where the kind has none. To check that a verifier is not
/// that of an empty password takes some 0.15 µs for each iteration of `scram_sha_256` and 0.3 µs for each round of
/// `caching_sha2`.
#[must_use]
pub const fn most_iterations(kind: VerifierKind) -> u32 {
    match kind {
        VerifierKind::ScramSha256 => scram::MAX_ITERATIONS,
        VerifierKind::CachingSha2 => MOST_CACHING_SHA2,
        VerifierKind::Ssha | VerifierKind::Ssha512 => 0,
    }
}

/// Why a verifier is not taken. The text says which rule it breaks, and nothing of the verifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WeakVerifier {
    /// It does not have the kind's form.
    #[error("the verifier is not of the form {}", form(*.0))]
    Form(VerifierKind),
    /// Too few or too many iterations.
    #[error("the verifier must have {least} to {most} iterations")]
    Iterations {
        /// The least that the target takes.
        least: u32,
        /// The most that the broker takes.
        most: u32,
    },
    /// The salt is too short or too long.
    #[error("the verifier's salt must have {} to {} bytes", SALT.start(), SALT.end())]
    Salt,
    /// A character of a salt that servers do not all read alike.
    #[error("the verifier's salt must have 20 printable ASCII characters without $, quotes and backslashes")]
    SaltCharacters,
    /// The keys or the digest are too short or too long.
    #[error("the verifier's keys or digest do not have the length of its kind")]
    Keys,
    /// It verifies an empty password.
    #[error("the verifier is that of an empty password")]
    Empty,
    /// It was used for another lease.
    #[error("this verifier was used before: make a new password, with a new salt, for each lease")]
    Used,
}

/// Why no verifier can be made of a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unmade {
    /// SCRAM takes printable ASCII only here.
    #[error(transparent)]
    Scram(#[from] scram::ScramError),
    /// More or fewer iterations than are taken of that kind.
    #[error("{kind} takes {} to {} iterations, not {iterations}", least_iterations(*.kind), most_iterations(*.kind))]
    Iterations {
        /// The kind.
        kind: VerifierKind,
        /// What was asked for.
        iterations: u32,
    },
}

/// How each kind is written in the API.
const fn form(kind: VerifierKind) -> &'static str {
    match kind {
        VerifierKind::ScramSha256 => {
            "SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>, with salt and keys in base64"
        }
        VerifierKind::CachingSha2 => {
            "$A$<rounds in thousands, 3 hexadecimal digits>$<salt><digest>, all 70 bytes in hexadecimal as CREATE USER \
             … AS 0x… takes them, without 0x"
        }
        VerifierKind::Ssha => "{SSHA}<digest and salt in base64>",
        VerifierKind::Ssha512 => "{SSHA512}<digest and salt in base64>",
    }
}

/// What a server stores of a password. It has the form of its kind, and its salt and keys have their lengths; whether
/// it has enough iterations for a target, and is not that of an empty password, are checks of their own.
#[derive(Clone)]
pub struct Verifier {
    kind: VerifierKind,
    /// As the server stores it.
    stored: SecretString,
    iterations: u32,
    salt: Zeroizing<Vec<u8>>,
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier").field("kind", &self.kind).finish_non_exhaustive()
    }
}

impl Verifier {
    /// Reads a verifier as the API has it.
    ///
    /// # Errors
    /// [`WeakVerifier`] says which rule it breaks.
    pub fn parse(kind: VerifierKind, text: &SecretString) -> Result<Self, WeakVerifier> {
        let text = text.expose_secret();
        if text.len() > MAX_TEXT || !text.is_ascii() {
            return Err(WeakVerifier::Form(kind));
        }
        match kind {
            VerifierKind::ScramSha256 => parse_scram(text),
            VerifierKind::CachingSha2 => parse_caching_sha2(text),
            VerifierKind::Ssha => parse_salted(kind, text, salted::SSHA, &SHA1_FOR_LEGACY_USE_ONLY),
            VerifierKind::Ssha512 => parse_salted(kind, text, salted::SSHA512, &SHA512),
        }
    }

    /// The verifier of a password, with a new random salt. `iterations` counts where the kind has any.
    ///
    /// # Errors
    /// [`Unmade`] when the kind does not take the password or the iterations.
    pub fn of(kind: VerifierKind, password: &SecretString, iterations: u32) -> Result<Self, Unmade> {
        let in_range = (least_iterations(kind)..=most_iterations(kind)).contains(&iterations);
        let too_odd = kind == VerifierKind::CachingSha2 && !iterations.is_multiple_of(1_000);
        if most_iterations(kind) > 0 && (!in_range || too_odd) {
            return Err(Unmade::Iterations { kind, iterations });
        }
        let text = match kind {
            VerifierKind::ScramSha256 => scram::verifier(password, iterations)?,
            VerifierKind::CachingSha2 => {
                let stored = mysql::caching_sha2_of(password, iterations as usize / 1_000);
                Zeroizing::new(hex::encode(stored.as_bytes()))
            }
            VerifierKind::Ssha => salted::ssha(password),
            VerifierKind::Ssha512 => salted::ssha512(password),
        };
        let parsed = Self::parse(kind, &SecretString::from(text.as_str()));
        // What is made here has the form that is read here: the tests of each kind hold it.
        parsed.map_err(|_| Unmade::Iterations { kind, iterations })
    }

    /// The verifier of the empty password, which no server may let in: for tests that look what a server makes of it.
    /// None where the iterations are not taken of that kind.
    #[must_use]
    pub fn of_empty_password(kind: VerifierKind, iterations: u32) -> Option<Self> {
        let mut salt = [0; mysql::SALT];
        rand::rng().fill_bytes(&mut salt);
        salt.iter_mut().for_each(|byte| *byte = mysql::ALPHABET[usize::from(*byte) % mysql::ALPHABET.len()]);
        let text = match kind {
            VerifierKind::ScramSha256 => scram::unchecked("", iterations, &salt),
            VerifierKind::CachingSha2 => {
                let stored = mysql::caching_sha2_with("", &salt, iterations as usize / 1_000);
                Zeroizing::new(hex::encode(stored.as_bytes()))
            }
            VerifierKind::Ssha => salted::with_salt(salted::SSHA, &SHA1_FOR_LEGACY_USE_ONLY, "", &salt),
            VerifierKind::Ssha512 => salted::with_salt(salted::SSHA512, &SHA512, "", &salt),
        };
        let parsed = Self::parse(kind, &SecretString::from(text.as_str())).ok()?;
        parsed.check_iterations(0).is_ok().then_some(parsed)
    }

    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> VerifierKind {
        self.kind
    }

    /// Its iterations or rounds; 0 where its kind has none.
    #[must_use]
    pub fn iterations(&self) -> u32 {
        self.iterations
    }

    /// As the server stores it.
    #[must_use]
    pub fn stored(&self) -> &SecretString {
        &self.stored
    }

    /// As the API has it.
    #[must_use]
    pub fn text(&self) -> SecretString {
        match self.kind {
            VerifierKind::CachingSha2 => SecretString::from(hex::encode(self.stored.expose_secret())),
            _ => self.stored.clone(),
        }
    }

    /// Checks that it has at least `least` iterations, and no more than the broker takes of its kind.
    ///
    /// # Errors
    /// [`WeakVerifier::Iterations`].
    pub fn check_iterations(&self, least: u32) -> Result<(), WeakVerifier> {
        let (least, most) = (least.max(least_iterations(self.kind)), most_iterations(self.kind));
        let fits = most == 0 || (least..=most).contains(&self.iterations);
        if fits { Ok(()) } else { Err(WeakVerifier::Iterations { least, most }) }
    }

    /// It is not the verifier of an empty password. Takes as long as a login: see [`most_iterations`].
    ///
    /// # Errors
    /// [`WeakVerifier::Empty`].
    pub fn check_not_empty(&self) -> Result<(), WeakVerifier> {
        if self.verifies("") { Err(WeakVerifier::Empty) } else { Ok(()) }
    }

    /// Whether it is the verifier of that password. Takes as long as a login.
    #[must_use]
    pub fn verifies(&self, password: &str) -> bool {
        let computed = match self.kind {
            VerifierKind::ScramSha256 => scram::unchecked(password, self.iterations, &self.salt),
            VerifierKind::CachingSha2 => {
                let Ok(salt) = self.salt.as_slice().try_into() else { return false };
                mysql::caching_sha2_with(password, salt, self.iterations as usize / 1_000)
            }
            VerifierKind::Ssha => salted::with_salt(salted::SSHA, &SHA1_FOR_LEGACY_USE_ONLY, password, &self.salt),
            VerifierKind::Ssha512 => salted::with_salt(salted::SSHA512, &SHA512, password, &self.salt),
        };
        verify_slices_are_equal(computed.as_bytes(), self.stored.expose_secret().as_bytes()).is_ok()
    }

    /// A digest by which it is known again, in hexadecimal. Nobody finds the password with it, who does not have the
    /// salt.
    #[must_use]
    pub fn digest(&self) -> String {
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(b"jit-broker verifier\0");
        context.update(self.kind.as_str().as_bytes());
        context.update(b"\0");
        context.update(self.stored.expose_secret().as_bytes());
        hex::encode(context.finish())
    }
}

/// Base64 with padding, in its one canonical form.
fn base64(text: &str) -> Option<Zeroizing<Vec<u8>>> {
    STANDARD.decode(text).ok().map(Zeroizing::new)
}

/// A number as PostgreSQL writes it: no sign, no zero before it.
fn number(text: &str) -> Option<u32> {
    let plain = text.len() <= 9 && text.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('0');
    text.parse().ok().filter(|_| plain)
}

fn parse_scram(text: &str) -> Result<Verifier, WeakVerifier> {
    let kind = VerifierKind::ScramSha256;
    let parts = || {
        let (iterations, rest) = text.strip_prefix("SCRAM-SHA-256$")?.split_once(':')?;
        let (salt, keys) = rest.split_once('$')?;
        let (stored, server) = keys.split_once(':')?;
        Some((number(iterations)?, base64(salt)?, base64(stored)?, base64(server)?))
    };
    let (iterations, salt, stored, server) = parts().ok_or(WeakVerifier::Form(kind))?;
    if !SALT.contains(&salt.len()) {
        return Err(WeakVerifier::Salt);
    }
    if stored.len() != SHA256_LENGTH || server.len() != SHA256_LENGTH {
        return Err(WeakVerifier::Keys);
    }
    Ok(Verifier { kind, stored: SecretString::from(text), iterations, salt })
}

fn parse_caching_sha2(text: &str) -> Result<Verifier, WeakVerifier> {
    let kind = VerifierKind::CachingSha2;
    let stored = hex::decode(text).map(Zeroizing::new).map_err(|_| WeakVerifier::Form(kind))?;
    let plain = std::str::from_utf8(&stored).map_err(|_| WeakVerifier::Form(kind))?;
    let parts = || {
        let (rounds, rest) = plain.strip_prefix("$A$")?.split_once('$')?;
        let canonical = rounds.len() == 3 && rounds.bytes().all(|b| matches!(b, b'0'..=b'9' | b'A'..=b'F'));
        let thousands = u32::from_str_radix(rounds, 16).ok().filter(|_| canonical)?;
        Some((thousands * 1_000, rest.split_at_checked(mysql::SALT)?))
    };
    let (iterations, (salt, digest)) = parts().ok_or(WeakVerifier::Form(kind))?;
    if !salt.bytes().all(|byte| matches!(byte, b'!'..=b'~') && !matches!(byte, b'$' | b'\'' | b'"' | b'\\' | b'`')) {
        return Err(WeakVerifier::SaltCharacters);
    }
    if !mysql::is_digest(digest) {
        return Err(WeakVerifier::Keys);
    }
    let salt = Zeroizing::new(salt.as_bytes().to_vec());
    Ok(Verifier { kind, stored: SecretString::from(plain), iterations, salt })
}

fn parse_salted(
    kind: VerifierKind,
    text: &str,
    scheme: &str,
    algorithm: &'static Algorithm,
) -> Result<Verifier, WeakVerifier> {
    let decoded = text.strip_prefix(scheme).and_then(base64).ok_or(WeakVerifier::Form(kind))?;
    let (_, salt) = decoded.split_at_checked(algorithm.output_len()).ok_or(WeakVerifier::Keys)?;
    if !SALT.contains(&salt.len()) {
        return Err(WeakVerifier::Salt);
    }
    let salt = Zeroizing::new(salt.to_vec());
    Ok(Verifier { kind, stored: SecretString::from(text), iterations: 0, salt })
}

#[cfg(test)]
#[path = "verifier_tests.rs"]
mod tests;
