//! Context providers: they gather the facts that policies judge.

use std::marker::PhantomData;

use serde::de::DeserializeOwned;

use crate::bindings::context::exports::jit::plugin::context::Guest;
use crate::bindings::host::jit::plugin::request::Request as HostRequest;
use crate::config::ConfigProblem;
use crate::prepared;
use crate::request::Request;

/// Gathers facts about a request. They become [`Request::fact`] of the policies and stand in the
/// audit record, so put no secret into one.
pub trait Context {
    /// The provider's configuration. Give it `#[serde(deny_unknown_fields)]`.
    type Config: DeserializeOwned + 'static;

    /// Mistakes that the type cannot express. Called at load.
    fn validate(config: &Self::Config) -> Vec<ConfigProblem> {
        let _ = config;
        Vec::new()
    }

    /// Work that is the same for every call, such as parsing a text of the configuration: what comes out goes into
    /// fields with `#[serde(skip)]`. Called once, when an instance is prepared; each call of [`Context::gather`] then
    /// gets a fresh copy of that instance. It cannot ask the server: the host refuses a provider that tries.
    ///
    /// # Errors
    /// What is wrong with the configuration. Say it in [`Context::validate`] too.
    fn prepare(config: &mut Self::Config) -> Result<(), Vec<ConfigProblem>> {
        let _ = config;
        Ok(())
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
        prepared::validate(&config, C::validate)
    }

    fn prepare(config: String) -> Result<(), Vec<ConfigProblem>> {
        prepared::prepare(&config, C::prepare)
    }

    fn gather(request: &HostRequest) -> Result<Vec<(String, String)>, String> {
        crate::panic::install();
        let config = prepared::config::<C::Config>()?;
        C::gather(&config, &Request::of(request))
    }
}
