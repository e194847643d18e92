//! `store key`.

use std::path::PathBuf;

use super::Stop;
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
}

pub(super) fn run(command: StoreCommand) -> Result<(), Stop> {
    let StoreCommand::Key { file, show } = command;
    if !show && !file.exists() {
        sealing_key::generate(&file)?;
        eprintln!("made {} (0600); keep a copy where the store's backups are not", file.display());
    }
    let sealer = sealing_key::load(&SecretRef::File(file), &[])?;
    println!("{}", sealer.key_id());
    Ok(())
}
