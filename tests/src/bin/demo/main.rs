//! The demo that `cargo xtask demo` builds and runs: a real backend, the broker, and the whole story
//! from a workload's token to an account that is gone.
//!
//! In scope: showing. What holds in every corner is shown by `suite/`.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a demo prints")]

mod backend;
mod brokers;
mod config;
mod json;
mod rotation;
mod screen;
mod stage;
mod story;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use clap::Parser;
use jit_plugin_build::Progress as _;
use tokio::signal::unix::{Signal, SignalKind, signal};
use xtask::demo::Backend as Kind;
use xtask::steps::Steps;

use backend::{Backend, Ldap, Mysql, Postgres, Vault, shown};
use screen::Screen;
use stage::{Props, Stage};

/// What shells say of a program that Ctrl-C ended.
const INTERRUPTED: u8 = 130;

/// Plays the story; `cargo xtask demo` builds what it needs and says where it is.
#[derive(Parser)]
struct Args {
    /// What stands behind the target of the story.
    #[arg(long, value_enum, default_value_t = Kind::Postgres)]
    backend: Kind,
    /// The broker's binary.
    #[arg(long, required_unless_present = "stop")]
    broker: Option<PathBuf>,
    /// The folder with the built plugins.
    #[arg(long, required_unless_present = "stop")]
    plugins: Option<PathBuf>,
    /// The binary of jit-agent: plays the story of a service whose account changes.
    #[arg(long)]
    agent: Option<PathBuf>,
    /// How many brokers: plays the story of a service while brokers are killed.
    #[arg(long, requires = "agent")]
    brokers: Option<usize>,
    /// Where the demo keeps its files.
    #[arg(long)]
    folder: PathBuf,
    /// Leave everything running at the end.
    #[arg(long)]
    keep: bool,
    /// Stop what an earlier demo left running, and do nothing else.
    #[arg(long)]
    stop: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    let steps = match (&args.agent, args.brokers) {
        (_, Some(_)) => brokers::STEPS,
        (Some(_), None) => rotation::STEPS,
        (None, None) => story::STEPS,
    };
    let mut screen = Screen::new(steps);
    match run(args, &mut screen).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is::<Interrupted>() => {
            screen.failed(&format!("{error}: what was started is stopped."));
            ExitCode::from(INTERRUPTED)
        }
        Err(error) => {
            screen.failed(&format!("The demo ends here; what it started is stopped.\n   {error:#}"));
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args, screen: &mut Screen) -> Result<()> {
    let folder = std::path::absolute(&args.folder)?;
    if args.stop {
        let stopped = stage::stop_earlier(&folder)?;
        screen.plain(if stopped { "The demo's servers and broker are stopped." } else { "No demo is running." });
        return Ok(());
    }
    let (Some(broker), Some(plugins)) = (args.broker, args.plugins) else {
        bail!("--broker and --plugins are needed");
    };
    let terms = if args.agent.is_some() { rotation::TERMS } else { config::USUAL };
    let props = Props { folder, broker, plugins, terms };
    if let Some(agent) = args.agent {
        return perform_service(&props, &agent, args.brokers, screen).await;
    }
    match args.backend {
        Kind::Postgres => perform::<Postgres>(&props, args.keep, screen).await,
        Kind::Mysql => perform::<Mysql>(&props, args.keep, screen).await,
        Kind::Ldap => perform::<Ldap>(&props, args.keep, screen).await,
        Kind::Vault => perform::<Vault>(&props, args.keep, screen).await,
    }
}

/// Builds the stage, plays, and clears it or leaves it.
async fn perform<B: Backend>(props: &Props, keep: bool, screen: &mut Screen) -> Result<()> {
    let mut interrupt = Interrupt::new()?;
    let begun = Instant::now();
    let mut stage = build::<B>(props).await?;
    let played = tokio::select! {
        // First, for what came while the servers were started.
        biased;
        why = interrupt.wait() => Err(Interrupted(why).into()),
        played = play(&mut stage, screen) => played,
    };
    if let Err(error) = played {
        let log = shown(&stage.log());
        let stopped = stage.stop();
        if error.is::<Interrupted>() {
            return stopped.and(Err(error));
        }
        return Err(anyhow::anyhow!("{error:#}\n   The broker's log is {log}"));
    }
    summary::<B>(screen, begun.elapsed().as_secs());
    if keep {
        kept(&stage, screen)?;
        return stage.keep();
    }
    let files = [shown(&stage.config()), shown(&stage.path("audit.jsonl")), shown(&stage.log())];
    stage.stop()?;
    screen.say(&format!("{} and the broker are stopped. Left to read:", B::TEXTS.servers));
    screen.output(&files.join("\n"));
    let chosen = if B::KIND == Kind::Postgres { String::new() } else { format!(" --backend {}", B::KIND.word()) };
    screen.note(&format!("`cargo xtask demo{chosen} --keep` leaves all of it running, with lines to copy."));
    Ok(())
}

/// The same for the stories of a service with `jit-agent` beside it.
async fn perform_service(props: &Props, agent: &Path, brokers: Option<usize>, screen: &mut Screen) -> Result<()> {
    let mut interrupt = Interrupt::new()?;
    let begun = Instant::now();
    let mut stage = build::<Postgres>(props).await?;
    let played = tokio::select! {
        biased;
        why = interrupt.wait() => Err(Interrupted(why).into()),
        played = play_service(&mut stage, agent, brokers, screen) => played,
    };
    let log = if brokers.is_some() { stage.path("broker-0.log") } else { stage.log() };
    if let Err(error) = played {
        let logs = [shown(&log), shown(&stage.path("agent.log"))];
        let stopped = stage.stop();
        if error.is::<Interrupted>() {
            return stopped.and(Err(error));
        }
        return Err(anyhow::anyhow!("{error:#}\n   The logs are {}", logs.join(" and ")));
    }
    screen.title(&format!("Seen in {} seconds, each step checked:", begun.elapsed().as_secs()));
    if brokers.is_some() {
        screen.holds("a service queried all the time while brokers were killed; no query failed;");
        screen.holds("what the killed brokers left was finished by the others, and they came back;");
        screen.holds("one log has all of it, and each account ended with its lease.");
    } else {
        screen.holds("a service queried all the time while its account changed three times; no query failed;");
        screen.holds("the sidecar went on with the init container's account: a start makes one, not two;");
        screen.holds("each account ended with its lease, the last when the pod ended.");
    }
    let files = [shown(&stage.config()), shown(&log), shown(&stage.path("agent.log"))];
    stage.stop()?;
    screen.say("PostgreSQL, the brokers and the agent are stopped. Left to read:");
    screen.output(&files.join("\n"));
    screen.note("docs/clients.md explains it; sdk/examples has the same for Rust, Java, Node, Python and the shell.");
    Ok(())
}

async fn play_service(
    stage: &mut Stage<Postgres>,
    agent: &Path,
    brokers: Option<usize>,
    screen: &mut Screen,
) -> Result<()> {
    if let Some(brokers) = brokers {
        screen.title("A service that never notices that brokers are killed");
        return brokers::play(stage, agent, brokers, screen).await;
    }
    start_broker(stage)?;
    screen.title("A service that never notices that its account changes");
    rotation::play(stage, agent, screen).await
}

async fn build<B: Backend>(props: &Props) -> Result<Stage<B>> {
    let steps = Steps::new();
    steps.step(&format!("starting {}", B::TEXTS.servers));
    let stage = Stage::<B>::build(props, &steps).await?;
    steps.done(&stage.backend()?.started());
    Ok(stage)
}

fn start_broker<B: Backend>(stage: &mut Stage<B>) -> Result<()> {
    let steps = Steps::new();
    steps.step("starting the broker (it compiles its plugins once)");
    stage.start_broker()?;
    steps.done(&format!("broker on {}, configured by {}", stage.broker_url, shown(&stage.config())));
    Ok(())
}

async fn play<B: Backend>(stage: &mut Stage<B>, screen: &mut Screen) -> Result<()> {
    start_broker(stage)?;
    screen.title("An account that exists only while it is needed");
    story::play(stage, screen).await
}

fn summary<B: Backend>(screen: &Screen, seconds: u64) {
    screen.title(&format!("Seen in {seconds} seconds, each step checked:"));
    for line in [
        &format!("a workload got {} with nothing but its platform's token,", B::TEXTS.got),
        "used it, and could do no more than its role;",
        "four requests that should not succeed did not, and said why;",
        "the log proves what happened, and a forged copy was found out;",
        &format!("the account ended with its lease: {}.", B::TEXTS.ended),
    ] {
        screen.holds(line);
    }
}

/// How to go on with what is left running.
fn kept<B: Backend>(stage: &Stage<B>, screen: &Screen) -> Result<()> {
    let backend = stage.backend()?;
    let (broker, issuer) = (&stage.broker_url, &stage.issuer_url);
    let (program, config) = (shown(&stage.binary()), shown(&stage.config()));
    let broker_pid = stage.broker_pid().map_or_else(|| "?".to_owned(), |pid| pid.to_string());
    let servers: Vec<String> = stage
        .servers()
        .iter()
        .map(|server| format!("{:<12} {}   (process {})", server.name, server.address, server.pid))
        .collect();
    let kill: Vec<String> =
        stage.servers().iter().map(|server| format!("; kill -{} {}", server.signal, server.pid)).collect();
    screen.title("Left running; paste these:");
    screen.plain(&format!(
        r#"
TOKEN=$(curl -s '{issuer}/token?workload=payment-service&namespace=shop')

REPLY=$(curl -s {broker}/issue -H "authorization: Bearer $TOKEN" \
    -H 'content-type: application/json' \
    -d '{{"target": "inventory_db", "ttl": "5m", "reason": "trying it out"}}'); echo "$REPLY"

field() {{ echo "$REPLY" | sed "s/.*\"$1\":\"\([^\"]*\)\".*/\1/"; }}
LEASE=$(field lease_id)

{}

curl -s -X POST {broker}/v1/leases/$LEASE/renew -H "authorization: Bearer $TOKEN" \
    -H 'content-type: application/json' -d '{{"ttl": "10m"}}'; echo

curl -s -X POST {broker}/v1/leases/$LEASE/revoke -H "authorization: Bearer $TOKEN"; echo

{program} lease list --config {config}
{program} audit show --config {config}

broker       {broker}   (process {broker_pid}; log {})
issuer       {issuer}   (a token for whoever asks, on this machine only)
{}

To stop it all:  cargo xtask demo --stop      (or: kill -TERM {broker_pid}{})"#,
        backend.to_try(),
        shown(&stage.log()),
        servers.join("\n"),
        kill.concat(),
    ));
    Ok(())
}

/// Ended from outside.
#[derive(Debug)]
struct Interrupted(&'static str);

impl std::fmt::Display for Interrupted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Interrupted {}

/// Ctrl-C, and what else ends a program from outside.
struct Interrupt {
    int: Signal,
    term: Signal,
    hang_up: Signal,
}

impl Interrupt {
    fn new() -> Result<Self> {
        let listen = |kind| signal(kind).context("cannot listen to signals");
        Ok(Self {
            int: listen(SignalKind::interrupt())?,
            term: listen(SignalKind::terminate())?,
            hang_up: listen(SignalKind::hangup())?,
        })
    }

    async fn wait(&mut self) -> &'static str {
        tokio::select! {
            _ = self.int.recv() => "Interrupted",
            _ = self.term.recv() => "Terminated",
            _ = self.hang_up.recv() => "The terminal is gone",
        }
    }
}
