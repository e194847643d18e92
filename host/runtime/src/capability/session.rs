//! The `session` capability: the broker's own credentials as handles, and secrets kept between calls.

use std::fmt;

use async_trait::async_trait;
use secrecy::SecretString;
use wasmtime::component::Resource;

use crate::bindings::session::Host;
use crate::call::Call;
use crate::capability::secrets::GuestSecret;

/// Where a connection's secret comes from; read at each use, so that a rotated file is seen.
pub trait SecretSource: fmt::Debug + Send + Sync {
    /// The secret as it is now.
    ///
    /// # Errors
    /// In words for the operator, without any of the secret.
    fn read(&self) -> Result<SecretString, String>;
}

/// A secret that was kept, and until when it is valid.
#[derive(Debug, Clone)]
pub struct Kept {
    /// The secret.
    pub secret: SecretString,
    /// Seconds since the Unix epoch.
    pub valid_until: u64,
}

/// Where kept secrets survive a restart: sealed, with a key from outside of the store.
#[async_trait]
pub trait SessionStore: fmt::Debug + Send + Sync {
    /// What was kept for the connection under the key.
    ///
    /// # Errors
    /// In words for the operator.
    async fn load(&self, connection: &str, key: &str) -> Result<Option<Kept>, String>;

    /// Replaces it; `None` removes it.
    ///
    /// # Errors
    /// In words for the operator.
    async fn save(&self, connection: &str, key: &str, kept: Option<&Kept>) -> Result<(), String>;
}

impl Host for Call {
    async fn credential(&mut self, name: String) -> wasmtime::Result<Result<Resource<GuestSecret>, String>> {
        self.enter_host(name.len())?;
        Ok(Err("this call has no connection with secrets".to_owned()))
    }

    async fn kept(&mut self, key: String, _at_least: u64) -> wasmtime::Result<Option<Resource<GuestSecret>>> {
        self.enter_host(key.len())?;
        Ok(None)
    }

    async fn keep(
        &mut self,
        key: String,
        secret: Resource<GuestSecret>,
        _valid: u64,
        _unless: u64,
    ) -> wasmtime::Result<Resource<GuestSecret>> {
        self.enter_host(key.len())?;
        let secret = self.table.get(&secret)?.0.clone();
        Ok(self.table.push(GuestSecret(secret))?)
    }

    async fn forget(&mut self, key: String, _secret: Resource<GuestSecret>) -> wasmtime::Result<()> {
        self.enter_host(key.len())
    }
}
