//! `store backup`: a copy of a store in SQLite while a broker serves from it.

use std::path::Path;

use anyhow::{Context as _, bail};
use jit_assembly::store_backup::{Backup, BackupError, file_of};
use jit_config::Config;
use jit_core::counted::counted;
use jit_ledger::audit::verify::Progress;

use super::{ConfigArg, Stop};
use crate::cli::progress::{Line, waiting};
use crate::cli::{Format, audit, block_on};

pub(super) fn run(config: &ConfigArg, to: &Path, replace: bool) -> Result<(), Stop> {
    let config = Config::load(&config.config)?;
    let from = file_of(&config.store)?;
    let verifier = audit::own_key(&config)?;
    let none = || format!("no backup of {}", from.display());
    Ok(block_on(async {
        let copying = Backup::copy(from, to, replace);
        let backup = match waiting("copying the store", Format::Table, copying).await {
            Err(BackupError::Exists(path)) => {
                bail!("{} is there already: choose another name, or add --replace", path.display())
            }
            copied => copied.with_context(none)?,
        };
        let line = Line::new("verified", "records", Format::Table);
        let show = |at: Progress| line.show(at.done, Some(at.total).filter(|total| *total > 0), "");
        let report = backup.check(&verifier, show).await.with_context(none)?;
        drop(line);
        let size = backup.keep().with_context(none)?;
        let (records, checkpoints) = (
            counted(report.records, "audit record", "audit records"),
            counted(report.checkpoints, "checkpoint agrees", "checkpoints agree"),
        );
        println!("{}: {size} bytes, {records}, {checkpoints}", to.display());
        if report.unread > 0 {
            println!("the first {} are in the archive's segments, and not in this file", report.unread);
        }
        Ok(())
    })?)
}
