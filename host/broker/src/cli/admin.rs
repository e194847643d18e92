//! `lease` and `reconcile`.

use comfy_table::{ContentArrangement, Table, presets};
use jiff::Timestamp;
use jit_api::LeaseState;
use jit_api::admin::{AdminLease, AdminLeases, ClockConfirmed, ReconcileReport, TargetReport};

use super::client::{AdminClient, SocketArg};
use super::progress::waiting;
use super::relative::relative;
use super::{Format, Stop, block_on};
use jit_api::url::encode;

#[derive(clap::Subcommand)]
pub(super) enum LeaseCommand {
    /// List leases, newest first.
    #[command(
        after_help = "Examples:\n  jit-broker lease list --state active\n  jit-broker lease list --target inventory_db --format json"
    )]
    List {
        #[command(flatten)]
        socket: SocketArg,
        /// Only this target.
        #[arg(long)]
        target: Option<String>,
        /// Only leases in this state: pending, active, revoking, revoked, doubtful.
        #[arg(long)]
        state: Option<String>,
        /// Maximum number of leases.
        #[arg(long, default_value_t = 100)]
        limit: usize,
        /// Output format.
        #[arg(long, value_enum, default_value_t = Format::Table)]
        format: Format,
    },
    /// Show one lease.
    #[command(after_help = "Example:\n  jit-broker lease show lease_01jd3x7k2m9v5q8w4r6t0y1z3b")]
    Show {
        #[command(flatten)]
        socket: SocketArg,
        /// The lease's id.
        id: String,
        /// Output format.
        #[arg(long, value_enum, default_value_t = Format::Table)]
        format: Format,
    },
    /// Revoke a lease now: its login ends, its sessions are closed, its account is removed.
    #[command(after_help = "Example:\n  jit-broker lease revoke lease_01jd3x7k2m9v5q8w4r6t0y1z3b")]
    Revoke {
        #[command(flatten)]
        socket: SocketArg,
        /// The lease's id.
        id: String,
        /// For rotating accounts: change the password now, if the lease still has the current one.
        #[arg(long)]
        rotate: bool,
    },
}

#[derive(clap::Args)]
pub(super) struct ReconcileArgs {
    #[command(flatten)]
    socket: SocketArg,
    /// Only say what would be done.
    #[arg(long)]
    dry_run: bool,
    /// Also remove accounts that wait for an operator: those that a new or rolled-back store does not know, and
    /// those above the configured limit.
    /// Look at them first, with --dry-run.
    #[arg(long, conflicts_with = "dry_run")]
    confirm: bool,
    /// Only this target.
    #[arg(long)]
    target: Option<String>,
    /// Output format.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

/// A table that fits the terminal; elsewhere its lines are as long as they need to be.
pub(super) fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(header.iter().copied());
    table
}

pub(super) fn lease(command: LeaseCommand) -> Result<(), Stop> {
    block_on(async { Ok(run_lease(command).await) })?
}

async fn run_lease(command: LeaseCommand) -> Result<(), Stop> {
    match command {
        LeaseCommand::List { socket, target, state, limit, format } => {
            let client = AdminClient::new(&socket)?;
            let mut leases: Vec<AdminLease> = Vec::new();
            let mut cursor = None;
            while leases.len() < limit {
                let mut query = format!("?limit={}", (limit - leases.len()).min(500));
                for (name, value) in [("target", &target), ("state", &state), ("cursor", &cursor)] {
                    if let Some(value) = value {
                        query.push_str(&format!("&{name}={}", encode(value)));
                    }
                }
                let page: AdminLeases = client.get(&format!("/admin/leases{query}")).await?;
                leases.extend(page.leases);
                cursor = page.next_cursor;
                if cursor.is_none() {
                    break;
                }
            }
            match format {
                Format::Json => println!("{}", serde_json::to_string_pretty(&leases)?),
                Format::Table => print_leases(&leases),
            }
        }
        LeaseCommand::Show { socket, id, format } => {
            let client = AdminClient::new(&socket)?;
            let lease: AdminLease = client.get(&format!("/admin/leases/{}", encode(&id))).await?;
            print_lease(&lease, format)?;
        }
        LeaseCommand::Revoke { socket, id, rotate } => {
            let client = AdminClient::new(&socket)?;
            let path = format!("/admin/leases/{}", encode(&id));
            let _: serde_json::Value = client.post(&format!("{path}/revoke?rotate={rotate}")).await?;
            let lease: AdminLease = client.get(&path).await?;
            match lease.state {
                LeaseState::Revoked if !lease.revocable => println!(
                    "{id} is revoked: account {} stands, and its credential works until it is changed{}",
                    lease.account,
                    if rotate { " (`jit-broker rotation list` says until when)" } else { "" }
                ),
                LeaseState::Revoked => println!("{id} is revoked: account {} is gone", lease.account),
                state => {
                    println!("{id} is {}: account {} is still being removed", state.as_str(), lease.account);
                    if let Some(error) = lease.last_error {
                        println!("last attempt: {error}");
                    }
                }
            }
        }
    }
    Ok(())
}

fn print_leases(leases: &[AdminLease]) {
    let mut table = table(&["LEASE", "STATE", "WORKLOAD", "TARGET", "ROLE", "ACCOUNT", "EXPIRES", "TRIES"]);
    let now = Timestamp::now();
    for lease in leases {
        table.add_row([
            lease.lease_id.as_str(),
            lease.state.as_str(),
            &lease.workload,
            &lease.target,
            &lease.role,
            &lease.account,
            &format!("{} ({})", lease.expires_at, relative(lease.expires_at, now)),
            &lease.attempts.to_string(),
        ]);
    }
    println!("{table}");
    println!("{} lease(s)", leases.len());
}

fn print_lease(lease: &AdminLease, format: Format) -> Result<(), Stop> {
    if format == Format::Json {
        println!("{}", serde_json::to_string_pretty(lease)?);
        return Ok(());
    }
    let value = serde_json::to_value(lease)?;
    for (field, value) in value.as_object().into_iter().flatten() {
        match value {
            serde_json::Value::Null => {}
            serde_json::Value::String(text) => println!("{field:<14} {text}"),
            other => println!("{field:<14} {other}"),
        }
    }
    Ok(())
}

pub(super) fn reconcile(args: ReconcileArgs) -> Result<(), Stop> {
    let client = AdminClient::new(&args.socket)?;
    let only = args.target.as_ref().map_or_else(String::new, |target| format!("&target={}", encode(target)));
    let path = format!("/admin/reconcile?dry_run={}&confirm={}{only}", args.dry_run, args.confirm);
    let asked = client.post(&path);
    let report: ReconcileReport =
        block_on(async { Ok(waiting("comparing the store with the targets", args.format, asked).await) })??;
    if args.format == Format::Json {
        println!("{}", serde_json::to_string_pretty(&report)?);
        return Ok(());
    }
    let mut table = table(&["TARGET", "ACCOUNTS", "WITHOUT LEASE", "LEASES WITHOUT ACCOUNT", "ERROR"]);
    for target in &report.targets {
        table.add_row([
            target.target.clone(),
            target.accounts.to_string(),
            target.ghosts.join("\n"),
            target.missing.join("\n"),
            target.error.clone().unwrap_or_default(),
        ]);
    }
    println!("{table}");
    for target in &report.targets {
        print_held(target);
    }
    if report.dry_run {
        println!("nothing was changed");
    }
    Ok(())
}

/// What is left for an operator to decide.
fn print_held(target: &TargetReport) {
    let name = &target.target;
    if !target.held.is_empty() {
        println!(
            "{name}: {} account(s) held; `jit-broker reconcile --confirm --target {name}` removes them:",
            target.held.len()
        );
    }
    for held in &target.held {
        let ends = held.expires_at.map_or("it does not end by itself".to_owned(), |at| format!("ends by itself {at}"));
        println!("  {}: {} ({ends})", held.account, held.reason);
    }
    if !target.held_leases.is_empty() {
        let (count, leases) = (target.held_leases.len(), target.held_leases.join(" "));
        println!("{name}: {count} lease(s) without an account are not closed, since they are many at once: {leases}");
    }
    if !target.strangers.is_empty() {
        let (count, names) = (target.strangers.len(), target.strangers.join(" "));
        println!("{name}: {count} name(s) like ours without this broker's mark are left alone: {names}");
    }
}

#[derive(clap::Subcommand)]
pub(super) enum ClockCommand {
    /// Confirm that the wall clock is right after a jump: leases follow it again.
    #[command(after_help = "Example:\n  jit-broker clock confirm")]
    Confirm {
        #[command(flatten)]
        socket: SocketArg,
    },
}

pub(super) fn clock(ClockCommand::Confirm { socket }: ClockCommand) -> Result<(), Stop> {
    let client = AdminClient::new(&socket)?;
    let done: ClockConfirmed = block_on(async { Ok(client.post("/admin/clock/confirm").await) })??;
    match done.jumped_seconds {
        None => println!("the clock had not jumped"),
        Some(seconds) => {
            println!("the clock had jumped by {seconds} s; leases go by it again ({} moved with it)", done.leases);
        }
    }
    Ok(())
}
