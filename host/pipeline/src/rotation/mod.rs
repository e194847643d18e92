//! Rotating accounts: a role that hands out one standing account, whose password the broker changes
//! on a schedule.
//!
//! | file | what it holds |
//! |---|---|
//! | [`jit_core::rotation`] | the states and steps, and until when a password works |
//! | [`state`] | the durable record of each account, sealed as a whole, its passwords by themselves |
//! | [`trust`] | whether the record is the last that was written |
//! | [`task`] | one step at a time, in the backend and in the store |
//! | [`probe`] | whether the password that is handed out still works |
//! | [`issue`] | handing the current password out, and again to a retry |
//! | [`operate`] | what operators see and ask |
//! | [`crate::tasks::rotation`] | what does it when it is due |
//!
//! Whoever holds a password may use it until the `expires_at` of the reply: the next rotation and
//! its overlap. With a period of 1h and an overlap of 10m, somebody who asks at 12:00, as the
//! password is new, is told 13:10 and comes back at 12:56 (80 %); gets the same one until 13:10,
//! comes back at 13:07:12, and gets the one that is current since 13:00. An operator who asks for a
//! rotation before its time takes that back: the old one then works for the overlap and no longer.

pub mod issue;
pub mod operate;
pub mod probe;
pub mod state;
pub mod task;
pub mod trust;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::ports::{Driver, Scope};
use jiff::Timestamp;
use jit_core::account::AccountName;
use jit_core::driver::Lane;
use jit_core::driver::TargetView;
use jit_core::lease::{DriverRef, Removal};
use jit_core::name::{RoleName, TargetName};
use jit_core::rotation::{Generation, Schedule};
use tokio::sync::watch;

use crate::clock::LeaseClock;
use crate::ledger::Ledger;
use crate::places::{self, Places, Question};
use crate::sealing::Sealer;
use crate::target::{Serving, Target};

/// A rotating account, as a role of a target is configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RotatingAccount {
    /// The account.
    pub account: AccountName,
    /// When its password changes.
    pub schedule: Schedule,
}

/// The name under which the store has an account: its connection's (or, without one, the driver's)
/// and its own, so that it stays the same when the role moves to another target.
#[must_use]
pub fn name(driver: &DriverRef, account: &AccountName) -> String {
    format!("{}\n{account}", driver.connection.as_ref().unwrap_or(&driver.plugin))
}

/// An account with all that its rotation needs.
pub struct Site {
    /// [`name`].
    pub name: String,
    /// The target through which it is rotated.
    pub target: TargetName,
    /// The role that hands it out.
    pub role: RoleName,
    /// The account.
    pub account: AccountName,
    /// None when the configuration no longer has it: then an overlap is ended, and nothing begun.
    pub schedule: Option<Schedule>,
    /// Who changes the password.
    pub driver: Arc<dyn Driver>,
    /// Who that is, for the record.
    pub driver_ref: DriverRef,
    /// The target as the driver sees it.
    pub view: TargetView,
    /// Connection, deadline, lane. As a removal: what ends an access does not wait behind requests.
    pub scope: Scope,
    /// What the host knows of where the connection leads.
    pub leads_to: places::Site,
}

impl Site {
    /// A configured one.
    #[must_use]
    pub fn of(target: &Target, role: &RoleName, rotating: &RotatingAccount) -> Self {
        let driver_ref = target.driver_ref();
        Self {
            name: name(&driver_ref, &rotating.account),
            target: target.name.clone(),
            role: role.clone(),
            account: rotating.account.clone(),
            schedule: Some(rotating.schedule),
            driver: target.driver.clone(),
            driver_ref,
            view: target.view.clone(),
            scope: target.scope(Lane::Removal),
            leads_to: target.site.clone(),
        }
    }

    /// All that are configured.
    pub fn configured(serving: &Serving) -> impl Iterator<Item = Self> {
        serving.targets.values().flat_map(|target| {
            let roles = target.roles.iter();
            roles.filter_map(|(name, role)| Some(Self::of(target, name, role.rotating.as_deref()?)))
        })
    }

    /// One that is only in the store: the driver and connection that made its last rotation, if the
    /// configuration still has them.
    pub(crate) fn left_behind(serving: &Serving, name: &str, record: &state::Record) -> Option<Self> {
        let remover = serving.remover(&record.target, &record.driver).ok()?;
        Some(Self {
            name: name.to_owned(),
            target: record.target.clone(),
            role: record.role.clone(),
            account: record.account.clone(),
            schedule: None,
            driver: remover.driver,
            driver_ref: record.driver.clone(),
            view: remover.view,
            scope: remover.scope,
            leads_to: remover.site,
        })
    }

    /// Whom to ask where the account is.
    fn question(&self) -> Question<'_> {
        Question::new(&*self.driver, &self.view, self.scope, &self.leads_to)
    }
}

/// What it takes to rotate an account.
pub struct RotationFlow {
    /// The accounts' records, sealed.
    pub(crate) ledger: Ledger,
    pub(crate) clock: Arc<LeaseClock>,
    /// Whether what answers is where the account is.
    pub(crate) places: Arc<Places>,
    /// None without a sealing key: then nothing is rotated.
    pub(crate) sealer: Option<Arc<Sealer>>,
    pub(crate) rotations: Rotations,
}

impl RotationFlow {
    pub(crate) fn new(
        ledger: Ledger,
        clock: Arc<LeaseClock>,
        places: Arc<Places>,
        sealer: Option<Arc<Sealer>>,
    ) -> Self {
        Self { ledger, clock, places, sealer, rotations: Rotations::default() }
    }

    /// Whether there is a key, without which no account can be rotated.
    #[must_use]
    pub fn has_key(&self) -> bool {
        self.sealer.is_some()
    }
}

/// What the process knows of its rotations beside the store; losing it costs an attempt.
#[derive(Default)]
pub struct Rotations {
    at_work: Mutex<HashMap<String, Arc<Working>>>,
    /// What the log said at the start of the accounts' records.
    logged: tokio::sync::OnceCell<HashMap<String, trust::Known>>,
}

impl Rotations {
    /// One account's.
    #[must_use]
    pub fn of(&self, name: &str) -> Arc<Working> {
        let mut all = self.at_work.lock();
        Arc::clone(all.entry(name.to_owned()).or_default())
    }
}

/// One account's rotation in this process.
#[derive(Default)]
pub struct Working {
    /// Held by who changes the record: one step after the other.
    pub(crate) turn: tokio::sync::Mutex<()>,
    memory: Mutex<Memory>,
    changed: watch::Sender<u64>,
}

#[derive(Default)]
struct Memory {
    /// That password's end is decided on, and about to become durable.
    closing: Option<(Generation, Timestamp)>,
    trouble: Option<Trouble>,
    /// The password that this process decided on, to replace every other.
    replacing: Option<Generation>,
    /// What the last login with a password said, and when it was tried.
    tried: Option<(Generation, probe::Login, Instant)>,
    /// What the account's record has to live up to.
    known: trust::Known,
    /// The highest number under which a record may have been written.
    written: u64,
    /// Whether the leases were asked what they know of it.
    asked_leases: bool,
}

/// How a step fails.
#[derive(Debug, Clone)]
pub struct Trouble {
    /// How often in a row.
    pub attempts: u32,
    /// When it is tried again.
    pub again: Instant,
    /// What went wrong last, without secrets.
    pub error: String,
    /// The backend said no, and will say it again until somebody has changed something.
    pub refused: bool,
}

impl Working {
    fn memory(&self) -> parking_lot::MutexGuard<'_, Memory> {
        self.memory.lock()
    }

    /// From here on nobody is told that this password works longer than that.
    fn close(&self, generation: Generation, until: Timestamp) {
        self.memory().closing = Some((generation, until));
    }

    /// The end that is decided on, where the store may not have it yet. Ask after reading the store.
    fn closing(&self, generation: Generation) -> Option<Timestamp> {
        self.memory().closing.filter(|(closing, _)| *closing == generation).map(|(_, until)| until)
    }

    /// How its step fails, if it does.
    #[must_use]
    pub fn trouble(&self) -> Option<Trouble> {
        self.memory().trouble.clone()
    }

    /// What the last login with that password said, unless it was longer ago than that.
    fn tried(&self, generation: Generation, within: Duration) -> Option<probe::Login> {
        let tried = self.memory().tried.filter(|(of, _, at)| *of == generation && at.elapsed() < within);
        tried.map(|(_, login, _)| login)
    }

    /// This process decided on that password, to replace every other.
    fn replaces_with(&self, generation: Generation) {
        self.memory().replacing = Some(generation);
    }

    /// Whether it did. Another's decision is made again: an old record that was put back into the store
    /// would bring back a password that somebody knows.
    fn decided_on(&self, generation: Generation) -> bool {
        self.memory().replacing == Some(generation)
    }

    /// Whether that password is to be tried: it has not been for a while, or it was found dead.
    pub(crate) fn wants_probe(&self, generation: Generation) -> bool {
        self.tried(generation, probe::EVERY).is_none_or(|login| login == probe::Login::Refused)
    }

    fn known(&self) -> trust::Known {
        self.memory().known
    }

    /// The account's record was seen, or is known from elsewhere, to be as new as this.
    fn saw(&self, known: trust::Known) {
        let mut memory = self.memory();
        memory.known = memory.known.and(known);
    }

    fn asked_leases(&self) -> bool {
        self.memory().asked_leases
    }

    fn note_leases(&self, known: trust::Known) {
        self.memory().asked_leases = true;
        self.saw(known);
    }

    /// The number of the next record; never the same twice, since what became of a failed write is not known.
    fn next_number(&self) -> u64 {
        let mut memory = self.memory();
        memory.written = memory.written.max(memory.known.number).saturating_add(1);
        memory.written
    }

    fn note_login(&self, generation: Generation, login: probe::Login) {
        self.memory().tried = Some((generation, login, Instant::now()));
    }

    fn failed(&self, error: String, refused: bool) -> u32 {
        let mut memory = self.memory();
        let attempts = memory.trouble.as_ref().map_or(0, |trouble| trouble.attempts).saturating_add(1);
        memory.trouble = Some(Trouble { attempts, again: Instant::now() + Removal::backoff(attempts), error, refused });
        drop(memory);
        self.tell();
        attempts
    }

    /// The next attempt is at once.
    pub(crate) fn forgive(&self) {
        self.memory().trouble = None;
    }

    fn done(&self) {
        self.memory().trouble = None;
        self.tell();
    }

    fn tell(&self) {
        self.changed.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Told of each step, done or failed.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }
}

/// How long somebody waits for a step: the target's own patience, within bounds.
fn patience(scope: &Scope) -> Duration {
    scope.deadline.clamp(Duration::from_secs(1), Duration::from_secs(60))
}
