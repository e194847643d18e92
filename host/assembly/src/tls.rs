//! Certificate and key of the listener: read at start, and again when they change. Connections that are
//! open keep what they began with.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use secrecy::zeroize::Zeroizing;
use sha2::{Digest as _, Sha256};

/// The largest file of certificates or key, in bytes.
const MOST_PEM: u64 = 1024 * 1024;

/// What the listener proves itself with.
pub struct Tls {
    certificate: PathBuf,
    key: PathBuf,
    current: ArcSwap<Material>,
}

struct Material {
    server: Arc<ServerConfig>,
    /// Of both files.
    digest: [u8; 32],
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// When a file cannot be read or they do not belong together.
    pub async fn load(certificate: &Path, key: &Path) -> anyhow::Result<Arc<Self>> {
        let (certificate, key) = (certificate.to_owned(), key.to_owned());
        let material = read_aside(&certificate, &key).await?;
        Ok(Arc::new(Self { certificate, key, current: ArcSwap::from_pointee(material) }))
    }

    /// For the next connection.
    #[must_use]
    pub fn current(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current.load().server)
    }

    /// Reads the files again. When they cannot be used, the old ones are kept, and the log says why.
    /// Returns whether there are new ones.
    pub async fn reload(&self) -> bool {
        let outcome = match read_aside(&self.certificate, &self.key).await {
            Ok(new) if new.digest == self.current.load().digest => return false,
            Ok(new) => {
                self.current.store(Arc::new(new));
                tracing::info!(certificate = %self.certificate.display(), "new connections get the new certificate");
                "done"
            }
            Err(error) => {
                let error = format!("{error:#}");
                tracing::error!(error, "the listener's new certificate cannot be used; the old one stays");
                "refused"
            }
        };
        metrics::counter!("jit_tls_reload_total", "outcome" => outcome).increment(1);
        outcome == "done"
    }
}

async fn read_aside(certificate: &Path, key: &Path) -> anyhow::Result<Material> {
    let (certificate, key) = (certificate.to_owned(), key.to_owned());
    tokio::task::spawn_blocking(move || read(&certificate, &key)).await?
}

/// Reads certificate chain and key, and checks that they belong together.
///
/// # Errors
/// With what is wrong, and with which file.
pub fn server_config(certificate: &Path, key: &Path) -> anyhow::Result<ServerConfig> {
    read(certificate, key).map(|material| Arc::unwrap_or_clone(material.server))
}

fn read(certificate: &Path, key: &Path) -> anyhow::Result<Material> {
    let wrong = || format!("TLS: cannot use certificate {} with key {}", certificate.display(), key.display());
    let of_certificate = |what: &str| format!("{}: {what}", certificate.display());
    let of_key = |what: &str| format!("{}: {what}", key.display());
    let build = || -> anyhow::Result<Material> {
        let chain_pem = pem(certificate)?;
        let key_pem = Zeroizing::new(pem(key)?);
        let chain = CertificateDer::pem_slice_iter(&chain_pem).collect::<Result<Vec<_>, _>>();
        let chain = chain.with_context(|| of_certificate("its PEM is damaged"))?;
        ensure!(!chain.is_empty(), of_certificate("there is no certificate (PEM) in it"));
        let private = PrivateKeyDer::from_pem_slice(&key_pem);
        let private = private.with_context(|| of_key("there is no private key (PEM, without a passphrase) in it"))?;
        let mut server = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(chain, private)
            .context("certificate and key do not belong together, or their kind is not supported")?;
        server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let digest = Sha256::new().chain_update((chain_pem.len() as u64).to_be_bytes());
        let digest = digest.chain_update(&chain_pem).chain_update(key_pem.as_slice()).finalize().into();
        Ok(Material { server: Arc::new(server), digest })
    };
    build().with_context(wrong)
}

fn pem(path: &Path) -> anyhow::Result<Vec<u8>> {
    let shown = path.display();
    let file = jit_files::open_regular(path).with_context(|| format!("{shown} cannot be read"))?;
    // As large as it can become, so that a key leaves no copies behind where it grew.
    let size = file.metadata().map_or(0, |found| found.len()).min(MOST_PEM);
    let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(0) + 1);
    file.take(MOST_PEM + 1).read_to_end(&mut bytes).with_context(|| format!("{shown} cannot be read"))?;
    ensure!(bytes.len() as u64 <= MOST_PEM, "{shown} has more than {MOST_PEM} bytes");
    Ok(bytes)
}
