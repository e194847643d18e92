//! The facade of policies: PURE-POLICY and CLOSED.

use std::collections::BTreeMap;
use std::sync::Arc;

use jit_core::policy::{PolicyRequest, Verdict};
use wasmtime::component::ComponentExportIndex;

use crate::answer;
use crate::bindings::{policy, types};
use crate::fault::{ConfigFault, Fault, FaultKind};
use crate::plugin::Loaded;

/// A loaded policy. Calls run on the caller's thread, without waiting, on a fresh instance each.
#[derive(Debug, Clone)]
pub struct PolicyPlugin {
    pub(crate) loaded: Arc<Loaded>,
    validate: ComponentExportIndex,
    decide: ComponentExportIndex,
}

impl PolicyPlugin {
    /// `None` when the interface lacks a function.
    pub(crate) fn new(loaded: Arc<Loaded>) -> Option<Self> {
        let (validate, decide) = (loaded.function("validate")?, loaded.function("decide")?);
        Some(Self { loaded, validate, decide })
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
