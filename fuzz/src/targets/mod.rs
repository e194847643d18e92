//! The targets. Each is a function of bytes that panics when a property does not hold.

use crate::Input;

mod config;
mod jwt;
mod ldap;
mod redact;
mod sql;
mod tlog;
mod verifier;
mod words;

/// A function that must hold for every input.
#[derive(Debug)]
pub struct Target {
    /// Its name, and the folder of its corpus.
    pub name: &'static str,
    /// What it reads and what must hold.
    pub about: &'static str,
    /// Tokens of the format that it reads: changed inputs get them.
    pub tokens: &'static [&'static str],
    /// Panics when a property does not hold.
    pub run: fn(Input<'_>),
}

/// All targets.
#[must_use]
pub const fn all() -> &'static [Target] {
    &[
        sql::POSTGRES,
        sql::MYSQL,
        sql::TEMPLATE,
        ldap::NAME,
        ldap::TEXT,
        redact::REDACT,
        tlog::NOTE,
        tlog::TAMPERED,
        tlog::TREE,
        tlog::PLUGIN_SIGNATURE,
        jwt::PREVIEW,
        verifier::PARSE,
        config::TOML,
        words::GLOB,
        words::DURATION,
        words::NAMES,
    ]
}
