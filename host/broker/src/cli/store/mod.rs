//! `store key`, `store backup`, `store rebuild` and `store copy`.

mod backup;
mod copy;
mod rebuild;

use std::path::PathBuf;

use super::{ConfigArg, Stop};
use jit_assembly::sealing_key;
use jit_config::SecretRef;

#[derive(clap::Subcommand)]
pub(super) enum StoreCommand {
    /// Make the key that seals rotating accounts' passwords, or print a key's id.
    #[command(
        after_help = "Example:\n  jit-broker store key data/sealing.key\n\nThen write into the configuration:\n  [store]\n  sealing_key = { file = \"data/sealing.key\" }\n\nTo change it, make another and keep the old one until every password has been rotated:\n  sealing_key = { file = \"data/sealing-2.key\" }\n  former_sealing_keys = [{ file = \"data/sealing.key\" }]"
    )]
    Key {
        /// The key's file.
        file: PathBuf,
        /// Print the existing key's id instead of making a key.
        #[arg(long)]
        show: bool,
    },
    /// Copy a store in SQLite into a file, while a broker serves from it. The copy is checked before it gets its name.
    #[command(
        after_help = "Examples:\n  jit-broker store backup --config broker.toml --to /backup/broker.db\n  jit-broker store backup --to /backup/latest.db --replace    # from a timer\n\nThe audit key and the sealing key are not in it. To restore: stop the broker, remove the store's -wal and -shm files, copy the backup to the path in `[store] url`, and start the broker."
    )]
    Backup {
        #[command(flatten)]
        config: ConfigArg,
        /// The file to write; only its owner may read it.
        #[arg(long, value_name = "FILE")]
        to: PathBuf,
        /// Replace the file if it is there, once the new copy is complete.
        #[arg(long)]
        replace: bool,
    },
    /// Copy a store in SQLite into PostgreSQL, or add what came since to an earlier copy.
    #[command(
        after_help = "Example:\n  jit-broker store copy --config broker.toml --to-config broker-pg.toml\n\nThe other configuration has the same [audit] and another [store]. The copy is of one moment, beside a broker that serves. To move: copy, stop the broker, copy once more (which adds what came since), and start the broker with the other configuration."
    )]
    Copy {
        #[command(flatten)]
        config: ConfigArg,
        /// The configuration whose store is to have it all.
        #[arg(long, value_name = "FILE")]
        to_config: PathBuf,
    },
    /// Make a lost store again from the exported audit log: its records, and every lease that they come to.
    #[command(
        after_help = "Examples:\n  jit-broker store rebuild --config broker.toml --from audit.jsonl\n  jit-broker store rebuild --from audit-2026.jsonl --from audit.jsonl    # the export was moved away in between\n\nThe store must be empty or not there, and the signing key that of the lost log. The log is verified against the checkpoints beside the files. Stop the broker before, and compare with `jit-broker reconcile --dry-run` when it serves again."
    )]
    Rebuild {
        #[command(flatten)]
        config: ConfigArg,
        /// An exported file of JSON lines; several times, oldest first, where there are several.
        #[arg(long, value_name = "FILE", required = true)]
        from: Vec<PathBuf>,
        /// Take records that no signed checkpoint is over, too: the last lines of an export that was cut off.
        #[arg(long)]
        unsigned: bool,
    },
}

pub(super) fn run(command: StoreCommand) -> Result<(), Stop> {
    match command {
        StoreCommand::Key { file, show } => key(file, show),
        StoreCommand::Rebuild { config, from, unsigned } => rebuild::run(&config, from, unsigned),
        StoreCommand::Copy { config, to_config } => copy::run(&config, &to_config),
        StoreCommand::Backup { config, to, replace } => backup::run(&config, &to, replace),
    }
}

fn key(file: PathBuf, show: bool) -> Result<(), Stop> {
    if !show && !file.exists() {
        sealing_key::generate(&file)?;
        eprintln!("made {} (0600); keep a copy where the store's backups are not", file.display());
    }
    let sealer = sealing_key::load(&SecretRef::File(file), &[])?;
    println!("{}", sealer.key_id());
    Ok(())
}
