//! What a broker keeps of itself in its store: the mark on its accounts (ONE-OWNER), since when the store is,
//! and since when it lacks what it once had (BRAKE).
//!
//! It moves with the store and is restored with it, since a broker *is* its store. The mark is in no way a
//! credential: who reads it and may make roles in a target can have this broker remove a role that they made.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use jit_core::account::Mark;
use jit_tlog::checkpoint::LogKey;
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};

use crate::sealing::{Label, SealError, Sealer};
use jit_ledger::audit::export_file::reaches;
use jit_ledger::{Change, SealedWrite, Store, alone};

/// Under what the store keeps it.
const PURPOSE: &str = "broker";
const NAME: &str = "birth";
/// The claim of a broker that reads or makes it.
const CLAIM: &str = "birth";
/// How long another broker is waited for that does, and how often it is asked: if it died, it is fenced meanwhile.
const PATIENCE: Duration = Duration::from_secs(30);
const ASK: Duration = Duration::from_millis(100);

/// What is known of this broker's store.
#[derive(Debug, Clone)]
pub struct Birth {
    /// What its accounts are marked with.
    pub mark: Mark,
    /// Since when the store is.
    pub since: Timestamp,
    /// Since when it has been known to lack records that it once had: it was set back.
    pub set_back: Option<Timestamp>,
}

impl Birth {
    /// A new one, that no store has.
    #[must_use]
    pub fn at(since: Timestamp) -> Self {
        Self { mark: Mark::generate(), since, set_back: None }
    }

    /// As the store keeps it.
    ///
    /// # Errors
    /// When it cannot be written as JSON.
    pub fn written(&self) -> anyhow::Result<SealedWrite> {
        let kept = Kept { mark: hex::encode(self.mark.bytes()), since: self.since, set_back: self.set_back };
        Ok(SealedWrite { purpose: PURPOSE, name: NAME.to_owned(), value: Some(serde_json::to_vec(&kept)?) })
    }
}

#[derive(Serialize, Deserialize)]
struct Kept {
    mark: String,
    since: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    set_back: Option<Timestamp>,
}

/// What the store has, or, at its first start, makes it. `records` is how many audit records it has, and
/// `exports` what may show that it once had more.
///
/// # Errors
/// When the store fails, or what it has cannot be read: without the mark the broker would take none of its
/// accounts for its own.
pub async fn of_store(store: &dyn Store, records: u64, exports: &[PathBuf], now: Timestamp) -> anyhow::Result<Birth> {
    // Brokers that open an empty store at the same moment agree on one mark.
    let begun = Instant::now();
    loop {
        let made = alone(store, CLAIM, read_or_make(store, records, exports, now)).await;
        if let Some(birth) = made.map_err(|error| anyhow!("{error}"))? {
            return birth;
        }
        if begun.elapsed() > PATIENCE {
            bail!("another broker has been opening the store for {} s", PATIENCE.as_secs());
        }
        sleep(ASK).await;
    }
}

async fn read_or_make(store: &dyn Store, records: u64, exports: &[PathBuf], now: Timestamp) -> anyhow::Result<Birth> {
    let found = store.sealed(PURPOSE, NAME).await.map_err(|error| anyhow!("{error}"))?;
    let known = found.is_some();
    let mut birth = match found {
        None => Birth::at(now),
        Some(bytes) => read(&bytes).context("the store's record of its own beginning")?,
    };
    let lacking = lacking(records, exports);
    if let Some(lacking) = &lacking {
        tracing::error!(
            lacking,
            "the store was rolled back: accounts that it does not know are not removed before their own expiry; see \"Braked\" in docs/trouble.md"
        );
        // Also where it was set back before: what it lacks now is more.
        birth.set_back = Some(now);
    }
    if !known || lacking.is_some() {
        keep(store, &birth).await?;
    }
    Ok(birth)
}

async fn keep(store: &dyn Store, birth: &Birth) -> anyhow::Result<()> {
    let change = Change::seal(birth.written()?);
    store.commit(change).await.map_err(|error| anyhow!("{error}"))
}

/// Seals the mark for the log's record of a start, so that a lost store can be made again from the log (`store
/// rebuild`). The key is derived from the log's signing key: it never changes, and who continues the log has it.
pub struct Marking(Sealer);

impl Marking {
    /// What it is sealed for.
    const LABEL: Label<'static> = Label { purpose: "account mark", names: &[], number: 0 };

    /// With what is derived from that key.
    ///
    /// # Errors
    /// When the cryptographic library refuses it.
    pub fn new(key: &LogKey) -> Result<Self, SealError> {
        Ok(Self(Sealer::new(&key.derive("account mark"))?))
    }

    /// The mark as the record has it.
    ///
    /// # Errors
    /// When the cryptographic library refuses it.
    pub fn seal(&self, mark: &Mark) -> Result<String, SealError> {
        let text = SecretString::from(hex::encode(mark.bytes()));
        Ok(STANDARD.encode(self.0.seal(Self::LABEL, &text)?))
    }

    /// The mark of a record; none where it was sealed under another key, or altered.
    #[must_use]
    pub fn unseal(&self, sealed: &str) -> Option<Mark> {
        let text = self.0.unseal(Self::LABEL, &STANDARD.decode(sealed).ok()?).ok()?;
        Mark::from_bytes(&hex::decode(text.expose_secret()).ok()?)
    }
}

fn read(bytes: &[u8]) -> anyhow::Result<Birth> {
    let Kept { mark, since, set_back } = serde_json::from_slice(bytes)?;
    let Some(mark) = Mark::from_bytes(&hex::decode(mark)?) else { bail!("its mark has another length") };
    Ok(Birth { mark, since, set_back })
}

/// What an export has that the store has not, in words.
fn lacking(records: u64, exports: &[PathBuf]) -> Option<String> {
    exports.iter().find_map(|path| {
        let reached = reached(path)?;
        (reached > records).then(|| format!("{} has {reached} records, the store has {records}", path.display()))
    })
}

fn reached(path: &Path) -> Option<u64> {
    reaches(path)
        .inspect_err(
            |error| tracing::warn!(path = %path.display(), %error, "how far the export reaches cannot be read"),
        )
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use jit_ledger_memory::MemoryLedger;

    #[test]
    fn the_mark_is_read_with_the_logs_key_only() {
        let (key, mark) = (LogKey::generate(), Mark::generate());
        let sealed = Marking::new(&key).unwrap().seal(&mark).unwrap();
        assert!(!sealed.contains(&hex::encode(mark.bytes())));
        assert_eq!(Marking::new(&key).unwrap().unseal(&sealed).unwrap().bytes(), mark.bytes());
        let other = Marking::new(&LogKey::generate()).unwrap();
        assert!(other.unseal(&sealed).is_none() && other.unseal("?").is_none());
    }

    #[tokio::test]
    async fn a_store_keeps_its_mark_and_notices_that_it_was_set_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.jsonl");
        let exports = [path.clone()];
        let store = MemoryLedger::new();
        let first = of_store(&store, 0, &exports, Timestamp::UNIX_EPOCH).await.unwrap();
        let again = of_store(&store, 0, &exports, Timestamp::UNIX_EPOCH).await.unwrap();
        assert_eq!((first.mark.bytes(), first.since, first.set_back), (again.mark.bytes(), again.since, None));

        std::fs::write(&path, "{\"seq\":6,\"event\":\"x\"}\n{\"seq\":7,\"event\":\"x\"}\n").unwrap();
        assert!(
            of_store(&store, 8, &exports, Timestamp::UNIX_EPOCH).await.unwrap().set_back.is_none(),
            "it has them all"
        );
        assert!(of_store(&store, 7, &exports, Timestamp::UNIX_EPOCH).await.unwrap().set_back.is_some());
        // The export may have gone on since, or have been moved away: it stays known.
        std::fs::remove_file(&path).unwrap();
        let later = of_store(&store, 9, &exports, Timestamp::UNIX_EPOCH).await.unwrap();
        assert!(later.set_back.is_some());
        assert_eq!(later.mark.bytes(), first.mark.bytes());
    }
}
