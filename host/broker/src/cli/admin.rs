//! `reconcile` and `clock`.

use comfy_table::{ColumnConstraint, ContentArrangement, Table, presets};
use jit_api::admin::{ClockConfirmed, ReconcileReport, TargetReport};

use jit_core::counted::counted;

use super::client::{AdminClient, SocketArg};
use super::progress::waiting;
use super::{Format, Stop, block_on};
use jit_api::url::encode;

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
    // The first column is what people copy and search for, such as a lease's id: it is never broken.
    if let Some(first) = table.column_mut(0) {
        first.set_constraint(ColumnConstraint::ContentWidth);
    }
    table
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
        // A target that could not be asked has no numbers: "0 accounts" would be a claim.
        let names = |names: &[String]| match (&target.error, names) {
            (Some(_), _) => "?".to_owned(),
            (None, []) => "none".to_owned(),
            (None, names) => names.join("\n"),
        };
        table.add_row([
            target.target.clone(),
            target.error.as_ref().map_or_else(|| target.accounts.to_string(), |_| "?".to_owned()),
            names(&target.ghosts),
            names(&target.missing),
            target.error.clone().unwrap_or_default(),
        ]);
    }
    println!("{table}");
    for target in &report.targets {
        print_held(target);
    }
    println!("{}", summary(&report));
    Ok(())
}

/// What the pass did, or would have done.
fn summary(report: &ReconcileReport) -> String {
    let count = |of: fn(&TargetReport) -> usize| report.targets.iter().map(of).sum::<usize>();
    let (ghosts, missing) = (count(|target| target.ghosts.len()), count(|target| target.missing.len()));
    let removed = counted(ghosts as u64, "account without a lease", "accounts without a lease");
    let closed = counted(missing as u64, "lease without an account", "leases without an account");
    match (report.dry_run, ghosts + missing) {
        (true, 0) => "nothing to do; nothing was changed".to_owned(),
        (true, _) => format!("would remove {removed} and close {closed}; nothing was changed"),
        (false, 0) => "nothing to do".to_owned(),
        (false, _) => format!("removes {removed} and closes {closed}"),
    }
}

/// What is left for an operator to decide.
fn print_held(target: &TargetReport) {
    let name = &target.target;
    if !target.held.is_empty() {
        println!(
            "{name}: {} held; `jit-broker reconcile --confirm --target {name}` removes what is held:",
            counted(target.held.len() as u64, "account", "accounts")
        );
    }
    for held in &target.held {
        let ends = held.expires_at.map_or("it does not end by itself".to_owned(), |at| format!("ends by itself {at}"));
        println!("  {}: {} ({ends})", held.account, held.reason);
    }
    if !target.held_leases.is_empty() {
        let count =
            counted(target.held_leases.len() as u64, "lease without an account is", "leases without an account are");
        let leases = target.held_leases.join(" ");
        println!("{name}: {count} not closed, because too many at once have none: {leases}");
    }
    if !target.strangers.is_empty() {
        let count = counted(target.strangers.len() as u64, "name like ours is", "names like ours are");
        let names = target.strangers.join(" ");
        println!("{name}: {count} left alone, without this broker's mark: {names}");
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
