//! Snapshots of prepared instances.
//!
//! A policy and a context provider are prepared once with their configuration, and each call gets a fresh copy of the
//! prepared instance (`wit/policy.wit`). There are two ways to that copy:
//!
//! * instantiate the component and prepare the instance again, for each call;
//! * take a snapshot: prepare one instance, write its memories and globals into the component as its initial state, and
//!   compile that. An instance of the snapshot is the copy. The image of its memory is shared by all instances and
//!   copied page by page where one writes.
//!
//! Both give the same answers, since preparation depends on the configuration alone (PURE-POLICY). The first way serves
//! until the second is ready: a thread takes the snapshot in the background, and the compile cache keeps it for the next
//! start. Loading does nothing for it and is no slower.
//!
//! | module | what it knows |
//! |---|---|
//! | [`instrument`] | which components can be copied so; the component with functions that tell its state |
//! | [`mod@take`] | from a prepared instance to the snapshot of it |
//! | [`worker`] | the thread in the background |

pub(crate) mod instrument;
mod take;
mod worker;

use std::collections::HashMap;
use std::sync::{Arc, OnceLock, Weak};

use aws_lc_rs::digest;
use parking_lot::Mutex;
use wasmtime::component::{ComponentExportIndex, InstancePre};

use self::take::take;
pub(crate) use self::worker::Worker;
use crate::call::Call;
use crate::loaded::Loaded;

/// When snapshots are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Snapshots {
    /// Never: each call prepares its own instance. For commands that ask a few times and end.
    #[default]
    Off,
    /// In the background, while calls prepare their own instances.
    Background,
    /// Before the first call: for measuring and for tests.
    AtOnce,
}

/// A prepared instance as a component.
pub(crate) struct Snapshot {
    /// Linked like the component that it was taken of.
    pub(crate) pre: InstancePre<Call>,
    /// The function that is called on a copy: `decide` or `gather`.
    pub(crate) function: ComponentExportIndex,
}

/// A place for the snapshot of one plugin with one configuration.
#[derive(Default)]
pub(crate) struct Pending {
    taken: OnceLock<Option<Snapshot>>,
}

impl std::fmt::Debug for Pending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = match self.taken.get() {
            None => "not yet",
            Some(None) => "cannot be taken",
            Some(Some(_)) => "taken",
        };
        f.debug_tuple("Pending").field(&state).finish()
    }
}

impl Pending {
    /// The snapshot, if it is there.
    pub(crate) fn get(&self) -> Option<&Snapshot> {
        self.taken.get()?.as_ref()
    }

    /// Takes the snapshot, unless somebody has, and says in the log what became of it.
    fn fill(&self, loaded: &Arc<Loaded>, config: &str) {
        self.taken.get_or_init(|| {
            let began = std::time::Instant::now();
            match take(loaded, config) {
                Ok(snapshot) => {
                    let milliseconds = began.elapsed().as_millis();
                    tracing::debug!(plugin = &*loaded.name, milliseconds, "calls start from a snapshot from now on");
                    Some(snapshot)
                }
                Err(error) => {
                    tracing::warn!(
                        plugin = &*loaded.name,
                        %error,
                        "no snapshot of the prepared plugin: each call prepares an instance of its own, which is slower"
                    );
                    None
                }
            }
        });
    }
}

/// The snapshots of one loaded plugin, by the digest of the configuration. They live as long as somebody uses them.
#[derive(Default)]
pub(crate) struct Taken(Mutex<HashMap<[u8; 32], Weak<Pending>>>);

impl Taken {
    /// The place for a configuration's snapshot. It is filled now, soon or never, as the runtime is set up.
    pub(crate) fn of(&self, loaded: &Arc<Loaded>, config: &str) -> Arc<Pending> {
        let key = digest_of(config);
        let (pending, is_new) = {
            let mut taken = self.0.lock();
            taken.retain(|_, pending| pending.strong_count() > 0);
            match taken.get(&key).and_then(Weak::upgrade) {
                Some(pending) => (pending, false),
                None => {
                    let pending = Arc::new(Pending::default());
                    taken.insert(key, Arc::downgrade(&pending));
                    (pending, true)
                }
            }
        };
        match loaded.core.snapshots {
            Snapshots::Off => {}
            Snapshots::AtOnce => pending.fill(loaded, config),
            Snapshots::Background if is_new => loaded.core.worker.enqueue(loaded, config, &pending),
            Snapshots::Background => {}
        }
        pending
    }
}

fn digest_of(config: &str) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest::digest(&digest::SHA256, config.as_bytes()).as_ref());
    bytes
}
