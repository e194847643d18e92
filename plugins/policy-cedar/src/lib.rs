//! Policy `cedar`: decides by policies in the Cedar language (<https://docs.cedarpolicy.com>).
//!
//! ```toml
//! [policies.rules]
//! plugin = "cedar"
//! mode = "enforce"
//! [policies.rules.config]
//! policies = '''
//!   @id("payments-read")
//!   @max_ttl("30m")
//!   permit (principal == Workload::"payment-service", action, resource in Target::"inventory_db")
//!   when { principal.hasTag("env") && principal.getTag("env") == "prod" };
//! '''
//! ```
//!
//! What is not permitted is denied, as is everything while a policy cannot be evaluated (CLOSED): Cedar
//! itself would leave out the policy, which is no answer where it forbids. Policies are held against a
//! schema at load (`schema.cedarschema` or the configuration's own), so that a misspelt name is a
//! mistake and not a policy that never holds.
//!
//! In scope: from a request to Cedar and back. Not in scope: the language, which is `cedar-policy`'s.

mod config;
mod mistake;
mod model;
mod obligation;
mod reads;
mod time;
mod verdict;

use cedar_policy::Authorizer;
use jit_plugin::{ConfigProblem, Policy, Request, Verdict};

pub use crate::config::Config;
use crate::config::Prepared;

/// The policy.
#[derive(Debug)]
pub struct Cedar;

impl Policy for Cedar {
    type Config = Config;

    fn validate(config: &Config) -> Vec<ConfigProblem> {
        config.problems()
    }

    fn prepare(config: &mut Config) -> Result<(), Vec<ConfigProblem>> {
        config.prepare()
    }

    fn decide(config: &Config, request: &Request) -> Verdict {
        let Prepared { policies, entities, reads } = config.prepared();
        let asked = match model::Asked::new(request, entities.clone(), reads, None) {
            Ok(asked) => asked,
            Err(why) => return Verdict::deny(mistake::in_words(&[ConfigProblem::new("", why)])),
        };
        let response = Authorizer::new().is_authorized(&asked.request, policies, &asked.entities);
        verdict::of(&response, policies, request)
    }
}

jit_plugin::register_policy!(Cedar);
