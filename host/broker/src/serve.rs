//! The life of the process: start, serve, stop in order.

use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use jiff::Timestamp;
use jit_core::event::{AuditEvent, Event, Process};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use jit_assembly::compose::{self, Composed, Mode};
use jit_assembly::prepare;
use jit_assembly::reload::{self, Loader, Reloader, Source};
use jit_assembly::tls::Tls;
use jit_assembly::watch::contents::Contents;
use jit_config::Config;
use jit_http::App;
use jit_http::connection::{Bounds, ServerTls};
use jit_http::operator::Readiness;
use jit_http::places::Places;
use jit_http::server::{self, Door};
use jit_ledger::Change;
use jit_pipeline::broker::Broker;
use jit_pipeline::tasks;
use jit_pipeline::tasks::driver::Driver;
use jit_pipeline::undo;
use jit_runtime::LogCompilations;

use crate::administered::Served;
use crate::background;
use crate::descriptors;
use crate::metrics_described;

/// Buckets of durations, in seconds: 100 µs to 10 s.
const SECONDS: &[f64] =
    &[0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// How long the background tasks have for their last pass at a stop.
const LAST_PASSES: Duration = Duration::from_secs(5);

/// Serves what `source` says until SIGTERM or SIGINT. `ready` is told once requests are answered.
///
/// # Errors
/// When something that serving needs cannot be had; with what to do about it.
pub async fn serve(
    source: Source,
    mode: Mode,
    ready: impl FnOnce(std::net::SocketAddr, &Arc<Broker>),
) -> anyhow::Result<()> {
    // First of all: a signal that comes from here on ends the start, or the serving, in order.
    let mut signals = Signals::listen()?;
    let Some(started) = start(source, mode, &mut signals).await? else {
        tracing::info!("stopped before anything was served");
        return Ok(());
    };
    started.run(signals, ready).await
}

/// The signals that the broker listens to, from before anything is opened.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn listen() -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("the system does not let this process listen to signals");
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hangup: listen(SignalKind::hangup())?,
        })
    }

    /// Waits for SIGTERM or SIGINT.
    async fn stop(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }

    /// Does a step of the start; none when a stop was asked for before it was done.
    async fn unless_stopped<T>(&mut self, step: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<Option<T>> {
        tokio::select! {
            biased;
            signal = self.stop() => {
                tracing::info!(signal, "stopping in the middle of the start");
                Ok(None)
            }
            done = step => done.map(Some),
        }
    }
}

/// A broker that is about to serve.
struct Started {
    config: Config,
    source: Source,
    mode: Mode,
    contents: Contents,
    metrics: PrometheusHandle,
    doors: Doors,
    admin: UnixListener,
    composed: Composed,
    /// Leases that the last stop left unsettled.
    recovered: usize,
}

/// The TCP listeners.
struct Doors {
    public: TcpListener,
    operators: Option<TcpListener>,
    tls: Option<Arc<Tls>>,
    room: usize,
}

impl Doors {
    async fn open(config: &Config) -> anyhow::Result<Self> {
        let room = descriptors::room(config, descriptors::raise_descriptors())?;
        let public = server::bind(config.server.listen, "listen")?;
        let operators =
            config.server.operator_listen.map(|listen| server::bind(listen, "operator_listen")).transpose()?;
        let tls = match &config.server.tls {
            Some(files) => Some(Tls::load(&files.cert, &files.key).await?),
            None => None,
        };
        Ok(Self { public, operators, tls, room })
    }
}

/// Opens everything and takes up what the last stop left; none when a stop was asked for meanwhile.
async fn start(source: Source, mode: Mode, signals: &mut Signals) -> anyhow::Result<Option<Started>> {
    // Before the reading that counts, so that no change in between is missed.
    let contents = Contents::of(source()?.served_files()).await;
    let config = source()?;
    let metrics = install_metrics()?;
    let prepared = prepare::prepare(&config, mode, Arc::new(LogCompilations))?;
    for warning in &prepared.warnings {
        warning.log();
    }
    // The port before the store: a second broker is told before it touches that.
    let doors = Doors::open(&config).await?;
    let Some(composed) = signals.unless_stopped(compose::compose(&config, prepared)).await? else { return Ok(None) };
    let broker = Arc::clone(&composed.broker);
    let opened = async {
        // Before anybody is told that it serves: the commands work from then on.
        let admin = server::bind_admin(&config.server.admin_socket)?;
        compose::record_start(&broker, &composed.loaded.load(), &composed.account_mark).await?;
        compose::warn_of_weak_ends(&broker.serving.load());
        // It asks the servers where they are, so it runs beside the start: one that does not answer holds up nothing.
        broker.work.spawn(reload::tell_orphans(Arc::clone(&broker), composed.loaded.load_full()));
        let recovered = undo::take_over(&broker.end).await.context("recovery after the last stop")?.unfinished;
        broker.leftovers.recall(&*broker.store).await.context("looking for accounts that wait for a person")?;
        Ok((admin, recovered))
    };
    let Some((admin, recovered)) = signals.unless_stopped(opened).await? else {
        let _never_announced = std::fs::remove_file(&config.server.admin_socket);
        let mut nothing = Driver::new(Arc::clone(&broker.board), broker.work.stopping.clone());
        stop(&broker, &mut nothing, config.server.shutdown_grace).await;
        composed.store.close().await;
        return Ok(None);
    };
    if recovered > 0 {
        tracing::warn!(leases = recovered, "leases that were unfinished at the last stop; their accounts are removed");
    }
    Ok(Some(Started { config, source, mode, contents, metrics, doors, admin, composed, recovered }))
}

impl Started {
    /// Serves until a signal.
    async fn run(self, signals: Signals, ready: impl FnOnce(std::net::SocketAddr, &Arc<Broker>)) -> anyhow::Result<()> {
        let Self { config, source, mode, contents, metrics, doors, admin, composed, recovered } = self;
        let Composed { broker, loaded, store, runtime, sessions, account_mark: _ } = composed;
        let Signals { mut terminate, mut interrupt, hangup } = signals;
        broker.ledger.look_at_disk().await;
        let Doors { public, operators, tls, room } = doors;
        let loader = Loader { loaded, runtime, sessions };
        let reloader = Reloader::new(Arc::clone(&broker), loader, source, mode, config.clone(), contents);
        let reloader = Arc::new(reloader.with_tls(tls.clone()));
        let parts = background::Parts {
            config: &config,
            recovered: recovered > 0,
            metrics: metrics.clone(),
            reloader: Arc::clone(&reloader),
            hangup,
        };
        let mut background = background::start(&broker, parts);

        let address = public.local_addr()?;
        let with_tls = tls.is_some();
        let app = app(&config.server, &broker, metrics.clone());
        let bounds = Bounds {
            head: config.server.head_timeout,
            idle: config.server.idle_timeout,
            write: config.server.write_timeout,
        };
        let places = Places::new(room, config.server.max_connections_per_address as usize);
        let public = Door {
            listener: public,
            router: jit_http::router(Arc::clone(&app), operators.is_none()),
            tls: tls.map(server_tls),
            places,
            bounds,
        };
        let operators_address = operators.as_ref().map(TcpListener::local_addr).transpose()?;
        let operators = operators.map(|listener| Door {
            listener,
            router: jit_http::operators_router(app),
            tls: None,
            places: Places::new(OPERATOR_CONNECTIONS, OPERATOR_CONNECTIONS / 2),
            bounds,
        });

        let closing = CancellationToken::new();
        let admin_closing = CancellationToken::new();
        let grace = config.server.shutdown_grace;
        let serve_public = async {
            let served = public.serve(closing.clone(), grace).await;
            // Whatever ended it, everything ends with it.
            closing.cancel();
            admin_closing.cancel();
            served
        };
        let serve_operators = async {
            match operators {
                // Probes and metrics are answered for as long as requests are finished.
                Some(door) => door.serve(admin_closing.clone(), OPERATORS_GRACE).await,
                None => Ok(()),
            }
        };
        let admin_path = config.server.admin_socket.clone();
        let serve_admin = async {
            let served = Served { reloader: Arc::clone(&reloader), metrics: metrics.clone() };
            let router = jit_http::admin::router(Arc::clone(&broker), Arc::new(served));
            let served = server::serve_admin(admin, &admin_path, router, admin_closing.clone()).await;
            closing.cancel();
            served
        };
        let stopper = async {
            let mut lost = None;
            tokio::select! {
                _ = terminate.recv() => tracing::info!(signal = "SIGTERM", "stopping: requests in flight are finished"),
                _ = interrupt.recv() => tracing::info!(signal = "SIGINT", "stopping: requests in flight are finished"),
                reason = store.lost() => {
                    tracing::error!(reason, "the store is lost to this process: it ends, and has to be started again");
                    lost = Some(reason);
                }
                () = closing.cancelled() => {}
            }
            closing.cancel();
            lost
        };
        tracing::info!(%address, tls = with_tls, admin_socket = %admin_path.display(), operators = operators_address.map(tracing::field::display), "serving");
        ready(address, &broker);
        let (public, operators, admin, lost) = tokio::join!(serve_public, serve_operators, serve_admin, stopper);
        stop(&broker, &mut background, grace).await;
        store.close().await;
        public.context("the listener failed")?;
        operators.context("the operators' listener failed")?;
        admin.context("the admin socket failed")?;
        lost.map_or(Ok(()), |reason| Err(anyhow::anyhow!("the store is lost to this process: {reason}")))
    }
}

/// Connections of the operators' own listener: probes and who collects metrics.
const OPERATOR_CONNECTIONS: usize = 64;
/// How long their requests have to end at a stop.
const OPERATORS_GRACE: Duration = Duration::from_secs(2);
/// Their requests for metrics and the API's description at once.
const OPERATOR_REQUESTS: usize = 4;

/// The listener's certificate and key as they are when a connection comes.
fn server_tls(tls: Arc<Tls>) -> ServerTls {
    Arc::new(move || tls.current())
}

fn app(settings: &jit_config::Server, broker: &Arc<Broker>, metrics: PrometheusHandle) -> Arc<App> {
    Arc::new(App {
        broker: Arc::clone(broker),
        metrics,
        openapi: jit_http::openapi().into(),
        in_flight: Arc::new(Semaphore::new(settings.max_in_flight as usize)),
        returning: Arc::new(Semaphore::new(jit_http::MOST_RETURNING)),
        listings: Semaphore::new(jit_http::targets::MOST_LISTINGS),
        operators: Semaphore::new(OPERATOR_REQUESTS),
        readiness: Readiness::default(),
        request_timeout: settings.request_timeout,
    })
}

/// What is at work is finished or handed to the next start: nothing is forgotten either way.
async fn stop(broker: &Arc<Broker>, background: &mut Driver, grace: Duration) {
    if undo::give_up_abandoned(&broker.undo, true).await > 0
        && let Err(error) = tasks::removal::once(&broker.sweep).await
    {
        tracing::warn!(%error, "the store failed; the next start removes accounts whose reply nobody collected");
    }
    broker.work.stopping.cancel();
    broker.ready.close();
    broker.work.tasks.close();
    if tokio::time::timeout(grace, broker.work.tasks.wait()).await.is_err() {
        tracing::warn!("work in flight did not end in time; the next start continues it");
    }
    let event = AuditEvent::new(
        Event::BrokerStopped(Process { version: env!("CARGO_PKG_VERSION"), account_mark: None }),
        Timestamp::now(),
    );
    let mut events = broker.ledger.denials().take();
    events.push(event);
    if let Err(error) = broker.ledger.commit(Change::events(events)).await {
        tracing::error!(%error, "the stop could not be recorded");
    }
    if !background.ended(LAST_PASSES).await {
        let late: Vec<String> = broker.board.rows().into_iter().map(|row| row.name).collect();
        tracing::warn!(tasks = late.join(", "), "background tasks did not end in time; they go on after the restart");
    }
    tracing::info!("stopped");
}

fn install_metrics() -> anyhow::Result<PrometheusHandle> {
    let builder = PrometheusBuilder::new().set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), SECONDS)?;
    let handle = builder.install_recorder()?;
    metrics_described::describe();
    Ok(handle)
}
