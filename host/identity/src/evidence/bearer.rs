//! A bearer token before verification.

use std::sync::OnceLock;

use secrecy::{ExposeSecret as _, SecretString};

use super::preview::{Preview, read_preview};
use crate::rejected::Rejected;

/// The longest token that is looked at, in bytes.
pub const MAX_TOKEN: usize = 16 * 1024;

/// A bearer token as it came: nobody vouches for anything in it. Its text is wiped on drop and
/// never printed.
#[derive(Clone)]
pub struct Unverified {
    token: SecretString,
    /// Read at most once, however many methods look at it.
    preview: OnceLock<Result<Preview, Rejected>>,
}

impl std::fmt::Debug for Unverified {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Unverified([REDACTED])")
    }
}

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
            return Err(Rejected::too_large("token", MAX_TOKEN));
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
            return Err(Rejected::not_a_jwt("not three base64url parts"));
        }
        Ok(Self { token: SecretString::from(token), preview: OnceLock::new() })
    }

    /// The token's text, for the methods that verify it.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.token.expose_secret()
    }

    /// What the token says of itself, unverified: to choose what verifies it, and to refuse cheaply.
    ///
    /// # Errors
    /// [`Rejected`] when it is not a JWT that anybody could verify.
    pub fn preview(&self) -> Result<&Preview, Rejected> {
        self.preview.get_or_init(|| read_preview(self.expose().as_bytes())).as_ref().map_err(Rejected::clone)
    }
}
