//! Secrets as HTTP APIs take them: HTTP Basic, other notations of the same bytes, and hashes.
//!
//! [`wanted`] lists what a request wants encoded, in the order in which [`mod@super::compose`] places it. [`encode`]
//! computes it: a stretched hash takes up to a second of processor time, on a thread for blocking work.

use std::num::NonZeroU32;

use aws_lc_rs::digest::{self, Context};
use aws_lc_rs::pbkdf2;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use rand::Rng as _;
use secrecy::{ExposeSecret as _, SecretBox, SecretString};
use tokio::sync::Semaphore;
use wasmtime::component::ResourceTable;
use zeroize::Zeroizing;

use super::compose::Unfit;
use crate::bindings::http::{Body, Part, Request};
use crate::bindings::secrets::{Bcrypt, BcryptPrefix, Digest, Encoding, Notation, Pbkdf2, SaltPlace, SaltedDigest};
use crate::capability::secrets::GuestSecret;
use crate::capability::secrets::{Home, foreign};

/// Most encoded secrets of a request, and how many of them may be stretched hashes.
const MAX_ENCODED: usize = 16;
const MAX_STRETCHED: usize = 2;

/// Bytes of salt of a stretched hash.
const SALT: usize = 16;

/// Bounds of what a driver may ask for: a second of processor time at most.
const BCRYPT_COST: std::ops::RangeInclusive<u8> = 4..=12;
const MAX_ITERATIONS: u32 = 1_000_000;

/// bcrypt reads no more of a secret, in bytes.
const MAX_BCRYPT_SECRET: usize = 72;

/// Stretched hashes that are computed at the same time, in the whole process. It leaves
/// processors for removals.
static STRETCHING: Semaphore = Semaphore::const_new(2);

/// A secret and how it is to be written.
pub(super) enum Wanted {
    /// `Basic ` and base64 of user and secret.
    Basic(String, SecretString),
    /// As the encoding says.
    Encoded(SecretString, Encoding),
}

/// What of a request is to be encoded, in the order of its headers and then of its body.
///
/// # Errors
/// [`Unfit`] when it is too much, and for a handle that is not the call's.
pub(super) fn wanted(request: &Request, handles: &ResourceTable) -> Result<Vec<Wanted>, Unfit> {
    let mut wanted = Vec::new();
    let mut stretched = 0;
    for part in parts(request) {
        let one = match part {
            Part::Text(_) | Part::Secret(_) => continue,
            Part::Basic((user, handle)) => Wanted::Basic(user.clone(), known(handles.get(handle)?)?),
            Part::Encoded((handle, encoding)) => {
                stretched += usize::from(is_stretched(*encoding));
                Wanted::Encoded(known(handles.get(handle)?)?, *encoding)
            }
        };
        if wanted.len() == MAX_ENCODED {
            return Err(Unfit::Denied(format!("more than {MAX_ENCODED} encoded secrets in one request")));
        }
        if stretched > MAX_STRETCHED {
            return Err(Unfit::Denied(format!("more than {MAX_STRETCHED} of bcrypt and pbkdf2 in one request")));
        }
        wanted.push(one);
    }
    Ok(wanted)
}

/// A secret that can be written.
fn known(secret: &GuestSecret) -> Result<SecretString, Unfit> {
    secret.password().cloned().map_err(Unfit::Denied)
}

/// The parts of headers and body, in the order in which they are placed.
fn parts(request: &Request) -> impl Iterator<Item = &Part> {
    let (fields, text): (&[_], &[_]) = match &request.body {
        Body::None => (&[], &[]),
        Body::Json(json) => (&json.secrets, &[]),
        Body::Form(fields) => (fields, &[]),
        Body::Text(parts) => (&[], parts),
    };
    request.headers.iter().chain(fields).flat_map(|field| &field.value).chain(text)
}

fn is_stretched(encoding: Encoding) -> bool {
    matches!(encoding, Encoding::Bcrypt(_) | Encoding::Pbkdf2(_))
}

/// The secrets as they are written.
///
/// # Errors
/// Why one cannot be, in words for the driver's author, with nothing of a secret in them.
pub(super) async fn encode(wanted: Vec<Wanted>) -> Result<Vec<SecretString>, String> {
    let mut encoded = Vec::with_capacity(wanted.len());
    for one in wanted {
        encoded.push(match one {
            Wanted::Basic(user, secret) => basic(&user, &secret)?,
            Wanted::Encoded(secret, encoding) if is_stretched(encoding) => {
                let slot = STRETCHING.acquire().await.map_err(|_| "the broker is shutting down".to_owned())?;
                // The thread keeps the slot: it goes on when the call is cut off.
                let computed = tokio::task::spawn_blocking(move || {
                    let _slot = slot;
                    written(&secret, encoding)
                });
                computed.await.map_err(|_| "the hash was not computed".to_owned())??
            }
            Wanted::Encoded(secret, encoding) => written(&secret, encoding)?,
        });
    }
    Ok(encoded)
}

/// The credentials of HTTP Basic (RFC 7617).
fn basic(user: &str, secret: &SecretString) -> Result<SecretString, String> {
    let secret = secret.expose_secret();
    if user.contains(':') {
        return Err("a user of HTTP Basic has no colon in its name".to_owned());
    }
    if user.chars().chain(secret.chars()).any(char::is_control) {
        return Err("user and secret of HTTP Basic have no control characters".to_owned());
    }
    let mut pair = Zeroizing::new(String::with_capacity(user.len() + 1 + secret.len()));
    pair.push_str(user);
    pair.push(':');
    pair.push_str(secret);
    let mut text = Zeroizing::new(String::with_capacity("Basic ".len() + 4 * pair.len().div_ceil(3)));
    text.push_str("Basic ");
    STANDARD.encode_string(pair.as_bytes(), &mut text);
    Ok(kept(&text))
}

/// A copy of exactly its size, which is wiped when it is dropped.
fn kept(text: &str) -> SecretString {
    SecretBox::new(Box::from(text))
}

fn written(secret: &SecretString, encoding: Encoding) -> Result<SecretString, String> {
    let bytes = secret.expose_secret().as_bytes();
    if bytes.is_empty() {
        return Err("the secret is empty".to_owned());
    }
    match encoding {
        Encoding::Plain => Ok(secret.clone()),
        Encoding::Written(notation) => Ok(noted(bytes, notation)),
        Encoding::Digest((digest, notation)) => Ok(noted(digest::digest(algorithm(digest), bytes).as_ref(), notation)),
        Encoding::SaltedDigest(form) => {
            let mut salt = vec![0; usize::from(form.salt_bytes)];
            rand::rng().fill_bytes(&mut salt);
            salted(bytes, form, &salt)
        }
        Encoding::Bcrypt(form) => bcrypt(bytes, form, random()),
        Encoding::Pbkdf2(form) => pbkdf2(bytes, form, &random()),
        other => Err(foreign(other, Home::Http)),
    }
}

fn random() -> [u8; SALT] {
    let mut salt = [0; SALT];
    rand::rng().fill_bytes(&mut salt);
    salt
}

fn algorithm(digest: Digest) -> &'static digest::Algorithm {
    match digest {
        Digest::Sha1 => &digest::SHA1_FOR_LEGACY_USE_ONLY,
        Digest::Sha256 => &digest::SHA256,
        Digest::Sha384 => &digest::SHA384,
        Digest::Sha512 => &digest::SHA512,
    }
}

fn noted(bytes: &[u8], notation: Notation) -> SecretString {
    let text = Zeroizing::new(match notation {
        Notation::Hex => hex::encode(bytes),
        Notation::Base64 => STANDARD.encode(bytes),
        Notation::Base64url => URL_SAFE_NO_PAD.encode(bytes),
    });
    kept(&text)
}

fn salted(secret: &[u8], form: SaltedDigest, salt: &[u8]) -> Result<SecretString, String> {
    if !(4..=64).contains(&form.salt_bytes) {
        return Err("a salt has 4 to 64 bytes".to_owned());
    }
    let mut context = Context::new(algorithm(form.digest));
    let [first, second] = match form.salt_place {
        SaltPlace::Before => [salt, secret],
        SaltPlace::After => [secret, salt],
    };
    context.update(first);
    context.update(second);
    let sum = context.finish();
    let [first, second] = match form.salt_place {
        SaltPlace::Before => [salt, sum.as_ref()],
        SaltPlace::After => [sum.as_ref(), salt],
    };
    Ok(noted(&[first, second].concat(), form.notation))
}

fn bcrypt(secret: &[u8], form: Bcrypt, salt: [u8; SALT]) -> Result<SecretString, String> {
    if !BCRYPT_COST.contains(&form.cost) {
        return Err(format!("a cost of bcrypt is {} to {}", BCRYPT_COST.start(), BCRYPT_COST.end()));
    }
    if secret.len() > MAX_BCRYPT_SECRET || secret.contains(&0) {
        return Err(format!("bcrypt takes secrets of at most {MAX_BCRYPT_SECRET} bytes, none of them zero"));
    }
    let hash = bcrypt::hash_with_salt(secret, u32::from(form.cost), salt)
        .map_err(|_| "the hash was not computed".to_owned())?;
    Ok(kept(&hash.format_for_version(match form.prefix {
        BcryptPrefix::TwoA => bcrypt::Version::TwoA,
        BcryptPrefix::TwoB => bcrypt::Version::TwoB,
        BcryptPrefix::TwoY => bcrypt::Version::TwoY,
    })))
}

fn pbkdf2(secret: &[u8], form: Pbkdf2, salt: &[u8]) -> Result<SecretString, String> {
    let iterations = NonZeroU32::new(form.iterations).filter(|iterations| iterations.get() <= MAX_ITERATIONS);
    let iterations = iterations.ok_or_else(|| format!("pbkdf2 has 1 to {MAX_ITERATIONS} iterations"))?;
    let (algorithm, name, length) = match form.digest {
        Digest::Sha1 => return Err("pbkdf2 is not offered with sha1".to_owned()),
        Digest::Sha256 => (pbkdf2::PBKDF2_HMAC_SHA256, "sha256", 32),
        Digest::Sha384 => (pbkdf2::PBKDF2_HMAC_SHA384, "sha384", 48),
        Digest::Sha512 => (pbkdf2::PBKDF2_HMAC_SHA512, "sha512", 64),
    };
    let mut key = Zeroizing::new(vec![0; length]);
    pbkdf2::derive(algorithm, iterations, salt, secret, &mut key);
    let (salt, key) = (STANDARD_NO_PAD.encode(salt), Zeroizing::new(STANDARD_NO_PAD.encode(&*key)));
    Ok(kept(&Zeroizing::new(format!("$pbkdf2-{name}$i={iterations},l={length}${salt}${}", *key))))
}

#[cfg(test)]
mod tests;
