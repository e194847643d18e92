//! Passwords that are made ahead: each with what its server stores of it, so that no request waits for that hash.
//!
//! A server stores SCRAM-SHA-256 with some thousand iterations, or the like. The broker computes it, since the server
//! must not see the password. [`Ready`] does so while no request for an account is under way, one password at a time,
//! on one thread of the lowest priority. Where nothing is ready, the hash is computed during the call, as it would be
//! without this.
//!
//! What holds of a password that nobody asked for yet:
//! - It is handed out once. It leaves the shelf by move, [`NewPassword`] cannot be cloned, and none ever comes back:
//!   one whose account was refused is wiped.
//! - There are few. A form has at most as many as were asked for lately, so a broker that hands out nothing holds
//!   nothing; [`MOST_PAIRS`] of a form and [`MOST_FORMS`] forms bound them all.
//! - It does not grow old: after [`LIFETIME`] it is wiped, as all of them are at a reload and at a stop.
//! - It is in memory only: in no store, log or metric. Metrics have numbers.
//!
//! Which form a role needs is not configured but seen: it is the form in which its driver placed the password before.
//! A driver that places the next one otherwise costs the time of a hash, and nothing else.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use jit_core::secret::{Form, NewPassword};
use parking_lot::{Condvar, Mutex};
use tokio::time::Instant;

/// The most passwords of one form that are ready.
pub const MOST_PAIRS: usize = 64;
/// The most forms. A driver may ask for another one in each call: the form that was asked for longest ago then goes.
pub const MOST_FORMS: usize = 8;
/// How long a password may wait. Also how long a form is kept ready after it was last asked for, at least.
pub const LIFETIME: Duration = Duration::from_secs(600);

/// The form in which a role's driver placed a password last.
#[derive(Debug, Default)]
pub struct LastForm(Mutex<Option<Form>>);

impl LastForm {
    /// The form; none before the first password.
    #[must_use]
    pub fn last(&self) -> Option<Form> {
        *self.0.lock()
    }

    /// Notes what a call did. A call that did not get as far as placing a password says nothing.
    pub fn note(&self, placed: Option<Form>) {
        if placed.is_some() {
            *self.0.lock() = placed;
        }
    }
}

/// Passwords of one form.
struct Shelf {
    /// The oldest first.
    pairs: VecDeque<(Instant, NewPassword)>,
    /// How many were asked for since `since`, and in the period before.
    asked: usize,
    asked_before: usize,
    since: Instant,
    last_asked: Instant,
}

impl Shelf {
    const fn new(now: Instant) -> Self {
        Self { pairs: VecDeque::new(), asked: 0, asked_before: 0, since: now, last_asked: now }
    }

    /// How many should be ready: never more than were asked for lately.
    fn wanted(&self) -> usize {
        self.asked.saturating_add(self.asked_before).min(MOST_PAIRS)
    }

    /// Wipes what is old. After a period, only the requests of that one and of the current one count.
    fn grow_older(&mut self, now: Instant) {
        while self.pairs.front().is_some_and(|(made, _)| now.duration_since(*made) >= LIFETIME) {
            self.pairs.pop_front();
        }
        let passed = now.duration_since(self.since);
        if passed >= LIFETIME {
            self.asked_before = if passed < 2 * LIFETIME { self.asked } else { 0 };
            self.asked = 0;
            self.since = now;
        }
        self.pairs.truncate(self.wanted());
    }

    /// When it has to grow older next.
    fn next_change(&self) -> Instant {
        let oldest = self.pairs.front().map(|(made, _)| *made);
        oldest.map_or(self.since, |made| made.min(self.since)) + LIFETIME
    }
}

#[derive(Default)]
struct Shelves {
    of: HashMap<Form, Shelf>,
    /// Requests for an account that are under way.
    busy: usize,
    /// None are kept any more.
    is_closed: bool,
}

/// What the thread does next.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Make(Form),
    /// Until then, or until something changes.
    WaitUntil(Option<Instant>),
    End,
}

impl Shelves {
    fn len(&self) -> usize {
        self.of.values().map(|shelf| shelf.pairs.len()).sum()
    }

    fn grow_older(&mut self, now: Instant) {
        self.of.values_mut().for_each(|shelf| shelf.grow_older(now));
        self.of.retain(|_, shelf| shelf.wanted() > 0);
    }

    fn take(&mut self, form: Form, now: Instant) -> Option<NewPassword> {
        let shelf = self.of.get_mut(&form)?;
        shelf.grow_older(now);
        shelf.pairs.pop_front().map(|(_, password)| password)
    }

    /// A password was placed in that form: the next one may be ready.
    fn asked_for(&mut self, form: Form, now: Instant) {
        if self.is_closed {
            return;
        }
        if !self.of.contains_key(&form) && self.of.len() >= MOST_FORMS {
            let longest_ago = self.of.iter().min_by_key(|(_, shelf)| shelf.last_asked).map(|(form, _)| *form);
            longest_ago.map(|form| self.of.remove(&form));
        }
        let shelf = self.of.entry(form).or_insert_with(|| Shelf::new(now));
        shelf.grow_older(now);
        shelf.asked = shelf.asked.saturating_add(1);
        shelf.last_asked = now;
    }

    /// Keeps what was made, where it is still wanted; wipes it else.
    fn put(&mut self, form: Form, password: NewPassword, now: Instant) {
        if let Some(shelf) = self.of.get_mut(&form)
            && !self.is_closed
            && shelf.pairs.len() < shelf.wanted()
        {
            shelf.pairs.push_back((now, password));
        }
    }

    /// The form that lacks passwords and was asked for last.
    fn lacking(&self) -> Option<Form> {
        let lacking = self.of.iter().filter(|(_, shelf)| shelf.pairs.len() < shelf.wanted());
        lacking.max_by_key(|(_, shelf)| shelf.last_asked).map(|(form, _)| *form)
    }

    fn step(&mut self, now: Instant) -> Step {
        if self.is_closed {
            return Step::End;
        }
        self.grow_older(now);
        match self.lacking() {
            Some(form) if self.busy == 0 => Step::Make(form),
            _ => Step::WaitUntil(self.of.values().map(Shelf::next_change).min()),
        }
    }
}

/// Passwords that are made ahead; the module says what holds of them.
pub struct Ready {
    shelves: Mutex<Shelves>,
    changed: Condvar,
    make: fn(Form) -> Option<NewPassword>,
}

impl Default for Ready {
    fn default() -> Self {
        Self::made_by(NewPassword::generate_in)
    }
}

impl fmt::Debug for Ready {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ready").field("ready", &self.shelves.lock().len()).finish_non_exhaustive()
    }
}

/// A request for an account is under way for as long as this lives.
pub struct Busy<'r>(&'r Ready);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        let mut shelves = self.0.shelves.lock();
        shelves.busy -= 1;
        if shelves.busy == 0 && shelves.lacking().is_some() {
            self.0.changed.notify_one();
        }
    }
}

impl Ready {
    fn made_by(make: fn(Form) -> Option<NewPassword>) -> Self {
        Self { shelves: Mutex::default(), changed: Condvar::new(), make }
    }

    /// Begins a request for an account: until it ends, no password is begun.
    pub fn busy(&self) -> Busy<'_> {
        self.shelves.lock().busy += 1;
        Busy(self)
    }

    /// How many wait for a request.
    pub fn how_many(&self) -> usize {
        self.shelves.lock().len()
    }

    /// A new password for one account, with its hash where one of that form is ready.
    pub fn take(&self, form: Option<Form>) -> NewPassword {
        let taken = form.and_then(|form| {
            let mut shelves = self.shelves.lock();
            let taken = shelves.take(form, Instant::now());
            tell_how_many(&shelves);
            taken
        });
        taken.unwrap_or_else(NewPassword::generate)
    }

    /// Counts what a driver did with a password. Returns the form in which it placed it, if it is one that can be
    /// ready.
    pub fn placed(&self, password: &NewPassword) -> Option<Form> {
        let form = password.placed_in()?;
        let outcome = if password.computed() == Some(form) { "ready" } else { "computed" };
        metrics::counter!("jit_ready_passwords_total", "outcome" => outcome).increment(1);
        self.shelves.lock().asked_for(form, Instant::now());
        Some(form)
    }

    /// Wipes them all: another configuration serves, which may need other forms.
    pub fn forget(&self) {
        let mut shelves = self.shelves.lock();
        shelves.of.clear();
        tell_how_many(&shelves);
        self.changed.notify_one();
    }

    /// Wipes them all, and ends the thread that makes them. From then on none is kept.
    pub fn close(&self) {
        let mut shelves = self.shelves.lock();
        shelves.of.clear();
        shelves.is_closed = true;
        tell_how_many(&shelves);
        self.changed.notify_one();
    }

    /// Starts the thread that makes them. Without it every hash is computed during its call.
    pub fn start(self: &Arc<Self>) {
        let ready = Arc::clone(self);
        let started = thread::Builder::new().name("ready-passwords".to_owned()).spawn(move || {
            lower_priority();
            ready.work();
        });
        if let Err(error) = started {
            tracing::warn!(%error, "no thread to make passwords ahead: each is made during its request");
            self.close();
        }
    }

    /// Makes passwords until [`Self::close`].
    fn work(&self) {
        // What panics is not tried again: each request computes its own hash then, and its failure is its own.
        if catch_unwind(AssertUnwindSafe(|| self.fill())).is_err() {
            tracing::error!("making passwords ahead panicked and stops: each is made during its request");
        }
        self.close();
    }

    fn fill(&self) {
        let mut shelves = self.shelves.lock();
        loop {
            let step = shelves.step(Instant::now());
            tell_how_many(&shelves);
            match step {
                Step::End => return,
                Step::WaitUntil(None) => self.changed.wait(&mut shelves),
                Step::WaitUntil(Some(then)) => {
                    self.changed.wait_for(&mut shelves, then.saturating_duration_since(Instant::now()));
                }
                Step::Make(form) => {
                    // Nobody waits for this: the lock is free meanwhile.
                    let made = parking_lot::MutexGuard::unlocked(&mut shelves, || (self.make)(form));
                    let Some(password) = made else { return };
                    shelves.put(form, password, Instant::now());
                }
            }
        }
    }
}

fn tell_how_many(shelves: &Shelves) {
    let ready = u32::try_from(shelves.len()).unwrap_or(u32::MAX);
    metrics::gauge!("jit_ready_passwords").set(f64::from(ready));
}

/// The calling thread gets the processor when nothing else of this process wants it. On Linux a thread has a priority
/// of its own; elsewhere the process has one, which is left alone.
fn lower_priority() {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::setpriority_process(None, 19) {
        tracing::debug!(%error, "the thread that makes passwords ahead has the usual priority");
    }
}

#[cfg(test)]
#[path = "ready_tests.rs"]
mod tests;
