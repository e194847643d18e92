//! The facade of policies: PURE-POLICY and CLOSED.

use std::sync::Arc;

use jit_core::looked_at::LookedAt;
use jit_core::policy::{DecidedBy, PolicyRequest, Verdict};
use jit_core::usage::checked_windows;
use tokio::sync::SemaphorePermit;
use wasmtime::Store;
use wasmtime::component::{ComponentExportIndex, ComponentNamedList, Instance, InstancePre, Lift, Lower};

use crate::answer;
use crate::bindings::policy;
use crate::call::{Call, Pace};
use crate::fault::{ConfigFault, Fault, FaultKind, join};
use crate::loaded::{Accepted, Loaded};
use crate::remembered::{Memory, Reads};
use crate::request::{Asked, handle};
use crate::snapshot::{Pending, Snapshot};

/// A loaded policy. Calls run on the caller's thread, without waiting, on a fresh instance each.
#[derive(Debug, Clone)]
pub struct PolicyPlugin {
    pub(crate) loaded: Arc<Loaded>,
    validate: ComponentExportIndex,
    prepare: ComponentExportIndex,
    decide: ComponentExportIndex,
    /// Present if the policy decides by what the host counts.
    windows: Option<ComponentExportIndex>,
}

/// A policy's answer, and what it looked at to find it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyAnswer {
    /// The verdict. A [`Fault`] denies (CLOSED): the plugin trapped, broke a limit, returned an error of its own
    /// or an answer that cannot be used.
    pub verdict: Result<Verdict, Fault>,
    /// What of the request it read, until it answered or failed.
    pub looked_at: LookedAt,
}

impl PolicyPlugin {
    /// `None` when an interface lacks a function.
    pub(crate) fn new(loaded: Arc<Loaded>, usage: Option<&str>) -> Option<Self> {
        let (validate, prepare) = (loaded.function("validate")?, loaded.function("prepare")?);
        let decide = loaded.function("decide")?;
        let windows = match usage {
            Some(interface) => Some(loaded.function_of(interface, "windows")?),
            None => None,
        };
        Some(Self { loaded, validate, prepare, decide, windows })
    }

    /// The windows, in seconds, in which this configuration wants requests counted: sorted, each once.
    /// `None` if the policy wants nothing counted. Ask [`Self::validate`] first.
    ///
    /// # Errors
    /// A [`Fault`] when the plugin failed, does not accept the configuration, or asks for more than the host
    /// counts.
    pub fn windows(&self, config: &str) -> Result<Option<Vec<u64>>, Fault> {
        type Answer = (Result<Option<Vec<u64>>, String>,);
        let Some(windows) = &self.windows else { return Ok(None) };
        let mut prepared = self.prepared(config, Lines::Muted).map_err(|fault| self.unprepared(fault))?;
        let (answer,): Answer = prepared.call(windows, ())?;
        let checked = match answer {
            Ok(windows) => windows.map(checked_windows).transpose().map_err(FaultKind::Answer),
            Err(text) => Err(FaultKind::Failed(answer::reason(&text, &self.loaded.core.limits))),
        };
        checked.map_err(|kind| self.loaded.fault(kind))
    }

    /// The SHA-256 of its component, in hexadecimal.
    #[must_use]
    pub fn sha256(&self) -> &str {
        &self.loaded.sha256
    }

    /// Asks the policy whether it accepts a configuration (JSON), and whether it can be prepared with it.
    ///
    /// # Errors
    /// [`ConfigFault::Invalid`] with what to mend, or the fault of a plugin that could not tell.
    pub fn validate(&self, config: &str) -> Result<(), ConfigFault> {
        let answer = self.instance(&self.loaded.pre)?.call(&self.validate, (config,))?;
        self.accepted(answer)?;
        self.prepared(config, Lines::Written).map(drop)
    }

    /// Asks for a decision.
    ///
    /// # Errors
    /// A [`Fault`], which denies (CLOSED).
    pub fn decide(&self, config: &str, request: &PolicyRequest) -> Result<Verdict, Fault> {
        self.ask(config, request).verdict
    }

    /// Asks for a decision, and notes what of the request it depended on.
    #[must_use]
    pub fn ask(&self, config: &str, request: &PolicyRequest) -> PolicyAnswer {
        self.ask_about(config, None, Asked::new(request)).0
    }

    /// As [`Self::ask`]; gives what was read in which order too, if that was to be taken down and the decision is one
    /// that can be remembered.
    fn ask_about(&self, config: &str, snapshot: Option<&Snapshot>, asked: Asked) -> (PolicyAnswer, Option<Reads>) {
        type Answer = (Result<policy::Verdict, String>,);
        let copy = match snapshot {
            Some(snapshot) => self.instance(&snapshot.pre).map_err(ConfigFault::Fault),
            None => self.prepared(config, Lines::Muted),
        };
        let decide = snapshot.map_or(&self.decide, |snapshot| &snapshot.function);
        let mut prepared = match copy {
            Ok(prepared) => prepared,
            Err(fault) => {
                let verdict = Err(self.unprepared(fault));
                return (PolicyAnswer { verdict, looked_at: LookedAt::default() }, None);
            }
        };
        prepared.store.data_mut().asked = Some(asked);
        let called: Result<Answer, Fault> = prepared.call(decide, (handle(),));
        let call = prepared.store.data_mut();
        let logged = call.meter.has_logged();
        let (looked_at, reads) = call.asked.take().map(|asked| (asked.looked_at, asked.reads)).unwrap_or_default();
        let limits = &self.loaded.core.limits;
        let verdict = called.and_then(|(answer,)| {
            match answer {
                Ok(verdict) => answer::verdict(verdict, limits),
                Err(text) => Err(FaultKind::Failed(answer::reason(&text, limits))),
            }
            .map_err(|kind| self.loaded.fault(kind))
        });
        // A line in the log would be missing the next time.
        (PolicyAnswer { verdict, looked_at }, reads.filter(|_| !logged))
    }

    /// A fresh copy of the instance that is prepared with this configuration, made without a snapshot: by instantiating
    /// the component and preparing the instance again. A policy imports nothing that could tell two instances
    /// apart, so the result is the same.
    fn prepared(&self, config: &str, lines: Lines) -> Result<Prepared<'_>, ConfigFault> {
        let mut prepared = self.instance(&self.loaded.pre)?;
        if lines == Lines::Muted {
            prepared.store.data_mut().meter.mute();
        }
        let answer = prepared.call(&self.prepare, (config,))?;
        self.accepted(answer)?;
        prepared.store.data_mut().meter.begin_call();
        Ok(prepared)
    }

    /// A fresh instance, in a slot of its own.
    fn instance(&self, pre: &InstancePre<Call>) -> Result<Prepared<'_>, Fault> {
        let loaded = &*self.loaded;
        let slot = loaded.core.policy_slot().map_err(|kind| loaded.fault(kind))?;
        let mut store = loaded.call().into_store(&loaded.core.engine, Pace::Blocking);
        match pre.instantiate(&mut store) {
            Ok(instance) => Ok(Prepared { loaded, store, instance, _slot: slot }),
            Err(error) => Err(loaded.fault(store.data_mut().fault(&error))),
        }
    }

    fn accepted(&self, answer: Accepted) -> Result<(), ConfigFault> {
        answer.0.map_err(|list| ConfigFault::Invalid(answer::problems(list, &self.loaded.core.limits)))
    }

    /// A configuration is asked about at load, so here is a policy that has changed its mind.
    fn unprepared(&self, fault: ConfigFault) -> Fault {
        match fault {
            ConfigFault::Fault(fault) => fault,
            ConfigFault::Invalid(problems) => {
                let told = format!("it does not accept its configuration: {}", join(&problems));
                self.loaded.fault(FaultKind::Failed(answer::reason(&told, &self.loaded.core.limits)))
            }
        }
    }
}

/// What becomes of lines that a policy writes to the log while it is prepared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lines {
    /// They are written: at load, once.
    Written,
    /// They are left out: the instance is prepared again, and said the same before.
    Muted,
}

/// A policy with its configuration: what serving and replays ask.
///
/// Decisions start from a snapshot of the prepared instance where there is one ([`crate::Snapshots`]).
/// It remembers what it decided, unless the runtime was told not to: a request that agrees with an earlier one in all
/// that the policy read then has the same answer, without an instance. Clones share what is remembered.
#[derive(Debug, Clone)]
pub struct ConfiguredPolicy {
    plugin: PolicyPlugin,
    config: Arc<str>,
    memory: Option<Arc<Memory>>,
    snapshot: Arc<Pending>,
}

/// An answer of a [`ConfiguredPolicy`].
#[derive(Debug, Clone)]
pub struct ConfiguredAnswer {
    /// The answer.
    pub answer: PolicyAnswer,
    /// How it was found.
    pub by: DecidedBy,
}

impl ConfiguredPolicy {
    /// `config` is JSON that [`PolicyPlugin::validate`] accepted.
    #[must_use]
    pub fn new(plugin: PolicyPlugin, config: &str) -> Self {
        let memory = plugin.loaded.core.remember.then(Arc::default);
        let snapshot = plugin.loaded.taken.of(&plugin.loaded, config);
        Self { plugin, config: Arc::from(config), memory, snapshot }
    }

    /// The policy without its configuration.
    #[must_use]
    pub fn plugin(&self) -> &PolicyPlugin {
        &self.plugin
    }

    /// Whether decisions start from a snapshot now.
    #[must_use]
    pub fn has_snapshot(&self) -> bool {
        self.snapshot.get().is_some()
    }

    /// Asks for a decision, and notes what of the request it depended on.
    #[must_use]
    pub fn ask(&self, request: &PolicyRequest) -> ConfiguredAnswer {
        let snapshot = self.snapshot.get();
        let by = if snapshot.is_some() { DecidedBy::Copy } else { DecidedBy::Instance };
        let Some(memory) = &self.memory else {
            let (answer, _) = self.plugin.ask_about(&self.config, snapshot, Asked::new(request));
            return ConfiguredAnswer { answer, by };
        };
        if let Some(answer) = memory.recall(request) {
            return ConfiguredAnswer { answer, by: DecidedBy::Memory };
        }
        let (answer, reads) = self.plugin.ask_about(&self.config, snapshot, Asked::in_order(request));
        if let Some(reads) = reads {
            memory.learn(reads, request, &answer);
        }
        ConfiguredAnswer { answer, by }
    }
}

/// An instance for one call.
struct Prepared<'a> {
    loaded: &'a Loaded,
    store: Store<Call>,
    instance: Instance,
    _slot: SemaphorePermit<'a>,
}

impl Prepared<'_> {
    fn call<P, R>(&mut self, function: &ComponentExportIndex, params: P) -> Result<R, Fault>
    where
        P: ComponentNamedList + Lower,
        R: ComponentNamedList + Lift,
    {
        let called = self.instance.get_typed_func::<P, R>(&mut self.store, function);
        let called = called.and_then(|function| function.call(&mut self.store, params));
        called.map_err(|error| self.loaded.fault(self.store.data_mut().fault(&error)))
    }
}
