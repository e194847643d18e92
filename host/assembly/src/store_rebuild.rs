//! The configured store, made again from its exported log.

use anyhow::Context as _;
use jiff::Timestamp;
use jit_config::StoreKind;
use jit_ledger::VERIFIER_MEMORY;
use jit_ledger::audit::exported::ExportedLog;
use jit_ledger_sqlite::{Rebuild, SqliteOptions, UsedVerifier};
use jit_pipeline::birth::Marking;
use jit_pipeline::rebuild::{Rebuilt, Replaying};
use jit_tlog::checkpoint::{LogKey, Origin};

use crate::store::place;

/// Reads the log to its end and makes the store, in one transaction: it has everything or stays empty. With `unsigned`,
/// records after the last signed checkpoint are taken too. `progress` receives how many records were read.
///
/// # Errors
/// When the store is in use or not empty, the log is not what was signed, or it does not say enough.
pub async fn rebuild(
    store: &jit_config::Store,
    (signer, origin): (LogKey, Origin),
    exported: &mut ExportedLog,
    unsigned: bool,
    now: Timestamp,
    mut progress: impl FnMut(u64),
) -> anyhow::Result<Rebuilt> {
    let StoreKind::Sqlite(path) = &store.kind else {
        anyhow::bail!(
            "the store {} is in PostgreSQL: make it again in a file, with a configuration whose [store] url is \
             \"sqlite:…\", and move it from there with `jit-broker store copy`",
            place(store)
        );
    };
    let kept_since = now.checked_sub(std::time::Duration::from_secs(store.keep_revoked.seconds().into()))?;
    let verifiers_since = kept_since.checked_sub(VERIFIER_MEMORY)?;
    let mut replaying = Replaying::new(Marking::new(&signer)?, kept_since, verifiers_since);
    let mut rebuild = Rebuild::begin(SqliteOptions { path: path.clone(), signer, origin }).await?;
    loop {
        let page = exported.page()?;
        if page.is_empty() {
            break;
        }
        for record in &page {
            replaying.record(record)?;
        }
        rebuild.records(&page).await?;
        progress(exported.read());
    }
    let (read, signed) = (exported.read(), exported.signed());
    anyhow::ensure!(read > 0, "there is no record in it");
    anyhow::ensure!(
        unsigned || read == signed,
        "the last {} of {read} records are after the last signed checkpoint, so nothing shows that they are the \
         broker's. A broker that was killed leaves some. --unsigned takes them too",
        read - signed
    );
    let rebuilt = replaying.end(now)?;
    let used = |(lease, digest, used_at): &(_, String, Timestamp)| UsedVerifier {
        digest: digest.clone(),
        lease: ToString::to_string(lease),
        used_at: *used_at,
    };
    let verifiers: Vec<UsedVerifier> = rebuilt.verifiers.iter().map(used).collect();
    let finished = rebuild.finish(rebuilt.leases.clone(), &verifiers, &[rebuilt.birth.written()?]).await;
    finished.with_context(|| format!("the store {} could not be written, and is still empty", path.display()))?;
    Ok(rebuilt)
}
