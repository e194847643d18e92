//! Context provider `posture`: asks an HTTP endpoint about the workload and gives what it answers as
//! facts: an EDR score, a patch level, the state of a change ticket.
//!
//! ```toml
//! [contexts.posture.config]
//! path = ["v1", "hosts", "{workload}"]
//! bearer = "token"
//! facts = { score = "/edr/score", patched = "/patch/current" }
//! ```
//!
//! The request is data: each segment of the path and each parameter of the query is escaped by the host,
//! whatever a workload is called. The answer is not trusted further than its shape: what a fact names
//! must be a short string, a number or a boolean. What is missing or odd is a failure, which the
//! operator's `on_failure` decides about (CLOSED by default).
//!
//! In scope: asking, and reading the answer. Not in scope: keeping answers for a while, which the host
//! does, and judging facts, which policies do.

mod config;
mod facts;
mod template;

use jit_plugin::http::{HostHttp, HttpError, Method, Part, Request as HttpRequest};
use jit_plugin::text::shown;
use jit_plugin::{ConfigProblem, Context, Http, Request};

pub use crate::config::Config;
use crate::template::Missing;

/// The provider.
#[derive(Debug)]
pub struct Posture;

impl Context for Posture {
    type Config = Config;

    fn validate(config: &Config) -> Vec<ConfigProblem> {
        config.problems()
    }

    fn gather(config: &Config, request: &Request) -> Result<Vec<(String, String)>, String> {
        gather(&mut HostHttp::default(), config, request)
    }
}

/// Asks once and reads the answer.
///
/// # Errors
/// For the operator: what is wrong with the request, the endpoint or its answer.
pub fn gather(http: &mut dyn Http, config: &Config, request: &Request) -> Result<Vec<(String, String)>, String> {
    let (path, query) = match config.filled(request) {
        Ok(filled) => filled,
        // The operator said what is known of a request without it.
        Err(Missing::Absent(_)) if config.without_value.is_some() => {
            return Ok(facts::constant(config.without_value.iter().flatten()));
        }
        Err(missing) => return Err(missing.to_string()),
    };
    let secrets: Vec<_> = config
        .secrets()
        .map(|(header, prefix, name)| {
            let secret = http.credential(name).map_err(|why| format!("the secret {}: {why}", shown(name)))?;
            Ok((header, prefix, secret))
        })
        .collect::<Result<_, String>>()?;
    let mut ask = HttpRequest::new(Method::Get, path.iter().map(String::as_str))
        .header("accept", [Part::Text("application/json")]);
    for (name, value) in &query {
        ask = ask.query(name, value);
    }
    for (header, prefix, secret) in &secrets {
        ask = ask.header(header, [Part::Text(prefix), Part::Secret(secret.borrow())]);
    }
    let response = http.send(&ask).map_err(|error| match error {
        HttpError::Unavailable(why) | HttpError::Unknown(why) => format!("the endpoint did not answer: {why}"),
        HttpError::Denied(why) => format!("the host does not send the request: {why}"),
    })?;
    if let Some(facts) = config.on_status(response.status) {
        return Ok(facts::constant(facts));
    }
    match response.status {
        200 => facts::read(config, &response.body),
        401 | 403 => Err(format!(
            "the endpoint answers {}: it does not take the broker's credential, or gives it too little",
            response.status
        )),
        status => Err(format!("the endpoint answers {status}: `on_status` can say what that means")),
    }
}

jit_plugin::register_context!(Posture);

#[cfg(test)]
mod tests;
