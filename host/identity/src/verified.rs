//! A bearer token before and after verification: two types, so that one cannot pass for the other.

use std::collections::BTreeMap;

use jiff::Timestamp;
use jit_core::name::Principal;
use secrecy::{ExposeSecret as _, SecretString};

use super::rejected::Rejected;

/// The longest token that is looked at, in bytes.
pub const MAX_TOKEN: usize = 16 * 1024;

/// A bearer token as it came: nobody vouches for anything in it. Its text is wiped on drop and
/// never printed.
#[derive(Debug, Clone)]
pub struct Unverified(SecretString);

impl Unverified {
    /// From the value of an `Authorization` header: `Bearer <token>`, the scheme in any case.
    ///
    /// # Errors
    /// [`Rejected::Missing`] for another scheme, [`Rejected::TooLarge`] beyond [`MAX_TOKEN`],
    /// [`Rejected::Malformed`] when it is not three base64url parts.
    pub fn from_header(value: &str) -> Result<Self, Rejected> {
        let (scheme, token) = value.split_once(' ').ok_or(Rejected::Missing)?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(Rejected::Missing);
        }
        Self::from_token(token)
    }

    /// From the token alone.
    ///
    /// # Errors
    /// As [`Unverified::from_header`].
    pub fn from_token(token: &str) -> Result<Self, Rejected> {
        if token.len() > MAX_TOKEN {
            return Err(Rejected::TooLarge);
        }
        if token.is_empty() {
            return Err(Rejected::Missing);
        }
        let base64url = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        let mut parts = token.split('.');
        // An unsigned token has an empty third part; it is refused for its algorithm, so that the
        // log says what it was.
        let shape = match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(header), Some(claims), Some(signature), None) => {
                !header.is_empty()
                    && !claims.is_empty()
                    && [header, claims, signature].iter().all(|part| part.bytes().all(base64url))
            }
            _ => false,
        };
        if !shape {
            return Err(Rejected::Malformed("not three base64url parts"));
        }
        Ok(Self(SecretString::from(token)))
    }

    /// The token's text, for the verifiers.
    pub(crate) fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

/// That a verifier of this module checked the token: nobody else can make one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Proof(());

impl Proof {
    /// To be called where the last check of a token has passed, and nowhere else.
    pub(crate) fn of_verification() -> Self {
        Self(())
    }
}

/// A caller whose identity was verified. Can only be made by the verifiers of
/// this crate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// Who: the issuer's configured name, the workload's name there, and the token's `sub`, which is
    /// never empty, at most 1 KiB, and printable.
    pub principal: Principal,
    /// What policies see of the claims: by configured name, at most 64 of at most 1 KiB each.
    pub attributes: BTreeMap<String, String>,
    /// The token's `exp`. The token may be accepted for the configured leeway beyond it.
    pub expires_at: Timestamp,
    /// Not public: what makes this type unforgeable outside of this module.
    pub(crate) proof: Proof,
}

impl Verified {
    /// The bytes of text that came from the token, roughly.
    pub(crate) fn mapped_bytes(&self) -> usize {
        let attributes: usize = self.attributes.iter().map(|(k, v)| k.len() + v.len()).sum();
        self.principal.workload.len() + self.principal.subject.len() + attributes
    }
}
