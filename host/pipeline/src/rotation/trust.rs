//! Whether the store's record of a rotating account is the last one that this broker wrote.
//!
//! Its seal shows that the broker wrote it once (`state::read`). That it is the last one shows by what stands
//! elsewhere: the numbers of the log's events, the passwords that leases handed out, and what this process has
//! seen. A record that is older than any of these, or altered, or gone, is not believed: its passwords are not
//! used, that is on record, and the account gets a new one.
//!
//! Trusted with: who writes the store and takes the log's last events and the leases away as well, sets all of
//! it back together; that is what exported checkpoints show.

use std::collections::HashMap;
use std::fmt;

use jit_core::rotation::{Generation, Rotation};
use serde::Deserialize;

use super::state::{self, Envelope, PURPOSE, Record};
use super::{RotationFlow, Working, name};
use crate::sealing::Sealer;
use jit_ledger::{LeaseFilter, Store, StoreError};

/// Records of the log that are read at once, and how many pages from its end on: a start has to end.
const PAGE: u64 = 1_000;
const PAGES: usize = 50;
/// The newest leases of a target that are asked which passwords they handed out.
const LEASES: usize = 1_000;

/// What is known of an account's record from elsewhere. Zero: nothing.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Known {
    /// The record has at least this number.
    pub number: u64,
    /// The current password has at least this one.
    pub generation: Generation,
}

impl Known {
    pub(super) fn and(self, other: Self) -> Self {
        Self { number: self.number.max(other.number), generation: self.generation.max(other.generation) }
    }
}

/// Why a record is not believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Distrust {
    /// It is no record, or not as it was written.
    Altered(String),
    /// The broker wrote it, and later ones.
    SetBack,
    /// There is none, though there was.
    Gone,
}

impl fmt::Display for Distrust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Altered(why) => write!(f, "the store's record of this account was altered: {why}"),
            Self::SetBack => f.write_str("the store's record of this account was rolled back to an older one"),
            Self::Gone => f.write_str("the store's record of this account was taken away"),
        }
    }
}

/// What the store has of an account.
#[derive(Debug, Default)]
pub struct Loaded {
    /// The record; none when it was never rotated, or nothing can be read. Of one that is not believed, the
    /// rotation is [`Rotation::forgotten`].
    pub record: Option<Record>,
    /// Where the rotation stands.
    pub rotation: Rotation<Envelope>,
    /// Why what the store has is not believed, if so.
    pub distrust: Option<Distrust>,
    /// Its number, where its seal holds.
    number: u64,
}

/// Judges a value of the store.
pub(super) fn judge(sealer: Option<&Sealer>, name: &str, value: Option<&[u8]>, known: Known) -> Loaded {
    let Some(value) = value else {
        let distrust = (known.number > 0).then_some(Distrust::Gone);
        return Loaded { rotation: Rotation::forgotten(known.generation), distrust, ..Loaded::default() };
    };
    let found = match state::read(sealer, name, value) {
        Ok(found) => found,
        Err(why) => {
            let rotation = Rotation::forgotten(known.generation);
            return Loaded { rotation, distrust: Some(Distrust::Altered(why)), ..Loaded::default() };
        }
    };
    let number = found.number.unwrap_or(0);
    let mut record = found.record;
    let current = record.rotation.current.as_ref().map(|held| held.generation).unwrap_or_default();
    if number < known.number || current.max(record.rotation.forgotten) < known.generation {
        record.rotation = Rotation::forgotten(known.generation.max(record.rotation.highest()));
        let rotation = record.rotation.clone();
        return Loaded { record: Some(record), rotation, distrust: Some(Distrust::SetBack), number: 0 };
    }
    let number = if found.sealed { number } else { 0 };
    Loaded { rotation: record.rotation.clone(), record: Some(record), distrust: None, number }
}

/// What the log says: the last event of each account that has a number.
pub(super) async fn of_log(store: &dyn Store) -> Result<HashMap<String, Known>, StoreError> {
    /// As [`super::task::event`] writes it.
    #[derive(Deserialize)]
    struct Event {
        ephemeral_id: Option<String>,
        connection: Option<String>,
        record: Option<u64>,
        generation: Option<Generation>,
    }

    let mut known: HashMap<String, Known> = HashMap::new();
    let mut end = last(store).await?;
    for _ in 0..PAGES {
        if end == 0 {
            break;
        }
        let from = end.saturating_sub(PAGE);
        let limit = usize::try_from(end - from).unwrap_or(usize::MAX);
        let page = store.records(from, limit).await?;
        for stored in page.iter().filter(|stored| stored.json.contains("\"record\":")) {
            let Ok(event) = serde_json::from_str::<Event>(&stored.json) else { continue };
            let (Some(account), Some(connection), Some(number)) = (event.ephemeral_id, event.connection, event.record)
            else {
                continue;
            };
            let said = Known { number, generation: event.generation.unwrap_or_default() };
            let entry = known.entry(format!("{connection}\n{account}")).or_default();
            *entry = entry.and(said);
        }
        end = from;
    }
    Ok(known)
}

/// How many records the log has, archived ones included.
async fn last(store: &dyn Store) -> Result<u64, StoreError> {
    let Some(note) = store.checkpoint().await? else { return Ok(0) };
    // Origin, size, root: the form is the writer's own, and its signature is looked at there.
    let size = note.lines().nth(1).and_then(|line| line.parse().ok());
    size.ok_or_else(|| StoreError::Failed("the log's last checkpoint is unreadable".to_owned()))
}

/// The newest password of an account that the newest leases of its target handed out.
async fn of_leases(store: &dyn Store, record: &Record, of: &str) -> Result<Known, StoreError> {
    let filter = LeaseFilter { target: Some(record.target.clone()), limit: LEASES, ..LeaseFilter::default() };
    let leases = store.leases(&filter).await?;
    let ours = leases.iter().filter(|lease| name(&lease.driver, &lease.account) == of);
    let generation = ours.filter_map(|lease| lease.rotating).max().unwrap_or_default();
    Ok(Known { number: 0, generation })
}

/// An account's record, judged.
///
/// # Errors
/// When the store fails.
pub async fn load(flow: &RotationFlow, name: &str) -> Result<Loaded, StoreError> {
    let working = flow.rotations.of(name);
    // Before the record is read: what is known meanwhile is of a later one.
    let known = known(flow, &working, name).await?;
    let value = flow.ledger.store().sealed(PURPOSE, name).await?;
    settle(flow, &working, name, value.as_deref(), known).await
}

/// All records, by name, judged.
///
/// # Errors
/// When the store fails.
pub async fn all(flow: &RotationFlow) -> Result<Vec<(String, Loaded)>, StoreError> {
    let mut loaded = Vec::new();
    for (name, _) in flow.ledger.store().sealed_of(PURPOSE).await? {
        let one = load(flow, &name).await?;
        loaded.push((name, one));
    }
    Ok(loaded)
}

async fn known(flow: &RotationFlow, working: &Working, name: &str) -> Result<Known, StoreError> {
    let logged = flow.rotations.logged.get_or_try_init(|| of_log(flow.ledger.store())).await?;
    working.saw(logged.get(name).copied().unwrap_or_default());
    Ok(working.known())
}

async fn settle(
    flow: &RotationFlow,
    working: &Working,
    name: &str,
    value: Option<&[u8]>,
    known: Known,
) -> Result<Loaded, StoreError> {
    let sealer = flow.sealer.as_deref();
    let mut loaded = judge(sealer, name, value, known);
    if let Some(record) = loaded.record.as_ref().filter(|_| !working.asked_leases()) {
        let handed_out = of_leases(flow.ledger.store(), record, name).await?;
        loaded = judge(sealer, name, value, known.and(handed_out));
        working.note_leases(handed_out);
    }
    working.saw(Known { number: loaded.number, generation: Generation::default() });
    Ok(loaded)
}

#[cfg(test)]
mod tests {
    use jit_core::event::{AuditEvent, Event, RotatingAccount};

    use super::super::state::tests::{NAME, record};
    use super::*;
    use jit_ledger::Change;
    use jit_ledger_contract::{active, insert, lease_at, time};
    use jit_ledger_sqlite::{SqliteOptions, SqliteStore};
    use jit_tlog::checkpoint::{LogKey, Origin};

    fn sealer() -> Sealer {
        Sealer::new(&[7; 32]).unwrap()
    }

    fn written(number: u64) -> Vec<u8> {
        record(&sealer()).write(NAME, &sealer(), number).unwrap().value.unwrap()
    }

    fn known(number: u64, generation: u64) -> Known {
        Known { number, generation: Generation::from_number(generation) }
    }

    fn judged(value: Option<&[u8]>, known: Known) -> (Option<Distrust>, Rotation<Envelope>) {
        let loaded = judge(Some(&sealer()), NAME, value, known);
        (loaded.distrust, loaded.rotation)
    }

    #[test]
    fn the_last_record_is_believed() {
        // Sealed once: each sealing is another.
        let record = record(&sealer());
        let value = record.clone().write(NAME, &sealer(), 7).unwrap().value.unwrap();
        let (distrust, rotation) = judged(Some(&value), known(7, 1));
        assert_eq!(distrust, None);
        assert_eq!(rotation, record.rotation);
        assert_eq!(judged(None, known(0, 0)), (None, Rotation::default()), "never rotated");
    }

    /// Whatever is put back, none of its passwords is used, and no number is used twice.
    #[test]
    fn what_is_older_than_what_is_known_is_not_believed() {
        let of_an_earlier_release = serde_json::to_vec(&record(&sealer())).unwrap();
        for (value, known, expected) in [
            (Some(written(6)), known(7, 1), Distrust::SetBack),
            // The very first record.
            (Some(written(1)), known(2, 0), Distrust::SetBack),
            // A lease handed out a later password than the record has.
            (Some(written(7)), known(7, 2), Distrust::SetBack),
            (Some(of_an_earlier_release), known(1, 0), Distrust::SetBack),
            (None, known(1, 4), Distrust::Gone),
        ] {
            let (distrust, rotation) = judged(value.as_deref(), known);
            assert_eq!(distrust, Some(expected), "{known:?}");
            assert!(rotation.current.is_none() && rotation.word() == "unknown");
            assert!(rotation.next_generation() > known.generation);
        }
        let (distrust, rotation) = judged(Some(b"{}"), known(3, 4));
        assert!(matches!(distrust, Some(Distrust::Altered(_))), "{distrust:?}");
        assert_eq!(rotation.next_generation(), Generation::from_number(5));
    }

    /// Records of two accounts that change places are not those accounts' records.
    #[test]
    fn another_accounts_record_is_not_believed() {
        let theirs = record(&sealer()).write("shop\nother_user", &sealer(), 7).unwrap().value.unwrap();
        let (distrust, _) = judged(Some(&theirs), known(0, 0));
        assert!(matches!(distrust, Some(Distrust::Altered(_))), "{distrust:?}");
    }

    #[test]
    fn a_record_of_an_earlier_release_is_believed_until_one_of_this_release_was_seen() {
        let value = serde_json::to_vec(&record(&sealer())).unwrap();
        assert_eq!(judged(Some(&value), known(0, 0)).0, None);
    }

    async fn store(folder: &tempfile::TempDir) -> SqliteStore {
        let path = folder.path().join("broker.db");
        let (signer, origin) = (LogKey::from_seed(&[7; 32]), Origin::new("test").unwrap());
        SqliteStore::open(SqliteOptions { path, signer, origin }).await.unwrap()
    }

    #[tokio::test]
    async fn the_log_and_the_leases_say_which_record_is_the_last() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(&folder).await;
        let event = |account: &str, number: u64| {
            let state = RotatingAccount {
                connection: "shop".to_owned(),
                generation: Some(Generation::from_number(1)),
                record: Some(number),
            };
            let event = AuditEvent::new(Event::OverlapEnded(state), time(0));
            AuditEvent { ephemeral_id: Some(account.to_owned()), ..event }
        };
        let events = vec![event("app_user", 3), event("other_user", 9), event("app_user", 5)];
        store.commit(Change::events(events)).await.unwrap();
        let logged = of_log(&store).await.unwrap();
        assert_eq!(logged[NAME], known(5, 1));
        assert_eq!(logged["shop\nother_user"], known(9, 1));

        let record = record(&sealer());
        assert_eq!(of_leases(&store, &record, NAME).await.unwrap(), known(0, 0));
        let lease = active(&lease_at(0));
        let lease = jit_core::lease::Lease {
            target: record.target.clone(),
            account: record.account.clone(),
            driver: record.driver.clone(),
            rotating: Some(Generation::from_number(4)),
            ..lease
        };
        store.commit(insert(&lease)).await.unwrap();
        assert_eq!(of_leases(&store, &record, NAME).await.unwrap(), known(0, 4));
        store.close().await;
    }
}
