//! Secrets as handles (BLIND-PLUGIN). A guest can pass one on to a host function; there is no
//! function that gives its bytes. Every capability that takes or makes secrets builds on this one.

use jit_contract::{VERIFIERS, VerifierKind, VerifierRule};
use jit_core::secret::{AccountSecret, Form, NewPassword};
use jit_password::Verifier;
use jit_password::scram::MAX_ITERATIONS;
use secrecy::{ExposeSecret as _, SecretString};
use wasmtime::component::{Linker, Resource};
use zeroize::Zeroizing;

use crate::bindings::secrets::{Digest, Encoding, Host, HostSecret, Notation, SaltPlace, SaltedDigest, add_to_linker};
use crate::capability::Capability;
use crate::declared::{Reading, Said, Undeclared};
use crate::fault::FaultKind;
use crate::meter::Track;
use crate::view::{HasView, View, ViewOf};

/// Registers it.
pub(crate) struct SecretsCapability;

impl Capability for SecretsCapability {
    fn link<T: HasView>(linker: &mut Linker<T>) -> wasmtime::Result<()> {
        add_to_linker::<T, ViewOf>(linker, T::view)
    }

    /// A list of verifiers that cannot be read is refused at load. The host that serves the driver reads it again.
    fn declare(said: &Said<'_>) -> Result<Option<Reading>, Undeclared> {
        said.property(VERIFIERS).map(VerifierRule::parse_all).transpose().map_err(Undeclared::Description)?;
        Ok(None)
    }
}

/// A secret in a call's table of handles.
#[derive(Debug)]
#[allow(unreachable_pub, reason = "the generated bindings re-export it")]
pub struct GuestSecret(AccountSecret);

impl<S: Into<AccountSecret>> From<S> for GuestSecret {
    fn from(secret: S) -> Self {
        Self(secret.into())
    }
}

impl GuestSecret {
    /// The secret itself, for what cannot be done with a verifier.
    ///
    /// # Errors
    /// In words for the driver's author, when the caller made the password and nobody here knows it.
    pub(crate) fn password(&self) -> Result<&SecretString, String> {
        match &self.0 {
            AccountSecret::Password(password) => Ok(password.text()),
            AccountSecret::Verifier(_) => Err(NOT_KNOWN.to_owned()),
        }
    }

    /// What is placed.
    pub(crate) fn account_secret(&self) -> &AccountSecret {
        &self.0
    }

    /// The secret itself, of a guest that gives its handle back.
    ///
    /// # Errors
    /// As [`Self::password`].
    pub(crate) fn into_password(self) -> Result<SecretString, String> {
        self.password().cloned()
    }
}

/// Why a verifier is not sent, tried or kept.
const NOT_KNOWN: &str = "the caller made this password and the broker does not know it";

/// A caller's verifier where a driver places the secret in that encoding. What does not fit is noted, so that the
/// caller hears what the target takes, whatever the driver makes of the refusal.
///
/// # Errors
/// In words fit for the caller, when the target stores something else.
pub(crate) fn place(
    verifier: &Verifier,
    encoding: Encoding,
    here: Home,
    track: &Track,
) -> Result<Zeroizing<String>, String> {
    // A directory takes one of the encodings that are HTTP's as well.
    let is_ours = |kind| Home::of(encoding) == Some(here) || (kind == VerifierKind::Ssha512 && here == Home::Ldap);
    let stored = stored_as(encoding).filter(|(kind, _)| is_ours(*kind));
    let refused = match stored {
        Some((kind, least)) if kind == verifier.kind() && least <= verifier.iterations() => {
            return Ok(Zeroizing::new(verifier.stored().expose_secret().to_owned()));
        }
        Some((kind, 0)) => format!("the target takes {kind}, not {}", verifier.kind()),
        Some((kind, least)) => format!("the target takes {kind} with {least} iterations or more"),
        None => "the target takes a password that the broker makes, and no verifier".to_owned(),
    };
    track.set_unfit(refused.clone());
    Err(refused)
}

/// What the server stores of the host's own password, where it was computed before the call; none where it has to be
/// computed now. What was placed in which form is noted, so that the next one can be ready.
pub(crate) fn ready(password: &NewPassword, encoding: Encoding, here: Home) -> Option<Zeroizing<String>> {
    let form = match encoding {
        _ if Home::of(encoding) != Some(here) => None,
        Encoding::ScramSha256(iterations) => {
            (1..=MAX_ITERATIONS).contains(&iterations).then_some(Form::ScramSha256 { iterations })
        }
        Encoding::CachingSha2 => Some(Form::CachingSha2),
        _ => None,
    };
    password.place_in(form?)
}

/// The kind of verifier that an encoding writes, and the iterations that it asks for; none where it writes no verifier
/// that callers may make.
fn stored_as(encoding: Encoding) -> Option<(VerifierKind, u32)> {
    match encoding {
        Encoding::ScramSha256(iterations) => Some((VerifierKind::ScramSha256, iterations)),
        Encoding::CachingSha2 => Some((VerifierKind::CachingSha2, 0)),
        Encoding::SaltedSha1 => Some((VerifierKind::Ssha, 0)),
        Encoding::SaltedDigest(form) if is_ssha512(form) => Some((VerifierKind::Ssha512, 0)),
        // It has no salt: two accounts with one password can be told by their hashes.
        Encoding::MysqlNative
        | Encoding::Plain
        | Encoding::Utf16leQuoted
        | Encoding::Written(_)
        | Encoding::Digest(_)
        | Encoding::SaltedDigest(_)
        | Encoding::Bcrypt(_)
        | Encoding::Pbkdf2(_) => None,
    }
}

/// Whether it is the digest of `{SSHA512}`, which a directory stores.
pub(crate) fn is_ssha512(form: SaltedDigest) -> bool {
    matches!(form.digest, Digest::Sha512)
        && matches!(form.salt_place, SaltPlace::After)
        && matches!(form.notation, Notation::Base64)
        && form.salt_bytes == 16
}

impl Host for View<'_> {}

impl HostSecret for View<'_> {
    fn drop(&mut self, secret: Resource<GuestSecret>) -> wasmtime::Result<()> {
        self.table.delete(secret)?;
        Ok(())
    }
}

/// Whose encodings a backend takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Home {
    Postgres,
    Mysql,
    Ldap,
    Http,
}

impl Home {
    /// Of an encoding; none of the one that all take.
    fn of(encoding: Encoding) -> Option<Self> {
        match encoding {
            Encoding::Plain => None,
            Encoding::ScramSha256(_) => Some(Self::Postgres),
            Encoding::CachingSha2 | Encoding::MysqlNative => Some(Self::Mysql),
            Encoding::Utf16leQuoted | Encoding::SaltedSha1 => Some(Self::Ldap),
            Encoding::Written(_)
            | Encoding::Digest(_)
            | Encoding::SaltedDigest(_)
            | Encoding::Bcrypt(_)
            | Encoding::Pbkdf2(_) => Some(Self::Http),
        }
    }

    fn capability(self) -> &'static str {
        match self {
            Self::Postgres | Self::Mysql => "SQL",
            Self::Ldap => "LDAP",
            Self::Http => "HTTP",
        }
    }

    fn server(self) -> &'static str {
        match self {
            Self::Postgres => "PostgreSQL",
            Self::Mysql => "MySQL",
            Self::Ldap | Self::Http => self.capability(),
        }
    }
}

/// Why a backend does not take an encoding that it does not know, in words for the driver's author.
pub(crate) fn foreign(encoding: Encoding, here: Home) -> String {
    match Home::of(encoding) {
        None => format!("an encoding that {} does not take", here.server()),
        Some(there) if there.capability() == here.capability() => {
            format!("an encoding of {}, not of {}", there.server(), here.server())
        }
        Some(there) => format!("an encoding of {}, not of {}", there.capability(), here.capability()),
    }
}

impl<S: ?Sized> View<'_, S> {
    /// Gives the guest a handle of a secret.
    ///
    /// # Errors
    /// When it holds too many already: the guest traps.
    pub(crate) fn hand_out(&mut self, secret: SecretString) -> wasmtime::Result<Resource<GuestSecret>> {
        self.table.push(GuestSecret::from(secret)).map_err(|error| {
            let limit = self.meter.limits.resources;
            self.meter.breach(FaultKind::Resources { limit });
            error.into()
        })
    }
}
