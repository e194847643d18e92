//! A store that is made again from its exported log: the records byte for byte, a checkpoint over them, and the leases
//! that they come to. All of it is one transaction, so that there is no half a store.

use jiff::Timestamp;
use jit_core::lease::Lease;
use jit_ledger::columns::nanos;
use jit_ledger::ground::{Ground, VerifierWrite};
use jit_ledger::{LeaseWrite, SealedWrite, StoreError};
use jit_tlog::checkpoint::{LogKey, Origin};
use jit_tlog::merkle::Hash;
use sqlx::sqlite::SqliteConnection;
use sqlx::{Connection as _, Executor as _};

use super::files::{self, Lock, Prepared};
use super::log::LogState;
use super::rows::{LeaseRow, lease_array, verifier_array};
use super::sealed::{SealedGroup, SealedRow};
use super::statements::Writes;
use super::store::{OpenError, SqliteOptions};
use super::writer::Writer;

/// Why the store cannot be made again.
#[derive(Debug, thiserror::Error)]
pub enum RebuildError {
    /// It cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// It has something in it.
    #[error("the store {} is not empty: it has {records} audit records and {leases} leases", path.display())]
    NotEmpty {
        /// Its file.
        path: std::path::PathBuf,
        /// How many records.
        records: i64,
        /// How many leases.
        leases: i64,
    },
    /// A record is no text.
    #[error("record {0} is no text")]
    Record(u64),
    /// A lease or a sealed value cannot be kept.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The database said no.
    #[error("the database failed")]
    Database(#[from] sqlx::Error),
}

/// A verifier that a lease of the log used, whether or not the lease is kept.
#[derive(Debug, Clone)]
pub struct UsedVerifier {
    /// Its digest, in hexadecimal.
    pub digest: String,
    /// The lease.
    pub lease: String,
    /// When.
    pub used_at: Timestamp,
}

/// A store that is being made again. Dropping it leaves an empty one.
#[derive(Debug)]
pub struct Rebuild {
    connection: SqliteConnection,
    log: LogState,
    key: LogKey,
    origin: Origin,
    _lock: Lock,
}

impl Rebuild {
    /// Opens an empty store, or makes it, and begins.
    ///
    /// # Errors
    /// [`RebuildError::NotEmpty`], or when it cannot be opened.
    pub async fn begin(options: SqliteOptions) -> Result<Self, RebuildError> {
        let SqliteOptions { path, signer: key, origin } = options;
        let Prepared { path, lock } = files::prepare(&path)?;
        let opened = Writer::connect(&path, &key.verifier(&origin)).await;
        let (mut connection, log) = opened.map_err(|failure| OpenError::of(&path, failure))?;
        let found = "SELECT (SELECT count(*) FROM audit) + (SELECT coalesce(max(size), 0) FROM archived),
            (SELECT count(*) FROM leases)";
        let (records, leases): (i64, i64) = sqlx::query_as(found).fetch_one(&mut connection).await?;
        if records > 0 || leases > 0 {
            return Err(RebuildError::NotEmpty { path, records, leases });
        }
        connection.execute("BEGIN IMMEDIATE").await?;
        Ok(Self { connection, log, key, origin, _lock: lock })
    }

    /// Adds records as they are.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn records(&mut self, page: &[Vec<u8>]) -> Result<(), RebuildError> {
        let mut rows = Vec::with_capacity(page.len());
        for record in page {
            let seq = self.log.range.size();
            let text = std::str::from_utf8(record).map_err(|_| RebuildError::Record(seq))?;
            let leaf = Hash::of_leaf(record);
            self.log.range.push(leaf);
            rows.push((seq, text, leaf.to_string()));
        }
        let records = serde_json::to_string(&rows).map_err(StoreError::failed)?;
        Writes { records, ..Writes::default() }.put(&mut self.connection).await?;
        Ok(())
    }

    /// Adds the leases, the verifiers that were used and the sealed values, signs the log, and makes all of it durable.
    ///
    /// # Errors
    /// When a lease cannot be kept, or the database fails: then the store is still empty.
    pub async fn finish(
        mut self,
        leases: Vec<Lease>,
        verifiers: &[UsedVerifier],
        sealed: &[SealedWrite],
    ) -> Result<(), RebuildError> {
        for part in leases.chunks(jit_ledger::group::CHANGES) {
            let rows = part.iter().map(|lease| LeaseRow::new(&LeaseWrite::Insert(lease.clone())));
            let rows: Vec<LeaseRow> = rows.collect::<Result<_, _>>()?;
            let mut ground = Ground::default();
            ground.admit(&rows)?;
            let leases = lease_array(&ground.writes());
            Writes { leases, ..Writes::default() }.put(&mut self.connection).await?;
        }
        for part in verifiers.chunks(jit_ledger::group::CHANGES) {
            let write = |used: &'_ UsedVerifier| (used.digest.clone(), used.lease.clone(), nanos(used.used_at));
            let owned: Vec<_> = part.iter().map(write).collect();
            let writes: Vec<VerifierWrite<'_>> = owned
                .iter()
                .map(|(digest, lease, used_at)| VerifierWrite { digest, lease, used_at: *used_at, new: true })
                .collect();
            Writes { verifiers: verifier_array(&writes), ..Writes::default() }.put(&mut self.connection).await?;
        }
        let rows = sealed.iter().map(SealedRow::new).collect::<Result<Vec<_>, _>>()?;
        let mut group = SealedGroup::default();
        group.add(&rows);
        let signed = Some(self.log.sign(&self.key, &self.origin, Timestamp::now()));
        Writes { sealed: group, signed, ..Writes::default() }.put(&mut self.connection).await?;
        self.connection.execute("COMMIT").await?;
        self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").await?;
        self.connection.close().await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SqliteStore;
    use crate::store::tests::File;
    use jit_ledger::Store as _;
    use jit_ledger_contract::{Harness as _, active, check_log, insert, lease_at, settled, with_key};

    #[tokio::test]
    async fn the_records_are_the_same_and_the_log_is_continued() {
        let (lost, made) = (File::new(), File::new());
        let store = lost.open().await;
        let leases = [active(&with_key("kept")), active(&lease_at(1))];
        for lease in &leases {
            let pending = Lease { version: 0, state: jit_core::lease::LeaseState::Pending, ..lease.clone() };
            store.commit(insert(&pending)).await.unwrap();
            store.commit(settled(lease)).await.unwrap();
        }
        let records = store.records(0, 10).await.unwrap();
        lost.close(store).await;
        let options = || SqliteOptions { path: made.path(), ..lost.options() };

        let mut rebuild = Rebuild::begin(options()).await.unwrap();
        let lines: Vec<Vec<u8>> = records.iter().map(|record| record.json.clone().into_bytes()).collect();
        rebuild.records(&lines[..1]).await.unwrap();
        drop(rebuild);
        let mut rebuild = Rebuild::begin(options()).await.unwrap();
        for line in lines {
            rebuild.records(&[line]).await.unwrap();
        }
        let sealed = SealedWrite { purpose: "broker", name: "birth".into(), value: Some(b"x".to_vec()) };
        let digest = "ab".repeat(32);
        let used = UsedVerifier { digest, lease: leases[0].id.to_string(), used_at: Timestamp::UNIX_EPOCH };
        rebuild.finish(leases.to_vec(), &[used], &[sealed]).await.unwrap();

        let store = SqliteStore::open(options()).await.unwrap();
        assert_eq!(store.records(0, 10).await.unwrap(), records);
        assert_eq!(store.lease_by_key("kept").await.unwrap().as_ref(), Some(&leases[0]));
        assert_eq!(store.lease(&leases[1].id).await.unwrap().as_ref(), Some(&leases[1]));
        assert_eq!(store.sealed("broker", "birth").await.unwrap().as_deref(), Some(&b"x"[..]));
        store.commit(settled(&leases[1].renew(leases[1].issued_at, leases[1].expires_at).unwrap())).await.unwrap();
        assert_eq!(check_log(&store, &lost.verifier()).await, 3);
        assert!(matches!(Rebuild::begin(options()).await, Err(RebuildError::Open(OpenError::InUse(_)))));
        store.close().await;
        let full = Rebuild::begin(options()).await;
        assert!(matches!(full, Err(RebuildError::NotEmpty { records: 3, leases: 2, .. })), "{full:?}");
    }
}
