//! The client of a running broker's admin socket.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use jit_api::Problem;
use serde::de::DeserializeOwned;

use super::Stop;
use jit_config::Config;

/// How much of an answer that is no problem+json is shown, in characters.
const MOST_DETAIL: usize = 500;

/// Where the admin socket is.
#[derive(clap::Args, Debug, Clone)]
pub(super) struct SocketArg {
    /// The broker's admin socket; by default the one that the configuration names.
    #[arg(long, env = "JIT_ADMIN_SOCKET", value_name = "PATH")]
    socket: Option<PathBuf>,
    /// The configuration file that names the socket.
    #[arg(long, short, env = "JIT_CONFIG", value_name = "FILE", default_value = "broker.toml")]
    config: PathBuf,
}

impl SocketArg {
    fn path(&self) -> Result<PathBuf, Stop> {
        match &self.socket {
            Some(path) => Ok(path.clone()),
            None => match Config::load(&self.config) {
                Ok(config) => Ok(config.server.admin_socket),
                Err(problems) => {
                    eprintln!(
                        "a running broker can be asked whatever its file says now: --socket PATH, its `admin_socket`\n"
                    );
                    Err(problems.into())
                }
            },
        }
    }
}

/// Talks to one broker.
pub(super) struct AdminClient {
    http: reqwest::Client,
    socket: PathBuf,
}

impl AdminClient {
    pub(super) fn new(socket: &SocketArg) -> Result<Self, Stop> {
        let socket = socket.path()?;
        let http = reqwest::Client::builder()
            .unix_socket(socket.as_path())
            .no_proxy()
            .timeout(Duration::from_secs(120))
            .build()?;
        Ok(Self { http, socket })
    }

    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Stop> {
        self.send(self.http.get(format!("http://admin{path}"))).await
    }

    pub(super) async fn post<T: DeserializeOwned>(&self, path: &str) -> Result<T, Stop> {
        self.send(self.http.post(format!("http://admin{path}"))).await
    }

    /// As [`Self::post`], with a body.
    pub(super) async fn post_json<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &(impl serde::Serialize + Sync),
    ) -> Result<T, Stop> {
        self.send(self.http.post(format!("http://admin{path}")).json(body)).await
    }

    async fn send<T: DeserializeOwned>(&self, request: reqwest::RequestBuilder) -> Result<T, Stop> {
        let reply = request.send().await.map_err(|error| no_broker(&self.socket, error))?;
        let status = reply.status();
        let body = reply.bytes().await.context("the broker's answer was cut off")?;
        if !status.is_success() {
            let problem: Problem = serde_json::from_slice(&body).unwrap_or_default();
            // What the framework itself refuses is plain text.
            let text = String::from_utf8_lossy(&body);
            let detail = if problem.detail.is_empty() { text.trim() } else { &problem.detail };
            let detail: String = detail.chars().take(MOST_DETAIL).collect();
            return Err(
                anyhow!("{} ({status})", if detail.is_empty() { "the broker refuses it" } else { &detail }).into()
            );
        }
        Ok(serde_json::from_slice(&body).context("the broker answered something else; is it of another version?")?)
    }
}

fn no_broker(socket: &Path, error: reqwest::Error) -> Stop {
    // What stands between is the client's view of a URL that nobody typed.
    let mut reason: &dyn std::error::Error = &error;
    while let Some(source) = reason.source() {
        reason = source;
    }
    Stop::NoBroker(anyhow!("{reason}").context(format!(
        "no broker answers on {}: is it running, and is this its user? (--socket or --config say where it is)",
        socket.display()
    )))
}
