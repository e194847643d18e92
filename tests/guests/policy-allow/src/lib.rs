//! Fixture: allows everything. What it costs is the floor of a policy evaluation.

use jit_plugin::{Policy, Request, Verdict};
use serde::Deserialize;

/// Nothing to configure.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {}

/// Allows.
#[derive(Debug)]
pub struct Allow;

impl Policy for Allow {
    type Config = Config;

    fn decide(_: &Config, _: &Request) -> Verdict {
        Verdict::allow()
    }
}

jit_plugin::register_policy!(Allow);
