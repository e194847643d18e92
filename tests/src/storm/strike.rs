//! Faults, done: each begins in its second, lasts as long as it was drawn, and is undone.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, sleep_until};
use xtask::servers::postgres::PostgresServer;

use super::diary::Diary;
use super::fleet::Fleet;
use super::link::{Link, State};
use super::plan::{Fault, Kind};

/// How often a killed server is started, since its orphans hold its memory for a moment.
const STARTS: usize = 60;
/// The pause between two starts.
const PAUSE: Duration = Duration::from_millis(500);

/// What the faults strike.
pub struct Struck {
    /// The brokers, with their links.
    pub fleet: Fleet,
    /// The store's server.
    pub store: Arc<Mutex<PostgresServer>>,
    /// The target's server.
    pub target: Arc<Mutex<PostgresServer>>,
    /// Where all of it is noted.
    pub diary: Arc<Diary>,
}

impl Struck {
    /// Does all faults, each in its time, and returns when the last one is over.
    ///
    /// # Errors
    /// When a server does not come back.
    pub async fn strike(&self, faults: &[Fault]) -> Result<()> {
        let begun = Instant::now();
        let all = faults.iter().map(|fault| async move {
            sleep_until(begun + fault.at).await;
            self.one(fault).await
        });
        futures_util::future::try_join_all(all).await?;
        Ok(())
    }

    async fn one(&self, fault: &Fault) -> Result<()> {
        let Some(member) = self.fleet.members.get(fault.broker) else { bail!("there is no broker {}", fault.broker) };
        let of_a_process = matches!(fault.kind, Kind::Kill | Kind::Stop | Kind::Freeze);
        if of_a_process && !member.is_up() {
            self.diary.missed(fault);
            return Ok(());
        }
        self.diary.begins(fault);
        match fault.kind {
            Kind::Kill | Kind::Stop => {
                let _ = if fault.kind == Kind::Kill { member.kill() } else { member.ask_to_stop() };
                sleep(fault.length).await;
                member.let_start();
            }
            Kind::Freeze => {
                let _ = member.signal("-STOP");
                sleep(fault.length).await;
                let _ = member.signal("-CONT");
            }
            Kind::CutStore => during(&member.store, State::Cut, fault.length).await,
            Kind::HushStore => during(&member.store, State::Silent, fault.length).await,
            Kind::SlowStore => during(&member.store, State::Slow(fault.delay), fault.length).await,
            Kind::CutTarget => during(&member.target, State::Cut, fault.length).await,
            Kind::HushTarget => during(&member.target, State::Silent, fault.length).await,
            Kind::SlowTarget => during(&member.target, State::Slow(fault.delay), fault.length).await,
            Kind::RestartStore => down(&self.store, fault.length, stop).await?,
            Kind::CrashStore => down(&self.store, fault.length, PostgresServer::crash).await?,
            Kind::TargetAway => down(&self.target, fault.length, stop).await?,
        }
        self.diary.heals(fault);
        Ok(())
    }
}

async fn during(link: &Link, state: State, length: Duration) {
    link.turn(state);
    sleep(length).await;
    link.turn(State::Open);
}

fn stop(server: &mut PostgresServer) {
    // One that does not stop in time is killed: that is a fault too.
    let _ = server.stop();
}

/// Takes a server down, and starts it again after a while.
async fn down(server: &Arc<Mutex<PostgresServer>>, length: Duration, by: fn(&mut PostgresServer)) -> Result<()> {
    let mut server = Arc::clone(server).lock_owned().await;
    let taken_down = tokio::task::spawn_blocking(move || {
        by(&mut server);
        server
    });
    let mut server = taken_down.await?;
    sleep(length).await;
    let started = tokio::task::spawn_blocking(move || {
        for _ in 1..STARTS {
            if server.start_again().is_ok() {
                return Ok(());
            }
            std::thread::sleep(PAUSE);
        }
        server.start_again()
    });
    started.await?
}
