//! `plugin list`, `plugin build`, `plugin check`, `plugin test`.

use std::path::PathBuf;

use anyhow::Context as _;
use jit_plugin_build::{BuildOptions, build_plugin, check};

use super::admin::table;
use super::client::{AdminClient, SocketArg};
use super::{Format, Stop, block_on, conformance, signing};
use crate::http::admin::PluginRow;

#[derive(clap::Subcommand)]
pub(super) enum PluginCommand {
    /// List the plugins that a running broker has loaded.
    #[command(
        after_help = "Examples:\n  jit-broker plugin list\n  jit-broker plugin list --statements   # every SQL statement that a driver can ever run"
    )]
    List {
        #[command(flatten)]
        socket: SocketArg,
        /// Also print every SQL statement that each driver can ever run.
        #[arg(long)]
        statements: bool,
        /// How to print.
        #[arg(long, value_enum, default_value_t = Format::Table)]
        format: Format,
    },
    /// Build a plugin's crate into a component; finds or prepares the guest toolchain.
    #[command(after_help = "Example:\n  jit-broker plugin build plugins/policy-allow-list --out plugins/")]
    Build {
        /// The crate's folder.
        #[arg(default_value = ".")]
        folder: PathBuf,
        /// Where the component goes; by default target/plugins.
        #[arg(long, value_name = "DIR")]
        out: Option<PathBuf>,
    },
    /// Check a component: its kind, its contract version, what it imports; and how to mend it.
    #[command(after_help = "Example:\n  jit-broker plugin check plugins/policy-allow-list.wasm")]
    Check {
        /// The component.
        file: PathBuf,
    },
    /// Conformance kit: a driver through an account's whole life on a real backend.
    #[command(after_help = conformance::EXAMPLES)]
    Test(conformance::TestArgs),
    #[command(flatten)]
    Signing(signing::SigningCommand),
}

pub(super) fn run(command: PluginCommand) -> Result<(), Stop> {
    match command {
        PluginCommand::List { socket, statements, format } => list(&socket, statements, format),
        PluginCommand::Test(args) => conformance::run(&args),
        PluginCommand::Signing(command) => signing::run(command),
        PluginCommand::Build { folder, out } => {
            let options = BuildOptions { out_dir: out, ..BuildOptions::default() };
            let built = build_plugin(&folder, &options, &|line: &str| eprintln!("{line}"))?;
            println!("{}: {} KiB, sha256 {}", built.wasm_path.display(), built.size.div_ceil(1024), built.sha256);
            Ok(())
        }
        PluginCommand::Check { file } => {
            let bytes = std::fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
            let report = check(&bytes);
            if let Some(contract) = &report.contract {
                let kind = contract.kind.map_or_else(|| "unknown kind".to_owned(), |kind| kind.to_string());
                println!("{}: {kind}, contract {}", file.display(), contract.version.as_deref().unwrap_or("unknown"));
                println!("imports: {}", contract.imports.join(" "));
            }
            if report.problems.is_empty() {
                println!("a broker can load it");
                return Ok(());
            }
            println!("{report}");
            Err(Stop::FoundWrong)
        }
    }
}

fn list(socket: &SocketArg, statements: bool, format: Format) -> Result<(), Stop> {
    let client = AdminClient::new(socket)?;
    let plugins: Vec<PluginRow> = block_on(async { Ok(client.get("/admin/plugins").await) })??;
    if format == Format::Json {
        println!("{}", serde_json::to_string_pretty(&plugins)?);
        return Ok(());
    }
    let mut table = table(&["PLUGIN", "KIND", "CONTRACT", "GRANTS", "SHA-256", "SIGNED BY", "FILE"]);
    for plugin in &plugins {
        table.add_row([
            &plugin.name,
            &plugin.kind,
            &plugin.contract,
            &plugin.grants.join(" "),
            &plugin.sha256,
            &plugin.signed_by.join(" "),
            &plugin.path,
        ]);
    }
    println!("{table}");
    if statements {
        for plugin in plugins.iter().filter(|plugin| !plugin.statements.is_empty()) {
            println!("\n{} can run these statements and no others:", plugin.name);
            for statement in &plugin.statements {
                println!("  {statement}");
            }
        }
    }
    Ok(())
}
