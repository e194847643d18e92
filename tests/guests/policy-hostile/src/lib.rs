//! Fixture: misbehaves as its configuration says, in `decide` unless the mode names another call.

use std::sync::atomic::{AtomicU32, Ordering};

use jit_plugin::bindings::host::jit::plugin::log;
use jit_plugin::{Allowance, ConfigProblem, Policy, Request, Verdict};
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
    /// Logs one line with a hundred thousand fields, over and over.
    Fields,
    /// Logs one line, and decides.
    Log,
    /// Calls the host without end, with nothing to say.
    BusyHost,
    /// Answers with a reason of 50 MB.
    Huge,
    /// Answers with a million labels.
    HugeLabels,
    /// Narrows to a role that does not exist.
    WrongRole,
    /// Caps the life at nothing.
    WrongTtl,
    /// Requires what nobody knows.
    WrongRequirement,
    /// Labels with NUL, newlines and quotes.
    WrongLabels,
    /// Reads attributes whose names have 1 MB.
    ReadHuge,
    /// Reads the request without end.
    ReadForever,
    /// Reads 500 attributes that the request does not have, and then decides.
    ReadMany,
    /// Reads attributes whose names could deceive whoever reads the record.
    ReadOdd,
    /// Keeps the request's handle when it returns.
    KeepRequest,
    /// Never ends its preparation.
    SlowPrepare,
    /// Panics in its preparation.
    TrapPrepare,
    /// Refuses in its preparation what its validation accepted.
    RefusePrepare,
    /// Counts its decisions in its memory, and allows none but the first.
    Count,
    /// Logs one line in its preparation, and decides.
    Chatty,
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

static DECISIONS: AtomicU32 = AtomicU32::new(0);

/// The policy.
#[derive(Debug)]
pub struct Hostile;

impl Policy for Hostile {
    type Config = Config;

    fn validate(config: &Config) -> Vec<ConfigProblem> {
        match config.mode {
            Mode::SlowValidate => misdeeds::never(),
            Mode::TrapValidate => panic!("as configured"),
            _ => Vec::new(),
        }
    }

    fn prepare(config: &mut Config) -> Result<(), Vec<ConfigProblem>> {
        match config.mode {
            Mode::SlowPrepare => misdeeds::never(),
            Mode::TrapPrepare => panic!("as configured"),
            Mode::RefusePrepare => Err(vec![ConfigProblem::new("mode", "is\nnot what it was")]),
            Mode::Chatty => {
                log::write(log::Level::Info, "prepared", &[]);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn decide(config: &Config, request: &Request) -> Verdict {
        match config.mode {
            Mode::Loop => misdeeds::never(),
            Mode::Hog => misdeeds::hog(),
            Mode::Stack => Verdict::deny(misdeeds::deeper(1).to_string()),
            Mode::Trap => panic!("as configured"),
            Mode::Flood => misdeeds::flood(),
            Mode::Fields => fields(),
            Mode::Log => {
                log::write(log::Level::Info, "decided", &[]);
                Verdict::allow()
            }
            Mode::BusyHost => misdeeds::busy_host(),
            Mode::Huge => Verdict::deny("x".repeat(50_000_000)),
            Mode::HugeLabels => allowance(|allowance| {
                allowance.labels = vec![("l".to_owned(), "v".to_owned()); 1_000_000];
            }),
            Mode::WrongRole => allowance(|allowance| allowance.role = Some("no-such-role".into())),
            Mode::WrongTtl => allowance(|allowance| allowance.max_ttl_seconds = Some(0)),
            Mode::WrongRequirement => allowance(|allowance| {
                allowance.requires = vec!["a-blood-oath".into()];
            }),
            Mode::WrongLabels => allowance(|allowance| {
                allowance.labels = vec![("a\0b".into(), "c\n\"d\u{1b}[31m".into())];
            }),
            // Past the SDK, which would ask once.
            Mode::ReadHuge => loop {
                let _ = request.host().map(|host| host.attribute(&"x".repeat(1_000_000)));
            },
            Mode::ReadForever => loop {
                let _ = request.host().map(|host| host.attribute("env"));
            },
            Mode::ReadMany => {
                let found = (0..500).filter(|number| request.attribute(&format!("a{number}")).is_some()).count();
                Verdict::deny(format!("{found} are there"))
            }
            Mode::ReadOdd => {
                let _ = request.metadata("x\n\u{1b}[2J\u{202e}");
                Verdict::allow()
            }
            Mode::KeepRequest => {
                let _ = request.host().map(|host| host.take_handle());
                Verdict::allow()
            }
            Mode::Count => match DECISIONS.fetch_add(1, Ordering::Relaxed) {
                0 => Verdict::allow(),
                before => Verdict::deny(format!("it remembers {before}")),
            },
            Mode::Chatty => Verdict::allow(),
            Mode::SlowPrepare | Mode::TrapPrepare | Mode::RefusePrepare | Mode::SlowValidate | Mode::TrapValidate => {
                Verdict::allow()
            }
        }
    }
}

fn allowance(change: impl FnOnce(&mut Allowance)) -> Verdict {
    let mut allowance = Allowance::default();
    change(&mut allowance);
    allowance.into()
}

fn fields() -> ! {
    let fields = vec![("name\n".to_owned(), "value\0".to_owned()); 100_000];
    loop {
        log::write(log::Level::Info, "many", &fields);
    }
}

jit_plugin::register_policy!(Hostile);
