//! `exec`: a command with credentials in its environment.

use std::os::unix::process::ExitStatusExt as _;
use std::process::{ExitCode, ExitStatus};
use std::sync::Arc;
use std::time::Duration;

use jit_client::Credential;
use jit_client::children::Waited;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use secrecy::zeroize::Zeroizing;
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::board::Board;
use crate::cli::ExecArgs;
use crate::descendants::{self, Reaper};
use crate::error::AgentError;
use crate::format::Fields;
use crate::health;
use crate::keep::{Keeper, Origin, Rotated, Terms};
use crate::notify::OnRotate;
use crate::run::{all_ended, fetch_all};
use crate::settings::{ConfigFile, Entry};
use crate::signals::Signals;

/// How long giving back may take by default, after the command has ended.
const EXIT_GRACE: Duration = Duration::from_secs(5);

/// `jit-agent exec`; the command's exit code.
pub(crate) async fn exec(args: ExecArgs, mut signals: Signals) -> Result<ExitCode, AgentError> {
    let reaper = Reaper::listen()?;
    reaper.adopt_orphans();
    tokio::spawn(reaper.run());
    let config = ConfigFile::read(args.broker.config.as_deref())?;
    let entries = config.entries(&args.credential, &args.keep.on_rotate, false)?;
    let client = config.client(&args.broker, None)?;
    let exit_grace = args.keep.exit_grace.unwrap_or(EXIT_GRACE);
    let credentials = fetch_all(&client, &entries, args.patience, &mut signals, exit_grace).await?;
    let credentials_now = credentials.iter().cloned().map(Arc::new).collect();
    let mut run = Run { credentials: credentials_now, entries, args, kill_at: None };
    let board = Board::default();
    if let Some(address) = config.health(&run.args.keep) {
        tokio::spawn(health::serve(health::bind(address).await?, board.clone()));
    }
    let (stop, stopping) = watch::channel(false);
    let (_never, wishes) = watch::channel(0);
    let (rotated, events) = mpsc::unbounded_channel();
    let terms = Terms {
        exit_grace,
        interval: config.interval(&run.args.keep),
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
    let ended = run.until_it_ends(&mut signals, events).await;
    // What goes on has credentials that are about to be given back.
    descendants::end(run.kill_at.unwrap_or_else(|| Instant::now() + run.args.grace)).await;
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
    /// When what does not end is killed: after a signal that asks for the end, or for a restart.
    kill_at: Option<Instant>,
}

/// The running command.
struct Running {
    child: Child,
    /// Whether it leads a group of processes of its own.
    leads: bool,
    _waited: Waited,
}

impl Run {
    fn spawn(&self, terminal: bool) -> Result<Running, AgentError> {
        let [program, arguments @ ..] = &self.args.argv[..] else {
            return Err(AgentError::Config("which command?".to_owned()));
        };
        let mut command = Command::new(program);
        // Our own token is not the command's.
        command.args(arguments).env_remove("JIT_TOKEN").kill_on_drop(true);
        for (name, value) in self.variables()? {
            command.env(name, value.as_str());
        }
        // A group of its own, so that signals reach all of it. A terminal speaks to one group alone, which is ours.
        if !terminal {
            command.process_group(0);
        }
        let child = command
            .spawn()
            .map_err(|source| AgentError::Command { program: program.to_string_lossy().into_owned(), source })?;
        Ok(Running { _waited: Waited::of(child.id()), child, leads: !terminal })
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
        signals: &mut Signals,
        mut events: mpsc::UnboundedReceiver<Rotated>,
    ) -> Result<ExitStatus, AgentError> {
        let mut running = self.spawn(signals.terminal)?;
        let (mut restarting, mut told_to_end, mut was_killed) = (false, false, false);
        loop {
            let kill_at = self.kill_at.filter(|_| !was_killed);
            let killed = async {
                match kill_at {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                status = running.child.wait() => {
                    let status = status.map_err(|source| AgentError::Command { program: "the command".into(), source })?;
                    if !restarting || told_to_end {
                        return Ok(status);
                    }
                    if !self.leave_nothing(signals).await {
                        return Ok(status);
                    }
                    tracing::info!("starting the command again, with the new account");
                    (restarting, was_killed, self.kill_at) = (false, false, None);
                    running = self.spawn(signals.terminal)?;
                }
                () = killed => {
                    tracing::warn!("the command did not end in time and is killed");
                    running.send(Signal::KILL);
                    was_killed = true;
                }
                signal = signals.next() => {
                    told_to_end |= matches!(signal, Signal::TERM | Signal::INT);
                    if signal == Signal::TERM {
                        // Not SIGINT, by which a terminal stops what a command is at, and not the command.
                        self.kill_at = self.kill_at.or_else(|| Some(Instant::now() + self.args.grace));
                    }
                    if signals.is_to_be_passed_on(signal) {
                        running.send(signal);
                    }
                }
                Some(Rotated { entry, credential }) = events.recv() => {
                    if let Some(place) = self.credentials.get_mut(entry) {
                        *place = credential;
                    }
                    if self.tell(entry, &running) && !restarting {
                        running.send(Signal::TERM);
                        restarting = true;
                        self.kill_at = self.kill_at.or_else(|| Some(Instant::now() + self.args.grace));
                    }
                }
            }
        }
    }

    /// Ends what a command has left that is about to be started again; false when a signal asks for the end meanwhile.
    async fn leave_nothing(&self, signals: &mut Signals) -> bool {
        let mut all = std::pin::pin!(descendants::end(self.kill_at.unwrap_or_else(Instant::now)));
        loop {
            tokio::select! {
                () = &mut all => return true,
                signal = signals.next() => if matches!(signal, Signal::TERM | Signal::INT) { return false },
            }
        }
    }

    /// Tells the command of a new account; whether it is to be restarted.
    fn tell(&self, entry: usize, running: &Running) -> bool {
        let Some(entry) = self.entries.get(entry) else { return false };
        for signal in entry.on_rotate.iter().filter_map(OnRotate::signal_for_child) {
            running.send(signal);
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

impl Running {
    /// Sends a signal to the command and to what is of its group, while it is one: until it was waited for, its number
    /// is its own.
    fn send(&self, signal: Signal) {
        let Some(pid) = self.child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw) else { return };
        let sent = if self.leads { kill_process_group(pid, signal) } else { kill_process(pid, signal) };
        if let Err(error) = sent {
            tracing::warn!(%error, "the signal did not reach the command");
        }
    }
}
