//! Fixture: misbehaves as its configuration says, in `gather` unless the mode names another call.

use jit_plugin::http::{HostHttp, Method, Request as HttpRequest};
use jit_plugin::{ConfigProblem, Context, Error, Http, Request};
use serde::Deserialize;

/// How.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Never ends.
    Loop,
    /// Takes memory without end.
    Hog,
    /// Takes stack without end.
    Stack,
    /// Panics.
    Trap,
    /// Logs lines of 1 MB without end, with newlines, ANSI sequences and forged JSON.
    Flood,
    /// Calls the host without end, with nothing to say.
    BusyHost,
    /// A fact of 50 MB.
    Huge,
    /// A million facts.
    HugeFacts,
    /// A fact with NUL, newlines and quotes in its name.
    WrongFacts,
    /// The same fact twice, with different values.
    TwoFaced,
    /// Facts that only the host may give.
    Forged,
    /// Asks its server over and over.
    Requests,
    /// Answers with an error that forges a log line.
    Error,
    /// Asks its server in its preparation.
    AskPrepare,
    /// Never ends its validation.
    SlowValidate,
    /// Panics in its validation.
    TrapValidate,
}

/// The configuration.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    mode: Mode,
}

/// The provider.
#[derive(Debug)]
pub struct Hostile;

type Facts = Vec<(String, String)>;

impl Context for Hostile {
    type Config = Config;

    fn validate(config: &Config) -> Vec<ConfigProblem> {
        match config.mode {
            Mode::SlowValidate => misdeeds::never(),
            Mode::TrapValidate => panic!("as configured"),
            _ => Vec::new(),
        }
    }

    fn prepare(config: &mut Config) -> Result<(), Vec<ConfigProblem>> {
        if config.mode == Mode::AskPrepare {
            let _ = HostHttp::default().send(&HttpRequest::new(Method::Get, ["facts"]));
        }
        Ok(())
    }

    fn gather(config: &Config, _: &Request) -> Result<Facts, String> {
        let fact = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        Ok(match config.mode {
            Mode::Loop => misdeeds::never(),
            Mode::Hog => misdeeds::hog(),
            Mode::Stack => vec![fact("depth", &misdeeds::deeper(1).to_string())],
            Mode::Trap => panic!("as configured"),
            Mode::Flood => misdeeds::flood(),
            Mode::BusyHost => misdeeds::busy_host(),
            Mode::Huge => vec![fact("score", &"9".repeat(50_000_000))],
            Mode::HugeFacts => vec![fact("score", "9"); 1_000_000],
            Mode::WrongFacts => vec![fact("a\0b\n\"\u{1b}[31m", "c")],
            Mode::TwoFaced => vec![fact("score", "0"), fact("score", "100")],
            Mode::Forged => vec![fact("status", "ok"), fact("usage.workload.leases", "0")],
            Mode::Requests => requests()?,
            Mode::Error => return Err("\n{\"event\":\"issue.granted\"}\u{1b}[2J".repeat(10_000)),
            Mode::AskPrepare | Mode::SlowValidate | Mode::TrapValidate => Vec::new(),
        })
    }
}

fn requests() -> Result<Facts, String> {
    let mut http = HostHttp::default();
    loop {
        let request = HttpRequest::new(Method::Get, ["facts"]);
        http.send(&request).map_err(|error| format!("{:?}", Error::from(error)))?;
    }
}

jit_plugin::register_context!(Hostile);
