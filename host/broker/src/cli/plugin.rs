//! `plugin list|new|build|check|test`.

use std::path::PathBuf;

use jit_plugin_build::{BuildOptions, build_plugin};

use jit_api::admin::PluginRow;

use super::admin::table;
use super::client::{AdminClient, SocketArg};
use super::progress::Building;
use super::{Format, Stop, block_on, conformance, plugin_check, plugin_new, signing};

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
        /// Output format.
        #[arg(long, value_enum, default_value_t = Format::Table)]
        format: Format,
    },
    /// Create a project for a new plugin, with tests and a README.
    #[command(after_help = plugin_new::EXAMPLES)]
    New(plugin_new::NewArgs),
    /// Build a plugin into a component. Finds or downloads the tools that it needs.
    #[command(
        after_help = "Examples:\n  jit-broker plugin build my-rule\n  jit-broker plugin build plugins/policy-allow-list --out plugins/"
    )]
    Build {
        /// The project's folder.
        #[arg(default_value = ".")]
        folder: PathBuf,
        /// The folder for the component; by default target/plugins of the project or workspace.
        #[arg(long, value_name = "DIR")]
        out: Option<PathBuf>,
    },
    /// Check whether a broker would load a component, and say how to fix it.
    #[command(after_help = plugin_check::EXAMPLES)]
    Check(plugin_check::CheckArgs),
    /// Test a component: a policy against a table of cases, a driver through an account's whole life on a real backend.
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
            let built = build_plugin(&folder, &options, &Building::default())?;
            println!("{}: {} KiB, sha256 {}", built.wasm_path.display(), built.size.div_ceil(1024), built.sha256);
            Ok(())
        }
        PluginCommand::New(args) => plugin_new::run(&args),
        PluginCommand::Check(args) => plugin_check::run(&args),
    }
}

/// Digits of a digest in the table; JSON has all 64.
const SHOWN_DIGITS: usize = 12;

/// Characters of a line of a statement.
const STATEMENT_WIDTH: usize = 100;

/// The text in lines, broken at spaces. A word that is longer has a line of its own.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
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
            plugin.name.as_str(),
            &plugin.kind,
            &plugin.contract,
            &plugin.grants.join(" "),
            plugin.sha256.get(..SHOWN_DIGITS).unwrap_or(&plugin.sha256),
            &plugin.signed_by.join(" "),
            &plugin.path,
        ]);
    }
    println!("{table}");
    if statements {
        for plugin in plugins.iter().filter(|plugin| !plugin.statements.is_empty()) {
            println!("\n{} can run these statements and no others:", plugin.name);
            for statement in &plugin.statements {
                for (number, line) in wrapped(statement, STATEMENT_WIDTH).iter().enumerate() {
                    println!("{}{line}", if number == 0 { "  " } else { "      " });
                }
            }
        }
    }
    Ok(())
}
