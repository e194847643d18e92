//! The `http` capability: requests to the connection's HTTP server.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use url::Url;

use crate::bindings::http::{Host, HttpError, Request, Response};
use crate::call::Call;
use crate::capability::session::{SecretSource, SessionStore};
use crate::driver::Lane;

/// How an HTTP connection is set up.
#[derive(Debug, Clone)]
pub struct HttpConnectionOptions {
    /// The connection's name in the configuration.
    pub name: String,
    /// The base URL: `https`, or `http` to a loopback address.
    pub url: Url,
    /// Certificates (PEM) that the server's must lead to; none takes the public ones.
    pub ca: Option<Vec<u8>>,
    /// Addresses that are allowed although they are link-local or otherwise refused.
    pub addresses: Vec<IpAddr>,
    /// The broker's own credentials there, by name.
    pub secrets: BTreeMap<String, Arc<dyn SecretSource>>,
    /// Where kept secrets survive a restart; none keeps them in memory only.
    pub store: Option<Arc<dyn SessionStore>>,
    /// Requests at once on the live lane. The removal lane has two more.
    pub max_connections: u32,
    /// How long one attempt to connect may take.
    pub connect_timeout: Duration,
    /// How long one request may take, its answer included.
    pub request_timeout: Duration,
}

/// Why a connection cannot be set up.
#[derive(Debug, thiserror::Error)]
#[error("connection {name}: {reason}")]
pub struct HttpConnectionError {
    /// The connection's name.
    pub name: String,
    /// What is wrong with its settings.
    pub reason: String,
}

/// A target's HTTP connection. Made once per configured connection, shared by its calls.
pub struct HttpConnection {
    options: HttpConnectionOptions,
}

impl fmt::Debug for HttpConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpConnection").field("name", &self.options.name).finish_non_exhaustive()
    }
}

impl HttpConnection {
    /// Reads the settings. Connects lazily.
    ///
    /// # Errors
    /// When a setting is not usable.
    pub fn new(options: HttpConnectionOptions) -> Result<Self, HttpConnectionError> {
        Ok(Self { options })
    }

    /// Its name in the configuration.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.options.name
    }
}

/// What a call needs to send requests.
pub(crate) struct HttpSession {
    pub(crate) connection: Arc<HttpConnection>,
    pub(crate) lane: Lane,
}

impl Host for Call {
    async fn send(&mut self, request: Request) -> wasmtime::Result<Result<Response, HttpError>> {
        self.enter_host(request.path.iter().map(String::len).sum())?;
        Ok(Err(HttpError::Denied("this call has no HTTP connection".to_owned())))
    }
}
