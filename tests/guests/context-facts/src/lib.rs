//! Fixture: asks an HTTP server about the request's workload and gives what it answers as facts.
//!
//! ```toml
//! [contexts.c.config]
//! path = ["facts"]
//! credential = "token"
//! ```

use jit_plugin::http::{HostHttp, Method, Part, Request};
use jit_plugin::{ConfigProblem, Context, Error, Http};
use serde::Deserialize;

/// `[contexts.C.config]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Segments below the connection's base URL; the workload's name follows them.
    path: Vec<String>,
    /// The secret that is sent as a bearer token.
    credential: Option<String>,
    /// Asks the server already while the configuration is checked.
    eager: bool,
    /// Never ends.
    endless: bool,
}

/// The provider.
#[derive(Debug)]
pub struct Facts;

fn ask(config: &Config, workload: &str) -> Result<Vec<(String, String)>, String> {
    let mut http = HostHttp::default();
    let credential = config.credential.as_ref().map(|name| http.credential(name)).transpose()?;
    let path = config.path.iter().map(String::as_str).chain([workload]);
    let mut request = Request::new(Method::Get, path);
    if let Some(credential) = &credential {
        request = request.header("authorization", [Part::Text("Bearer "), Part::Secret(credential.borrow())]);
    }
    let response = http.send(&request).map_err(|error| format!("{:?}", Error::from(error)))?;
    Ok(vec![("status".to_owned(), response.status.to_string()), ("body".to_owned(), response.body)])
}

impl Context for Facts {
    type Config = Config;

    fn validate(config: &Config) -> Vec<ConfigProblem> {
        if !config.eager {
            return Vec::new();
        }
        ask(config, "nobody").err().map(|text| ConfigProblem::new("eager", text)).into_iter().collect()
    }

    fn gather(config: &Config, request: &jit_plugin::Request) -> Result<Vec<(String, String)>, String> {
        if config.endless {
            loop {
                std::hint::spin_loop();
            }
        }
        ask(config, request.workload())
    }
}

jit_plugin::register_context!(Facts);
