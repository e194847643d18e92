//! `rotation list`, `rotation now`.

use jit_api::admin::RotationRow;
use jit_core::counted::counted;

use super::admin::table;
use super::client::{AdminClient, SocketArg};
use super::{Format, Stop, block_on};
use jit_api::url::encode;

#[derive(clap::Subcommand)]
pub(super) enum RotationCommand {
    /// List rotating accounts with their state and the time of the next rotation.
    #[command(after_help = "Examples:\n  jit-broker rotation list\n  jit-broker rotation list --format json")]
    List {
        #[command(flatten)]
        socket: SocketArg,
        /// Output format.
        #[arg(long, value_enum, default_value_t = Format::Table)]
        format: Format,
    },
    /// Change a rotating account's password now, because it leaked.
    #[command(
        after_help = "Examples:\n  jit-broker rotation now shop_db app\n  jit-broker rotation now shop_db app --at-once\n\nWhoever holds the old password has only the overlap to fetch the new one, whatever the reply said.\nIf an overlap is in progress, the rotation begins when it has ended.\nWith --at-once there is no overlap, and the account's sessions are ended: for a password that is misused."
    )]
    Now {
        #[command(flatten)]
        socket: SocketArg,
        /// The target.
        target: String,
        /// The role.
        role: String,
        /// No overlap: old passwords stop working at once, and the account's sessions are ended.
        #[arg(long)]
        at_once: bool,
        /// Output format.
        #[arg(long, value_enum, default_value_t = Format::Table)]
        format: Format,
    },
}

pub(super) fn run(command: RotationCommand) -> Result<(), Stop> {
    block_on(async { Ok(run_command(command).await) })?
}

async fn run_command(command: RotationCommand) -> Result<(), Stop> {
    match command {
        RotationCommand::List { socket, format } => {
            let rows: Vec<RotationRow> = AdminClient::new(&socket)?.get("/admin/rotations").await?;
            match format {
                Format::Json => println!("{}", serde_json::to_string_pretty(&rows)?),
                Format::Table => print(&rows),
            }
        }
        RotationCommand::Now { socket, target, role, at_once, format } => {
            let path = format!("/admin/rotations/{}/{}/now?at_once={at_once}", encode(&target), encode(&role));
            let row: RotationRow = AdminClient::new(&socket)?.post(&path).await?;
            match format {
                Format::Json => println!("{}", serde_json::to_string_pretty(&row)?),
                Format::Table => tell(&row),
            }
        }
    }
    Ok(())
}

fn tell(row: &RotationRow) {
    let time = |time: Option<jiff::Timestamp>| time.map_or_else(|| "-".to_owned(), |time| time.to_string());
    print(std::slice::from_ref(row));
    if let Some(error) = &row.last_error {
        println!("not yet: {error}; it is tried again until it succeeds");
    } else if row.asked {
        println!(
            "noted: the rotation begins when the overlap in progress has ended, at {}",
            time(row.previous_valid_until)
        );
    } else if row.phase == "stable" {
        println!("the old password works no longer");
    } else if row.phase == "staging" {
        println!("not yet: the target has not answered; it is tried again until it succeeds");
    } else {
        println!("the old password works until {}", time(row.previous_valid_until));
    }
}

fn print(rows: &[RotationRow]) {
    let mut table =
        table(&["TARGET", "ROLE", "ACCOUNT", "PHASE", "PASSWORD", "SINCE", "NEXT", "OLD WORKS UNTIL", "WHAT IS WRONG"]);
    let time = |time: Option<jiff::Timestamp>| time.map_or_else(|| "-".to_owned(), |time| time.to_string());
    for row in rows {
        let wrong = match &row.last_error {
            Some(error) => format!("{} × {error}", row.attempts),
            None if !row.configured => "no longer configured".to_owned(),
            None if row.generation.is_some() && !row.readable => "its sealing key is not configured".to_owned(),
            None => String::new(),
        };
        table.add_row([
            row.target.clone(),
            row.role.clone(),
            row.account.clone(),
            row.phase.clone(),
            row.generation.map_or_else(|| "-".to_owned(), |generation| format!("no. {generation}")),
            time(row.since),
            if row.asked { "asked for".to_owned() } else { time(row.next_at) },
            time(row.previous_valid_until),
            wrong,
        ]);
    }
    println!("{table}");
    println!("{}", counted(rows.len() as u64, "rotating account", "rotating accounts"));
}
