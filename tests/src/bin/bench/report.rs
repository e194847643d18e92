//! What was measured, as Markdown for people and as JSON for programs.

use std::fmt::Write as _;
use std::process::Command;

use anyhow::Result;
use jit_tests::Database;
use serde_json::{Value, json};

use crate::agent::{AgentFigures, CLIENTS as HERD, Herd};
use crate::broker::Replayed;
use crate::decisions::{self, Evaluation};
use crate::load::Measured;
use crate::machine::{Machine, Party};
use crate::single::{LEASES, Memory, PLUGINS};
use crate::systems::System;
use crate::{Args, CLIENTS, SPREAD};

/// One system with so many clients.
pub(crate) struct Cell {
    pub(crate) system: System,
    pub(crate) clients: usize,
    pub(crate) measured: Measured,
}

/// Memory after everything.
pub(crate) struct AtTheEnd {
    pub(crate) broker_mb: Option<f64>,
    pub(crate) broker_leases: usize,
    pub(crate) openbao_mb: Option<f64>,
    pub(crate) openbao_leases: usize,
}

/// Everything.
pub(crate) struct Report {
    pub(crate) machine: Machine,
    /// What was measured, with its version.
    pub(crate) versions: Vec<(&'static str, String)>,
    pub(crate) profile: String,
    pub(crate) quick: bool,
    pub(crate) rounds: usize,
    pub(crate) seconds: f64,
    pub(crate) accounts: usize,
    pub(crate) max_connections: u32,
    pub(crate) cells: Vec<Cell>,
    pub(crate) evaluations: Vec<Evaluation>,
    pub(crate) memory: Memory,
    pub(crate) starts_ms: Vec<f64>,
    /// Microseconds of a policy's evaluation in the broker under load, its wait for a processor
    /// included.
    pub(crate) policy_seconds: Option<f64>,
    pub(crate) at_the_end: AtTheEnd,
    /// Milliseconds of processor time of one hash of 4096 iterations.
    pub(crate) hash_ms: f64,
    /// None where nothing was decided.
    pub(crate) replayed: Option<Replayed>,
    /// None when it was not measured.
    pub(crate) agent: Option<AgentFigures>,
}

impl Report {
    pub(crate) fn cell(&self, system: System, clients: usize) -> Option<&Measured> {
        self.cells.iter().find(|cell| cell.system == system && cell.clients == clients).map(|cell| &cell.measured)
    }

    pub(crate) fn ratio(
        &self,
        of: System,
        to: System,
        clients: usize,
        figure: impl Fn(&Measured) -> f64,
    ) -> Option<f64> {
        Some(figure(self.cell(of, clients)?) / figure(self.cell(to, clients)?))
    }

    pub(crate) fn start_ms(&self) -> f64 {
        self.starts_ms.get(self.starts_ms.len() / 2).copied().unwrap_or(f64::NAN)
    }

    /// The report as Markdown.
    pub(crate) fn markdown(&self) -> String {
        let mut text = String::from("# Measurements\n\n");
        let quick = if self.quick { " --quick" } else { "" };
        let _ = writeln!(
            text,
            "As printed by `cargo xtask bench{quick}` on {}. Repeat it with the same command; figures of\n\
             different machines or days do not compare, columns of one table do.\n",
            jiff::Zoned::now().date()
        );
        let Machine { processor, processors, memory_gib, kernel } = &self.machine;
        let _ = writeln!(
            text,
            "{processors} processors ({processor}), {memory_gib:.0} GiB, Linux {kernel}. {}.\n",
            self.versions()
        );
        self.goals_table(&mut text);
        self.load_table(&mut text);
        self.kinds_table(&mut text);
        self.spread(&mut text);
        self.processor_table(&mut text);
        self.other_figures(&mut text);
        self.method(&mut text);
        text
    }

    fn versions(&self) -> String {
        self.versions.iter().map(|(name, version)| format!("{name} {version}")).collect::<Vec<_>>().join(", ")
    }

    fn goals_table(&self, text: &mut String) {
        text.push_str("## Goals\n\n| | goal | measured | | the ceiling |\n|---|---|---|---|---|\n");
        for goal in self.goals() {
            let (got, met) = match &goal.got {
                Some((got, true)) => (got.as_str(), "met"),
                Some((got, false)) => (got.as_str(), "**not met**"),
                None => ("–", "not measured"),
            };
            let limit = goal.limit.unwrap_or_default();
            let _ = writeln!(text, "| {} | {} | {got} | {met} | {limit} |", goal.what, goal.wanted);
        }
        text.push('\n');
    }

    fn load_table(&self, text: &mut String) {
        text.push_str("## Under load\n\nAccounts made in a second, and latency as p50 / p99 in milliseconds.\n\n");
        text.push_str("| clients | the database alone | jit-broker | of the database | OpenBao | jit-broker to OpenBao | p99 to OpenBao's | driver that does nothing |\n");
        text.push_str("|---|---|---|---|---|---|---|---|\n");
        let mut clients: Vec<usize> = self.cells.iter().map(|cell| cell.clients).collect();
        clients.sort_unstable();
        clients.dedup();
        for clients in clients {
            let cell = |system| self.figures(system, clients);
            let speed = Measured::per_second;
            let p99 = |measured: &Measured| measured.percentile(0.99);
            let _ = writeln!(
                text,
                "| {clients} | {} | {} | {} | {} | {} | {} | {} |",
                cell(System::Ceiling),
                cell(System::Broker),
                or_dash(
                    self.ratio(System::Broker, System::Ceiling, clients, speed).map(|r| format!("{:.0} %", r * 100.0))
                ),
                cell(System::OpenBao),
                or_dash(self.ratio(System::Broker, System::OpenBao, clients, speed).map(|r| format!("{r:.1} ×"))),
                or_dash(self.ratio(System::Broker, System::OpenBao, clients, p99).map(|r| format!("{r:.2}"))),
                cell(System::Noop),
            );
        }
        text.push('\n');
    }

    /// Answers in a second, p50 and p99 of a cell.
    fn figures(&self, system: System, clients: usize) -> String {
        let figures = self.cell(system, clients).map(|measured| {
            let (p50, p99) = (measured.percentile(0.5), measured.percentile(0.99));
            format!("{}/s · {} / {}", grouped(measured.per_second()), ms(p50), ms(p99))
        });
        or_dash(figures)
    }

    fn kinds_table(&self, text: &mut String) {
        let speed = Measured::per_second;
        let percent = |of, to, clients| {
            or_dash(self.ratio(of, to, clients, speed).map(|ratio| format!("{:.0} %", ratio * 100.0)))
        };
        let times = |of, to, clients| or_dash(self.ratio(of, to, clients, speed).map(|ratio| format!("{ratio:.1} ×")));
        text.push_str("## Other ways to the same account\n\nAs above. With a verifier by the caller, the broker never has the password. One iteration is enough for a\npassword that is random and long, as the broker's are.\n\n");
        text.push_str("| clients | verifier by the caller | of the database | 1 iteration: the database alone | jit-broker | of the database | to OpenBao |\n");
        text.push_str("|---|---|---|---|---|---|---|\n");
        for clients in CLIENTS.into_iter().filter(|clients| self.cells.iter().any(|cell| cell.clients == *clients)) {
            let _ = writeln!(
                text,
                "| {clients} | {} | {} | {} | {} | {} | {} |",
                self.figures(System::Verifier, clients),
                percent(System::Verifier, System::Ceiling, clients),
                self.figures(System::CeilingLight, clients),
                self.figures(System::BrokerLight, clients),
                percent(System::BrokerLight, System::CeilingLight, clients),
                times(System::BrokerLight, System::OpenBao, clients),
            );
        }
        text.push('\n');
    }

    /// Which cells differ between their rounds.
    fn spread(&self, text: &mut String) {
        let spreads: Vec<(f64, &Cell)> =
            self.cells.iter().filter_map(|cell| Some((cell.measured.spread()?, cell))).collect();
        let wide = spreads.iter().filter(|(spread, _)| *spread > SPREAD).count();
        match spreads.iter().max_by(|(a, _), (b, _)| a.total_cmp(b)) {
            None => text.push_str("One round: how far rounds differ is not known.\n\n"),
            Some(_) if wide == 0 => {
                let _ = writeln!(text, "The rounds of each cell differ by less than {:.0} %.\n", SPREAD * 100.0);
            }
            Some((most, cell)) => {
                let _ = writeln!(
                    text,
                    "The rounds of {wide} of {} cells differ by {:.0} % or more (the largest and the smallest, to the median).\n\
                     They differ most for {} (clients: {}): by {:.0} %.\n",
                    spreads.len(),
                    SPREAD * 100.0,
                    cell.system.name(),
                    cell.clients,
                    most * 100.0
                );
            }
        }
    }

    fn processor_table(&self, text: &mut String) {
        let _ = write!(
            text,
            "## What the time is spent on\n\n\
             Processor time for each account in milliseconds, of all processes. The sum bounds the throughput of this\n\
             machine: {} divided by it.\n\n\
             | clients | | PostgreSQL | broker or OpenBao | the load itself | sum |\n|---|---|---|---|---|---|\n",
            grouped(self.machine.processors as f64 * 1e3)
        );
        for cell in self.cells.iter().filter(|cell| cell.clients != 4) {
            let each = cell.measured.cpu_ms_each();
            let of = |wanted: &[Party]| -> f64 {
                each.iter().filter(|(party, _)| wanted.contains(party)).fold(0.0, |sum, (_, ms)| sum + ms)
            };
            let all = each.iter().fold(0.0, |sum, (_, ms)| sum + ms);
            let _ = writeln!(
                text,
                "| {} | {} | {} | {} | {} | {} |",
                cell.clients,
                cell.system.name(),
                ms(of(&[Party::Postgres])),
                ms(of(&[Party::Broker, Party::Openbao])),
                ms(of(&[Party::Load])),
                ms(all),
            );
        }
        text.push_str(
            "\nPostgreSQL hashes 4096 times when it is given a new password's verifier (it checks that the password\n\
             is not empty), which is most of its share; the rest grows with the accounts that are there.",
        );
        let _ = writeln!(
            text,
            " One such\nhash takes {:.2} ms of the broker's time, before the request where there is idle time.\n",
            self.hash_ms
        );
    }

    fn other_figures(&self, text: &mut String) {
        self.policies_table(text);
        text.push_str("## Other figures\n");
        let Memory { resident, anonymous, mapped } = &self.memory;
        let _ = writeln!(
            text,
            "\n- Resident memory with {PLUGINS} plugins and {LEASES} active leases in PostgreSQL: {resident:.0} MB, of \
             which {anonymous:.0} MB are the broker's own and {mapped:.0} MB mapped from files (program, compiled plugins, \
             store). The ten plugins are three components under ten names."
        );
        let range = |index: usize| self.starts_ms.get(index).copied().unwrap_or(f64::NAN);
        let _ = writeln!(
            text,
            "- Start to ready of that broker, leases and all, warm compile cache: {:.0} ms (median of {}; {:.0} to {:.0}).",
            self.start_ms(),
            self.starts_ms.len(),
            range(0),
            range(self.starts_ms.len().saturating_sub(1))
        );
        let AtTheEnd { broker_mb, broker_leases, openbao_mb, openbao_leases } = &self.at_the_end;
        if let Some(mb) = broker_mb {
            let _ = write!(
                text,
                "- After the load: jit-broker {mb:.0} MB with more than {} leases",
                grouped(*broker_leases as f64)
            );
            match openbao_mb {
                Some(mb) => {
                    let _ = writeln!(text, "; OpenBao {mb:.0} MB with more than {}.", grouped(*openbao_leases as f64));
                }
                None => text.push_str(".\n"),
            }
        }
        if let Some(agent) = &self.agent {
            agent_figures(text, agent);
        }
        text.push('\n');
    }

    fn policies_table(&self, text: &mut String) {
        decisions::table(text, &self.evaluations);
        if let Some(mean) = self.policy_seconds {
            let _ = writeln!(
                text,
                "- The allow-list in the broker under the load above, waiting for a processor included: {mean:.0} µs (mean)."
            );
        }
        if let Some(replayed) = &self.replayed {
            let _ = writeln!(
                text,
                "- `policy replay` of {} decisions from the broker's store, allow-list, {} processors: {:.1} s, {} decisions/s.",
                grouped(replayed.decisions as f64),
                self.machine.processors,
                replayed.seconds,
                grouped(replayed.per_second()),
            );
        }
        text.push('\n');
    }

    fn method(&self, text: &mut String) {
        let _ = writeln!(
            text,
            "## How it is measured\n\n\
             - One run, one machine, which also makes the load. {} round(s), interleaved: what drifts hits all alike.\n\
             - A round of a cell makes {} accounts in the database, which are dropped after it, outside of what is\n  \
               measured. The same number for each: since PostgreSQL 16, a role that creates roles becomes a member of\n  \
               each, and every creation walks them all. Without a database, a round takes {:.1} s.\n\
             - Closed loop: each client asks again when it has its answer, over a connection that is kept. An answer\n  \
               other than success ends the bench.\n\
             - The same PostgreSQL for all, as it comes (fsync on), the same `CREATE ROLE`, 4096 iterations, the same\n  \
               least-privilege role, {} connections each. The broker gives one role half of its connections, so that a\n  \
               slow role leaves the rest to others: it works with {} here, and the database alone with {}.\n\
             - The database alone: sqlx, verifiers ready-made, nothing else computed.\n\
             - jit-broker: `POST /issue`, a workload's JWT (ES256) verified each time, an allow-list of 20 rules, lease and\n  \
               signed audit record durable (SQLite, `synchronous = FULL`) before the reply, JSON-lines export on. Built with\n  \
               the profile `{}`.\n\
             - OpenBao: `GET database/creds/app` with a service token of its own for each client, raft storage, file audit\n  \
               device, `password_authentication=scram-sha-256`.\n\
             - The ceiling of a password that the broker makes: the database alone, with one hash more for each account.\n\
             - The driver that does nothing: the same with no database: what the broker itself can do.",
            self.rounds,
            self.accounts,
            self.seconds,
            self.max_connections,
            self.max_connections.div_ceil(2),
            self.max_connections,
            self.profile,
        );
    }

    /// The report as JSON.
    pub(crate) fn json(&self) -> Value {
        let cells: Vec<Value> = self
            .cells
            .iter()
            .map(|cell| {
                let cpu: serde_json::Map<String, Value> = cell
                    .measured
                    .cpu_ms_each()
                    .into_iter()
                    .filter_map(|(party, ms)| Some((serde_json::to_value(party).ok()?.as_str()?.to_owned(), json!(ms))))
                    .collect();
                json!({
                    "system": cell.system.key(),
                    "clients": cell.clients,
                    "count": cell.measured.count(),
                    "per_second": cell.measured.per_second(),
                    "p50_ms": cell.measured.percentile(0.5),
                    "p99_ms": cell.measured.percentile(0.99),
                    "cpu_ms_each": cpu,
                    "rounds_per_second": cell.measured.rounds(),
                })
            })
            .collect();
        let goals: Vec<Value> = self
            .goals()
            .into_iter()
            .map(|goal| {
                let (got, met) = goal.got.map_or((None, None), |(got, met)| (Some(got), Some(met)));
                json!({"what": goal.what, "wanted": goal.wanted, "measured": got, "met": met, "ceiling": goal.limit})
            })
            .collect();
        let versions: serde_json::Map<String, Value> =
            self.versions.iter().map(|(name, version)| ((*name).to_owned(), json!(version))).collect();
        json!({
            "date": jiff::Timestamp::now().to_string(),
            "machine": self.machine,
            "versions": versions,
            "profile": self.profile,
            "quick": self.quick,
            "rounds": self.rounds,
            "seconds_without_database": self.seconds,
            "accounts_of_a_cell": self.accounts,
            "max_connections": self.max_connections,
            "goals": goals,
            "cells": cells,
            "policy_evaluation": self.evaluations,
            "hash_ms": self.hash_ms,
            "replay": self.replayed,
            "memory_mb": self.memory,
            "start_ms": self.starts_ms,
            "agent": self.agent,
        })
    }
}

fn agent_figures(text: &mut String, agent: &AgentFigures) {
    let AgentFigures { resident_mb, anonymous_mb, herd, .. } = agent;
    let fetch = agent.fetch_median();
    let _ = write!(
        text,
        "- jit-agent: {resident_mb:.1} MB resident, of which {anonymous_mb:.1} MB are its own; from its start to the file \
         written and the process ended {fetch:.1} ms"
    );
    match agent.curl_median() {
        Some(curl) => {
            let _ = writeln!(
                text,
                ", where curl takes {curl:.1} ms to store the same answer (medians of {}, in turns).",
                agent.fetch_ms.len()
            );
        }
        None => text.push_str(".\n"),
    }
    let Herd { first_seconds, last_seconds, most_in_a_tenth, accounts } = herd;
    let _ = writeln!(
        text,
        "- {HERD} clients that started while the broker was away for three seconds: {accounts} accounts, the first \
         {first_seconds:.2} s and the last {last_seconds:.1} s after its return, at most {most_in_a_tenth} within a tenth of a \
         second (driver that does nothing, usual schedule)."
    );
}

/// The versions of what is measured.
pub(crate) async fn versions(args: &Args, database: &Database) -> Result<Vec<(&'static str, String)>> {
    let said = |program: &std::path::Path, argument: &str| -> Result<String> {
        let output = Command::new(program).arg(argument).output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let word =
            text.split_whitespace().find(|word| word.trim_start_matches('v').starts_with(|c: char| c.is_ascii_digit()));
        Ok(word.unwrap_or("?").trim_start_matches('v').trim_end_matches(',').to_owned())
    };
    let mut versions = vec![
        ("jit-broker", said(&args.broker, "--version")?),
        ("PostgreSQL", database.value("current_setting('server_version')").await?),
    ];
    if let Some(bao) = &args.openbao {
        versions.push(("OpenBao", said(bao, "version")?));
    }
    Ok(versions)
}

/// The mean of a histogram of the broker's metrics, in microseconds.
pub(crate) fn histogram_mean_us(metrics: &str, name: &str) -> Option<f64> {
    let sum = |suffix: &str| -> f64 {
        let prefix = format!("{name}{suffix}");
        let lines = metrics.lines().filter(|line| line.starts_with(&prefix));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    };
    let (total, count) = (sum("_sum"), sum("_count"));
    (count > 0.0).then(|| total / count * 1e6)
}

fn or_dash(text: Option<String>) -> String {
    text.unwrap_or_else(|| "–".to_owned())
}

/// Milliseconds with as many digits as matter.
fn ms(value: f64) -> String {
    match value {
        _ if value >= 100.0 => format!("{value:.0}"),
        _ if value >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// A whole number with commas.
pub(crate) fn grouped(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_readable() {
        assert_eq!([grouped(5.4), grouped(1_000.0), grouped(1_234_567.0)], ["5", "1,000", "1,234,567"]);
        assert_eq!([ms(0.123), ms(12.34), ms(123.4)], ["0.12", "12.3", "123"]);
    }

    #[test]
    fn means_are_read_from_metrics() {
        let metrics = "a_seconds_sum{p=\"x\"} 0.5\na_seconds_count{p=\"x\"} 1000\na_seconds_bucket{le=\"1\"} 7\n";
        assert_eq!(histogram_mean_us(metrics, "a_seconds"), Some(500.0));
        assert_eq!(histogram_mean_us(metrics, "b_seconds"), None);
    }
}
