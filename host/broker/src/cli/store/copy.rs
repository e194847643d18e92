//! `store copy`: a store in SQLite moves to PostgreSQL.

use std::path::Path;

use anyhow::{Context as _, ensure};
use jit_assembly::{store, store_copy};
use jit_config::Config;
use jit_core::counted::counted;
use jit_ledger::audit::verify::{Options, Progress, verify};

use super::{ConfigArg, Stop};
use crate::cli::progress::Line;
use crate::cli::{Format, audit, block_on};

pub(super) fn run(config: &ConfigArg, to_config: &Path) -> Result<(), Stop> {
    let from = Config::load(&config.config)?;
    let to = Config::load(to_config)?;
    let verifier = audit::own_key(&from)?;
    let same = audit::own_key(&to)? == verifier;
    Ok(block_on(async {
        ensure!(
            same,
            "{} has another [audit] signing_key or origin: the copy continues the same log, so it needs the same",
            to_config.display()
        );
        let line = Line::new("read", "records", Format::Table);
        let show = |read: u64, of: u64| line.show(read, Some(of), "");
        let copying = store_copy::copy(&from.store, &to.store, &verifier, show).await;
        drop(line);
        let (source, destination) = (store::place(&from.store), store::place(&to.store));
        let moved = copying.with_context(|| format!("{source} was not copied to {destination}"))?;
        let options = Options { verifier, kept: None, archive: None };
        let line = Line::new("verified", "records", Format::Table);
        let show = |at: Progress| line.show(at.done, Some(at.total).filter(|total| *total > 0), "");
        let report = verify(&*store::log(&to.store), &options, show).await?;
        drop(line);
        if let Some(finding) = report.findings.first() {
            anyhow::bail!("the log in {destination} is not what was signed: {finding}");
        }
        let copied = moved.copied;
        println!(
            "{destination}: {} ({} new), {} ({} new or changed), root {}",
            counted(copied.records, "audit record", "audit records"),
            copied.new_records,
            counted(copied.leases, "lease", "leases"),
            copied.new_leases,
            report.root
        );
        if moved.served {
            println!(
                "A broker serves from {source}, so there is more in it by now. To move: stop that broker, run this \
                 command once more, and start the broker with {}",
                to_config.display()
            );
        } else {
            println!(
                "No broker served from {source} meanwhile: this is all of it. Start the broker with {}, and never \
                 again with the old store",
                to_config.display()
            );
        }
        Ok(())
    })?)
}
