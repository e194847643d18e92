//! Listeners: TCP with or without TLS, and the admin socket.

use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use axum::Router;
use axum::extract::connect_info::Connected;
use axum::serve::IncomingStream;
use jit_core::operator::Operator;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::connection::{Bounds, ServerTls, Shared};
use crate::places::Places;

/// How long nothing is accepted after the system could not: it may be out of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
/// How often the log tells of connections for which there is no room.
const TELL_PACE: Duration = Duration::from_secs(10);

/// Binds a TCP listener, so that a taken port is told before anything else starts. `key` is its name in the
/// configuration.
///
/// # Errors
/// When the address cannot be had.
pub fn bind(listen: SocketAddr, key: &str) -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind(listen)
        .with_context(|| format!("cannot listen on {listen}: is another broker running? See [server] {key}"))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// A listener with everything that its connections need.
pub struct Door {
    /// Where they come in.
    pub listener: TcpListener,
    /// What answers them.
    pub router: Router,
    /// With TLS.
    pub tls: Option<ServerTls>,
    /// How many there may be.
    pub places: Arc<Places>,
    /// How long they may wait for their peer.
    pub bounds: Bounds,
}

impl Door {
    /// Serves until `stop`; then what is under way has `grace` to end.
    ///
    /// # Errors
    /// When the listener cannot be used.
    pub async fn serve(self, stop: CancellationToken, grace: Duration) -> anyhow::Result<()> {
        let Self { listener, router, tls, places, bounds } = self;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let cut = CancellationToken::new();
        let shared = Arc::new(Shared { router, tls, bounds, stop: stop.clone(), cut: cut.clone() });
        let connections = TaskTracker::new();
        let mut told: Option<std::time::Instant> = None;
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                accepted = listener.accept() => accepted,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // One that was reset before it was taken is no reason to wait.
                    if error.kind() != std::io::ErrorKind::ConnectionAborted {
                        tracing::error!(%error, "no connection can be accepted");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                    continue;
                }
            };
            match places.take(peer) {
                Ok(place) => {
                    let shared = Arc::clone(&shared);
                    connections.spawn(async move {
                        let _place = place;
                        shared.serve(stream, peer).await;
                    });
                }
                Err(full) => {
                    drop(stream);
                    metrics::counter!("jit_connections_refused_total", "reason" => full.as_str()).increment(1);
                    if told.is_none_or(|told| told.elapsed() > TELL_PACE) {
                        told = Some(std::time::Instant::now());
                        tracing::warn!(%peer, reason = full.as_str(), connections = places.taken(), "no room for a connection; see max_connections and max_connections_per_address of [server]");
                    }
                }
            }
        }
        drop(listener);
        connections.close();
        if tokio::time::timeout(grace, connections.wait()).await.is_err() {
            cut.cancel();
            connections.wait().await;
        }
        Ok(())
    }
}

/// The operator at the other end of a connection to the admin socket.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub Operator);

impl Connected<IncomingStream<'_, tokio::net::UnixListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, tokio::net::UnixListener>) -> Self {
        match stream.io().peer_cred() {
            Ok(peer) => Self(Operator { uid: peer.uid(), pid: peer.pid() }),
            // The overflow user: nobody that the system can name.
            Err(_) => Self(Operator { uid: 65_534, pid: None }),
        }
    }
}

/// Serves administration on the socket of [`bind_admin`].
///
/// # Errors
/// When the listener fails.
pub async fn serve_admin(
    listener: UnixListener,
    path: &Path,
    router: Router,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let listener = tokio::net::UnixListener::from_std(listener)?;
    axum::serve(listener, router.into_make_service_with_connect_info::<Peer>())
        .with_graceful_shutdown(stop.cancelled_owned())
        .await?;
    let _ = std::fs::remove_file(path);
    Ok(())
}

/// Makes the Unix socket of administration, which only this user can open (0600).
///
/// # Errors
/// When another broker answers on it, or it cannot be made.
pub fn bind_admin(path: &Path) -> anyhow::Result<UnixListener> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    if let Ok(found) = std::fs::symlink_metadata(path) {
        if !found.file_type().is_socket() {
            bail!("{} is there and is no socket: see [server] admin_socket", path.display());
        }
        if std::os::unix::net::UnixStream::connect(path).is_ok() {
            bail!("another broker answers on {}: see [server] admin_socket", path.display());
        }
        // Left by a broker that was killed.
        std::fs::remove_file(path)?;
    }
    let listener = bind_private(path).with_context(|| format!("cannot make the admin socket {}", path.display()))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// A socket has the umask's mode until it is changed. It is made in a folder that only we can enter,
/// and moved to its place when nobody else can open it.
fn bind_private(path: &Path) -> std::io::Result<UnixListener> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let private = folder.join(format!(".jit-{}", std::process::id()));
    let _left_behind = std::fs::remove_dir_all(&private);
    std::fs::DirBuilder::new().mode(0o700).create(&private)?;
    let socket = private.join("s");
    let bound = UnixListener::bind(&socket).and_then(|listener| {
        std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(0o600))?;
        std::fs::rename(&socket, path)?;
        Ok(listener)
    });
    let _left_behind = std::fs::remove_dir_all(&private);
    bound
}
