//! Policies: pure functions of a configuration and a request.

use std::marker::PhantomData;

use serde::de::DeserializeOwned;

use crate::bindings::host::jit::plugin::request::Request as HostRequest;
use crate::bindings::policy::exports::jit::plugin::policy::Guest;
use crate::config::ConfigProblem;
use crate::prepared;
use crate::request::Request;
use crate::text::shown;

pub use crate::bindings::policy::exports::jit::plugin::policy::{Allowance, Verdict};

/// Decides who may have what. The same configuration and request must always give the same
/// verdict: a decision is replayed from the audit record (PURE-POLICY).
pub trait Policy {
    /// The policy's configuration. Give it `#[serde(deny_unknown_fields)]`.
    type Config: DeserializeOwned + 'static;

    /// The operations that the policy knows. [`Policy::decide`] is asked about these; every other operation is
    /// denied, so that a later broker's new operation is not allowed by a rule that was written before it.
    const OPERATIONS: &'static [&'static str] = &["issue", "renew"];

    /// Mistakes that the type cannot express. Called at load, before any decision.
    fn validate(config: &Self::Config) -> Vec<ConfigProblem> {
        let _ = config;
        Vec::new()
    }

    /// Work that is the same for every decision, such as parsing a text of the configuration: what comes out
    /// goes into fields with `#[serde(skip)]`. Called once, when an instance is prepared; each decision then
    /// gets a fresh copy of that instance.
    ///
    /// # Errors
    /// What is wrong with the configuration. Say it in [`Policy::validate`] too.
    fn prepare(config: &mut Self::Config) -> Result<(), Vec<ConfigProblem>> {
        let _ = config;
        Ok(())
    }

    /// Decides. A panic denies.
    fn decide(config: &Self::Config, request: &Request) -> Verdict;
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
        prepared::validate(&config, P::validate)
    }

    fn prepare(config: String) -> Result<(), Vec<ConfigProblem>> {
        prepared::prepare(&config, P::prepare)
    }

    fn decide(request: &HostRequest) -> Result<Verdict, String> {
        crate::panic::install();
        let config = prepared::config::<P::Config>()?;
        Ok(decide::<P>(&config, &Request::of(request)))
    }
}

/// Asks a policy as the host does: about the operations that it knows.
pub(crate) fn decide<P: Policy>(config: &P::Config, request: &Request) -> Verdict {
    let operation = request.operation();
    if !P::OPERATIONS.contains(&operation) {
        return Verdict::deny(format!(
            "this policy does not know the operation {}, and denies what it does not know",
            shown(operation)
        ));
    }
    P::decide(config, request)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{decide, request};

    struct Open;

    impl Policy for Open {
        type Config = ();
        fn decide(_: &(), _: &Request) -> Verdict {
            Verdict::allow()
        }
    }

    struct Exchanges;

    impl Policy for Exchanges {
        type Config = ();
        const OPERATIONS: &'static [&'static str] = &["exchange"];
        fn decide(_: &(), _: &Request) -> Verdict {
            Verdict::allow()
        }
    }

    #[test]
    fn an_operation_that_a_policy_does_not_know_is_denied() {
        for known in ["issue", "renew"] {
            assert_eq!(decide::<Open>(&(), &request().with_operation(known)), Verdict::allow());
            assert!(matches!(decide::<Exchanges>(&(), &request().with_operation(known)), Verdict::Deny(_)));
        }
        assert_eq!(decide::<Exchanges>(&(), &request().with_operation("exchange")), Verdict::allow());
        for other in ["exchange", "proxy.http", "", "issue ", "Issue", "x\nforged"] {
            let Verdict::Deny(reason) = decide::<Open>(&(), &request().with_operation(other)) else {
                panic!("{other:?} was allowed")
            };
            assert!(reason.contains("does not know the operation") && !reason.contains('\n'), "{reason:?}");
        }
    }
}
