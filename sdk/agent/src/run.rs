//! `fetch` and `renew`.

use std::time::Duration;

use jit_client::{Client, Credential};
use rustix::process::Signal;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::board::Board;
use crate::cli::{FetchArgs, RenewArgs};
use crate::descendants::Reaper;
use crate::error::AgentError;
use crate::health;
use crate::keep::{self, Keeper, Origin, Terms};
use crate::settings::{ConfigFile, Entry};
use crate::signals::{Signals, is_end};
use crate::state::State;

/// How long giving back may take by default: SIGTERM ends the agent within a second.
const EXIT_GRACE: Duration = Duration::from_millis(800);
/// How long giving back may take of what was fetched beside something that failed.
const GIVE_BACK: Duration = Duration::from_secs(2);

/// `jit-agent fetch`.
pub(crate) async fn fetch(args: FetchArgs, mut signals: Signals) -> Result<(), AgentError> {
    let config = ConfigFile::read(args.broker.config.as_deref())?;
    let entries = config.entries(&args.credential, &[], false)?;
    if let Some(entry) = entries.iter().find(|entry| entry.out.is_none()) {
        return Err(AgentError::Config(format!(
            "where is the credential of {} to go? Give --out FILE",
            entry.target()
        )));
    }
    let client = config.client(&args.broker, Some(args.patience))?;
    fetch_all(&client, &entries, args.patience, &mut signals, GIVE_BACK).await.map(|_| ())
}

/// All at once, until a signal; the first failure is the answer, and what was fetched beside it is given back. After a
/// signal no attempt begins, and what is under way is waited for as long as `grace` says.
pub(crate) async fn fetch_all(
    client: &Client,
    entries: &[Entry],
    patience: Duration,
    signals: &mut Signals,
    grace: Duration,
) -> Result<Vec<Credential>, AgentError> {
    let (stop, stopping) = watch::channel(false);
    let mut fetched = std::pin::pin!(fetch_each(client, entries, patience, stopping));
    tokio::select! {
        fetched = &mut fetched => return fetched,
        () = signals.end() => {}
    }
    let _ = stop.send(true);
    match tokio::time::timeout(grace, fetched).await {
        // All of them came in the moment of the signal, and none was given back.
        Ok(Ok(credentials)) => give_back(client, &credentials).await,
        Ok(Err(AgentError::Ended)) => {}
        Ok(Err(error)) => tracing::error!("{error}"),
        Err(_) => tracing::warn!("not everything was given back in time; it ends at its time"),
    }
    Err(AgentError::Ended)
}

async fn fetch_each(
    client: &Client,
    entries: &[Entry],
    patience: Duration,
    stop: watch::Receiver<bool>,
) -> Result<Vec<Credential>, AgentError> {
    let mut tasks = JoinSet::new();
    for (number, entry) in entries.iter().cloned().enumerate() {
        let (client, stop) = (client.clone(), stop.clone());
        tasks.spawn(async move { (number, keep::fetch(&client, &entry, patience, stop).await) });
    }
    let mut fetched: Vec<Option<Credential>> = entries.iter().map(|_| None).collect();
    let mut failed = None;
    while let Some(task) = tasks.join_next().await {
        match task {
            Ok((number, Ok(credential))) => {
                if let Some(place) = fetched.get_mut(number) {
                    *place = Some(credential);
                }
            }
            Ok((_, Err(error))) => failed = failed.or(Some(error)),
            Err(error) => failed = failed.or(Some(AgentError::Config(format!("a task failed: {error}")))),
        }
    }
    let fetched: Vec<Credential> = fetched.into_iter().flatten().collect();
    let Some(error) = failed else { return Ok(fetched) };
    give_back(client, &fetched).await;
    Err(error)
}

async fn give_back(client: &Client, credentials: &[Credential]) {
    let leases: Vec<String> = credentials.iter().map(|credential| credential.lease.lease_id.clone()).collect();
    if !leases.is_empty() && !matches!(tokio::time::timeout(GIVE_BACK, client.revoke_all(&leases)).await, Ok(Ok(_))) {
        tracing::warn!("not everything was given back; it ends at its time");
    }
}

/// `jit-agent renew`.
pub(crate) async fn renew(args: RenewArgs, mut signals: Signals) -> Result<(), AgentError> {
    let config = ConfigFile::read(args.broker.config.as_deref())?;
    let entries = config.entries(&args.credential, &args.keep.on_rotate, true)?;
    for entry in &entries {
        check(entry)?;
    }
    let client = config.client(&args.broker, None)?;
    // As process 1 of a container it gets what others leave behind.
    tokio::spawn(Reaper::listen()?.run());
    let board = Board::default();
    if let Some(address) = config.health(&args.keep) {
        tokio::spawn(health::serve(health::bind(address).await?, board.clone()));
    }
    let (stop, stopping) = watch::channel(false);
    let (rotate, wishes) = watch::channel(0);
    let exit_grace = args.keep.exit_grace.unwrap_or(EXIT_GRACE);
    let terms = Terms {
        exit_grace,
        interval: config.interval(&args.keep),
        revoke: args.revoke_on_exit || config.revoke_on_exit,
        stop: stopping,
        rotate: wishes,
        rotated: None,
    };
    let mut keepers = JoinSet::new();
    for (number, entry) in entries.into_iter().enumerate() {
        let keeper = Keeper::new(number, entry.clone(), &board, terms.clone());
        let left = match &entry.out {
            Some(out) => State::load(out)?.filter(|state| is_for(state, &entry)),
            None => None,
        };
        let (client, patience, stop) = (client.clone(), args.patience, terms.stop.clone());
        keepers.spawn(async move {
            let origin = match left {
                Some(state) => Origin::Left(Box::new(state)),
                None => match keep::fetch(&client, &entry, patience, stop).await {
                    Ok(credential) => Origin::Fetched(Box::new(credential)),
                    // What came was given back.
                    Err(AgentError::Ended) => return Ok(true),
                    Err(error) => return Err(error),
                },
            };
            Ok::<_, AgentError>(keeper.run(client, origin).await)
        });
    }
    loop {
        tokio::select! {
            signal = signals.next() => match signal {
                Signal::USR1 => {
                    tracing::info!("SIGUSR1: asking for new accounts");
                    rotate.send_modify(|count| *count += 1);
                }
                end if is_end(end) => break,
                _ => {}
            },
            // A keeper ends before it is stopped only when it could not begin.
            Some(ended) = keepers.join_next() => {
                ended.map_err(|error| AgentError::Config(format!("a task failed: {error}")))??;
                break;
            }
        }
    }
    let _ = stop.send(true);
    all_ended(keepers, exit_grace).await;
    Ok(())
}

/// Waits for the keepers' ends, a little longer than each of them does.
pub(crate) async fn all_ended<T: 'static>(mut keepers: JoinSet<T>, exit_grace: Duration) {
    let all = async { while keepers.join_next().await.is_some() {} };
    if tokio::time::timeout(exit_grace.mul_f64(1.2), all).await.is_err() {
        tracing::warn!("not everything was given back in time; it ends at its time");
    }
}

/// Whether a lease that was left is what is asked for.
fn is_for(state: &State, entry: &Entry) -> bool {
    let asked = &entry.request;
    state.request.target == asked.target && asked.role.as_ref().is_none_or(|role| *role == state.lease.role)
}

/// What `renew` can do nothing with.
fn check(entry: &Entry) -> Result<(), AgentError> {
    if entry.out.is_none() {
        return Err(AgentError::Config(format!(
            "where is the credential of {} to go? Give --out FILE",
            entry.target()
        )));
    }
    match entry.on_rotate.iter().find(|on_rotate| on_rotate.needs_child()) {
        Some(on_rotate) => Err(AgentError::Config(format!(
            "--on-rotate {}: whom? Name the process: signal:HUP:pidfile=FILE or signal:HUP:process=NAME. Without one it \
             is for `exec`, whose command it is",
            String::from(on_rotate.clone())
        ))),
        None => Ok(()),
    }
}
