//! `config check` and `config example`.

use super::client::{AdminClient, SocketArg};
use super::said::Said;
use super::{ConfigArg, Stop, block_on, coloured};
use crate::compose;
use crate::config::{self, Config, ConfigErrors};
use crate::reload::Report;

#[derive(clap::Subcommand)]
pub(super) enum ConfigCommand {
    /// Read a configuration, load its plugins, ask its targets, and say what is wrong and what to
    /// write instead.
    #[command(
        after_help = "Examples:\n  jit-broker config check --config broker.toml\n  jit-broker config check --config broker.toml --offline"
    )]
    Check {
        #[command(flatten)]
        config: ConfigArg,
        /// Do not connect to the targets.
        #[arg(long)]
        offline: bool,
    },
    /// Have a running broker read its configuration anew: plugins, policies, targets, connections,
    /// issuers. All or nothing; SIGHUP does the same.
    #[command(after_help = "Example:\n  jit-broker config reload --config broker.toml")]
    Reload {
        #[command(flatten)]
        socket: SocketArg,
        /// Also where accounts that are still there could then not be removed, because their driver
        /// or connection is gone.
        #[arg(long)]
        force: bool,
    },
    /// Print a configuration with every section and key, commented.
    Example,
}

pub(super) fn run(command: ConfigCommand) -> Result<(), Stop> {
    match command {
        ConfigCommand::Example => {
            print!("{}", config::EXAMPLE);
            Ok(())
        }
        ConfigCommand::Check { config, offline } => check(&config, offline),
        ConfigCommand::Reload { socket, force } => reload(&socket, force),
    }
}

fn reload(socket: &SocketArg, force: bool) -> Result<(), Stop> {
    let client = AdminClient::new(socket)?;
    let path = if force { "/admin/reload?force=true" } else { "/admin/reload" };
    let report: Report = block_on(async { Ok(client.post(path).await) })??;
    for (what, names) in [
        ("plugins loaded", &report.loaded),
        ("plugins unloaded", &report.unloaded),
        ("targets added", &report.targets_added),
        ("targets removed", &report.targets_removed),
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
    let warnings = config.check_files().map_err(|problems| wrong(&problems))?;
    print!("{}", config::render(&warnings, coloured(&std::io::stdout())));
    compose::identity(&config, compose::Mode { dev: true })?;
    let runtime = compose::runtime(&config)?;
    let serving = match compose::serving(&config, &runtime, None, None) {
        Ok(serving) => serving,
        Err(error) => {
            return Err(match error.downcast_ref::<ConfigErrors>() {
                Some(problems) => wrong(problems),
                None => error.into(),
            });
        }
    };
    for plugin in serving.plugins.values() {
        println!(
            "plugin {}: {}, contract {}, sha256 {}",
            plugin.name(),
            plugin.kind(),
            plugin.contract_version(),
            plugin.sha256()
        );
    }
    if offline {
        println!("{}: the configuration is good; its targets were not asked (--offline)", path.config.display());
        return Ok(());
    }
    let mut all_good = true;
    let said = Said::listen();
    for (target, result) in block_on(async { Ok(compose::validate_targets(&serving).await) })? {
        for warning in said.of(&target) {
            println!("target {target}: warning: {warning}");
        }
        match result {
            Ok(()) => println!("target {target}: good"),
            Err(reason) => {
                all_good = false;
                println!("target {target}: {reason}");
            }
        }
    }
    if !all_good {
        return Err(Stop::FoundWrong);
    }
    println!("{}: the configuration is good", path.config.display());
    Ok(())
}
