//! Secrets that are kept between calls: in memory for the connection, and written through to the
//! broker's store.
//!
//! Memory is what decides. The store is read once for each key, when it is first asked for, and
//! written after each change; where it fails, that is a warning, and what is lost is lost only at
//! the next restart.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use parking_lot::{Mutex, MutexGuard};
use secrecy::{ExposeSecret as _, SecretString};

use super::{Kept, SessionStore};

/// Most keys of one kind of one plugin on one connection, and most kinds. A kind is what stands before
/// the first space: logins and notes do not take each other's room.
const KEYS: usize = 64;
const KINDS: usize = 4;

/// Longest key, in bytes.
const KEY_BYTES: usize = 128;

/// Longest secret, in bytes.
pub(super) const SECRET_BYTES: usize = 64 << 10;

/// How long the store may take.
const STORE: Duration = Duration::from_secs(2);

/// The latest end: the year 9999, in seconds since the Unix epoch.
const LATEST: u64 = 253_402_300_799;

/// How long a call waits for another one that is about to keep what it looks for.
const TURN: Duration = Duration::from_secs(10);

/// What the plugins of one connection keep.
pub(super) struct KeptSecrets {
    memory: Arc<Memory>,
    /// By plugin and key: whose turn it is to make what is missing.
    turns: Mutex<Turns>,
}

/// One call's turn to make what is missing (to log in); others wait until it ends.
#[derive(Debug)]
pub(super) struct Turn {
    key: String,
    _held: tokio::sync::OwnedMutexGuard<()>,
}

impl Turn {
    /// Whether it is for that key.
    pub(super) fn is_for(&self, key: &str) -> bool {
        self.key == key
    }
}

struct Memory {
    connection: String,
    store: Option<Arc<dyn SessionStore>>,
    /// By plugin and key. An entry without a secret says that the store has been asked.
    slots: Mutex<Slots>,
    /// Held while the store is written, so that the last state is what stays there.
    writing: tokio::sync::Mutex<()>,
}

type Slots = BTreeMap<(Arc<str>, String), Option<Kept>>;
type Turns = BTreeMap<(Arc<str>, String), Arc<tokio::sync::Mutex<()>>>;

impl fmt::Debug for KeptSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeptSecrets").field("connection", &self.memory.connection).finish_non_exhaustive()
    }
}

impl KeptSecrets {
    /// For the connection of that name.
    pub(super) fn new(connection: String, store: Option<Arc<dyn SessionStore>>) -> Self {
        let memory =
            Memory { connection, store, slots: Mutex::new(BTreeMap::new()), writing: tokio::sync::Mutex::new(()) };
        Self { memory: Arc::new(memory), turns: Mutex::default() }
    }

    /// What is kept, when it is valid for at least so many more seconds.
    pub(super) async fn kept(&self, plugin: &Arc<str>, key: &str, at_least: u64) -> Option<SecretString> {
        if !self.memory.recall(plugin, key).await {
            return None;
        }
        let slots = self.memory.slots();
        let kept = slots.get(&(Arc::clone(plugin), key.to_owned()))?.as_ref()?;
        let left = left(kept);
        (left > 0 && left >= at_least).then(|| kept.secret.clone())
    }

    /// Waits for the turn to make what is kept under the key. Whoever asked first logs in; the others
    /// find what it kept, so that a login that works once (a one-time secret id) is used once. `None`
    /// when the wait was too long, or nothing can be kept there: then the call goes on without.
    pub(super) async fn turn(&self, plugin: &Arc<str>, key: &str) -> Option<Turn> {
        let slot = (Arc::clone(plugin), key.to_owned());
        if !self.memory.slots().contains_key(&slot) {
            return None;
        }
        let turn = {
            let mut turns = self.turns.lock();
            Arc::clone(turns.entry(slot).or_default())
        };
        let held = tokio::time::timeout(TURN, turn.lock_owned()).await.ok()?;
        Some(Turn { key: key.to_owned(), _held: held })
    }

    /// Keeps a secret and gives the one that now holds.
    ///
    /// # Errors
    /// In words, when it cannot be kept.
    pub(super) async fn keep(
        &self,
        plugin: &Arc<str>,
        key: &str,
        secret: SecretString,
        valid: u64,
        unless: u64,
    ) -> Result<SecretString, String> {
        let refused = |reason: String| {
            tracing::warn!(%plugin, connection = &self.memory.connection, "a secret is not kept: {reason}");
            Err(reason)
        };
        if secret.expose_secret().len() > SECRET_BYTES {
            return refused(format!("it has more than {SECRET_BYTES} bytes"));
        }
        if !self.memory.recall(plugin, key).await {
            return refused(format!("at most {KEYS} keys of a kind are, of {KEY_BYTES} bytes and {KINDS} kinds"));
        }
        {
            let mut slots = self.memory.slots();
            let slot = slots.entry((Arc::clone(plugin), key.to_owned())).or_default();
            if let Some(there) = slot
                && !is_same(&there.secret, &secret)
                && left(there) > unless
            {
                return Ok(there.secret.clone());
            }
            let valid_until = now().saturating_add(valid).min(LATEST);
            *slot = Some(Kept { secret: secret.clone(), valid_until });
        }
        self.memory.write_through(plugin, key).await;
        Ok(secret)
    }

    /// Forgets what is kept, if it is this secret; says whether it was.
    pub(super) async fn forget(&self, plugin: &Arc<str>, key: &str, secret: &SecretString) -> bool {
        if !self.memory.recall(plugin, key).await {
            return false;
        }
        // Another broker of the store may have kept a newer one. It is not forgotten with the old one.
        let newer =
            self.memory.stored(plugin, key).await.filter(|kept| !is_same(&kept.secret, secret) && left(kept) > 0);
        let another = newer.is_some();
        {
            let mut slots = self.memory.slots();
            match slots.get_mut(&(Arc::clone(plugin), key.to_owned())) {
                Some(slot) if slot.as_ref().is_some_and(|there| is_same(&there.secret, secret)) => *slot = newer,
                _ => return false,
            }
        }
        if another {
            return true;
        }
        self.memory.write_through(plugin, key).await;
        true
    }
}

impl Memory {
    fn slots(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock()
    }

    /// Makes sure that memory knows what the store has. `false` when the key can not be kept: it is
    /// too long, or there are too many.
    async fn recall(&self, plugin: &Arc<str>, key: &str) -> bool {
        if key.len() > KEY_BYTES {
            return false;
        }
        let slot = (Arc::clone(plugin), key.to_owned());
        let is_over = |kept: &Option<Kept>| kept.as_ref().is_some_and(|kept| left(kept) == 0);
        let known = self.slots().get(&slot).map(is_over);
        // What is over may have been renewed by another broker of the store.
        if known == Some(false) || (known == Some(true) && self.store.is_none()) {
            return true;
        }
        if known.is_none() && !make_room(&mut self.slots(), plugin, key) {
            return false;
        }
        let stored = self.stored(plugin, key).await;
        let mut slots = self.slots();
        // Another call may have been here meanwhile; what it knows is newer.
        if let Some(kept) = slots.get_mut(&slot) {
            if is_over(kept) && stored.is_some() {
                *kept = stored;
            }
            return true;
        }
        if !make_room(&mut slots, plugin, key) {
            return false;
        }
        slots.insert(slot, stored);
        true
    }

    /// What the store has. Its failure is logged.
    async fn stored(&self, plugin: &Arc<str>, key: &str) -> Option<Kept> {
        let store = self.store.as_ref()?;
        let key = stored_key(plugin, key);
        match tokio::time::timeout(STORE, store.load(&self.connection, &key)).await {
            Ok(Ok(kept)) => kept,
            Ok(Err(reason)) => self.warn(plugin, &reason),
            Err(_) => self.warn(plugin, "no answer in time"),
        }
    }

    fn warn<T>(&self, plugin: &Arc<str>, reason: &str) -> Option<T> {
        let reason = crate::text::escape(reason, 500);
        tracing::warn!(%plugin, connection = self.connection, "the store of kept secrets failed: {reason}");
        None
    }

    /// Brings the store to what memory has. Goes on when its caller is cut off.
    async fn write_through(self: &Arc<Self>, plugin: &Arc<str>, key: &str) {
        let Some(store) = self.store.clone() else { return };
        let (memory, plugin, key) = (Arc::clone(self), Arc::clone(plugin), key.to_owned());
        let writing = tokio::spawn(async move {
            let writing = async {
                let _turn = memory.writing.lock().await;
                // Read in turn: whoever writes last writes the last state.
                let kept = memory.slots().get(&(Arc::clone(&plugin), key.clone())).cloned().flatten();
                store.save(&memory.connection, &stored_key(&plugin, &key), kept.as_ref()).await
            };
            match tokio::time::timeout(STORE, writing).await {
                Ok(Ok(())) => {}
                Ok(Err(reason)) => drop(memory.warn::<()>(&plugin, &reason)),
                Err(_) => drop(memory.warn::<()>(&plugin, "no answer in time")),
            }
        });
        // A panic of the store has been reported by the runtime; memory has the secret.
        let _ = writing.await;
    }
}

/// Whether this key of the plugin fits too, once what no longer holds is dropped.
fn make_room(slots: &mut Slots, plugin: &Arc<str>, key: &str) -> bool {
    let fits = |slots: &Slots| {
        let kinds = slots.keys().filter(|(owner, _)| owner == plugin).map(|(_, key)| kind(key));
        let (mut alike, mut others) = (0, BTreeSet::new());
        for other in kinds {
            if other == kind(key) {
                alike += 1;
            } else {
                others.insert(other);
            }
        }
        alike < KEYS && others.len() < KINDS
    };
    fits(slots) || {
        slots.retain(|(owner, _), kept| owner != plugin || kept.as_ref().is_some_and(|kept| left(kept) > 0));
        fits(slots)
    }
}

/// What a key is for.
fn kind(key: &str) -> &str {
    key.split_once(' ').map_or(key, |(kind, _)| kind)
}

/// A key in the store: two plugins of one connection share nothing. A plugin's name has no `/`.
fn stored_key(plugin: &str, key: &str) -> String {
    format!("{plugin}/{key}")
}

fn is_same(one: &SecretString, other: &SecretString) -> bool {
    verify_slices_are_equal(one.expose_secret().as_bytes(), other.expose_secret().as_bytes()).is_ok()
}

/// Seconds for which it is still valid.
fn left(kept: &Kept) -> u64 {
    kept.valid_until.saturating_sub(now())
}

fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
