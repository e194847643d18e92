//! What a target's driver works on: opened by the host, unseen by the plugin (BLIND-PLUGIN).
//!
//! The rest of the host knows a connection as a [`Backend`] and a call's use of it as a [`Session`].
//! Only the capability that made them knows more.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use secrecy::SecretString;

use crate::capability::credentials::CredentialsInUse;
use crate::declared::Declared;
use jit_core::driver::Lane;

/// A configured connection. Made once, shared by all calls.
pub type Connection = Arc<dyn Backend>;

/// The server cannot be reached, or not now. Nothing was sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unavailable(pub String);

/// Where callers connect to: for the reply of an issue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// What is spoken there, as the scheme of a URL.
    pub scheme: &'static str,
    /// Host name or address, an IPv6 address without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// The connection's own database, where it names one.
    pub database: Option<String>,
}

/// A connection to a target's backend.
#[async_trait]
pub trait Backend: Any + fmt::Debug + Send + Sync {
    /// Its name in the configuration.
    fn name(&self) -> &str;

    /// The word of the capability that works on it. A plugin without that grant gets no session.
    fn capability(&self) -> &'static str;

    /// Begins one call's use of it. `declared` is what the plugin said of itself at load.
    fn session(self: Arc<Self>, lane: Lane, declared: &Declared) -> Box<dyn Session>;

    /// Where callers connect to; none where the connection does not tell it, as for an API that makes
    /// accounts elsewhere.
    fn endpoint(&self) -> Option<Endpoint> {
        None
    }

    /// Whether a login with that name and password succeeds now. None where the connection cannot try.
    ///
    /// # Errors
    /// When the backend neither lets it in nor says that name or password are wrong.
    async fn authenticate(&self, user: &str, password: &SecretString) -> Option<Result<bool, Unavailable>> {
        let _ = (user, password);
        None
    }

    /// Makes sure that removals have a way in, where accounts could take all connections of the server.
    /// To be called now and then.
    ///
    /// # Errors
    /// Why there is none, in words for operators.
    async fn keep_way_in(&self) -> Result<(), Unavailable> {
        Ok(())
    }
}

/// One call's use of a backend. It ends with the call.
pub trait Session: Any + Send {
    /// The broker's own credentials there, where a driver places them itself.
    fn credentials(&mut self) -> Option<&mut CredentialsInUse> {
        None
    }
}
