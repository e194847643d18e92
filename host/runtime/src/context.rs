//! The facade of context providers: facts for policies.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use jit_core::policy::PolicyRequest;
use tokio::time::Instant;
use wasmtime::Store;
use wasmtime::component::{ComponentExportIndex, ComponentNamedList, Lift, Lower};

use crate::answer;
use crate::backend::Connection;
use crate::bindings::types;
use crate::call::{Call, Pace, drive};
use crate::capability::Grant;
use crate::declared::Declared;
use crate::fault::{ConfigFault, Fault, FaultKind};
use crate::loaded::Loaded;
use crate::meter::millis;
use crate::policy::to_wire;
use jit_core::driver::Lane;

/// How long a provider may take to look at its configuration. It has no connection then.
const VALIDATE: Duration = Duration::from_secs(5);

/// What a context call works with.
#[derive(Debug, Clone)]
pub struct ContextScope {
    /// What the provider asks, if it has something: an HTTP connection.
    pub connection: Option<Connection>,
    /// How long the whole call may take: waiting for a slot, guest time and requests.
    pub deadline: Duration,
}

/// A loaded context provider. Each call runs on a fresh instance. Dropping a call's future ends it.
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

    /// Asks whether it accepts a configuration (JSON). It has no connection for that: a request
    /// that it tries is denied.
    ///
    /// # Errors
    /// [`ConfigFault::Invalid`] with what to mend, or the fault of a plugin that could not tell.
    pub async fn validate(&self, config: &str) -> Result<(), ConfigFault> {
        type Answer = (Result<(), Vec<types::ConfigProblem>>,);
        let scope = ContextScope { connection: None, deadline: VALIDATE };
        let (answer,): Answer = self.call(&scope, &self.validate, (config.to_owned(),)).await?;
        answer.map_err(|list| ConfigFault::Invalid(answer::problems(list, &self.loaded.core.limits)))
    }

    /// As [`Self::validate`], on this thread: for loading, which runs where blocking is fine. Nothing
    /// in it waits, since there is no connection; guest time is bounded as ever.
    ///
    /// # Errors
    /// As [`Self::validate`].
    pub fn validate_blocking(&self, config: &str) -> Result<(), ConfigFault> {
        type Answer = (Result<(), Vec<types::ConfigProblem>>,);
        let _one = self.loaded.core.trial.lock().unwrap_or_else(PoisonError::into_inner);
        let call = self.loaded.call();
        let track = Arc::clone(&call.meter.track);
        let calling = async {
            let mut store = call.into_store(&self.loaded.core.engine, Pace::Gathering);
            let called = run(&self.loaded, &mut store, &self.validate, (config.to_owned(),)).await;
            called.map_err(|error| self.loaded.fault(store.data_mut().fault(&error)))
        };
        let (answer,): Answer = drive(track.metered(calling))?;
        answer.map_err(|list| ConfigFault::Invalid(answer::problems(list, &self.loaded.core.limits)))
    }

    /// What it may ask of the host.
    #[must_use]
    pub fn grants(&self) -> &[Grant] {
        &self.loaded.grants
    }

    /// The SHA-256 of its component, in hexadecimal.
    #[must_use]
    pub fn sha256(&self) -> &str {
        &self.loaded.sha256
    }

    /// Gathers facts: a bounded number of plain names and values.
    ///
    /// # Errors
    /// A [`Fault`]: without its facts no policy should be asked.
    pub async fn gather(
        &self,
        scope: &ContextScope,
        config: &str,
        request: &PolicyRequest,
    ) -> Result<BTreeMap<String, String>, Fault> {
        type Answer = (Result<Vec<(String, String)>, String>,);
        let params = (config.to_owned(), to_wire(request));
        let (answer,): Answer = self.call(scope, &self.gather, params).await?;
        let limits = &self.loaded.core.limits;
        match answer {
            Ok(facts) => answer::pairs("fact", facts, limits).map(|facts| facts.into_iter().collect()),
            Err(text) => Err(FaultKind::Failed(answer::reason(&text, limits))),
        }
        .map_err(|kind| self.loaded.fault(kind))
    }

    /// One call, from the wait for a slot to the answer.
    async fn call<P, R>(&self, scope: &ContextScope, function: &ComponentExportIndex, params: P) -> Result<R, Fault>
    where
        P: ComponentNamedList + Lower + Send + Sync,
        R: ComponentNamedList + Lift + Send + Sync + 'static,
    {
        let loaded = &self.loaded;
        let end = Instant::now() + scope.deadline;
        let slot = tokio::time::timeout_at(end, loaded.core.context_slot()).await;
        let Ok(Ok(_slot)) = slot else {
            return Err(loaded.fault(FaultKind::Overloaded));
        };
        let mut call = loaded.call();
        if let Some(connection) = &scope.connection {
            // A context provider has no verb that changes anything, and declares nothing.
            loaded.connect(&mut call, connection, Lane::Live, &Declared::default());
        }
        let track = Arc::clone(&call.meter.track);
        let mut store = call.into_store(&loaded.core.engine, Pace::Gathering);
        let calling = run(loaded, &mut store, function, params);
        let called = tokio::time::timeout_at(end, track.metered(calling)).await;
        match called {
            Ok(Ok(answer)) => {
                if !store.data().table.is_empty() {
                    loaded.core.count_left_behind(1);
                }
                Ok(answer)
            }
            Ok(Err(error)) => {
                let kind = store.data_mut().fault(&error);
                Err(loaded.fault(kind))
            }
            Err(_) => Err(loaded.fault(FaultKind::CallDeadline { limit_ms: millis(scope.deadline) })),
        }
    }
}

/// Instantiates and calls.
async fn run<P, R>(
    loaded: &Loaded,
    store: &mut Store<Call>,
    function: &ComponentExportIndex,
    params: P,
) -> wasmtime::Result<R>
where
    P: ComponentNamedList + Lower + Send + Sync,
    R: ComponentNamedList + Lift + Send + Sync + 'static,
{
    let instance = loaded.pre.instantiate_async(&mut *store).await?;
    let function = instance.get_typed_func::<P, R>(&mut *store, function)?;
    function.call_async(store, params).await
}
