//! The `ldap` capability: operations on the connection's directory.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;
use url::Url;
use wasmtime::component::Resource;

use crate::bindings::ldap::{Attribute, Change, Entries, Host, LdapError, Name, Query};
use crate::call::Call;
use crate::capability::secrets::GuestSecret;
use crate::driver::Lane;

/// How a directory's connection is set up.
#[derive(Clone)]
pub struct LdapConnectionOptions {
    /// The connection's name in the configuration.
    pub name: String,
    /// `ldaps://host:port`, or `ldap://host:port` with StartTLS.
    pub url: Url,
    /// Whether an `ldap` connection is not encrypted: for a loopback address only.
    pub plaintext: bool,
    /// Certificates (PEM) that the server's must lead to; none takes the public ones.
    pub ca: Option<Vec<u8>>,
    /// Distinguished name of the broker's own account.
    pub bind_dn: String,
    /// Its password.
    pub password: SecretString,
    /// Connections of the live lane. The removal lane has two more.
    pub max_connections: u32,
    /// How long one attempt to connect and bind may take.
    pub connect_timeout: Duration,
    /// How long one operation may take.
    pub operation_timeout: Duration,
}

/// Why a connection cannot be set up.
#[derive(Debug, thiserror::Error)]
#[error("connection {name}: {reason}")]
pub struct LdapConnectionError {
    /// The connection's name.
    pub name: String,
    /// What is wrong with its settings.
    pub reason: String,
}

/// A target's directory. Made once per configured connection, shared by its calls.
pub struct LdapConnection {
    options: LdapConnectionOptions,
}

impl fmt::Debug for LdapConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LdapConnection").field("name", &self.options.name).finish_non_exhaustive()
    }
}

impl LdapConnection {
    /// Reads the settings. Connects lazily.
    ///
    /// # Errors
    /// When a setting is not usable.
    pub fn new(options: LdapConnectionOptions) -> Result<Self, LdapConnectionError> {
        Ok(Self { options })
    }

    /// Its name in the configuration.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.options.name
    }
}

/// What a call needs to work on a directory.
pub(crate) struct LdapSession {
    pub(crate) connection: Arc<LdapConnection>,
    pub(crate) lane: Lane,
}

impl Call {
    fn no_directory<T>(&mut self) -> wasmtime::Result<Result<T, LdapError>> {
        self.enter_host(0)?;
        Ok(Err(LdapError::Denied("this call has no directory".to_owned())))
    }
}

impl Host for Call {
    async fn add(&mut self, _: Name, _: Vec<Attribute>) -> wasmtime::Result<Result<(), LdapError>> {
        self.no_directory()
    }

    async fn modify(&mut self, _: Name, _: Vec<Change>) -> wasmtime::Result<Result<(), LdapError>> {
        self.no_directory()
    }

    async fn delete(&mut self, _: Name) -> wasmtime::Result<Result<(), LdapError>> {
        self.no_directory()
    }

    async fn search(&mut self, _: Query) -> wasmtime::Result<Result<Entries, LdapError>> {
        self.no_directory()
    }

    async fn refresh(&mut self, _: Name, _: u32) -> wasmtime::Result<Result<u32, LdapError>> {
        self.no_directory()
    }

    async fn authenticate(&mut self, _: Name, _: Resource<GuestSecret>) -> wasmtime::Result<Result<bool, LdapError>> {
        self.no_directory()
    }
}
