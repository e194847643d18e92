//! `lease`: list, show and revoke.

use jiff::Timestamp;
use jit_api::LeaseState;
use jit_api::admin::{AdminLease, AdminLeases};
use jit_api::url::encode;

use jit_core::counted::counted;

use super::admin::table;
use super::client::{AdminClient, SocketArg};
use super::lease_revoke::{self, ManyArgs};
use super::relative::{relative, seconds};
use super::{Format, Stop, block_on};

/// The most leases of one request.
const PAGE: usize = 500;

#[derive(clap::Subcommand)]
pub(super) enum LeaseCommand {
    /// List leases, newest first: those that have not ended, unless --ended or --all says otherwise.
    #[command(
        after_help = "Examples:\n  jit-broker lease list --target inventory_db\n  jit-broker lease list --workload payment-service --all\n  jit-broker lease list --ended --limit 20\n  jit-broker lease list --state revoking --format json"
    )]
    List {
        #[command(flatten)]
        socket: SocketArg,
        /// Also leases that have ended, with how each ended. The broker forgets them after a while
        /// (`[store]` keep_revoked).
        #[arg(long)]
        all: bool,
        /// Only leases that have ended.
        #[arg(long, conflicts_with = "all")]
        ended: bool,
        /// Only this target.
        #[arg(long)]
        target: Option<String>,
        /// Only this workload, by its name.
        #[arg(long)]
        workload: Option<String>,
        /// Only leases in this state: pending, active, revoking, revoked, doubtful.
        #[arg(long, conflicts_with_all = ["all", "ended"])]
        state: Option<String>,
        /// Maximum number of leases, counted from the newest.
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
    /// Revoke a lease now: its login ends, its sessions are closed, its account is removed. With --all: every lease of
    /// a workload, an issuer, a target or a plugin.
    #[command(
        after_help = "Examples:\n  jit-broker lease revoke lease_01jd3x7k2m9v5q8w4r6t0y1z3b\n  jit-broker lease revoke --workload payment-service --all --dry-run\n  jit-broker lease revoke --workload payment-service --target inventory_db --all\n  jit-broker lease revoke --plugin postgres --all --yes\n\nA command with --all that was stopped continues with what is left when it is run again. It ends with 1 while accounts are not removed yet."
    )]
    Revoke {
        #[command(flatten)]
        socket: SocketArg,
        /// The lease's id.
        id: Option<String>,
        /// For rotating accounts: change the password now, if the lease still has the current one.
        #[arg(long, requires = "id")]
        rotate: bool,
        #[command(flatten)]
        many: ManyArgs,
    },
}

/// What `lease list` asks for.
struct Wanted {
    /// Parameters of the query, with their values.
    parameters: Vec<(&'static str, String)>,
    limit: usize,
}

pub(super) fn run(command: LeaseCommand) -> Result<(), Stop> {
    block_on(async { Ok(run_lease(command).await) })?
}

async fn run_lease(command: LeaseCommand) -> Result<(), Stop> {
    match command {
        LeaseCommand::List { socket, all, ended, target, workload, state, limit, format } => {
            let ended = match (all, ended, &state) {
                (true, ..) | (_, _, Some(_)) => None,
                (_, ended, None) => Some(ended.to_string()),
            };
            let given = [("target", target), ("workload", workload), ("state", state), ("ended", ended)];
            let parameters = given.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
            let (leases, more) = list(&AdminClient::new(&socket)?, &Wanted { parameters, limit }).await?;
            match format {
                Format::Json => println!("{}", serde_json::to_string_pretty(&leases)?),
                Format::Table => print_leases(&leases, more, all),
            }
        }
        LeaseCommand::Show { socket, id, format } => {
            let client = AdminClient::new(&socket)?;
            let lease: AdminLease = client.get(&format!("/admin/leases/{}", encode(&id))).await?;
            print_lease(&lease, format)?;
        }
        LeaseCommand::Revoke { socket, id, rotate, many } => {
            let several = many.check(id.as_deref()).unwrap_or_else(|sentence| refuse(&sentence));
            let Some(id) = id.filter(|_| !several) else { return lease_revoke::run(&socket, &many).await };
            let client = AdminClient::new(&socket)?;
            let path = format!("/admin/leases/{}", encode(&id));
            let _: serde_json::Value = client.post(&format!("{path}/revoke?rotate={rotate}")).await?;
            let lease: AdminLease = client.get(&path).await?;
            print_revoked(&id, lease, rotate);
        }
    }
    Ok(())
}

/// Ends the process as for any wrong arguments, with a sentence.
fn refuse(sentence: &str) -> ! {
    super::command().error(clap::error::ErrorKind::ArgumentConflict, sentence).exit()
}

/// The leases, and whether there are more than were wanted.
async fn list(client: &AdminClient, wanted: &Wanted) -> Result<(Vec<AdminLease>, bool), Stop> {
    let mut leases: Vec<AdminLease> = Vec::new();
    let mut cursor: Option<String> = None;
    // One more than wanted tells whether there are more.
    while leases.len() <= wanted.limit {
        let mut query = format!("?limit={}", (wanted.limit - leases.len()).saturating_add(1).min(PAGE));
        let cursor_given = cursor.iter().map(|cursor| ("cursor", cursor));
        for (name, value) in wanted.parameters.iter().map(|(name, value)| (*name, value)).chain(cursor_given) {
            query.push_str(&format!("&{name}={}", encode(value)));
        }
        let page: AdminLeases = client.get(&format!("/admin/leases{query}")).await?;
        leases.extend(page.leases);
        cursor = page.next_cursor;
        if cursor.is_none() {
            break;
        }
    }
    let more = leases.len() > wanted.limit;
    leases.truncate(wanted.limit);
    Ok((leases, more))
}

fn print_leases(leases: &[AdminLease], more: bool, all: bool) {
    let now = Timestamp::now();
    if !leases.is_empty() {
        let mut table = table(&["LEASE", "STATE", "WORKLOAD", "TARGET", "ROLE", "ACCOUNT", "ENDS", "TRIES"]);
        for lease in leases {
            table.add_row([
                lease.lease_id.as_str(),
                lease.state.as_str(),
                &lease.workload,
                &lease.target,
                &lease.role,
                &lease.account,
                &end_of(lease, now),
                &lease.attempts.to_string(),
            ]);
        }
        println!("{table}");
    }
    println!("{}", counted(leases.len() as u64, "lease", "leases"));
    if more {
        println!("these are the newest: there are more, which a higher --limit shows");
    } else if leases.is_empty() && !all {
        println!("--all shows leases that have ended, too");
    }
}

/// When and how a lease ends or ended.
fn end_of(lease: &AdminLease, now: Timestamp) -> String {
    match lease.ended_at {
        // The broker's time of the last attempt may lie a little ahead.
        Some(at) => format!("{}, {} ({})", how_it_ended(lease), relative(at.min(now), now), seconds(at)),
        None => format!("{} ({})", relative(lease.expires_at, now), seconds(lease.expires_at)),
    }
}

/// What ended a lease, as a person says it.
fn how_it_ended(lease: &AdminLease) -> String {
    match lease.closed_because.as_deref() {
        Some("expired") => "expired".to_owned(),
        Some("requested") => "given back".to_owned(),
        Some("operator") => match lease.closed_by_uid {
            Some(uid) => format!("revoked by the operator with uid {uid}"),
            None => "revoked by an operator".to_owned(),
        },
        Some("doubtful") => "never issued".to_owned(),
        Some("abandoned") => "the caller went away".to_owned(),
        Some("not-audited") => "not recorded, so not handed out".to_owned(),
        Some("drift") => "the account was missing".to_owned(),
        Some("ghost") => "an account without a lease".to_owned(),
        Some(other) => other.to_owned(),
        None => "ended".to_owned(),
    }
}

fn print_lease(lease: &AdminLease, format: Format) -> Result<(), Stop> {
    if format == Format::Json {
        println!("{}", serde_json::to_string_pretty(lease)?);
        return Ok(());
    }
    let value = serde_json::to_value(lease)?;
    let fields = value.as_object().into_iter().flatten();
    let fields: Vec<(&String, String)> = fields
        .filter_map(|(field, value)| match value {
            serde_json::Value::Null => None,
            serde_json::Value::String(text) => Some((field, text.clone())),
            other => Some((field, other.to_string())),
        })
        .collect();
    let width = fields.iter().map(|(field, _)| field.len()).max().unwrap_or(0);
    for (field, text) in fields {
        println!("{field:<width$}  {text}");
    }
    let now = Timestamp::now();
    match lease.state {
        LeaseState::Revoked => println!("\nended: {}", end_of(lease, now)),
        _ => println!("\nends {}", end_of(lease, now)),
    }
    Ok(())
}

fn print_revoked(id: &str, lease: AdminLease, rotate: bool) {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(closed_because: Option<&str>, ended_at: Option<&str>) -> AdminLease {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        AdminLease {
            lease_id: "lease_01jd3x7k2m9v5q8w4r6t0y1z3b".to_owned(),
            state: if ended_at.is_some() { LeaseState::Revoked } else { LeaseState::Active },
            workload: "payment-service".to_owned(),
            issuer: "cluster".to_owned(),
            subject: "s".to_owned(),
            target: "inventory_db".to_owned(),
            role: "app".to_owned(),
            account: "v-app".to_owned(),
            revocable: true,
            issued_at: at("2026-11-30T10:00:00.123456789Z"),
            expires_at: at("2026-11-30T10:30:00.123456789Z"),
            request_id: "req_1".to_owned(),
            closed_because: closed_because.map(str::to_owned),
            closed_by_uid: None,
            ended_at: ended_at.map(at),
            attempts: 0,
            last_error: None,
            reason: None,
            ticket: None,
            driver: "postgres".to_owned(),
            driver_sha256: "00".to_owned(),
        }
    }

    #[test]
    fn an_end_says_how_and_when_without_fractions_of_a_second() {
        let now: Timestamp = "2026-11-30T10:20:00Z".parse().unwrap();
        assert_eq!(end_of(&lease(None, None), now), "in 10 min (2026-11-30T10:30:00Z)");
        let ended = "2026-11-30T10:17:00.9Z";
        let mut operator = lease(Some("operator"), Some(ended));
        assert_eq!(end_of(&operator, now), "revoked by an operator, 3 min ago (2026-11-30T10:17:00Z)");
        operator.closed_by_uid = Some(1000);
        assert_eq!(how_it_ended(&operator), "revoked by the operator with uid 1000");
        let said = ["expired", "requested", "doubtful", "of a later release"]
            .map(|cause| how_it_ended(&lease(Some(cause), Some(ended))));
        assert_eq!(said, ["expired", "given back", "never issued", "of a later release"]);
        // A removal that was tried again has its next attempt's time, which may not have come yet.
        let ahead = lease(Some("expired"), Some("2026-11-30T10:20:20Z"));
        assert_eq!(end_of(&ahead, now), "expired, now (2026-11-30T10:20:20Z)");
    }
}
