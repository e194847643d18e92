//! From a prepared instance to the snapshot of it.

use std::sync::Arc;

use wasmtime::component::{Component, ComponentExportIndex, Instance, InstancePre, Lift, WasmList};
use wasmtime::{Store, UpdateDeadline};
use wasmtime_wizer::ComponentInstanceState;

use super::instrument::{guarded, instrumented, reason, wizer};
use super::{Snapshot, digest_of};
use crate::answer;
use crate::call::{Call, Pace, drive};
use crate::fault::join;
use crate::file::ComponentFile;
use crate::loaded::{Loaded, configured, exported};

/// Takes the snapshot of a plugin that is prepared with a configuration, or reads it from the compile cache.
///
/// # Errors
/// The reason for which there is no snapshot.
pub(super) fn take(loaded: &Arc<Loaded>, config: &str) -> Result<Snapshot, String> {
    let core = &loaded.core;
    let key = format!("{}.prepared-{}", loaded.sha256, &hex::encode(digest_of(config))[..32]);
    let component = match core.cache.kept(&core.engine, &key) {
        Some(component) => component,
        None => compiled(loaded, &key, &guarded(|| prepared_component(loaded, config))?)?,
    };
    link(loaded, &component).map_err(|error| reason(&error))
}

/// A component that has the code of the loaded one, from the compile cache or compiled and kept there.
fn compiled(loaded: &Loaded, key: &str, bytes: &[u8]) -> Result<Component, String> {
    let core = &loaded.core;
    let compile = || compile(loaded, bytes);
    match core.cache.kept(&core.engine, key) {
        Some(component) => Ok(component),
        None => core.cache.compile_and_keep(&core.engine, key, compile).map_err(|error| reason(&error)),
    }
}

/// Compiles what has the code of the loaded component. Its functions are taken from the cache, or kept there.
fn compile(loaded: &Loaded, bytes: &[u8]) -> wasmtime::Result<Vec<u8>> {
    let core = &loaded.core;
    if let Some(functions) = core.cache.recorded(&loaded.sha256) {
        let functions = Arc::new(functions);
        let code = core.precompile_with(Arc::clone(&functions) as _, bytes);
        tracing::debug!(plugin = &*loaded.name, functions = functions.given(), "not compiled again");
        return code;
    }
    let Some(recorder) = core.cache.recorder(&loaded.sha256) else { return core.engine.precompile_component(bytes) };
    let recorder = Arc::new(recorder);
    let code = core.precompile_with(Arc::clone(&recorder) as _, bytes).inspect_err(|_| recorder.give_up());
    core.cache.keep(&recorder);
    code
}

fn link(loaded: &Loaded, component: &Component) -> wasmtime::Result<Snapshot> {
    component.initialize_copy_on_write_image()?;
    let pre = loaded.linker.instantiate_pre(component)?;
    let asked_by = loaded.asked_by().ok_or_else(|| wasmtime::Error::msg("a driver is not prepared"))?;
    Ok(Snapshot { pre, function: function(loaded, component, asked_by)? })
}

/// A function of the interface that makes the plugin its kind.
fn function(loaded: &Loaded, component: &Component, name: &str) -> wasmtime::Result<ComponentExportIndex> {
    exported(component, &loaded.export, name).ok_or_else(|| wasmtime::Error::msg(format!("there is no {name}")))
}

/// The component whose initial state is that of the prepared instance.
fn prepared_component(loaded: &Loaded, config: &str) -> Result<Vec<u8>, String> {
    // Read again: between load and now nobody needed the bytes, and a component with an interpreter has many.
    let file = ComponentFile::read(&loaded.path).map_err(|error| error.to_string())?;
    if file.sha256 != loaded.sha256 {
        return Err(format!("{} is another file now than when it was loaded", loaded.path.display()));
    }
    let core = &loaded.core;
    let wizer = wizer();
    let (context, telling) = instrumented(&wizer, &file.bytes)?;
    // Kept too: further configurations need it.
    let component = compiled(loaded, &format!("{}.telling", loaded.sha256), &telling)?;
    drop(telling);
    let pre = loaded.linker.instantiate_pre(&component).map_err(|error| reason(&error))?;

    // One at a time: the pool has a few slots for this.
    let _one = core.trial.lock();
    let call = loaded.call();
    let track = Arc::clone(&call.meter.track);
    let mut store = call.into_store(&core.engine, Pace::Gathering);
    drive(track.metered(async {
        let instance = prepare(loaded, &pre, &mut store, config).await?;
        // What follows is the host's work on what the guest left, and none of the guest's code: whole memories cross, and
        // looking through them is not the guest's time.
        store.set_hostcall_fuel(usize::MAX);
        store.epoch_deadline_callback(|_| Ok(UpdateDeadline::Yield(1)));
        let mut state = State { store: &mut store, instance, failed: None };
        let snapshot = wizer.snapshot_component(&context, &mut state).await.map_err(|error| reason(&error))?;
        match state.failed {
            Some(error) => Err(reason(&error)),
            None => Ok(snapshot),
        }
    }))
}

/// An instance that has its configuration.
async fn prepare(
    loaded: &Loaded,
    pre: &InstancePre<Call>,
    store: &mut Store<Call>,
    config: &str,
) -> Result<Instance, String> {
    store.data_mut().meter.mute();
    let called = async { configured(pre, store, &function(loaded, pre.component(), "prepare")?, config).await };
    match called.await {
        Ok((instance, (Ok(()),))) => Ok(instance),
        Ok((_, (Err(problems),))) => Err(join(&answer::problems(problems, &loaded.core.limits))),
        Err(error) => Err(store.data_mut().fault(&error).to_string()),
    }
}

/// Reads the state of an instance through the functions that instrumenting added.
struct State<'a> {
    store: &'a mut Store<Call>,
    instance: Instance,
    /// The first that did not work: the snapshot is worth nothing then.
    failed: Option<wasmtime::Error>,
}

impl State<'_> {
    async fn read<R: Lift + Send + Sync + 'static>(&mut self, interface: &str, function: &str) -> Option<R> {
        let read = async {
            let missing = || wasmtime::Error::msg("a function that tells its state is missing");
            let (_, interface) = self.instance.get_export(&mut *self.store, None, interface).ok_or_else(missing)?;
            let (_, function) =
                self.instance.get_export(&mut *self.store, Some(&interface), function).ok_or_else(missing)?;
            let function = self.instance.get_typed_func::<(), (R,)>(&mut *self.store, function)?;
            Ok::<_, wasmtime::Error>(function.call_async(&mut *self.store, ()).await?.0)
        };
        match read.await {
            Ok(value) => Some(value),
            Err(error) => {
                self.failed.get_or_insert(error);
                None
            }
        }
    }
}

impl ComponentInstanceState for State<'_> {
    async fn call_func_ret_list_u8(&mut self, interface: &str, function: &str, use_it: impl FnOnce(&[u8]) + Send) {
        if let Some(list) = self.read::<WasmList<u8>>(interface, function).await {
            use_it(list.as_le_slice(&*self.store));
        }
    }

    async fn call_func_ret_s32(&mut self, interface: &str, function: &str) -> i32 {
        self.read(interface, function).await.unwrap_or_default()
    }

    async fn call_func_ret_s64(&mut self, interface: &str, function: &str) -> i64 {
        self.read(interface, function).await.unwrap_or_default()
    }

    async fn call_func_ret_f32(&mut self, interface: &str, function: &str) -> u32 {
        self.read::<f32>(interface, function).await.unwrap_or_default().to_bits()
    }

    async fn call_func_ret_f64(&mut self, interface: &str, function: &str) -> u64 {
        self.read::<f64>(interface, function).await.unwrap_or_default().to_bits()
    }
}
