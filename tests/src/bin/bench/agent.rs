//! The agent: its memory, its start, its rest; and what a thousand clients that start at once do to a broker.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use jit_client::{Client, FetchOptions, Request, TokenSource};
use jit_tests::{Relay, Way};
use serde::Serialize;
use tempfile::TempDir;

use crate::broker::Running;
use crate::machine::{CpuTime, Party, memory_mb};

/// How long the agent may settle before its memory is read.
const SETTLE: Duration = Duration::from_secs(1);
/// Clients that start at once.
pub(crate) const CLIENTS: usize = 1_000;
/// How long the broker is away while they start.
const AWAY: Duration = Duration::from_secs(3);

/// What curl asks: the same.
const BODY: &str = r#"{"target":"inventory_db","role":"app_read_only","ttl":"1h"}"#;

/// What was measured.
#[derive(Debug, Serialize)]
pub(crate) struct AgentFigures {
    /// Resident while it keeps one credential, in MiB.
    pub(crate) resident_mb: f64,
    /// Of that, the agent's own.
    pub(crate) anonymous_mb: f64,
    /// `fetch`, from the start of the process to its end, milliseconds, sorted.
    pub(crate) fetch_ms: Vec<f64>,
    /// The same by curl, which only stores the answer.
    pub(crate) curl_ms: Option<Vec<f64>>,
    /// Processor time between renewals, in milliseconds.
    pub(crate) idle_cpu_ms: f64,
    /// How long it was watched for that, in seconds.
    pub(crate) idle_seconds: f64,
    /// The herd.
    pub(crate) herd: Herd,
}

/// A thousand clients.
#[derive(Debug, Serialize)]
pub(crate) struct Herd {
    /// Seconds from the broker's return to the first and to the last account.
    pub(crate) first_seconds: f64,
    pub(crate) last_seconds: f64,
    /// The most accounts within a tenth of a second.
    pub(crate) most_in_a_tenth: usize,
    /// Accounts made; clients are [`CLIENTS`].
    pub(crate) accounts: usize,
}

impl AgentFigures {
    pub(crate) fn fetch_median(&self) -> f64 {
        median(&self.fetch_ms)
    }

    pub(crate) fn curl_median(&self) -> Option<f64> {
        self.curl_ms.as_deref().map(median)
    }
}

fn median(sorted: &[f64]) -> f64 {
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Measures with a warm broker.
pub(crate) async fn measure(agent: &Path, broker: &Running, rounds: usize, idle: Duration) -> Result<AgentFigures> {
    let memory = Path::new("/dev/shm");
    let folder = if memory.is_dir() { TempDir::new_in(memory)? } else { TempDir::new()? };
    let token = folder.path().join("token");
    let workload = broker.token(0)?;
    std::fs::write(&token, workload)?;
    let url = broker.url()?;
    let out = folder.path().join("db.env");
    let command = |verb: &str| {
        let mut command = Command::new(agent);
        command.arg(verb).arg("--out").arg(&out).env("JIT_BROKER_URL", &url).env("JIT_TOKEN_FILE", &token);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    };
    let (mut fetch_ms, mut curl_ms) = (Vec::new(), Vec::new());
    let has_curl = Command::new("curl").arg("--version").stdout(Stdio::null()).status().is_ok_and(|s| s.success());
    // In turns: what drifts hits both alike. The first of each warms the page cache.
    for round in 0..=rounds {
        let (took, status) =
            timed(command("fetch").args(["--target", "inventory_db", "--role", "app_read_only", "--ttl", "1h"]))?;
        ensure!(status, "the agent's fetch fails");
        let curl = if has_curl { Some(timed(&mut curl(&url, workload, &folder.path().join("answer")))?) } else { None };
        ensure!(curl.is_none_or(|(_, status)| status), "curl fails");
        if round > 0 {
            fetch_ms.push(took);
            curl_ms.extend(curl.map(|(took, _)| took));
        }
    }
    fetch_ms.sort_by(f64::total_cmp);
    curl_ms.sort_by(f64::total_cmp);

    let mut sidecar = command("renew").arg("--revoke-on-exit").spawn().context("cannot start the agent")?;
    tokio::time::sleep(SETTLE).await;
    let pid = sidecar.id();
    let field = |name| memory_mb(pid, name).with_context(|| format!("no {name} of the agent"));
    let (resident_mb, anonymous_mb) = (field("VmRSS:")?, field("RssAnon:")?);
    let (begun, before) = (Instant::now(), CpuTime::of(&[(Party::Broker, pid)]));
    tokio::time::sleep(idle).await;
    let spent = CpuTime::of(&[(Party::Broker, pid)]).since(&before);
    let idle_cpu_ms = spent.iter().filter(|(party, _)| *party == Party::Broker).map(|(_, s)| s * 1e3).sum();
    let idle_seconds = begun.elapsed().as_secs_f64();
    Command::new("kill").args(["-TERM", &pid.to_string()]).status()?;
    sidecar.wait()?;
    let curl_ms = has_curl.then_some(curl_ms);
    let herd = herd(broker, &token).await?;
    Ok(AgentFigures { resident_mb, anonymous_mb, fetch_ms, curl_ms, idle_cpu_ms, idle_seconds, herd })
}

fn curl(url: &str, token: &str, out: &Path) -> Command {
    let mut curl = Command::new("curl");
    curl.args(["-sf", "-X", "POST", "-H", "content-type: application/json"])
        .args(["-H", &format!("authorization: Bearer {token}"), "-d", BODY, "-o"])
        .arg(out)
        .arg(format!("{url}/issue"));
    curl
}

/// Milliseconds to its end, and whether it succeeded.
fn timed(command: &mut Command) -> Result<(f64, bool)> {
    let begun = Instant::now();
    let status = command.status().with_context(|| format!("cannot start {:?}", command.get_program()))?;
    Ok((begun.elapsed().as_secs_f64() * 1e3, status.success()))
}

/// All start while the broker is away, as after a node's restart, with the usual schedule.
async fn herd(broker: &Running, token: &Path) -> Result<Herd> {
    jit_tests::many_open_files();
    let relay = Relay::before(&broker.url()?).await;
    relay.go(Way::Shut);
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..CLIENTS {
        let client = Client::builder(&relay.url).token(TokenSource::file(token)).build()?;
        clients.spawn(async move {
            let request = Request::new("nothing").role("app_read_only");
            let credential = client.fetch_with(&request, FetchOptions::default()).await?;
            Ok::<_, jit_client::Error>((Instant::now(), credential.username))
        });
    }
    tokio::time::sleep(AWAY).await;
    let back = Instant::now();
    relay.go(Way::Open);
    let (mut times, mut accounts) = (Vec::new(), BTreeSet::new());
    while let Some(done) = clients.join_next().await {
        let (at, account) = done??;
        times.push(at.saturating_duration_since(back).as_secs_f64());
        accounts.insert(account);
    }
    times.sort_by(f64::total_cmp);
    let most_in_a_tenth = (0..times.len())
        .map(|from| times[from..].iter().take_while(|at| **at < times[from] + 0.1).count())
        .max()
        .unwrap_or(0);
    let at = |index: usize| times.get(index).copied().unwrap_or(f64::NAN);
    Ok(Herd {
        first_seconds: at(0),
        last_seconds: at(times.len().saturating_sub(1)),
        most_in_a_tenth,
        accounts: accounts.len(),
    })
}
