//! Secrets as handles (BLIND-PLUGIN). A guest can pass one on to a host function; there is no
//! function that gives its bytes. Every capability that takes or makes secrets builds on this one.

use secrecy::SecretString;
use wasmtime::component::{Linker, Resource};

use crate::bindings::secrets::{Encoding, Host, HostSecret, add_to_linker};
use crate::capability::Capability;
use crate::fault::FaultKind;
use crate::view::{HasView, View, ViewOf};

/// Registers it.
pub(crate) struct SecretsCapability;

impl Capability for SecretsCapability {
    fn link<T: HasView>(linker: &mut Linker<T>) -> wasmtime::Result<()> {
        add_to_linker::<T, ViewOf>(linker, T::view)
    }
}

/// A secret in a call's table of handles.
#[derive(Debug)]
#[allow(unreachable_pub, reason = "the generated bindings re-export it")]
pub struct GuestSecret(pub(crate) SecretString);

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
        self.table.push(GuestSecret(secret)).map_err(|error| {
            let limit = self.meter.limits.resources;
            self.meter.breach(FaultKind::Resources { limit });
            error.into()
        })
    }
}
