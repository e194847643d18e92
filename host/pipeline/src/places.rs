//! RIGHT-PLACE: where the accounts of each target are, as its server says.
//!
//! What a server said is remembered for each driver, connection and configuration, and asked again: by
//! issues now and then, by removals before each batch, by reconciliations each time. A connection may lead
//! to another server from one moment to the next (a name, a balancer, a failover).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::ports::{Driver, Scope};
use jit_core::driver::Lane;
use jit_core::driver::TargetView;
use jit_core::lease::DriverRef;
use jit_core::outcome::{Outcome, Refusal};
use jit_core::place::{Elsewhere, Place};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::target::{Remover, Target};

/// How old an answer may be for an issue or a renewal.
const LATELY: Duration = Duration::from_secs(30);
/// How old an answer may be for a removal.
const BATCH: Duration = Duration::from_secs(3);
/// After a server did not answer, an issue does not ask it again so soon.
const PAUSE: Duration = Duration::from_secs(5);
/// How long a server may take to say where it is.
const DEADLINE: Duration = Duration::from_secs(5);
/// The most answers that are remembered.
const MOST: usize = 1_024;

/// What the host knows of where a connection leads.
#[derive(Debug, Clone, Default)]
pub struct Site {
    /// Kind, host and port; none without a connection.
    pub address: Option<String>,
    /// Identities of servers whose accounts this one has taken over, by an operator's word.
    pub replaces: Arc<[String]>,
}

/// A server did not say where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotTold {
    /// Its words.
    pub reason: String,
    /// It cannot be reached.
    pub unreachable: bool,
}

/// Why an account is not touched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Misplaced {
    /// What answers is not where the account is.
    Elsewhere(Box<Elsewhere>),
    /// Nobody knows.
    NotTold(NotTold),
}

/// Whom to ask.
pub struct Question<'q> {
    driver: &'q dyn Driver,
    view: &'q TargetView,
    scope: Scope,
    site: &'q Site,
}

impl<'q> From<&'q Remover> for Question<'q> {
    fn from(remover: &'q Remover) -> Self {
        Self { driver: &*remover.driver, view: &remover.view, scope: remover.scope, site: &remover.site }
    }
}

impl<'q> Question<'q> {
    /// Of its parts.
    #[must_use]
    pub fn new(driver: &'q dyn Driver, view: &'q TargetView, scope: Scope, site: &'q Site) -> Self {
        Self { driver, view, scope, site }
    }

    /// About a target as it is configured.
    #[must_use]
    pub fn of(target: &'q Target, lane: Lane) -> Self {
        Self { driver: &*target.driver, view: &target.view, scope: target.scope(lane), site: &target.site }
    }

    fn key(&self) -> Key {
        let address = self.site.address.clone().unwrap_or_default();
        Key { driver: self.driver.sha256().to_owned(), address, config: self.view.config.clone() }
    }

    async fn ask(self) -> Result<Place, NotTold> {
        let scope = Scope { deadline: self.scope.deadline.min(DEADLINE), ..self.scope };
        match self.driver.place(&scope, self.view).await {
            Outcome::Done(told) => Ok(Place::new(self.site.address.clone(), told)),
            Outcome::Refused(refusal) => {
                let unreachable = matches!(refusal, Refusal::Unavailable { answered: false, .. });
                Err(NotTold { reason: refusal.reason(), unreachable })
            }
            Outcome::Unknown(reason) => Err(NotTold { reason, unreachable: false }),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    driver: String,
    address: String,
    config: String,
}

/// What was heard last.
#[derive(Debug, Clone)]
struct Heard {
    place: Option<Place>,
    /// When it was heard; of no answer, when that was known.
    at: Instant,
    /// When an issue asked last.
    asked: Instant,
}

/// What the servers said.
#[derive(Debug, Default)]
pub struct Places(Mutex<HashMap<Key, Heard>>);

impl Places {
    fn heard(&self, key: &Key) -> Option<Heard> {
        self.0.lock().get(key).cloned()
    }

    /// Notes an answer.
    fn note(&self, key: Key, place: &Place) {
        let mut all = self.0.lock();
        if all.len() >= MOST && !all.contains_key(&key) {
            // Of configurations and builds long gone.
            all.clear();
        }
        let before = all.get(&key).and_then(|heard| heard.place.as_ref());
        if let Some(Err(elsewhere)) = before.map(|before| before.is_at(place, &[])) {
            metrics::counter!("jit_place_changes_total").increment(1);
            tracing::error!(before = %elsewhere.recorded, now = %elsewhere.found, "a connection leads to another server than a moment ago");
        }
        let now = Instant::now();
        all.insert(key, Heard { place: Some(place.clone()), at: now, asked: now });
    }

    /// An issue asks: others go on meanwhile with what was heard last.
    fn turn(&self, key: &Key) {
        if let Some(heard) = self.0.lock().get_mut(key) {
            heard.asked = Instant::now();
        }
    }

    /// Where it is, asked now unless that was heard within `age`.
    ///
    /// # Errors
    /// When the server does not answer.
    async fn within(&self, question: Question<'_>, age: Duration) -> Result<Place, NotTold> {
        let key = question.key();
        if let Some(Heard { place: Some(place), at, .. }) = self.heard(&key)
            && at.elapsed() < age
        {
            return Ok(place);
        }
        let answer = question.ask().await;
        if let Ok(place) = &answer {
            self.note(key, place);
        }
        answer
    }

    /// Where it is, asked now.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn now(&self, question: Question<'_>) -> Result<Place, NotTold> {
        self.within(question, Duration::ZERO).await
    }

    /// For a lease that is to be made: where its account will be, as far as the server says. One that does
    /// not answer now will hardly make the account; should it, it was at this address.
    pub async fn lately(&self, target: &Target) -> Place {
        let unknown = Place::new(target.site.address.clone(), Vec::new());
        self.heard_lately(Question::of(target, Lane::Live)).await.unwrap_or(unknown)
    }

    /// Where it is, as far as the server said lately; none when it never answered and does not now.
    async fn heard_lately(&self, question: Question<'_>) -> Option<Place> {
        let key = question.key();
        match self.heard(&key) {
            Some(Heard { place: Some(place), asked, .. }) if asked.elapsed() < LATELY => return Some(place),
            Some(Heard { place: None, asked, .. }) if asked.elapsed() < PAUSE => return None,
            Some(_) => self.turn(&key),
            None => {}
        }
        let target = question.view.name.clone();
        match self.now(question).await {
            Ok(place) => Some(place),
            Err(not_told) => {
                tracing::debug!(target = %target, reason = not_told.reason, "the server does not say where it is");
                self.unheard(key)
            }
        }
    }

    /// Notes that no answer came; gives what was heard before.
    fn unheard(&self, key: Key) -> Option<Place> {
        let now = Instant::now();
        let mut all = self.0.lock();
        all.entry(key).or_insert(Heard { place: None, at: now, asked: now }).place.clone()
    }

    /// Whether what would remove an account is where the account is.
    ///
    /// # Errors
    /// [`Misplaced`]: then it must not be asked.
    pub async fn check_removal(&self, made_by: &DriverRef, remover: &Remover) -> Result<(), Misplaced> {
        let Some(recorded) = &made_by.place else { return Ok(()) };
        let now = self.within(remover.into(), BATCH).await.map_err(Misplaced::NotTold)?;
        self.compare(recorded, &now, &remover.site)
    }

    /// Whether a target is where the account of a live lease is.
    ///
    /// # Errors
    /// [`Misplaced::Elsewhere`]: then it must not be asked.
    pub async fn check_live(&self, made_by: &DriverRef, target: &Target) -> Result<(), Misplaced> {
        let Some(recorded) = &made_by.place else { return Ok(()) };
        let now = self.lately(target).await;
        self.compare(recorded, &now, &target.site)
    }

    /// Where a standing account is, before something is done to it.
    ///
    /// # Errors
    /// [`Misplaced`]: then nothing must be done.
    pub async fn check_standing(&self, recorded: Option<&Place>, question: Question<'_>) -> Result<Place, Misplaced> {
        let site = question.site;
        let now = self.within(question, BATCH).await.map_err(Misplaced::NotTold)?;
        match recorded {
            Some(recorded) => self.compare(recorded, &now, site).map(|()| now),
            None => Ok(now),
        }
    }

    /// Whether a standing account is known to be elsewhere: a server that does not answer is asked nothing
    /// and told nothing.
    ///
    /// # Errors
    /// [`Elsewhere`].
    pub async fn check_handed_out(
        &self,
        recorded: Option<&Place>,
        question: Question<'_>,
    ) -> Result<(), Box<Elsewhere>> {
        let Some(recorded) = recorded else { return Ok(()) };
        let site = question.site;
        match self.heard_lately(question).await {
            Some(now) => recorded.is_at(&now, &site.replaces),
            None => Ok(()),
        }
    }

    fn compare(&self, recorded: &Place, now: &Place, site: &Site) -> Result<(), Misplaced> {
        recorded.is_at(now, &site.replaces).map_err(Misplaced::Elsewhere)
    }
}

/// Today's configuration of a target with those of its keys as they were at the issue that say where the
/// account is: they belong to the record, and only the others may be mended since.
#[must_use]
pub fn with_recorded_place(today: &str, made_by: &DriverRef) -> String {
    let within = made_by.place.iter().flat_map(|place| place.within.keys());
    let read =
        |text: &str| serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(text).unwrap_or_default();
    let then = read(made_by.config.as_deref().unwrap_or("{}"));
    let mut config = read(today);
    let before = config.clone();
    for key in within {
        match then.get(key) {
            Some(value) => config.insert(key.clone(), value.clone()),
            // The driver's default then.
            None => config.remove(key),
        };
    }
    // Unchanged, it stays the same text: the key of what was heard.
    if config == before { today.to_owned() } else { serde_json::Value::Object(config).to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made_by(config: Option<&str>, within: &[(&str, &str)]) -> DriverRef {
        let within = within.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        DriverRef {
            plugin: "vault".into(),
            connection: None,
            sha256: String::new(),
            name: None,
            config: config.map(str::to_owned),
            place: Some(Place { within, ..Place::default() }),
        }
    }

    #[test]
    fn the_keys_that_say_where_an_account_is_are_those_of_its_record() {
        let then = made_by(Some(r#"{"mount":"old","auth":{"role":"then"}}"#), &[("mount", "old")]);
        let config = with_recorded_place(r#"{"mount":"new","auth":{"role":"mended"}}"#, &then);
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&config).unwrap(),
            serde_json::json!({ "mount": "old", "auth": { "role": "mended" } })
        );
        let by_default = made_by(None, &[("mount", "database")]);
        assert_eq!(with_recorded_place(r#"{"mount":"new"}"#, &by_default), "{}");
        let today = r#"{ "mount":"old" }"#;
        assert_eq!(with_recorded_place(today, &then), today, "the same text where nothing differs");
    }
}
