//! The facade of context providers: facts for policies.

use std::collections::BTreeMap;
use std::sync::Arc;

use jit_core::policy::PolicyRequest;
use wasmtime::component::ComponentExportIndex;

use crate::answer;
use crate::bindings::types;
use crate::fault::{ConfigFault, Fault, FaultKind};
use crate::plugin::Loaded;
use crate::policy::to_wire;

/// A loaded context provider. Calls run on the caller's thread, on a fresh instance each.
#[derive(Debug, Clone)]
pub struct ContextPlugin {
    pub(crate) loaded: Arc<Loaded>,
    validate: ComponentExportIndex,
    gather: ComponentExportIndex,
}

impl ContextPlugin {
    /// `None` when the interface lacks a function.
    pub(crate) fn new(loaded: Arc<Loaded>) -> Option<Self> {
        let (validate, gather) = (loaded.function("validate")?, loaded.function("gather")?);
        Some(Self { loaded, validate, gather })
    }

    /// Asks whether it accepts a configuration (JSON).
    ///
    /// # Errors
    /// [`ConfigFault::Invalid`] with what to mend, or the fault of a plugin that could not tell.
    pub fn validate(&self, config: &str) -> Result<(), ConfigFault> {
        type Answer = (Result<(), Vec<types::ConfigProblem>>,);
        let (answer,): Answer = self.loaded.call_blocking(&self.validate, (config,))?;
        answer.map_err(|list| ConfigFault::Invalid(answer::problems(list, &self.loaded.core.limits)))
    }

    /// Gathers facts: a bounded number of plain names and values.
    ///
    /// # Errors
    /// A [`Fault`]: without its facts no policy should be asked.
    pub fn gather(&self, config: &str, request: &PolicyRequest) -> Result<BTreeMap<String, String>, Fault> {
        type Answer = (Result<Vec<(String, String)>, String>,);
        let request = to_wire(request);
        let (answer,): Answer = self.loaded.call_blocking(&self.gather, (config, &request))?;
        let limits = &self.loaded.core.limits;
        match answer {
            Ok(facts) => answer::pairs("fact", facts, limits).map(|facts| facts.into_iter().collect()),
            Err(text) => Err(FaultKind::Failed(answer::reason(&text, limits))),
        }
        .map_err(|kind| self.loaded.fault(kind))
    }
}
