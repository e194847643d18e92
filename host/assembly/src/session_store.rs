//! What drivers keep between their calls (the tokens of logins), sealed in the store.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use jit_runtime::{Kept, SessionStore as KeepsSessions};
use secrecy::{ExposeSecret as _, SecretString};

use jit_ledger::{Change, SealedWrite, Store};
use jit_pipeline::sealing::{Label, Sealer};

/// What these secrets are in the store.
const PURPOSE: &str = "session";

/// Sealed sessions in the broker's store.
pub struct SessionStore {
    store: Arc<dyn Store>,
    sealer: Arc<Sealer>,
}

impl fmt::Debug for SessionStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionStore").field("sealer", &self.sealer).finish_non_exhaustive()
    }
}

impl SessionStore {
    /// In that store, sealed by that sealer.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, sealer: Arc<Sealer>) -> Self {
        Self { store, sealer }
    }
}

/// One name of two parts, of which the first may have any characters but no line break.
fn name(connection: &str, key: &str) -> String {
    format!("{connection}\n{key}")
}

#[async_trait]
impl KeepsSessions for SessionStore {
    async fn load(&self, connection: &str, key: &str) -> Result<Option<Kept>, String> {
        let found = self.store.sealed(PURPOSE, &name(connection, key)).await.map_err(|error| error.to_string())?;
        let Some(value) = found else { return Ok(None) };
        let (valid_until, envelope) = value.split_first_chunk::<8>().ok_or("a kept secret is cut off")?;
        let valid_until = u64::from_be_bytes(*valid_until);
        // The end is part of what is authenticated: nobody makes a kept secret last longer.
        let label = Label { purpose: PURPOSE, names: &[connection, key], number: valid_until };
        let secret: SecretString = self
            .sealer
            .unseal(label, envelope)
            .map_err(|error| format!("what was kept for connection {connection} cannot be unsealed: {error}"))?;
        Ok(Some(Kept { secret, valid_until }))
    }

    async fn save(&self, connection: &str, key: &str, kept: Option<&Kept>) -> Result<(), String> {
        let value = match kept {
            None => None,
            Some(kept) => {
                if kept.secret.expose_secret().is_empty() {
                    return Err("an empty secret is not kept".to_owned());
                }
                let label = Label { purpose: PURPOSE, names: &[connection, key], number: kept.valid_until };
                let envelope = self.sealer.seal(label, &kept.secret).map_err(|error| error.to_string())?;
                Some([&kept.valid_until.to_be_bytes()[..], &envelope].concat())
            }
        };
        let write = SealedWrite { purpose: PURPOSE, name: name(connection, key), value };
        let change = Change::seal(write);
        self.store.commit(change).await.map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jit_ledger_sqlite::{SqliteOptions, SqliteStore};
    use jit_tlog::checkpoint::{LogKey, Origin};

    fn kept(secret: &str) -> Kept {
        Kept { secret: SecretString::from(secret), valid_until: 1_900_000_000 }
    }

    #[tokio::test]
    async fn what_is_kept_survives_a_restart_and_stands_nowhere_in_clear() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("broker.db");
        let open = async || {
            let options = SqliteOptions {
                path: path.clone(),
                signer: LogKey::from_seed(&[7; 32]),
                origin: Origin::new("test").unwrap(),
            };
            Arc::new(SqliteStore::open(options).await.unwrap())
        };
        let sealer = || Arc::new(Sealer::new(&[7; 32]).unwrap());
        let store = open().await;
        let sessions = SessionStore::new(store.clone(), sealer());
        sessions.save("vault", "token", Some(&kept("hvs.secret-token"))).await.unwrap();
        sessions.save("vault", "other", Some(&kept("x"))).await.unwrap();
        sessions.save("vault", "other", None).await.unwrap();
        store.close().await;
        let bytes = std::fs::read(&path).unwrap();
        assert!(!bytes.windows(12).any(|part| part == b"secret-token"));

        let store = open().await;
        let sessions = SessionStore::new(store.clone(), sealer());
        let found = sessions.load("vault", "token").await.unwrap().unwrap();
        assert_eq!((found.secret.expose_secret(), found.valid_until), ("hvs.secret-token", 1_900_000_000));
        assert!(sessions.load("vault", "other").await.unwrap().is_none());
        assert!(sessions.load("vaul", "t\ntoken").await.unwrap().is_none());
        let lost = SessionStore::new(store.clone(), Arc::new(Sealer::new(&[8; 32]).unwrap()));
        let said = lost.load("vault", "token").await.unwrap_err();
        assert!(said.contains("former_sealing_keys") && !said.contains("hvs"), "{said}");
        store.close().await;
    }
}
