//! `store rebuild`: a lost store, made again from its exported log.

use std::path::PathBuf;

use anyhow::Context as _;
use jiff::Timestamp;
use jit_assembly::compose::{self, Mode};
use jit_assembly::{store, store_rebuild};
use jit_config::Config;
use jit_core::counted::counted;
use jit_core::lease::LeaseState;
use jit_ledger::audit::exported::ExportedLog;
use jit_pipeline::rebuild::Rebuilt;
use jit_tlog::checkpoint::Origin;

use super::{ConfigArg, Stop};
use crate::cli::progress::Line;
use crate::cli::{Format, block_on};

pub(super) fn run(config: &ConfigArg, from: Vec<PathBuf>, unsigned: bool) -> Result<(), Stop> {
    let config = Config::load(&config.config)?;
    let origin = Origin::new(config.audit.origin.clone()).context("[audit] origin")?;
    let signer = compose::audit_key(&config.audit.signing_key, Mode::default())?;
    let place = store::place(&config.store);
    let mut exported = ExportedLog::open(from, &signer.verifier(&origin)).context("the exported log cannot be used")?;
    let rebuilt = block_on(async {
        let line = Line::new("read", "records", Format::Table);
        let signed = exported.signed();
        let show = |read: u64| line.show(read, Some(signed).filter(|signed| read <= *signed), "");
        let key = (signer, origin);
        store_rebuild::rebuild(&config.store, key, &mut exported, unsigned, Timestamp::now(), show).await
    });
    tell(&place, &exported, &rebuilt.with_context(|| format!("{place} was not made again"))?);
    Ok(())
}

fn tell(place: &str, exported: &ExportedLog, rebuilt: &Rebuilt) {
    let count = |is: fn(LeaseState) -> bool| rebuilt.leases.iter().filter(|lease| is(lease.state)).count() as u64;
    println!(
        "{place}: {}, {}, {} to be removed, {} that ended lately",
        counted(exported.read(), "audit record", "audit records"),
        counted(count(|state| state == LeaseState::Active), "active lease", "active leases"),
        count(|state| matches!(state, LeaseState::Revoking | LeaseState::Doubtful)),
        count(|state| state == LeaseState::Revoked),
    );
    if exported.torn() > 0 {
        println!("the last line was not complete: {} bytes were cut off", exported.torn());
    }
    if exported.read() > exported.signed() {
        println!("the last {} records were not signed before; they are now", exported.read() - exported.signed());
    }
    if !rebuilt.left_out.is_empty() {
        let all = rebuilt.left_out.len() as u64 + rebuilt.more_left_out;
        println!(
            "{} could not be made again: the records do not have all of them. Their accounts end by the server's own \
             expiry, where it has one, or with `jit-broker reconcile --confirm`:",
            counted(all, "lease", "leases")
        );
        rebuilt.left_out.iter().for_each(|lease| println!("  {lease}"));
        if rebuilt.more_left_out > 0 {
            println!("  and {} more", rebuilt.more_left_out);
        }
    }
    if !rebuilt.rotating.is_empty() {
        let names: Vec<&str> = rebuilt.rotating.iter().map(String::as_str).collect();
        println!(
            "the passwords of these rotating accounts were in the lost store alone; the broker sets new ones when it \
             starts: {}",
            names.join(", ")
        );
    }
    if let Some(until) = rebuilt.until {
        println!(
            "The last record is of {until}: accounts made after it have no lease here. Start the broker; `jit-broker \
             reconcile --dry-run` names them, and they are held until their own expiry or --confirm. What policies \
             count begins at zero."
        );
    }
}
