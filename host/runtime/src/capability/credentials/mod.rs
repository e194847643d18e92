//! The broker's own credentials at a backend whose drivers place them themselves, and the secrets that
//! plugins keep there between calls.
//!
//! A connection that has some owns [`Credentials`]; a call uses them through its session
//! ([`CredentialsInUse`]). Both lie below the capabilities: a kind of connection holds them, and the
//! `session` capability hands them out, and neither knows the other.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use secrecy::{ExposeSecret as _, SecretString};

use crate::text::escape;

mod kept;

use kept::{KeptSecrets, SECRET_BYTES, Turn};

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

/// What one connection has of credentials.
#[derive(Debug)]
pub(crate) struct Credentials {
    connection: String,
    sources: BTreeMap<String, Arc<dyn SecretSource>>,
    kept: KeptSecrets,
}

impl Credentials {
    /// Of the connection of that name. Without a store, what is kept ends with the process.
    pub(crate) fn new(
        connection: String,
        sources: BTreeMap<String, Arc<dyn SecretSource>>,
        store: Option<Arc<dyn SessionStore>>,
    ) -> Self {
        let kept = KeptSecrets::new(connection.clone(), store);
        Self { connection, sources, kept }
    }
}

/// One call's use of a connection's credentials.
#[derive(Debug)]
pub struct CredentialsInUse {
    credentials: Arc<Credentials>,
    /// This call's turn to make a secret that is to be kept; it ends with the call.
    turn: Option<Turn>,
}

impl CredentialsInUse {
    /// For a call that begins.
    pub(crate) fn new(credentials: Arc<Credentials>) -> Self {
        Self { credentials, turn: None }
    }

    /// Reads a credential of the connection's table.
    ///
    /// # Errors
    /// In words, when there is none of that name or it cannot be read.
    pub(crate) async fn read(&self, name: &str) -> Result<SecretString, String> {
        let shown = escape(name, 64);
        let Credentials { connection, sources, .. } = &*self.credentials;
        let Some(source) = sources.get(name).map(Arc::clone) else {
            return Err(format!(
                "the connection {connection} has no secret {shown:?}: set it in [connections.{connection}.secrets]"
            ));
        };
        let reading = tokio::task::spawn_blocking(move || source.read());
        let secret = match tokio::time::timeout(READ, reading).await {
            Ok(Ok(Ok(secret))) => secret,
            Ok(Ok(Err(reason))) => {
                return Err(format!("the secret {shown:?} cannot be read: {}", escape(&reason, 300)));
            }
            Ok(Err(_)) => return Err(format!("the secret {shown:?} cannot be read")),
            Err(_) => return Err(format!("the secret {shown:?} was not read within {} s", READ.as_secs())),
        };
        match secret.expose_secret().len() {
            0 => Err(format!("the secret {shown:?} is empty")),
            1..=SECRET_BYTES => Ok(secret),
            _ => Err(format!("the secret {shown:?} has more than {SECRET_BYTES} bytes")),
        }
    }

    /// What the plugin keeps under the key, when it is valid for at least so many more seconds. Where there
    /// is none, this waits for the call's turn to make it and looks once more.
    pub(crate) async fn kept(&mut self, plugin: &Arc<str>, key: &str, at_least: u64) -> Option<SecretString> {
        let keeps = &self.credentials.kept;
        let mut kept = keeps.kept(plugin, key, at_least).await;
        // One turn for a call: two that waited for each other would wait in vain.
        if kept.is_none() && self.turn.is_none() {
            self.turn = keeps.turn(plugin, key).await;
            kept = keeps.kept(plugin, key, at_least).await;
            if kept.is_some() {
                self.turn = None;
            }
        }
        kept
    }

    /// Keeps a secret, ends the turn to make it, and returns the one that now holds.
    ///
    /// # Errors
    /// In words, when it cannot be kept.
    pub(crate) async fn keep(
        &mut self,
        plugin: &Arc<str>,
        key: &str,
        secret: SecretString,
        valid: u64,
        unless: u64,
    ) -> Result<SecretString, String> {
        let holds = self.credentials.kept.keep(plugin, key, secret, valid, unless).await?;
        if self.turn.as_ref().is_some_and(|turn| turn.is_for(key)) {
            self.turn = None;
        }
        Ok(holds)
    }

    /// Forgets what is kept, if it is this secret. Returns whether it was.
    pub(crate) async fn forget(&self, plugin: &Arc<str>, key: &str, secret: &SecretString) -> bool {
        self.credentials.kept.forget(plugin, key, secret).await
    }
}
