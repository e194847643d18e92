//! The `session` capability: the broker's own credentials as handles, and secrets kept between calls.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use secrecy::{ExposeSecret as _, SecretString};
use wasmtime::component::Resource;

use crate::bindings::session::Host;
use crate::call::Call;
use crate::capability::http::HttpConnection;
use crate::capability::secrets::GuestSecret;
use crate::text::escape;

pub(crate) mod kept;

/// How long reading a credential may take.
const READ: Duration = Duration::from_secs(5);

/// Where a connection's secret comes from; read at each use, so that a rotated file is seen.
pub trait SecretSource: fmt::Debug + Send + Sync {
    /// The secret as it is now. May block, on a file for instance.
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
///
/// A key is a plugin's name and the plugin's own key, with a `/` between them; at most 128 bytes
/// after the `/`. A secret has at most 64 KiB.
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
        let track = Arc::clone(&self.track);
        let read = match self.connection() {
            Some(connection) => track.unmetered(credential(&connection, &name)).await,
            None => Err("this call has no connection with secrets".to_owned()),
        };
        match read {
            Ok(secret) => Ok(Ok(self.hand_out(secret)?)),
            Err(reason) => {
                self.count_bytes(reason.len())?;
                Ok(Err(reason))
            }
        }
    }

    async fn kept(&mut self, key: String, at_least: u64) -> wasmtime::Result<Option<Resource<GuestSecret>>> {
        self.enter_host(key.len())?;
        let Some(connection) = self.connection() else { return Ok(None) };
        let track = Arc::clone(&self.track);
        let mut kept = track.unmetered(connection.kept.kept(&self.plugin, &key, at_least)).await;
        // One turn for a call: two that waited for each other would wait in vain.
        if kept.is_none() && self.turn.is_none() {
            self.turn = track.unmetered(connection.kept.turn(&self.plugin, &key)).await;
            kept = track.unmetered(connection.kept.kept(&self.plugin, &key, at_least)).await;
            if kept.is_some() {
                self.turn = None;
            }
        }
        kept.map(|secret| self.hand_out(secret)).transpose()
    }

    async fn keep(
        &mut self,
        key: String,
        secret: Resource<GuestSecret>,
        valid: u64,
        unless: u64,
    ) -> wasmtime::Result<Result<Resource<GuestSecret>, String>> {
        self.enter_host(key.len())?;
        let mut secret = self.table.get(&secret)?.0.clone();
        if let Some(connection) = self.connection() {
            let track = Arc::clone(&self.track);
            let kept = track.unmetered(connection.kept.keep(&self.plugin, &key, secret, valid, unless)).await;
            secret = match kept {
                Ok(holds) => holds,
                Err(reason) => {
                    self.count_bytes(reason.len())?;
                    return Ok(Err(reason));
                }
            };
            if self.turn.as_ref().is_some_and(|turn| turn.is_for(&key)) {
                self.turn = None;
            }
        }
        self.hand_out(secret).map(Ok)
    }

    async fn forget(&mut self, key: String, secret: Resource<GuestSecret>) -> wasmtime::Result<bool> {
        self.enter_host(key.len())?;
        let secret = self.table.get(&secret)?.0.clone();
        let Some(connection) = self.connection() else { return Ok(false) };
        let track = Arc::clone(&self.track);
        Ok(track.unmetered(connection.kept.forget(&self.plugin, &key, &secret)).await)
    }
}

impl Call {
    fn connection(&self) -> Option<Arc<HttpConnection>> {
        self.http.as_ref().map(|session| Arc::clone(&session.connection))
    }
}

/// Reads a secret of the connection's table.
async fn credential(connection: &HttpConnection, name: &str) -> Result<SecretString, String> {
    let shown = escape(name, 64);
    let Some(source) = connection.secrets.get(name).map(Arc::clone) else {
        let connection = connection.name();
        return Err(format!(
            "the connection {connection} has no secret {shown:?}: set it in [connections.{connection}.secrets]"
        ));
    };
    let reading = tokio::task::spawn_blocking(move || source.read());
    let secret = match tokio::time::timeout(READ, reading).await {
        Ok(Ok(Ok(secret))) => secret,
        Ok(Ok(Err(reason))) => return Err(format!("the secret {shown:?} cannot be read: {}", escape(&reason, 300))),
        Ok(Err(_)) => return Err(format!("the secret {shown:?} cannot be read")),
        Err(_) => return Err(format!("the secret {shown:?} was not read within {} s", READ.as_secs())),
    };
    match secret.expose_secret().len() {
        0 => Err(format!("the secret {shown:?} is empty")),
        1..=kept::SECRET_BYTES => Ok(secret),
        _ => Err(format!("the secret {shown:?} has more than {} bytes", kept::SECRET_BYTES)),
    }
}
