//! `cargo xtask demo`: gets what is missing, builds, and lets the demo play.

use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};
use clap::ValueEnum;
use jit_plugin_build::Progress as _;

use crate::servers::{mysql, openbao, postgres, slapd};
use crate::{binaries, plugins, steps::Steps};

/// The version of PostgreSQL that is fetched; an installed one of another version serves as well.
pub const POSTGRES: u32 = 17;

/// What stands behind the target of the story.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Backend {
    /// A database of PostgreSQL.
    Postgres,
    /// A database of MySQL, over TLS.
    Mysql,
    /// A directory: OpenLDAP, over TLS.
    Ldap,
    /// A PAM: OpenBao, the open fork of Vault, in front of PostgreSQL.
    Vault,
}

impl Backend {
    /// The driver's package and component.
    #[must_use]
    pub fn driver(self) -> String {
        format!("driver-{}", self.word())
    }

    /// The word on the command line, which is also the driver's.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::Mysql => "mysql",
            Self::Ldap => "ldap",
            Self::Vault => "vault",
        }
    }

    /// Fetches its servers into the cache; tells what they are.
    fn fetch(self, steps: &Steps) -> Result<Vec<String>> {
        let postgres = || -> Result<String> { Ok(postgres::any(POSTGRES, steps)?.version().to_owned()) };
        Ok(match self {
            Self::Postgres => vec![postgres()?],
            Self::Mysql => vec![mysql::binaries(steps)?.version().to_owned()],
            Self::Ldap => vec![slapd::binaries(steps)?.version().to_owned()],
            Self::Vault => vec![openbao::version(&openbao::binary(steps)?)?, postgres()?],
        })
    }
}

/// What may be chosen.
#[derive(Debug, clap::Args)]
pub struct DemoArgs {
    /// What stands behind `inventory_db`: the story is the same, since an application cannot tell.
    #[arg(long, value_enum, default_value_t = Backend::Postgres)]
    backend: Backend,
    /// Another story: a service whose account changes three times while its queries never stop, with
    /// `jit-agent` beside it as in a pod. On PostgreSQL.
    #[arg(long, conflicts_with_all = ["backend", "keep"])]
    agent: bool,
    /// Another story: a service that never notices that brokers are killed. This number of brokers, 2 to 9, serve from
    /// one store in PostgreSQL, and all but the last are killed.
    #[arg(long, value_name = "N", conflicts_with_all = ["backend", "keep", "agent"], value_parser = clap::value_parser!(u8).range(2..=9))]
    brokers: Option<u8>,
    /// Leave the servers and the broker running at the end, and print lines to copy.
    #[arg(long)]
    keep: bool,
    /// Stop what an earlier `--keep` left running, whatever its backend, and do nothing else.
    #[arg(long, conflicts_with = "keep")]
    stop: bool,
    /// Where the demo keeps configuration, store, audit log and logs; emptied at the start.
    /// By default target/demo.
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
}

/// Examples for the help.
pub const EXAMPLES: &str = "\
Examples:
  cargo xtask demo                     # the whole story on PostgreSQL, then everything is stopped
  cargo xtask demo --backend mysql     # the same on MySQL,
  cargo xtask demo --backend ldap      # on OpenLDAP,
  cargo xtask demo --backend vault     # and with OpenBao making the accounts
  cargo xtask demo --agent             # a service whose account changes while it queries
  cargo xtask demo --brokers 3         # the same while brokers are killed
  cargo xtask demo --keep              # leaves it running, with curl lines to paste
  cargo xtask demo --stop              # stops what --keep left
  NO_COLOR=1 cargo xtask demo | tee story.txt

The first time takes some minutes: the guest toolchain and the servers are fetched, and everything
is compiled. After that it is about half a minute, most of it the life of the account.";

/// Prepares everything and becomes the demo: signals then go where the servers are.
///
/// # Errors
/// When something cannot be prepared. When all can, it does not return.
pub fn run(args: &DemoArgs, steps: &Steps) -> Result<()> {
    let folder = args.folder.clone().unwrap_or_else(|| plugins::root().join("target/demo"));
    if args.stop {
        steps.finish();
        let [demo] = binaries::build(&["jit-tests"], ["demo"], &[])?;
        return become_demo(Command::new(demo).arg("--folder").arg(folder).arg("--stop"));
    }
    steps.done(&what_comes());
    let packages = [args.backend.driver(), "policy-allow-list".to_owned()];
    plugins::build(&packages, steps)?;
    steps.done(&format!("plugins: {}", packages.join(", ")));
    for server in args.backend.fetch(steps)? {
        steps.done(&server);
    }
    steps.step("building the broker and the demo");
    steps.finish();
    let packages = ["jit-broker", "jit-agent", "jit-tests"];
    let [broker, agent, demo] = binaries::build(&packages, ["jit-broker", "jit-agent", "demo"], &[])?;
    let mut command = Command::new(demo);
    command
        .args(["--backend", args.backend.word(), "--folder"])
        .arg(folder)
        .arg("--broker")
        .arg(broker)
        .arg("--plugins")
        .arg(plugins::folder());
    if args.keep {
        command.arg("--keep");
    }
    if args.agent || args.brokers.is_some() {
        command.arg("--agent").arg(agent);
    }
    if let Some(brokers) = args.brokers {
        command.args(["--brokers", &brokers.to_string()]);
    }
    become_demo(&mut command)
}

/// Processor time that the first build takes, in minutes, all processors together (docs/measurements.md).
const FIRST_BUILD: usize = 10;

/// What will happen, and how long it takes here.
fn what_comes() -> String {
    let parts = "1 two plugins, with the compiler for them · 2 the server, fetched · 3 the broker · 4 the story itself";
    let built = plugins::root().join("target/debug/jit-broker").exists();
    if built {
        return format!("what comes: {parts}. Built before: about a minute, unless much has changed");
    }
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    // The last crates wait for each other: more processors than this do not help.
    let minutes = FIRST_BUILD.div_ceil(processors.min(8)) + 1;
    format!(
        "what comes: {parts}. The first time everything is compiled: about {minutes} minutes with the {processors} \
         processors of this machine and a fast network; later runs take half a minute"
    )
}

/// Replaces this process.
fn become_demo(command: &mut Command) -> Result<()> {
    Err(command.exec()).context("cannot start the demo")
}
