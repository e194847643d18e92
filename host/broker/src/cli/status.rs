//! `status`: whether a running broker is well, the worst first.

use jiff::Timestamp;
use jit_api::status::{BrokerStatus, TargetStatus, TaskResult, TaskRow, TaskState};
use jit_core::counted::counted;

use super::admin::table;
use super::client::{AdminClient, SocketArg};
use super::relative::{length, relative};
use super::{Stop, block_on, coloured};

#[derive(clap::Args)]
pub(super) struct StatusArgs {
    #[command(flatten)]
    socket: SocketArg,
    /// Print what the broker says as JSON, for programs.
    #[arg(long)]
    json: bool,
}

pub(super) const HELP: &str = "Exit codes: 0 all is well · 1 something is wrong (the alarms say what) · 2 the broker \
cannot be asked

Examples:
  jit-broker status
  jit-broker status --json | jq -r '.alarms[] | \"\\(.about): \\(.what)\"'
  jit-broker status >/dev/null || echo \"look at the broker\"";

pub(super) fn run(args: &StatusArgs) -> Result<(), Stop> {
    let asked = || -> Result<BrokerStatus, Stop> {
        let client = AdminClient::new(&args.socket)?;
        block_on(async { Ok(client.get("/admin/status").await) })?
    };
    let status = asked().map_err(|stop| match stop {
        Stop::Failed(error) | Stop::NoBroker(error) => Stop::CannotAsk(error),
        other => other,
    })?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&status)?);
    } else {
        print(&status, coloured(&std::io::stdout()));
    }
    if status.alarms.is_empty() { Ok(()) } else { Err(Stop::Unwell) }
}

fn print(status: &BrokerStatus, colour: bool) {
    let (red, plain) = if colour { ("\u{1b}[1;31m", "\u{1b}[0m") } else { ("", "") };
    for alarm in &status.alarms {
        println!("{red}ALARM{plain}  {}: {}", alarm.about, alarm.what);
    }
    if !status.alarms.is_empty() {
        println!();
    }
    let now = status.now;
    let line = |what: &str, text: String| println!("{what:<14} {text}");
    line("jit-broker", format!("{}, up since {}", status.version, when(status.up_since, now)));
    let config = &status.config;
    let path = config.path.as_deref().unwrap_or("made by the command");
    line("configuration", format!("{path}, loaded at {} by {}", when(config.loaded_at, now), config.trigger));
    if let Some(sha256) = &config.sha256 {
        line("", format!("sha256 {sha256}"));
    }
    let store = &status.store;
    let answers = if store.answers { "answers" } else { "does not answer" };
    line("store", format!("{}, {answers}, {} audit records, disk room: {}", store.kind, store.records, store.room));
    for (number, broker) in status.brokers.iter().enumerate() {
        let what = if number == 0 { "brokers" } else { "" };
        let config = broker.config.as_deref().map_or("not shown yet", |digest| digest.get(..12).unwrap_or(digest));
        let this = if broker.this { " (this one)" } else { "" };
        line(what, format!("{}{this}, since {}, configuration {config}", broker.name, when(broker.since, now)));
    }
    let clock = match status.clock_jumped_seconds {
        Some(seconds) => format!("jumped by {seconds} s: leases do not go by it"),
        None => "steady".to_owned(),
    };
    line("clock", clock);
    line("brake", format!("{} held", counted(status.held_accounts, "removal", "removals")));
    println!();
    print_targets(&status.targets);
    println!();
    print_tasks(&status.tasks, now);
}

/// Absolute and relative.
fn when(at: Timestamp, now: Timestamp) -> String {
    format!("{} ({})", seconds(at), relative(at, now))
}

/// Without the fraction of a second.
fn seconds(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}

fn print_targets(targets: &[TargetStatus]) {
    let mut table = table(&["TARGET", "ACTIVE", "PENDING", "REVOKING", "DOUBTFUL", "OVERDUE", "OLDEST OVERDUE"]);
    for target in targets {
        let remark = match (target.configured, target.away_since.is_some()) {
            (false, _) => " (gone)",
            (true, true) => " (away)",
            (true, false) => "",
        };
        let name = format!("{}{remark}", target.target);
        let oldest = if target.overdue > 0 { length(target.oldest_overdue_seconds) } else { "-".to_owned() };
        let counts = [target.active, target.pending, target.revoking, target.doubtful, target.overdue];
        let counts = counts.map(|count| count.to_string());
        table.add_row([&[name], &counts[..], &[oldest]].concat());
    }
    println!("{table}");
}

fn print_tasks(tasks: &[TaskRow], now: Timestamp) {
    let mut table = table(&["TASK", "STATE", "LAST RESULT", "LAST SUCCESS", "NEXT RUN", "RUNS", "FAILED", "DETAIL"]);
    for task in tasks {
        let state = match task.running_since {
            Some(since) => format!("{} ({})", task.state.as_str(), relative(since, now)),
            None => task.state.as_str().to_owned(),
        };
        let next = match task.next_run {
            Some(at) => relative(at, now),
            None if task.state == TaskState::Waiting => "when woken".to_owned(),
            None => "-".to_owned(),
        };
        let all: u64 = task.runs.values().sum();
        let good = task.runs.get(&TaskResult::Ok).copied().unwrap_or(0);
        table.add_row([
            task.name.clone(),
            state,
            task.last_result.map_or("-", TaskResult::as_str).to_owned(),
            task.last_success.map_or_else(|| "never".to_owned(), |at| relative(at, now)),
            next,
            all.to_string(),
            (all - good.min(all)).to_string(),
            detail(task),
        ]);
    }
    println!("{table}");
}

/// Why it failed, or what it did.
fn detail(task: &TaskRow) -> String {
    if let Some(error) = &task.error {
        return error.clone();
    }
    let did = task.did.iter().filter(|(_, count)| **count > 0).map(|(what, count)| match what.strip_suffix('s') {
        Some(one) => counted(*count, one, what),
        None => format!("{count} {what}"),
    });
    let beside = (task.beside > 0).then(|| format!("{} at work beside it", task.beside));
    did.chain(beside).collect::<Vec<_>>().join(", ")
}
