//! `top`: what is asked of a running broker, live.

use std::collections::BTreeMap;
use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use jit_api::status::BrokerStatus;

use super::admin::table;
use super::client::{AdminClient, SocketArg};
use super::relative::length;
use super::{Stop, block_on};

/// How often it is drawn again.
const EVERY: Duration = Duration::from_secs(2);
/// What a policy or a rule refused, by the problem's code. Everything else that was not granted has failed.
const DENIALS: [&str; 4] = ["policy-denied", "role-not-allowed", "blocked", "rate-limited"];

#[derive(clap::Args)]
pub(super) struct TopArgs {
    #[command(flatten)]
    socket: SocketArg,
    /// Print the numbers once and end. So it is when the output is no terminal.
    #[arg(long)]
    once: bool,
}

pub(super) const HELP: &str = "The numbers count from the broker's start; those with /s are of the last two seconds.

Examples:
  jit-broker top
  jit-broker top --once";

/// Requests for accounts of one target, since the start.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Asked {
    granted: u64,
    denied: u64,
    failed: u64,
}

impl Asked {
    fn all(self) -> u64 {
        self.granted + self.denied + self.failed
    }
}

/// What the broker said at one moment.
struct Sample {
    at: Instant,
    status: BrokerStatus,
    asked: BTreeMap<String, Asked>,
}

pub(super) fn run(args: &TopArgs) -> Result<(), Stop> {
    let once = args.once || !std::io::stdout().is_terminal();
    let client = AdminClient::new(&args.socket)?;
    block_on(async { Ok(follow(&client, once).await) })?
}

async fn follow(client: &AdminClient, once: bool) -> Result<(), Stop> {
    let mut before = None;
    loop {
        let sample = sample(client).await?;
        let text = draw(&sample, before.as_ref());
        if once {
            println!("{text}");
            return Ok(());
        }
        let mut out = std::io::stdout().lock();
        // Home, draw over, and clear what is left: the screen does not flicker.
        write!(out, "\u{1b}[H{}\u{1b}[J", text.replace('\n', "\u{1b}[K\n"))?;
        writeln!(out, "\nevery {} s; Ctrl-C ends it\u{1b}[K", EVERY.as_secs())?;
        out.flush()?;
        drop(out);
        before = Some(sample);
        tokio::time::sleep(EVERY).await;
    }
}

async fn sample(client: &AdminClient) -> Result<Sample, Stop> {
    let status: BrokerStatus = client.get("/admin/status").await?;
    let metrics: String = client.get("/admin/metrics").await?;
    Ok(Sample { at: Instant::now(), status, asked: asked(&metrics) })
}

/// By target, of the text that Prometheus reads.
fn asked(metrics: &str) -> BTreeMap<String, Asked> {
    let mut found: BTreeMap<String, Asked> = BTreeMap::new();
    for line in metrics.lines() {
        let Some((labels, count)) = line.strip_prefix("jit_issue_total{").and_then(|rest| rest.rsplit_once("} "))
        else {
            continue;
        };
        let label = |name: &str| {
            let (_, rest) = labels.split_once(&format!("{name}=\""))?;
            rest.split('"').next()
        };
        let (Some(target), Some(outcome), Ok(count)) = (label("target"), label("outcome"), count.parse::<u64>()) else {
            continue;
        };
        let asked = found.entry(target.to_owned()).or_default();
        match outcome {
            "granted" => asked.granted += count,
            outcome if DENIALS.contains(&outcome) => asked.denied += count,
            _ => asked.failed += count,
        }
    }
    found
}

fn draw(sample: &Sample, before: Option<&Sample>) -> String {
    let status = &sample.status;
    let up = status.now.as_second().saturating_sub(status.up_since.as_second());
    let alarms: String =
        status.alarms.iter().map(|alarm| format!("ALARM  {}: {}\n", alarm.about, alarm.what)).collect();
    let mut table =
        table(&["TARGET", "ASKED/s", "ASKED", "GRANTED", "DENIED", "FAILED", "ACTIVE", "OVERDUE", "OLDEST OVERDUE"]);
    for target in &status.targets {
        let asked = sample.asked.get(&target.target).copied().unwrap_or_default();
        let rate = before.map_or_else(|| "-".to_owned(), |before| rate(sample, before, &target.target));
        let oldest = if target.overdue > 0 { length(target.oldest_overdue_seconds) } else { "-".to_owned() };
        let counts = [asked.all(), asked.granted, asked.denied, asked.failed, target.active, target.overdue];
        let counts = counts.map(|count| count.to_string());
        let away = if target.away_since.is_some() { " (away)" } else { "" };
        table.add_row([&[format!("{}{away}", target.target), rate], &counts[..], &[oldest]].concat());
    }
    // Targets that the broker does not have are asked for too; their names are the callers', so there is no row each.
    let known: u64 =
        status.targets.iter().filter_map(|row| sample.asked.get(&row.target)).map(|asked| asked.all()).sum();
    let all: u64 = sample.asked.values().map(|asked| asked.all()).sum();
    let others =
        if all > known { format!("\nfor no target of the configuration: {}", all - known) } else { String::new() };
    let up = length(up.unsigned_abs());
    format!("{alarms}jit-broker {}, up {up}\n\n{table}{others}", status.version)
}

/// Requests for a target each second, since the sample before.
fn rate(sample: &Sample, before: &Sample, target: &str) -> String {
    let count = |sample: &Sample| sample.asked.get(target).map_or(0, |asked| asked.all());
    let seconds = sample.at.duration_since(before.at).as_secs_f64().max(0.1);
    // A broker that was started again counts from nothing.
    let more = count(sample).saturating_sub(count(before));
    format!("{:.1}", more as f64 / seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_by_target_and_by_how_they_ended() {
        let metrics = "# TYPE jit_issue_total counter\n\
            jit_issue_total{target=\"shop\",outcome=\"granted\"} 7\n\
            jit_issue_total{target=\"shop\",outcome=\"policy-denied\"} 2\n\
            jit_issue_total{target=\"shop\",outcome=\"blocked\"} 1\n\
            jit_issue_total{outcome=\"target-timeout\",target=\"shop\"} 4\n\
            jit_issue_total{target=\"orders\",outcome=\"granted\"} 1\n\
            jit_issue_total_of_another{target=\"shop\"} 9\n\
            jit_issue_seconds_count{target=\"shop\"} 14\n";
        let found = asked(metrics);
        assert_eq!(found["shop"], Asked { granted: 7, denied: 3, failed: 4 });
        assert_eq!(found["orders"], Asked { granted: 1, denied: 0, failed: 0 });
        assert_eq!(found.len(), 2);
    }
}
