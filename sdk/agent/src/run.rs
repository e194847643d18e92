//! `fetch` and `renew`.

use std::time::Duration;

use jit_client::{Client, Credential};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::board::Board;
use crate::cli::{FetchArgs, RenewArgs};
use crate::error::AgentError;
use crate::health;
use crate::keep::{self, Keeper, Origin, Terms};
use crate::settings::{ConfigFile, Entry};
use crate::state::State;

/// How long giving back may take by default: SIGTERM ends the agent within a second.
const EXIT_GRACE: Duration = Duration::from_millis(800);
/// How long giving back may take of what was fetched beside something that failed.
const GIVE_BACK: Duration = Duration::from_secs(2);

/// `jit-agent fetch`.
pub(crate) async fn fetch(args: FetchArgs) -> Result<(), AgentError> {
    let config = ConfigFile::read(args.broker.config.as_deref())?;
    let entries = config.entries(&args.credential, &[], false)?;
    if let Some(entry) = entries.iter().find(|entry| entry.out.is_none()) {
        return Err(AgentError::Config(format!(
            "where is the credential of {} to go? Give --out FILE",
            entry.target()
        )));
    }
    let client = config.client(&args.broker, Some(args.patience))?;
    tokio::select! {
        fetched = fetch_all(&client, &entries, args.patience) => fetched.map(|_| ()),
        ended = ended() => ended,
    }
}

/// All at once; the first failure is the answer, and what was fetched beside it is given back.
pub(crate) async fn fetch_all(
    client: &Client,
    entries: &[Entry],
    patience: Duration,
) -> Result<Vec<Credential>, AgentError> {
    let mut tasks = JoinSet::new();
    for (number, entry) in entries.iter().cloned().enumerate() {
        let client = client.clone();
        tasks.spawn(async move { (number, keep::fetch(&client, &entry, patience).await) });
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
    let fetched = fetched.into_iter().flatten();
    let Some(error) = failed else { return Ok(fetched.collect()) };
    for credential in fetched {
        let revoke = client.revoke(&credential.lease.lease_id);
        let _ = tokio::time::timeout(GIVE_BACK, revoke).await;
    }
    Err(error)
}

/// SIGTERM or SIGINT while there is nothing to give back yet.
async fn ended() -> Result<(), AgentError> {
    stopped().await?;
    Err(AgentError::Ended)
}

/// Waits for SIGTERM or SIGINT.
async fn stopped() -> Result<(), AgentError> {
    let on = |kind| signal(kind).map_err(|error| AgentError::Config(format!("no signals: {error}")));
    let (mut terminate, mut interrupt) = (on(SignalKind::terminate())?, on(SignalKind::interrupt())?);
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

/// `jit-agent renew`.
pub(crate) async fn renew(args: RenewArgs) -> Result<(), AgentError> {
    let config = ConfigFile::read(args.broker.config.as_deref())?;
    let entries = config.entries(&args.credential, &args.keep.on_rotate, true)?;
    for entry in &entries {
        check(entry)?;
    }
    let client = config.client(&args.broker, None)?;
    let board = Board::default();
    if let Some(address) = config.health(&args.keep) {
        tokio::spawn(health::serve(health::bind(address).await?, board.clone()));
    }
    let (stop, stopping) = watch::channel(false);
    let (rotate, wishes) = watch::channel(0);
    let exit_grace = args.keep.exit_grace.unwrap_or(EXIT_GRACE);
    let terms = Terms {
        exit_grace,
        interval: config.interval(&args.keep)?,
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
        let (client, patience) = (client.clone(), args.patience);
        keepers.spawn(async move {
            let origin = match left {
                Some(state) => Origin::Left(Box::new(state)),
                None => Origin::Fetched(Box::new(keep::fetch(&client, &entry, patience).await?)),
            };
            Ok::<_, AgentError>(keeper.run(client, origin).await)
        });
    }
    let asked = async {
        let Ok(mut wished) = signal(SignalKind::user_defined1()) else { return std::future::pending().await };
        while wished.recv().await.is_some() {
            tracing::info!("SIGUSR1: asking for new accounts");
            rotate.send_modify(|count| *count += 1);
        }
    };
    tokio::select! {
        stopped = stopped() => stopped?,
        // A keeper ends before it is stopped only when it could not begin.
        Some(ended) = keepers.join_next() => {
            ended.map_err(|error| AgentError::Config(format!("a task failed: {error}")))??;
        }
        () = asked => {}
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
