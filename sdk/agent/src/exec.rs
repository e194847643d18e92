//! `exec`: a command with credentials in its environment.

use std::os::unix::process::ExitStatusExt as _;
use std::process::{ExitCode, ExitStatus};
use std::sync::Arc;
use std::time::Duration;

use jit_client::Credential;
use rustix::process::{Pid, Signal, kill_process};
use secrecy::zeroize::Zeroizing;
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::board::Board;
use crate::cli::ExecArgs;
use crate::error::AgentError;
use crate::format::Fields;
use crate::health;
use crate::keep::{Keeper, Origin, Rotated, Terms};
use crate::notify::OnRotate;
use crate::run::{all_ended, fetch_all};
use crate::settings::{ConfigFile, Entry};

/// How long giving back may take by default, after the command has ended.
const EXIT_GRACE: Duration = Duration::from_secs(5);

/// `jit-agent exec`; the command's exit code.
pub(crate) async fn exec(args: ExecArgs) -> Result<ExitCode, AgentError> {
    let config = ConfigFile::read(args.broker.config.as_deref())?;
    let entries = config.entries(&args.credential, &args.keep.on_rotate, false)?;
    let client = config.client(&args.broker, None)?;
    let mut signals = Signals::listen()?;
    let credentials = tokio::select! {
        fetched = fetch_all(&client, &entries, args.patience) => fetched?,
        () = signals.end() => return Err(AgentError::Ended),
    };
    let mut run = Run { credentials: credentials.iter().cloned().map(Arc::new).collect(), entries, args };
    let board = Board::default();
    if let Some(address) = config.health(&run.args.keep) {
        tokio::spawn(health::serve(health::bind(address).await?, board.clone()));
    }
    let (stop, stopping) = watch::channel(false);
    let (_never, wishes) = watch::channel(0);
    let (rotated, events) = mpsc::unbounded_channel();
    let exit_grace = run.args.keep.exit_grace.unwrap_or(EXIT_GRACE);
    let terms = Terms {
        exit_grace,
        interval: config.interval(&run.args.keep)?,
        revoke: true,
        stop: stopping,
        rotate: wishes,
        rotated: Some(rotated),
    };
    let mut keepers = JoinSet::new();
    for ((number, entry), credential) in run.entries.iter().enumerate().zip(credentials) {
        let keeper = Keeper::new(number, entry.clone(), &board, terms.clone());
        keepers.spawn(keeper.run(client.clone(), Origin::Fetched(Box::new(credential))));
    }
    let ended = run.until_it_ends(signals, events).await;
    let _ = stop.send(true);
    all_ended(keepers, exit_grace).await;
    ended.map(code)
}

fn code(status: ExitStatus) -> ExitCode {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}

struct Run {
    args: ExecArgs,
    entries: Vec<Entry>,
    credentials: Vec<Arc<Credential>>,
}

impl Run {
    fn spawn(&self) -> Result<Child, AgentError> {
        let [program, arguments @ ..] = &self.args.argv[..] else {
            return Err(AgentError::Config("which command?".to_owned()));
        };
        let mut command = Command::new(program);
        // Our own token is not the command's.
        command.args(arguments).env_remove("JIT_TOKEN").kill_on_drop(true);
        for (name, value) in self.variables()? {
            command.env(name, value.as_str());
        }
        command
            .spawn()
            .map_err(|source| AgentError::Command { program: program.to_string_lossy().into_owned(), source })
    }

    fn variables(&self) -> Result<Vec<(String, Zeroizing<String>)>, AgentError> {
        let mut all: Vec<(String, Zeroizing<String>)> = Vec::new();
        for (entry, credential) in self.entries.iter().zip(&self.credentials) {
            for (name, value) in Fields::of(credential).variables(self.args.env, &entry.form.prefix) {
                if all.iter().any(|(other, _)| *other == name) {
                    return Err(AgentError::Config(format!(
                        "two credentials are to be in {name}: give each its prefix, in the configuration file"
                    )));
                }
                if value.contains('\0') {
                    return Err(AgentError::Format { format: "env", reason: format!("{name} has a zero byte") });
                }
                all.push((name, value));
            }
        }
        Ok(all)
    }

    /// Runs the command, and again where it is restarted, until it ends by itself.
    async fn until_it_ends(
        &mut self,
        mut signals: Signals,
        mut events: mpsc::UnboundedReceiver<Rotated>,
    ) -> Result<ExitStatus, AgentError> {
        let mut child = self.spawn()?;
        // While it is being restarted: when it is killed if it does not end.
        let mut restarting: Option<Instant> = None;
        let mut told_to_end = false;
        loop {
            let kill_at = restarting;
            let killed = async {
                match kill_at {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                status = child.wait() => {
                    let status = status.map_err(|source| AgentError::Command { program: "the command".into(), source })?;
                    if restarting.take().is_none() || told_to_end {
                        return Ok(status);
                    }
                    tracing::info!("starting the command again, with the new account");
                    child = self.spawn()?;
                }
                () = killed => {
                    tracing::warn!("the command did not end in time and is killed");
                    send(&child, Signal::KILL);
                    restarting = Some(Instant::now() + Duration::from_secs(3_600));
                }
                (signal, passed_on) = signals.next() => {
                    told_to_end |= matches!(signal, Signal::TERM | Signal::INT);
                    if passed_on {
                        send(&child, signal);
                    }
                }
                Some(Rotated { entry, credential }) = events.recv() => {
                    if let Some(place) = self.credentials.get_mut(entry) {
                        *place = credential;
                    }
                    if self.tell(entry, &child) && restarting.is_none() {
                        send(&child, Signal::TERM);
                        restarting = Some(Instant::now() + self.args.grace);
                    }
                }
            }
        }
    }

    /// Tells the command of a new account; whether it is to be restarted.
    fn tell(&self, entry: usize, child: &Child) -> bool {
        let Some(entry) = self.entries.get(entry) else { return false };
        for signal in entry.on_rotate.iter().filter_map(OnRotate::signal_for_child) {
            send(child, signal);
        }
        if entry.on_rotate.is_empty() {
            tracing::warn!(
                target = entry.target(),
                "there is a new account, but the command has the old one in its environment until it ends: give \
                 --on-rotate restart, or --out with a signal"
            );
        }
        entry.on_rotate.contains(&OnRotate::Restart)
    }
}

/// Sends a signal to the command, while it is one: until it was waited for, its number is its own.
fn send(child: &Child, signal: Signal) {
    let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
    if let Some(Err(error)) = pid.map(|pid| kill_process(pid, signal)) {
        tracing::warn!(%error, "the signal did not reach the command");
    }
}

/// What is passed on.
struct Signals([(tokio::signal::unix::Signal, Signal); 6]);

impl Signals {
    fn listen() -> Result<Self, AgentError> {
        let on = |kind, name| {
            let stream = signal(kind).map_err(|error| AgentError::Config(format!("no signals: {error}")))?;
            Ok::<_, AgentError>((stream, name))
        };
        Ok(Self([
            on(SignalKind::terminate(), Signal::TERM)?,
            on(SignalKind::interrupt(), Signal::INT)?,
            on(SignalKind::hangup(), Signal::HUP)?,
            on(SignalKind::quit(), Signal::QUIT)?,
            on(SignalKind::user_defined1(), Signal::USR1)?,
            on(SignalKind::user_defined2(), Signal::USR2)?,
        ]))
    }

    /// The first that means the end.
    async fn end(&mut self) {
        while !matches!(self.next().await.0, Signal::TERM | Signal::INT) {}
    }

    /// The next one, and whether it has to be passed on: what a terminal sends, it sends to both.
    async fn next(&mut self) -> (Signal, bool) {
        let [one, two, three, four, five, six] = &mut self.0;
        let signal = tokio::select! {
            _ = one.0.recv() => one.1,
            _ = two.0.recv() => two.1,
            _ = three.0.recv() => three.1,
            _ = four.0.recv() => four.1,
            _ = five.0.recv() => five.1,
            _ = six.0.recv() => six.1,
        };
        let from_terminal =
            matches!(signal, Signal::INT | Signal::QUIT) && std::io::IsTerminal::is_terminal(&std::io::stdin());
        (signal, !from_terminal)
    }
}
