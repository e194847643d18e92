//! `config check` and `config example`.

use jit_identity::Identity;

use std::io::ErrorKind;
use std::path::Path;

use super::client::{AdminClient, SocketArg};
use super::progress::{Compilations, waiting};
use super::said::Said;
use super::{ConfigArg, Format, Stop, block_on, coloured};
use jit_api::admin::ReloadReport;
use jit_assembly::compose::{self, Mode};
use jit_assembly::loaded::Active;
use jit_assembly::prepare::prepare;
use jit_assembly::store::{self, Look};
use jit_config::{Config, ConfigErrors};
use jit_pipeline::target::Serving;
use jit_pipeline::target_check::{Wrong, check_targets, check_unconnected};

#[derive(clap::Subcommand)]
pub(super) enum ConfigCommand {
    /// Read a configuration, load everything that `serve` would, look at the store and the addresses, ask its
    /// issuers and targets, and say what is wrong and what to write instead.
    #[command(
        after_help = "Examples:\n  jit-broker config check --config broker.toml\n  jit-broker config check --config broker.toml --offline"
    )]
    Check {
        #[command(flatten)]
        config: ConfigArg,
        /// Do not connect to the issuers and the targets. Each driver looks at its keys without its server.
        #[arg(long)]
        offline: bool,
    },
    /// Make a running broker reload its configuration: plugins, policies, targets, connections, issuers. Everything
    /// changes or nothing does; SIGHUP does the same.
    #[command(after_help = "Example:\n  jit-broker config reload --config broker.toml")]
    Reload {
        #[command(flatten)]
        socket: SocketArg,
        /// Apply the configuration even if existing accounts could then no longer be removed, because their driver or
        /// connection is gone.
        #[arg(long)]
        force: bool,
    },
    /// Print an example configuration with every section and key explained.
    Example,
}

pub(super) fn run(command: ConfigCommand) -> Result<(), Stop> {
    match command {
        ConfigCommand::Example => {
            print!("{}", jit_config::EXAMPLE);
            Ok(())
        }
        ConfigCommand::Check { config, offline } => check(&config, offline),
        ConfigCommand::Reload { socket, force } => reload(&socket, force),
    }
}

fn reload(socket: &SocketArg, force: bool) -> Result<(), Stop> {
    let client = AdminClient::new(socket)?;
    let path = if force { "/admin/reload?force=true" } else { "/admin/reload" };
    let report: ReloadReport = block_on(async { Ok(client.post(path).await) })??;
    for (what, names) in [
        ("plugins loaded", &report.loaded),
        ("plugins unloaded", &report.unloaded),
        ("targets added", &report.targets_added),
        ("targets removed", &report.targets_removed),
        ("changed", &report.changed),
        ("changed, but only after a restart", &report.needs_restart),
        ("accounts that cannot be removed now", &report.orphans),
    ] {
        if !names.is_empty() {
            println!("{what}: {}", names.join(", "));
        }
    }
    println!("the configuration is served");
    Ok(())
}

/// Prints the mistakes and says that there are some.
fn wrong(problems: &ConfigErrors) -> Stop {
    print!("{}", problems.render(coloured(&std::io::stdout())));
    Stop::FoundWrong
}

fn check(path: &ConfigArg, offline: bool) -> Result<(), Stop> {
    let config = Config::load(&path.config).map_err(|problems| wrong(&problems))?;
    block_on(async { Ok(look(&config, &path.config, offline).await) })?
}

/// Loads and asks everything that a broker would.
async fn look(config: &Config, path: &Path, offline: bool) -> Result<(), Stop> {
    let prepared = prepare(config, Mode::default(), Compilations::new(Format::Table)).map_err(found_wrong)?;
    print!("{}", jit_config::render(&prepared.warnings, coloured(&std::io::stdout())));
    if let (Some(tls), Some(validity)) = (&config.server.tls, &prepared.certificate) {
        println!("certificate {}: valid until {}", tls.cert.display(), validity.ends);
    }
    // Compiles, and so blocks; nothing else runs here.
    let loaded = tokio::task::block_in_place(|| compose::serving(config, &prepared.runtime, None, None));
    let Active { serving, loaded } = loaded.map_err(found_wrong)?;
    for plugin in loaded.plugins.values() {
        println!(
            "plugin {}: {}, contract {}, sha256 {}",
            plugin.name(),
            plugin.kind(),
            plugin.contract_version(),
            plugin.sha256()
        );
    }
    let stores = look_at_store(config, offline).await;
    try_addresses(config);
    let (issuers, targets) = match offline {
        true => (0, without_targets(config, &serving).await),
        false => (ask_issuers(&prepared.identity).await, ask_targets(config, &serving).await),
    };
    let count = |number: usize, what: &str| match number {
        0 => None,
        1 => Some(format!("1 {what} is not in order")),
        more => Some(format!("{more} {what}s are not in order")),
    };
    let bad = [count(stores, "store"), count(issuers, "issuer"), count(targets, "target")];
    let bad: Vec<String> = bad.into_iter().flatten().collect();
    if bad.is_empty() {
        let unasked = if offline { "; its issuers and targets were not asked (--offline)" } else { "" };
        println!("{}: the configuration is good{unasked}", path.display());
        return Ok(());
    }
    println!("{}: {}", path.display(), bad.join(", "));
    Err(Stop::FoundWrong)
}

/// What was found wrong is printed; everything else is a failure of the check itself.
fn found_wrong(error: anyhow::Error) -> Stop {
    match error.downcast_ref::<ConfigErrors>() {
        Some(problems) => wrong(problems),
        None => error.into(),
    }
}

/// Prints what is found in the store's place, and gives how many stores are not in order.
async fn look_at_store(config: &Config, offline: bool) -> usize {
    if offline && store::file(&config.store).is_none() {
        println!("store {}: not asked (--offline)", store::place(&config.store));
        return 0;
    }
    let (bad, text) = match store::look(&config.store).await {
        Look::Good(text) | Look::Unseen(text) => (0, text),
        Look::Bad(text) => (1, text),
    };
    println!("{text}");
    bad
}

/// Tries the addresses that `serve` listens on, and lets go of them. The running broker may have them, and the check
/// may run on another machine: so this warns.
fn try_addresses(config: &Config) {
    let operators = config.server.operator_listen.map(|address| ("operator_listen", address));
    for (key, address) in [("listen", config.server.listen)].into_iter().chain(operators) {
        let Err(error) = std::net::TcpListener::bind(address) else { continue };
        match error.kind() {
            ErrorKind::AddrInUse => println!(
                "server.{key} {address}: warning: in use by a process of this machine, which may be this \
                 configuration's broker"
            ),
            _ => println!("server.{key} {address}: warning: cannot be listened on from here: {error}"),
        }
    }
}

/// Prints what each issuer said, and gives how many are not in order.
async fn ask_issuers(identity: &Identity) -> usize {
    let mut bad = 0;
    for (issuer, keys) in waiting("asking the issuers", Format::Table, identity.ask_issuers()).await {
        match keys {
            Ok(0) => {
                bad += 1;
                println!("issuer {issuer}: it publishes no key that could be used: every token would be refused");
            }
            Ok(1) => println!("issuer {issuer}: good, 1 key"),
            Ok(keys) => println!("issuer {issuer}: good, {keys} keys"),
            Err(reason) => {
                bad += 1;
                println!("issuer {issuer}: {reason}");
            }
        }
    }
    bad
}

/// Codes by which servers refuse a login: of PostgreSQL, MySQL and LDAP.
const LOGIN_REFUSED: [&str; 4] = ["SQLSTATE 28P01", "SQLSTATE 28000", "error 1045", "invalidCredentials"];

/// The key of the target's connection that is most likely to blame: where it is only decides which line is shown.
fn connection_key(config: &Config, target: &str, reason: &str) -> String {
    let target = config.targets.iter().find(|(name, _)| name.as_str() == target);
    let Some(connection) = target.and_then(|(_, target)| target.connection.as_deref()) else {
        return "connections".to_owned();
    };
    let key = if LOGIN_REFUSED.iter().any(|code| reason.contains(code)) { "password" } else { "url" };
    format!("connections.{connection}.{key}")
}

/// Prints what each target's driver said, and gives how many are not in order.
async fn ask_targets(config: &Config, serving: &Serving) -> usize {
    let said = Said::listen();
    let mut bad = 0;
    for (target, result) in waiting("asking the targets", Format::Table, check_targets(serving)).await {
        for warning in said.of(&target) {
            println!("target {target}: warning: {warning}");
        }
        match result {
            Ok(()) => println!("target {target}: good"),
            Err(Wrong::Connection(reason)) => {
                bad += 1;
                let place = connection_key(config, &target, &reason);
                print!("{}", jit_config::render(&[config.explain(&place, reason)], coloured(&std::io::stdout())));
                println!("target {target}: cannot be asked");
            }
            Err(Wrong::Other(reason)) => {
                bad += 1;
                let problem = config.explain(&format!("targets.{target}"), reason);
                print!("{}", jit_config::render(&[problem], coloured(&std::io::stdout())));
                println!("target {target}: not in order");
            }
            Err(Wrong::Configuration(mistakes)) => {
                bad += 1;
                print_mistakes(config, &target, &mistakes);
            }
        }
    }
    bad
}

/// Asks each target's driver without its server, and prints the mistakes that it finds. Returns how many targets have
/// mistakes.
async fn without_targets(config: &Config, serving: &Serving) -> usize {
    let mut bad = 0;
    for (target, result) in check_unconnected(serving).await {
        match result {
            Err(Wrong::Configuration(mistakes)) => {
                bad += 1;
                print_mistakes(config, &target, &mistakes);
            }
            _ => println!("target {target}: its driver finds no mistake; the server was not asked"),
        }
    }
    bad
}

/// Prints what a driver finds wrong, each at its line.
fn print_mistakes(config: &Config, target: &str, mistakes: &[(String, String)]) {
    let place = |path: &str| match path {
        "" => format!("targets.{target}"),
        path if path.starts_with("roles.") => format!("targets.{target}.{path}"),
        path => format!("targets.{target}.config.{path}"),
    };
    let problems: Vec<_> = mistakes.iter().map(|(path, message)| config.explain(&place(path), message)).collect();
    print!("{}", jit_config::render(&problems, coloured(&std::io::stdout())));
    println!("target {target}: {}", if mistakes.len() == 1 { "a mistake" } else { "mistakes" });
}
