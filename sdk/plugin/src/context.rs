//! Context providers: they gather the facts that policies judge.

use std::marker::PhantomData;

use serde::de::DeserializeOwned;

use crate::bindings::context::exports::jit::plugin::context::Guest;
use crate::config::{self, ConfigProblem};
use crate::policy::Request;

/// Gathers facts about a request. They become [`Request::fact`] of the policies and stand in the
/// audit record, so put no secret into one.
pub trait Context {
    /// The provider's configuration. Give it `#[serde(deny_unknown_fields)]`.
    type Config: DeserializeOwned;

    /// Mistakes that the type cannot express. Called at load.
    fn validate(config: &Self::Config) -> Vec<ConfigProblem> {
        let _ = config;
        Vec::new()
    }

    /// Facts by name.
    ///
    /// # Errors
    /// Why they could not be gathered, for the operator.
    fn gather(config: &Self::Config, request: &Request) -> Result<Vec<(String, String)>, String>;
}

/// What [`crate::register_context!`] exports.
#[doc(hidden)]
pub struct Exported<C>(PhantomData<C>);

impl<C: Context> Guest for Exported<C> {
    fn validate(config: String) -> Result<(), Vec<ConfigProblem>> {
        crate::panic::install();
        let problems = C::validate(&config::parse(&config)?);
        if problems.is_empty() { Ok(()) } else { Err(problems) }
    }

    fn gather(config: String, request: Request) -> Result<Vec<(String, String)>, String> {
        crate::panic::install();
        let config = config::parse(&config).map_err(|problems| config::in_words(&problems))?;
        C::gather(&config, &request)
    }
}
