//! The facade of policies: PURE-POLICY and CLOSED.

use std::collections::BTreeMap;
use std::sync::Arc;

use jit_core::policy::{PolicyRequest, Verdict};
use jit_core::usage::checked_windows;
use wasmtime::component::ComponentExportIndex;

use crate::answer;
use crate::bindings::{policy, types};
use crate::fault::{ConfigFault, Fault, FaultKind};
use crate::loaded::Loaded;

/// A loaded policy. Calls run on the caller's thread, without waiting, on a fresh instance each.
#[derive(Debug, Clone)]
pub struct PolicyPlugin {
    pub(crate) loaded: Arc<Loaded>,
    validate: ComponentExportIndex,
    decide: ComponentExportIndex,
    /// Of a policy that decides by what the host counts.
    windows: Option<ComponentExportIndex>,
}

impl PolicyPlugin {
    /// `None` when an interface lacks a function.
    pub(crate) fn new(loaded: Arc<Loaded>, usage: Option<&str>) -> Option<Self> {
        let (validate, decide) = (loaded.function("validate")?, loaded.function("decide")?);
        let windows = match usage {
            Some(interface) => Some(loaded.function_of(interface, "windows")?),
            None => None,
        };
        Some(Self { loaded, validate, decide, windows })
    }

    /// The windows, in seconds, in which this configuration wants requests counted: sorted, each once.
    /// `None` of a policy that wants nothing counted. To be asked after [`Self::validate`].
    ///
    /// # Errors
    /// A [`Fault`] when the plugin failed or asks for more than the host counts.
    pub fn windows(&self, config: &str) -> Result<Option<Vec<u64>>, Fault> {
        type Answer = (Result<Vec<u64>, String>,);
        let Some(windows) = &self.windows else { return Ok(None) };
        let (answer,): Answer = self.loaded.call_blocking(windows, (config,))?;
        let checked = match answer {
            Ok(windows) => checked_windows(windows).map_err(FaultKind::Answer),
            Err(text) => Err(FaultKind::Failed(answer::reason(&text, &self.loaded.core.limits))),
        };
        checked.map(Some).map_err(|kind| self.loaded.fault(kind))
    }

    /// The SHA-256 of its component, in hexadecimal.
    #[must_use]
    pub fn sha256(&self) -> &str {
        &self.loaded.sha256
    }

    /// Asks the policy whether it accepts a configuration (JSON). To be asked before any decision.
    ///
    /// # Errors
    /// [`ConfigFault::Invalid`] with what to mend, or the fault of a plugin that could not tell.
    pub fn validate(&self, config: &str) -> Result<(), ConfigFault> {
        type Answer = (Result<(), Vec<types::ConfigProblem>>,);
        let (answer,): Answer = self.loaded.call_blocking(&self.validate, (config,))?;
        answer.map_err(|list| ConfigFault::Invalid(answer::problems(list, &self.loaded.core.limits)))
    }

    /// Asks for a decision.
    ///
    /// # Errors
    /// A [`Fault`], which denies (CLOSED): the plugin trapped, broke a limit, returned an error of
    /// its own or an answer that cannot be used.
    pub fn decide(&self, config: &str, request: &PolicyRequest) -> Result<Verdict, Fault> {
        type Answer = (Result<policy::Verdict, String>,);
        let request = to_wire(request);
        let (answer,): Answer = self.loaded.call_blocking(&self.decide, (config, &request))?;
        let limits = &self.loaded.core.limits;
        match answer {
            Ok(verdict) => answer::verdict(verdict, limits),
            Err(text) => Err(FaultKind::Failed(answer::reason(&text, limits))),
        }
        .map_err(|kind| self.loaded.fault(kind))
    }
}

/// A request as plugins read it.
pub(crate) fn to_wire(request: &PolicyRequest) -> policy::Request {
    let pairs = |map: &BTreeMap<String, String>| map.iter().map(|(k, v)| (k.clone(), v.clone())).collect();
    policy::Request {
        operation: request.operation.as_str().to_owned(),
        time: request.time,
        workload: request.workload.clone(),
        issuer: request.issuer.clone(),
        attributes: pairs(&request.attributes),
        target: request.target.clone(),
        role: request.role.clone(),
        ttl_seconds: request.ttl_seconds,
        reason: request.reason.clone(),
        ticket: request.ticket.clone(),
        metadata: pairs(&request.metadata),
        facts: pairs(&request.facts),
    }
}
