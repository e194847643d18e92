//! The life of the process: start, serve, stop in order.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum_server::Handle;
use jiff::Timestamp;
use jit_core::event::{AuditEvent, EventKind};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::audit::export;
use crate::broker::Broker;
use crate::compose::{self, Composed, Mode};
use crate::config::Export;
use crate::http::{self, App, server};
use crate::reload::{self, Reloader, Source, Trigger};
use crate::removal;
use crate::store::Change;
use crate::tasks;
use crate::watch::{self, contents::Contents};

/// Buckets of durations, in seconds: 100 µs to 10 s.
const SECONDS: &[f64] =
    &[0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Serves what `source` says until SIGTERM or SIGINT. `ready` is told once requests are answered.
///
/// # Errors
/// When something that serving needs cannot be had; with what to do about it.
pub async fn serve(source: Source, mode: Mode, ready: impl FnOnce(std::net::SocketAddr)) -> anyhow::Result<()> {
    // Before the reading that counts, so that no change in between is missed.
    let contents = Contents::of(source()?.served_files()).await;
    let config = source()?;
    let metrics = install_metrics()?;
    // The port first: a second broker is told before it touches anything.
    let listener = server::bind(config.server.listen)?;
    let address = listener.local_addr()?;
    let tls = match &config.server.tls {
        Some(tls) => Some(server::tls(&tls.cert, &tls.key).await?),
        None => None,
    };
    let Composed { broker, store, runtime, sessions } = compose::compose(&config, mode).await?;
    // Before anybody is told that it serves: the commands work from then on.
    let admin_path = config.server.admin_socket.clone();
    let admin_listener = server::bind_admin(&admin_path)?;
    compose::record_start(&broker).await?;
    compose::warn_of_weak_ends(&broker.serving.load());
    reload::tell_orphans(&broker).await;
    let recovered = removal::recover(&broker).await.context("recovery after the last stop")?;
    if recovered > 0 {
        tracing::warn!(leases = recovered, "leases that the last stop left unsettled; their accounts are removed");
    }

    let handle = Handle::new();
    let stop_admin = Arc::new(Notify::new());
    let mut background = JoinSet::new();
    background.spawn(tasks::removal::run(Arc::clone(&broker)));
    background.spawn(tasks::reconcile::run(Arc::clone(&broker), config.reconcile_interval, recovered > 0));
    background.spawn(tasks::maintain::run(Arc::clone(&broker)));
    background.spawn(tasks::rotation::run(Arc::clone(&broker)));
    background.spawn(tasks::housekeeping::run(Arc::clone(&broker), config.store.keep_revoked));
    for Export::Jsonl { path } in config.audit.export.clone() {
        let options = export::JsonlOptions::new(path);
        let (store, wake, stop) = (Arc::clone(&broker.store), store.log_size(), broker.stopping.clone());
        background.spawn(async move { export::run(store, options, wake, stop).await });
    }
    background.spawn(upkeep(metrics.clone(), Arc::clone(&broker)));
    background.spawn(look_at_targets(Arc::clone(&broker)));

    let reloader = Reloader::new(Arc::clone(&broker), runtime, sessions, source, mode, config.clone(), contents);
    let reloader = Arc::new(reloader);
    background.spawn(reload_on_signal(Arc::clone(&reloader), Arc::clone(&broker)));
    if config.server.watch {
        background.spawn(watch::run(Arc::clone(&reloader), broker.stopping.clone()));
    }

    let app = Arc::new(App {
        broker: Arc::clone(&broker),
        metrics,
        openapi: http::openapi(),
        in_flight: Semaphore::new(config.server.max_in_flight as usize),
        request_timeout: config.server.request_timeout,
    });
    let ended = CancellationToken::new();
    let public = async {
        let served = server::serve(listener, tls, http::router(app), handle.clone()).await;
        stop_admin.notify_one();
        ended.cancel();
        served
    };
    let admin = async {
        let router = http::admin::router(Arc::clone(&broker), Arc::clone(&reloader));
        let served = server::serve_admin(admin_listener, &admin_path, router, Arc::clone(&stop_admin)).await;
        if served.is_err() {
            handle.shutdown();
        }
        served
    };
    let stopper = async {
        tokio::select! {
            signal = stop_signal() => {
                tracing::info!(signal, "stopping: requests in flight are finished");
                handle.graceful_shutdown(Some(config.server.shutdown_grace));
            }
            () = ended.cancelled() => {}
        }
    };
    tracing::info!(%address, tls = config.server.tls.is_some(), admin_socket = %admin_path.display(), "serving");
    ready(address);
    let (public, admin, ()) = tokio::join!(public, admin, stopper);
    stop(&broker, &mut background, config.server.shutdown_grace).await;
    store.close().await;
    public.context("the listener failed")?;
    admin.context("the admin socket failed")
}

/// What is at work is finished or handed to the next start: nothing is forgotten either way.
async fn stop(broker: &Arc<Broker>, background: &mut JoinSet<()>, grace: Duration) {
    if tasks::housekeeping::give_up_abandoned(broker, true).await > 0
        && let Err(error) = tasks::removal::once(broker).await
    {
        tracing::warn!(%error, "the store failed; the next start removes what nobody came for");
    }
    broker.stopping.cancel();
    broker.tasks.close();
    if tokio::time::timeout(grace, broker.tasks.wait()).await.is_err() {
        tracing::warn!("work in flight did not end in time; the next start takes it up");
    }
    let event = AuditEvent::new(EventKind::BrokerStopped, Timestamp::now()).with("version", env!("CARGO_PKG_VERSION"));
    if let Err(error) = broker.commit(Change { events: vec![event], ..Change::default() }).await {
        tracing::error!(%error, "the stop could not be recorded");
    }
    let ended = async { while background.join_next().await.is_some() {} };
    if tokio::time::timeout(Duration::from_secs(5), ended).await.is_err() {
        background.abort_all();
    }
    tracing::info!("stopped");
}

/// SIGHUP reads the configuration anew. What comes of it is logged and on record.
async fn reload_on_signal(reloader: Arc<Reloader>, broker: Arc<Broker>) {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut hangup) = signal(SignalKind::hangup()) else { return };
    loop {
        tokio::select! {
            () = broker.stopping.cancelled() => return,
            _ = hangup.recv() => drop(reloader.reload(Trigger::Signal, false).await),
        }
    }
}

/// SIGTERM or SIGINT.
async fn stop_signal() -> &'static str {
    use tokio::signal::unix::{SignalKind, signal};
    match (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) {
        (Ok(mut terminate), Ok(mut interrupt)) => tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        },
        _ => std::future::pending().await,
    }
}

fn install_metrics() -> anyhow::Result<PrometheusHandle> {
    let builder = PrometheusBuilder::new().set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), SECONDS)?;
    Ok(builder.install_recorder()?)
}

async fn upkeep(metrics: PrometheusHandle, broker: Arc<Broker>) {
    loop {
        metrics.run_upkeep();
        tokio::select! {
            () = broker.stopping.cancelled() => return,
            () = tokio::time::sleep(Duration::from_secs(5)) => {}
        }
    }
}

/// Tells, beside the serving, what the targets say of their configuration.
async fn look_at_targets(broker: Arc<Broker>) {
    for (target, result) in compose::validate_targets(&broker.serving.load()).await {
        match result {
            Ok(()) => tracing::info!(target, "target checked"),
            Err(reason) => tracing::error!(
                target,
                reason,
                "the target's configuration does not hold, or the target is away; `jit-broker config check` tells more"
            ),
        }
    }
}
