//! The brokers of a storm: each with its own links, port, socket and log, and a supervisor that starts it again
//! whenever it ends, as systemd and Kubernetes do.

use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::diary::Diary;
use super::link::Link;
use crate::broker::BrokerProcess;
use crate::world::{self, World};

/// How often the supervisor looks.
const LOOK: Duration = Duration::from_millis(100);
/// How long it waits after a start that failed.
const AGAIN: Duration = Duration::from_millis(500);
/// What a broker says that ends because others have taken its leases over.
const FENCED: &str = "the store is lost to this process: another broker fenced this one";

/// One broker, whether it runs or not.
pub struct Member {
    /// Its number, from 0.
    pub number: usize,
    /// Where it serves, also after a restart: `http://127.0.0.1:…`.
    pub url: String,
    /// Its way to the store.
    pub store: Link,
    /// Its way to the target.
    pub target: Link,
    binary: PathBuf,
    config: PathBuf,
    log: PathBuf,
    process: Mutex<Option<BrokerProcess>>,
    /// A fault keeps it down.
    held_down: AtomicBool,
    /// A fault ends it: its end is no surprise.
    asked_to_end: AtomicBool,
}

impl Member {
    fn process(&self) -> MutexGuard<'_, Option<BrokerProcess>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether its process serves.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.process().as_mut().is_some_and(BrokerProcess::is_running)
    }

    /// kill -9; it stays down until [`Self::let_start`]. Returns whether it ran.
    pub fn kill(&self) -> bool {
        self.held_down.store(true, Ordering::SeqCst);
        self.process().take().is_some_and(|mut process| process.kill().is_ok())
    }

    /// It may start again.
    pub fn let_start(&self) {
        self.held_down.store(false, Ordering::SeqCst);
    }

    /// Asks it to stop, and keeps it down until [`Self::let_start`]. Returns whether it ran.
    #[must_use]
    pub fn ask_to_stop(&self) -> bool {
        self.held_down.store(true, Ordering::SeqCst);
        self.asked_to_end.store(true, Ordering::SeqCst);
        self.signal("-TERM")
    }

    /// Sends a signal such as `-STOP`. Returns whether it runs.
    #[must_use]
    pub fn signal(&self, name: &str) -> bool {
        let pid = self.process().as_ref().map(BrokerProcess::pid);
        let sent = pid.map(|pid| Command::new("kill").args([name, &pid.to_string()]).status());
        sent.is_some_and(|sent| sent.is_ok_and(|status| status.success()))
    }

    /// All that it logged.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Runs a command of the broker's binary with this broker's configuration.
    ///
    /// # Errors
    /// When it cannot be run.
    pub fn cli(&self, args: &[&str]) -> Result<Output> {
        let mut command = Command::new(&self.binary);
        let command = command.args(args).env("JIT_CONFIG", &self.config).env("NO_COLOR", "1");
        command.output().with_context(|| format!("cannot run {}", self.binary.display()))
    }
}

/// All brokers of a store, with their supervisors.
pub struct Fleet {
    /// By number.
    pub members: Vec<Arc<Member>>,
    ending: Arc<AtomicBool>,
    supervisors: Vec<tokio::task::JoinHandle<()>>,
}

impl Fleet {
    /// Writes a configuration for each broker, from the world's, and starts them one after the other.
    ///
    /// # Errors
    /// When one does not come up.
    pub async fn start(world: &World, store: (&str, u16), brokers: usize, diary: &Arc<Diary>) -> Result<Self> {
        let mut links = Vec::new();
        for _ in 0..brokers {
            links.push((Link::to(store.1).await?, Link::to(world.database.port).await?));
        }
        // A lease that was asked for while nobody could say which server this is has the address as its place. For the
        // other brokers that address is a link of another one, to the same server.
        let address = |target: &Link| format!("\"postgres://{}:{}\"", world.database.host, target.port);
        let ways: Vec<String> = links.iter().map(|(_, target)| address(target)).collect();
        let replaces = format!("replaces = [{}]", ways.join(", "));
        let mut members = Vec::new();
        for (number, links) in links.into_iter().enumerate() {
            members.push(Arc::new(member(world, store.0, &replaces, links, number)?));
        }
        let ending = Arc::new(AtomicBool::new(false));
        let mut fleet = Self { members, ending, supervisors: Vec::new() };
        for member in &fleet.members {
            // The first one makes the tables and the signing key.
            begin(member).await?;
        }
        for member in &fleet.members {
            let supervised = supervise(Arc::clone(member), Arc::clone(&fleet.ending), Arc::clone(diary));
            fleet.supervisors.push(tokio::spawn(supervised));
        }
        Ok(fleet)
    }

    /// Waits until all serve.
    ///
    /// # Errors
    /// When one does not, in time.
    pub async fn all_up(&self, patience: Duration) -> Result<()> {
        let begun = Instant::now();
        for member in &self.members {
            while !member.is_up() {
                ensure!(
                    begun.elapsed() < patience,
                    "broker {} does not come up: {}",
                    member.number,
                    last_line(&member.log())
                );
                tokio::time::sleep(LOOK).await;
            }
        }
        Ok(())
    }

    /// Ends the supervisors, and then the brokers.
    pub async fn end(self) {
        self.ending.store(true, Ordering::SeqCst);
        for supervisor in self.supervisors {
            let _ = supervisor.await;
        }
        for member in &self.members {
            member.kill();
        }
    }
}

fn member(
    world: &World,
    store: &str,
    replaces: &str,
    (to_store, to_target): (Link, Link),
    number: usize,
) -> Result<Member> {
    let port = free_port()?;
    let text = world::read(&world.config())?;
    let target = &world.database;
    let changes = [
        ("\"127.0.0.1:0\"".to_owned(), format!("\"127.0.0.1:{port}\"")),
        ("\"admin.sock\"".to_owned(), format!("\"admin-{number}.sock\"")),
        ("\"audit.jsonl\"".to_owned(), format!("\"audit-{number}.jsonl\"")),
        (store.to_owned(), format!("127.0.0.1:{}", to_store.port)),
        ("[connections.inventory]\n".to_owned(), format!("[connections.inventory]\n{replaces}\n")),
        (
            format!("@{}:{}/{}", target.host, target.port, target.name),
            format!("@{}:{}/{}", target.host, to_target.port, target.name),
        ),
    ];
    let text = changes.iter().try_fold(text, |text, (from, to)| {
        ensure!(text.contains(from), "{from} is not in the configuration");
        Ok(text.replacen(from, to, 1))
    })?;
    let folder = world.folder.path();
    let config = folder.join(format!("broker-{number}.toml"));
    std::fs::write(&config, text)?;
    Ok(Member {
        number,
        url: format!("http://127.0.0.1:{port}"),
        store: to_store,
        target: to_target,
        binary: world.binary(),
        config,
        log: folder.join(format!("broker-{number}.log")),
        process: Mutex::new(None),
        held_down: AtomicBool::new(false),
        asked_to_end: AtomicBool::new(false),
    })
}

/// Starts it, and waits until it serves.
async fn begin(member: &Arc<Member>) -> Result<()> {
    let started = Arc::clone(member);
    tokio::task::spawn_blocking(move || {
        started.asked_to_end.store(false, Ordering::SeqCst);
        let process = BrokerProcess::start(&started.binary, &started.config, "127.0.0.1:0", &[], &started.log)?;
        *started.process() = Some(process);
        Ok(())
    })
    .await?
}

async fn supervise(member: Arc<Member>, ending: Arc<AtomicBool>, diary: Arc<Diary>) {
    while !ending.load(Ordering::SeqCst) {
        tokio::time::sleep(LOOK).await;
        let ended = {
            let mut process = member.process();
            let ended = process.as_mut().is_some_and(|process| !process.is_running());
            ended.then(|| process.take()).flatten()
        };
        if let Some(process) = ended {
            how_it_ended(&member, process, &diary);
        }
        let down = member.process().is_none();
        if !down || member.held_down.load(Ordering::SeqCst) {
            continue;
        }
        match begin(&member).await {
            // The fault came while it started.
            Ok(()) if member.held_down.load(Ordering::SeqCst) => drop(member.kill()),
            Ok(()) => diary.restarted(member.number),
            Err(_) => {
                diary.start_failed(member.number, &last_line(&member.log()));
                tokio::time::sleep(AGAIN).await;
            }
        }
    }
}

fn how_it_ended(member: &Member, mut process: BrokerProcess, diary: &Diary) {
    let status = process.wait_for_end(LOOK).map_or_else(|_| "unknown".to_owned(), |status| status.to_string());
    let said = member.log();
    let last: Vec<&str> = said.lines().rev().take(5).collect();
    if member.asked_to_end.swap(false, Ordering::SeqCst) {
        diary.stopped(member.number, &status);
    } else if last.iter().any(|line| line.contains(FENCED)) {
        diary.fenced(member.number);
    } else {
        diary.broken("endings without a reason", format!("broker {} ({status}): {}", member.number, last_line(&said)));
    }
}

/// The last line of a log.
#[must_use]
pub fn last_line(log: &str) -> String {
    log.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("(nothing logged)").to_owned()
}

/// A port that nobody has now. The broker keeps it over its restarts.
fn free_port() -> Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
