//! Listeners: TCP with or without TLS, and the admin socket.

use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use axum::Router;
use axum_server::Handle;
use axum_server::accept::NoDelayAcceptor;
use axum_server::tls_rustls::{RustlsAcceptor, RustlsConfig};
use hyper_util::rt::TokioTimer;

use super::silence::SpeakSoon;

/// How long a client may take to say anything, and then to send its request's head.
const HEAD_DEADLINE: Duration = Duration::from_secs(10);
/// The most bytes of a request's head.
const MOST_HEAD: usize = 64 * 1024;
/// How long a TLS handshake may take.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);

/// Binds the TCP listener, so that a taken port is told before anything else starts.
///
/// # Errors
/// When the address cannot be had.
pub fn bind(listen: SocketAddr) -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind(listen)
        .with_context(|| format!("cannot listen on {listen}: is another broker running? See [server] listen"))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Serves until the handle says stop.
///
/// # Errors
/// When the listener fails.
pub async fn serve(
    listener: TcpListener,
    tls: Option<RustlsConfig>,
    router: Router,
    handle: Handle<SocketAddr>,
) -> anyhow::Result<()> {
    match tls {
        None => {
            let acceptor = SpeakSoon::new(NoDelayAcceptor::new(), HEAD_DEADLINE);
            let mut server = axum_server::from_tcp(listener)?.acceptor(acceptor).handle(handle);
            bound_requests(server.http_builder());
            server.serve(router.into_make_service()).await?;
        }
        Some(tls) => {
            let acceptor =
                RustlsAcceptor::new(tls).handshake_timeout(HANDSHAKE_DEADLINE).acceptor(NoDelayAcceptor::new());
            let acceptor = SpeakSoon::new(acceptor, HEAD_DEADLINE);
            let mut server = axum_server::from_tcp(listener)?.acceptor(acceptor).handle(handle);
            bound_requests(server.http_builder());
            server.serve(router.into_make_service()).await?;
        }
    }
    Ok(())
}

fn bound_requests(builder: &mut hyper_util::server::conn::auto::Builder<hyper_util::rt::TokioExecutor>) {
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_DEADLINE).max_buf_size(MOST_HEAD);
    builder.http2().timer(TokioTimer::new()).max_concurrent_streams(256);
}

/// Reads certificate chain and key.
///
/// # Errors
/// When a file cannot be read or they do not belong together.
pub async fn tls(certificate: &Path, key: &Path) -> anyhow::Result<RustlsConfig> {
    RustlsConfig::from_pem_file(certificate, key)
        .await
        .with_context(|| format!("TLS: cannot use certificate {} with key {}", certificate.display(), key.display()))
}

/// Serves administration on the socket of [`bind_admin`].
///
/// # Errors
/// When the listener fails.
pub async fn serve_admin(
    listener: UnixListener,
    path: &Path,
    router: Router,
    stop: Arc<tokio::sync::Notify>,
) -> anyhow::Result<()> {
    let listener = tokio::net::UnixListener::from_std(listener)?;
    axum::serve(listener, router.into_make_service())
        .with_graceful_shutdown(async move { stop.notified().await })
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
