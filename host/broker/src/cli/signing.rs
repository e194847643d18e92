//! `plugin key`, `plugin sign`, `plugin verify`.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow, bail};
use jit_tlog::checkpoint::{Origin, VerifierKey};
use jit_tlog::signature::{PluginKey, SignatureFile};
use secrecy::ExposeSecret as _;

use super::{ConfigArg, Stop};
use jit_config::Config;
use jit_files::private::{self, KeyKind};
use jit_files::{read_capped, signature_path};
use jit_runtime::file::{component_digest, read_signatures, verify_file};

/// The largest file with a verifier key, in bytes.
const MAX_KEY_FILE: u64 = 1_024;

#[derive(clap::Subcommand)]
pub(super) enum SigningCommand {
    /// Make a key that signs plugins, or print the public half of an existing one.
    #[command(
        after_help = "Examples:\n  jit-broker plugin key security-team.key           # makes it (mode 0600) and prints its public half\n  jit-broker plugin key security-team.key --show    # prints it again\n\nThe line that is printed is no secret; it goes into the configuration of the brokers:\n  [plugins]\n  require_signature = true\n  trusted_keys = [\"security-team+4f2a91c0+AXx…\"]"
    )]
    Key {
        /// The key's file. Keep it where plugins are released, not where brokers run.
        file: PathBuf,
        /// Print the existing key's public part instead of making a key.
        #[arg(long)]
        show: bool,
        /// The key's name in audit records; by default the file's name without its extension.
        #[arg(long)]
        name: Option<String>,
    },
    /// Sign components. The signature is written beside each, as FILE.sig.
    #[command(
        after_help = "Examples:\n  jit-broker plugin sign my-rule.wasm --key security-team.key\n  jit-broker plugin sign *.wasm --key old.key --key new.key      # while keys are changed\n\nSignatures that other keys made of the same bytes stay in the file."
    )]
    Sign {
        /// The components.
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        /// A signing key's file; repeat it to sign with several.
        #[arg(long = "key", required = true, value_name = "KEYFILE")]
        keys: Vec<PathBuf>,
        /// The file for the signature, if there is only one component.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Check that a trusted key has signed components. Exits with 3 if none has.
    #[command(
        after_help = "Examples:\n  jit-broker plugin verify my-rule.wasm --key security-team+4f2a91c0+AXx…\n  jit-broker plugin verify my-rule.wasm --key security-team.pub              # a file with that line\n  jit-broker plugin verify --config /etc/jit-broker/broker.toml              # all of its plugins, with its trusted keys"
    )]
    Verify {
        /// The components; by default all of the configuration.
        #[arg(value_name = "FILE", required_unless_present = "config")]
        files: Vec<PathBuf>,
        /// A verifier key that is trusted, or a file that holds it; repeat it for more. By default those
        /// of the configuration.
        #[arg(long = "key", value_name = "KEY")]
        keys: Vec<String>,
        #[command(flatten)]
        config: ConfigArg,
    },
}

pub(super) fn run(command: SigningCommand) -> Result<(), Stop> {
    match command {
        SigningCommand::Key { file, show, name } => Ok(signing_key(&file, show, name)?),
        SigningCommand::Sign { files, keys, out } => Ok(sign(&files, &keys, out)?),
        SigningCommand::Verify { files, keys, config } => verify(files, &keys, &config),
    }
}

/// The key that signs plugins.
const PLUGIN_KEY: KeyKind = KeyKind { name: "signing key", made_by: "plugin key" };

fn signing_key(file: &Path, show: bool, name: Option<String>) -> anyhow::Result<()> {
    if !show && !file.exists() {
        let named = name.clone().or_else(|| Some(file.file_stem()?.to_str()?.to_owned())).unwrap_or_default();
        let named = Origin::new(named).map_err(|_| {
            anyhow!("a key's name must have no spaces, '+' or control characters: give one with --name")
        })?;
        private::write_key(file, PLUGIN_KEY, &PluginKey::generate(named).to_text())?;
        eprintln!("made {} (0600); whoever has it decides what brokers that trust it will load", file.display());
    }
    let key = load(file)?;
    if let Some(name) = name.filter(|name| *name != key.verifier().origin().as_str()) {
        bail!("{} is the key {}, not {name}", file.display(), key.verifier().origin());
    }
    println!("{}", key.verifier());
    Ok(())
}

fn load(file: &Path) -> anyhow::Result<PluginKey> {
    let text = private::read(file, PLUGIN_KEY)?;
    PluginKey::from_text(text.expose_secret()).with_context(|| {
        format!("{} does not sign plugins; `jit-broker plugin key FILE` makes a key that does", file.display())
    })
}

fn sign(files: &[PathBuf], keys: &[PathBuf], out: Option<PathBuf>) -> anyhow::Result<()> {
    if out.is_some() && files.len() > 1 {
        bail!("--out is for one component: each of several needs a signature file of its own");
    }
    let keys = keys.iter().map(|file| load(file)).collect::<anyhow::Result<Vec<_>>>()?;
    for file in files {
        let sha256 = component_digest(file).with_context(|| format!("cannot sign {}", file.display()))?;
        let beside = out.clone().unwrap_or_else(|| signature_path(file));
        // Of the same bytes, what others signed stays.
        let there = read_signatures(&beside).ok().filter(|there| there.sha256() == sha256);
        let mut signatures = match there {
            Some(there) => there,
            None => SignatureFile::new(&sha256)?,
        };
        for key in &keys {
            signatures.sign(key)?;
        }
        replace(&beside, &signatures.to_string()).with_context(|| format!("cannot write {}", beside.display()))?;
        println!("{}: sha256 {sha256}, signed by {}", beside.display(), signatures.signers().join(", "));
    }
    Ok(())
}

/// Renamed into place: a broker that watches it sees the old file or the new one.
fn replace(path: &Path, text: &str) -> std::io::Result<()> {
    let mut new = path.as_os_str().to_owned();
    new.push(format!(".{}.new", std::process::id()));
    let new = PathBuf::from(new);
    let write = || {
        let mut file = std::fs::File::create(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&new, path)
    };
    write().inspect_err(|_| {
        let _left_behind = std::fs::remove_file(&new);
    })
}

fn verify(mut files: Vec<PathBuf>, keys: &[String], config: &ConfigArg) -> Result<(), Stop> {
    let mut trusted = keys.iter().map(|key| trusted_key(key)).collect::<anyhow::Result<Vec<_>>>()?;
    if trusted.is_empty() || files.is_empty() {
        let config = Config::load(&config.config)?;
        if trusted.is_empty() {
            trusted = of_config(&config)?;
        }
        if files.is_empty() {
            files = config.plugins.into_values().map(|plugin| plugin.path).collect();
        }
    }
    let mut all_good = true;
    for file in files {
        match verify_file(&file, &trusted) {
            Ok(vouched) => {
                println!("{}: sha256 {}, signed by {}", file.display(), vouched.sha256, vouched.signed_by.join(", "));
            }
            Err(error) => {
                all_good = false;
                println!("{}: {error}", file.display());
            }
        }
    }
    if all_good { Ok(()) } else { Err(Stop::FoundWrong) }
}

fn of_config(config: &Config) -> anyhow::Result<Vec<VerifierKey>> {
    let keys = config.signing.trusted_keys().map_err(|(index, wrong)| anyhow!("trusted_keys[{index}]: {wrong}"))?;
    if keys.is_empty() {
        bail!("{} trusts no key: give one with --key, or trusted_keys in [plugins]", config.file().display());
    }
    Ok(keys)
}

fn trusted_key(key: &str) -> anyhow::Result<VerifierKey> {
    let wrong = "--key is neither a verifier key (it looks like name+4f2a91c0+AXx…) nor a file that holds one";
    if let Ok(key) = key.parse() {
        return Ok(key);
    }
    let bytes = read_capped(Path::new(key), MAX_KEY_FILE).context(wrong)?.context(wrong)?;
    String::from_utf8(bytes).context(wrong)?.trim().parse().context(wrong)
}
