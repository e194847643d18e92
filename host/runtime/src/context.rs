//! The facade of context providers: facts for policies.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jit_core::policy::PolicyRequest;
use tokio::time;
use wasmtime::Store;
use wasmtime::component::ComponentExportIndex;

use crate::answer;
use crate::backend::Connection;
use crate::call::{Call, Pace, drive};
use crate::capability::Grant;
use crate::declared::Declared;
use crate::fault::{ConfigFault, Fault, FaultKind, join};
use crate::loaded::{Accepted, Loaded, configured};
use crate::meter::millis;
use crate::request::{Asked, handle};
use crate::snapshot::{Pending, Snapshot};
use jit_core::driver::Lane;
use jit_core::trace::OnBehalf;

/// How long a provider may take to look at its configuration. It has no connection then.
const VALIDATE: Duration = Duration::from_secs(5);

/// What a context call works with.
#[derive(Debug, Clone)]
pub struct ContextScope {
    /// What the provider asks, if it has something: an HTTP connection.
    pub connection: Option<Connection>,
    /// How long the whole call may take: waiting for a slot, guest time and requests.
    pub deadline: Duration,
    /// For whom the call is made.
    pub on_behalf: OnBehalf,
}

/// A loaded context provider. Each call runs on a fresh instance. Dropping a call's future ends it.
#[derive(Debug, Clone)]
pub struct ContextPlugin {
    pub(crate) loaded: Arc<Loaded>,
    validate: ComponentExportIndex,
    prepare: ComponentExportIndex,
    gather: ComponentExportIndex,
}

type Facts = Result<Vec<(String, String)>, String>;

impl ContextPlugin {
    /// `None` when the interface lacks a function.
    pub(crate) fn new(loaded: Arc<Loaded>) -> Option<Self> {
        let (validate, prepare) = (loaded.function("validate")?, loaded.function("prepare")?);
        let gather = loaded.function("gather")?;
        Some(Self { loaded, validate, prepare, gather })
    }

    /// Asks whether it accepts a configuration (JSON). It has no connection for that: a request that it tries
    /// is denied.
    ///
    /// # Errors
    /// [`ConfigFault::Invalid`] with what to mend, or the fault of a plugin that could not tell.
    pub async fn validate(&self, config: &str) -> Result<(), ConfigFault> {
        let asked =
            self.call(VALIDATE, async |store| Ok(configured(&self.loaded.pre, store, &self.validate, config).await?.1));
        self.accepted(asked.await?)
    }

    /// As [`Self::validate`], on this thread: for loading, which runs where blocking is fine. Nothing
    /// in it waits, since there is no connection; guest time is bounded as ever.
    ///
    /// # Errors
    /// As [`Self::validate`], or the fault of one that cannot be prepared with it.
    pub fn validate_blocking(&self, config: &str) -> Result<(), ConfigFault> {
        self.told_blocking(&self.validate, config)?;
        if self.told_blocking(&self.prepare, config)? {
            return Err(self.loaded.fault(FaultKind::AskedInPrepare).into());
        }
        Ok(())
    }

    /// Gives it the configuration by that function, and tells whether it asked the host for something.
    fn told_blocking(&self, function: &ComponentExportIndex, config: &str) -> Result<bool, ConfigFault> {
        let _one = self.loaded.core.trial.lock();
        let call = self.loaded.call();
        let track = Arc::clone(&call.meter.track);
        let calling = async {
            let mut store = call.into_store(&self.loaded.core.engine, Pace::Gathering);
            let asked = configured(&self.loaded.pre, &mut store, function, config).await;
            let asked_host = store.data().meter.has_asked();
            let (_, accepted) = asked.map_err(|error| self.loaded.fault(store.data_mut().fault(&error)))?;
            Ok::<_, Fault>((accepted, asked_host))
        };
        let (accepted, asked_host) = drive(track.metered(calling))?;
        self.accepted(accepted)?;
        Ok(asked_host)
    }

    fn accepted(&self, accepted: Accepted) -> Result<(), ConfigFault> {
        accepted.0.map_err(|list| ConfigFault::Invalid(answer::problems(list, &self.loaded.core.limits)))
    }

    /// What it may ask of the host.
    #[must_use]
    pub fn grants(&self) -> &[Grant] {
        &self.loaded.grants
    }

    /// Its name in the configuration.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.loaded.name
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
        self.gather_on(scope, config, None, request).await
    }

    async fn gather_on(
        &self,
        scope: &ContextScope,
        config: &str,
        snapshot: Option<&Snapshot>,
        request: &PolicyRequest,
    ) -> Result<BTreeMap<String, String>, Fault> {
        let loaded = &self.loaded;
        let answer: Facts = self
            .call(scope.deadline, async |store| {
                let (instance, gather) = match snapshot {
                    Some(snapshot) => (snapshot.pre.instantiate_async(&mut *store).await?, &snapshot.function),
                    None => {
                        store.data_mut().meter.mute();
                        let (instance, (prepared,)) = configured(&loaded.pre, store, &self.prepare, config).await?;
                        if let Err(problems) = prepared {
                            let problems = answer::problems(problems, &loaded.core.limits);
                            return Ok(Err(format!("it does not accept its configuration: {}", join(&problems))));
                        }
                        store.data_mut().meter.begin_call();
                        (instance, &self.gather)
                    }
                };
                // Only now: preparing depends on the configuration alone.
                let call = store.data_mut();
                call.asked = Some(Asked::new(request));
                call.meter.on_behalf = scope.on_behalf.clone();
                if let Some(connection) = &scope.connection {
                    // A context provider has no verb that changes anything, and declares nothing.
                    loaded.connect(call, connection, Lane::Live, &Declared::default());
                }
                let gather = instance.get_typed_func::<_, (Facts,)>(&mut *store, gather)?;
                let (facts,) = gather.call_async(store, (handle(),)).await?;
                Ok(facts)
            })
            .await?;
        let limits = &loaded.core.limits;
        match answer {
            Ok(facts) => answer::pairs("fact", facts, limits).map(|facts| facts.into_iter().collect()),
            Err(text) => Err(FaultKind::Failed(answer::reason(&text, limits))),
        }
        .map_err(|kind| loaded.fault(kind))
    }

    /// One call, from the wait for a slot to the answer.
    async fn call<R>(
        &self,
        deadline: Duration,
        calling: impl AsyncFnOnce(&mut Store<Call>) -> wasmtime::Result<R>,
    ) -> Result<R, Fault> {
        let loaded = &self.loaded;
        let end = time::Instant::now() + deadline;
        let slot = time::timeout_at(end, loaded.core.context_slot()).await;
        let Ok(Ok(_slot)) = slot else {
            return Err(loaded.fault(FaultKind::Overloaded));
        };
        let call = loaded.call();
        let track = Arc::clone(&call.meter.track);
        let mut store = call.into_store(&loaded.core.engine, Pace::Gathering);
        let called = time::timeout_at(end, track.metered(calling(&mut store))).await;
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
            Err(_) => Err(loaded.fault(FaultKind::CallDeadline { limit_ms: millis(deadline) })),
        }
    }
}

/// A context provider with its configuration: what serving asks.
///
/// Calls start from a snapshot of the prepared instance where there is one ([`crate::Snapshots`]).
#[derive(Debug, Clone)]
pub struct ConfiguredContext {
    plugin: ContextPlugin,
    config: Arc<str>,
    snapshot: Arc<Pending>,
}

impl ConfiguredContext {
    /// `config` is JSON that [`ContextPlugin::validate_blocking`] accepted.
    #[must_use]
    pub fn new(plugin: ContextPlugin, config: &str) -> Self {
        let snapshot = plugin.loaded.taken.of(&plugin.loaded, config);
        Self { plugin, config: Arc::from(config), snapshot }
    }

    /// The provider without its configuration.
    #[must_use]
    pub fn plugin(&self) -> &ContextPlugin {
        &self.plugin
    }

    /// Whether calls start from a snapshot now.
    #[must_use]
    pub fn has_snapshot(&self) -> bool {
        self.snapshot.get().is_some()
    }

    /// As [`ContextPlugin::gather`].
    ///
    /// # Errors
    /// As there.
    pub async fn gather(
        &self,
        scope: &ContextScope,
        request: &PolicyRequest,
    ) -> Result<BTreeMap<String, String>, Fault> {
        self.plugin.gather_on(scope, &self.config, self.snapshot.get(), request).await
    }
}
