//! Policies: pure functions of a configuration and a request.

use std::marker::PhantomData;

use serde::de::DeserializeOwned;

use crate::bindings::policy::exports::jit::plugin::policy::Guest;
use crate::config::{self, ConfigProblem};

pub use crate::bindings::policy::exports::jit::plugin::policy::{Allowance, Request, Verdict};

/// Decides who may have what. The same configuration and request must always give the same
/// verdict: a decision is replayed from the audit record (PURE-POLICY).
pub trait Policy {
    /// The policy's configuration. Give it `#[serde(deny_unknown_fields)]`.
    type Config: DeserializeOwned;

    /// Mistakes that the type cannot express. Called at load, before any decision.
    fn validate(config: &Self::Config) -> Vec<ConfigProblem> {
        let _ = config;
        Vec::new()
    }

    /// Decides. A panic denies.
    fn decide(config: &Self::Config, request: &Request) -> Verdict;
}

impl Request {
    /// An attribute of the identity, as the configuration named it (`k8s_namespace`, `env`, …).
    pub fn attribute(&self, name: &str) -> Option<&str> {
        find(&self.attributes, name)
    }

    /// A usage count or a fact of a context provider.
    pub fn fact(&self, name: &str) -> Option<&str> {
        find(&self.facts, name)
    }

    /// A value of the caller's own `metadata`: a claim of the caller, not of its identity.
    pub fn metadata(&self, name: &str) -> Option<&str> {
        find(&self.metadata, name)
    }
}

/// The first of that name.
fn find<'a>(pairs: &'a [(String, String)], name: &str) -> Option<&'a str> {
    let found = pairs.iter().find(|(key, _)| key == name);
    found.map(|(_, value)| value.as_str())
}

impl Verdict {
    /// Yes, without a condition.
    pub fn allow() -> Self {
        Self::Allow(Allowance::default())
    }

    /// No, and why: the caller reads it, so say what would help.
    pub fn deny(reason: impl Into<String>) -> Self {
        Self::Deny(reason.into())
    }
}

impl From<Allowance> for Verdict {
    fn from(allowance: Allowance) -> Self {
        Self::Allow(allowance)
    }
}

#[allow(clippy::derivable_impls, reason = "the type is generated, and its siblings have no default")]
impl Default for Allowance {
    /// Without a condition.
    fn default() -> Self {
        Self { reason: String::new(), max_ttl_seconds: None, role: None, requires: Vec::new(), labels: Vec::new() }
    }
}

/// What [`crate::register_policy!`] exports.
#[doc(hidden)]
pub struct Exported<P>(PhantomData<P>);

impl<P: Policy> Guest for Exported<P> {
    fn validate(config: String) -> Result<(), Vec<ConfigProblem>> {
        crate::panic::install();
        let problems = P::validate(&config::parse(&config)?);
        if problems.is_empty() { Ok(()) } else { Err(problems) }
    }

    fn decide(config: String, request: Request) -> Result<Verdict, String> {
        crate::panic::install();
        let config = config::parse(&config).map_err(|problems| config::in_words(&problems))?;
        Ok(P::decide(&config, &request))
    }
}
