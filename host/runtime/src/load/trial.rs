//! The first instance of a plugin: it shows that every function is there, and what a driver says of itself.

use std::sync::Arc;

use jit_core::driver::{Description, Feature};
use wasmtime::Store;
use wasmtime::component::{Instance, InstancePre};

use super::shape::Shape;
use super::{LoadErrorKind, signature};
use crate::answer::{backend_name, pairs};
use crate::bindings::{self, driver, policy, statements, usage};
use crate::call::{Call, Pace};
use crate::capability::{Grant, Granted as _};
use crate::declared::{Declared, Said, Undeclared};
use crate::driver::Told;
use crate::engine::Core;
use crate::fault::{Fault, FaultKind};
use crate::limits::Limits;
use crate::text::escape;
use jit_contract::PluginKind;

/// What a trial found out.
pub(super) enum Tried {
    Policy,
    Context,
    Driver(Told),
}

pub(super) async fn try_out(
    core: &Core,
    name: &Arc<str>,
    pre: &InstancePre<Call>,
    shape: &Shape,
) -> Result<Tried, LoadErrorKind> {
    let call = Call::new(Arc::clone(name), core.limits);
    let track = Arc::clone(&call.meter.track);
    let trying = async {
        let trial = Trial::start(core, call, name, pre).await?;
        Ok(match shape.kind {
            PluginKind::Policy => {
                trial.check_policy(shape.usage_export.is_some())?;
                Tried::Policy
            }
            PluginKind::Context => {
                trial.check_context()?;
                Tried::Context
            }
            PluginKind::Driver => Tried::Driver(trial.describe(shape).await?),
        })
    };
    track.metered(trying).await
}

/// A first instance, to check every function's type and to let a driver describe itself. It has no
/// connection, so a statement that it tries is denied: loading has no effects.
struct Trial<'a> {
    name: &'a Arc<str>,
    store: Store<Call>,
    pre: &'a InstancePre<Call>,
    instance: Instance,
}

impl<'a> Trial<'a> {
    async fn start(
        core: &Core,
        call: Call,
        name: &'a Arc<str>,
        pre: &'a InstancePre<Call>,
    ) -> Result<Self, LoadErrorKind> {
        let mut store = call.into_store(&core.engine, Pace::Yielding);
        let instance = pre.instantiate_async(&mut store).await;
        let instance = instance.map_err(|error| fault(name, &mut store, &error))?;
        Ok(Self { name, store, pre, instance })
    }

    fn check_policy(mut self, counts: bool) -> Result<(), LoadErrorKind> {
        let checked =
            policy::GuestIndices::new(self.pre).and_then(|indices| indices.load(&mut self.store, &self.instance));
        checked.map(drop).map_err(signature)?;
        if counts {
            let checked =
                usage::GuestIndices::new(self.pre).and_then(|indices| indices.load(&mut self.store, &self.instance));
            checked.map(drop).map_err(signature)?;
        }
        Ok(())
    }

    fn check_context(mut self) -> Result<(), LoadErrorKind> {
        let checked = bindings::context::GuestIndices::new(self.pre)
            .and_then(|indices| indices.load(&mut self.store, &self.instance));
        checked.map(drop).map_err(signature)
    }

    async fn describe(mut self, shape: &Shape) -> Result<Told, LoadErrorKind> {
        let guest = driver::GuestIndices::new(self.pre)
            .and_then(|indices| indices.load(&mut self.store, &self.instance))
            .map_err(signature)?;
        let described = guest.call_describe(&mut self.store).await;
        let described = described.map_err(|error| fault(self.name, &mut self.store, &error))?;
        let limits = self.store.data().meter.limits;
        let description =
            description(self.name, described, &limits).map_err(|kind| Fault { plugin: Arc::clone(self.name), kind })?;
        let lists = Grant::ALL.iter().any(|grant| grant.lists_statements() && shape.imports(*grant));
        let listed = if lists && shape.exports_statements { Some(self.statements().await?) } else { None };
        let mut readings = Vec::new();
        for grant in Grant::ALL {
            let said = Said {
                is_imported: shape.imports(grant),
                properties: &description.properties,
                statements: listed.as_deref(),
            };
            let reading = grant.declare(&said).map_err(|undeclared| match undeclared {
                Undeclared::Description(wrong) => {
                    LoadErrorKind::Fault(Fault { plugin: Arc::clone(self.name), kind: FaultKind::Answer(wrong) })
                }
                Undeclared::Statements(error) => LoadErrorKind::Statements(error),
            })?;
            readings.extend(reading);
        }
        let mut statements = listed.unwrap_or_default();
        statements.sort();
        statements.dedup();
        Ok(Told { description, declared: Declared::new(readings), statements })
    }

    async fn statements(&mut self) -> Result<Vec<String>, LoadErrorKind> {
        let guest = statements::GuestIndices::new(self.pre)
            .and_then(|indices| indices.load(&mut self.store, &self.instance))
            .map_err(signature)?;
        let listed = guest.call_templates(&mut self.store).await;
        listed.map_err(|error| fault(self.name, &mut self.store, &error))
    }
}

fn fault(name: &Arc<str>, store: &mut Store<Call>, error: &wasmtime::Error) -> LoadErrorKind {
    LoadErrorKind::Fault(Fault { plugin: Arc::clone(name), kind: store.data_mut().fault(error) })
}

/// What a driver says of itself, checked.
fn description(plugin: &str, said: driver::Description, limits: &Limits) -> Result<Description, FaultKind> {
    backend_name("its name", &said.name)?;
    backend_name("its version", &said.version)?;
    if said.features.len() > limits.pairs {
        return Err(FaultKind::Answer(format!("more than {} features", limits.pairs)));
    }
    let mut features = Vec::new();
    for word in &said.features {
        match Feature::from_word(word) {
            Some(feature) if !features.contains(&feature) => features.push(feature),
            Some(_) => {}
            // A driver for a later host: what we do not know, we do not ask for.
            None => tracing::warn!(
                plugin,
                feature = escape(word, 64),
                "the driver has a feature that this host does not know"
            ),
        }
    }
    let max_name_length = usize::try_from(said.max_name_length).unwrap_or(usize::MAX);
    if !(1..=4_096).contains(&max_name_length) {
        return Err(FaultKind::Answer("max-name-length must be 1 to 4096".to_owned()));
    }
    Ok(Description {
        name: said.name,
        version: said.version,
        features,
        max_name_length,
        properties: pairs("property", said.properties, limits)?,
    })
}
