//! Certificates and keys in files, looked at before anything relies on them: whether they are what
//! they are to be, belong together, and for how long they hold.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use jiff::{Timestamp, ToSpan as _};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{Error as TlsError, InconsistentKeys, RootCertStore};
use secrecy::zeroize::Zeroizing;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// The largest file of certificates or of a key, in bytes.
const MOST: u64 = 1024 * 1024;
/// The most certificates of one file.
const MOST_CERTIFICATES: usize = 1_000;
/// A certificate that ends within so many days is told.
const SOON_DAYS: i64 = 14;

/// What is wrong with a file.
#[derive(Debug, thiserror::Error)]
pub enum BadFile {
    /// It cannot be read.
    #[error("{} cannot be read: {reason}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// It is not what it is to be.
    #[error("{} {what}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what to do.
        what: String,
    },
}

/// Which file of a pair is wrong.
#[derive(Debug, thiserror::Error)]
pub enum BadPair {
    /// The certificate's.
    #[error(transparent)]
    Certificate(BadFile),
    /// The key's.
    #[error(transparent)]
    Key(BadFile),
}

/// For how long a certificate holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// From when.
    pub begins: Timestamp,
    /// Until when.
    pub ends: Timestamp,
}

impl Validity {
    /// What somebody should know now: that it does not hold yet, not any more, or not for long.
    #[must_use]
    pub fn concern(&self, now: Timestamp) -> Option<String> {
        if now < self.begins {
            return Some(format!("is not valid before {}: clients refuse it until then", self.begins));
        }
        if now >= self.ends {
            return Some(format!("expired on {}: clients refuse it", self.ends));
        }
        let soon = self.ends.checked_sub((SOON_DAYS * 24).hours()).is_ok_and(|soon| now >= soon);
        soon.then(|| format!("expires soon, on {}", self.ends))
    }
}

/// Reads a server's certificate chain and its key, and gives for how long the certificate holds.
///
/// # Errors
/// Which file is wrong, and how.
pub fn check_pair(certificate: &Path, key: &Path) -> Result<Validity, BadPair> {
    let chain = certificates(certificate).map_err(BadPair::Certificate)?;
    let content = |path: &Path, what: &str| BadFile::Content { path: path.to_owned(), what: what.to_owned() };
    let pem = read(key).map_err(BadPair::Key)?;
    let private = PrivateKeyDer::from_pem_slice(&pem).map_err(|_| {
        let what = if CertificateDer::pem_slice_iter(&pem).any(|found| found.is_ok()) {
            "holds a certificate and no private key"
        } else {
            "holds no private key (PEM: PKCS#8, PKCS#1 or SEC1)"
        };
        BadPair::Key(content(key, what))
    })?;
    let validity = match chain.first() {
        Some(first) => validity(first).map_err(|what| BadPair::Certificate(content(certificate, &what)))?,
        None => return Err(BadPair::Certificate(content(certificate, "holds no certificate"))),
    };
    match CertifiedKey::from_der(chain, private, &rustls::crypto::aws_lc_rs::default_provider()) {
        Ok(_) => Ok(validity),
        Err(TlsError::InconsistentKeys(InconsistentKeys::KeyMismatch)) => {
            let what = format!("holds the key of another certificate than {}", certificate.display());
            Err(BadPair::Key(content(key, &what)))
        }
        Err(error) => Err(BadPair::Key(content(key, &format!("cannot be used: {error}")))),
    }
}

/// Reads certificates of authorities; gives for how long the one holds that ends last.
///
/// # Errors
/// When there is none that could be used.
pub fn check_authorities(path: &Path) -> Result<Validity, BadFile> {
    let content = |what: String| BadFile::Content { path: path.to_owned(), what };
    let found = certificates(path)?;
    let mut roots = RootCertStore::empty();
    let mut last: Option<Validity> = None;
    for certificate in found {
        let validity = validity(&certificate).map_err(content)?;
        roots.add(certificate).map_err(|error| content(format!("has a certificate that cannot be used: {error}")))?;
        last = Some(last.filter(|last| last.ends >= validity.ends).unwrap_or(validity));
    }
    last.ok_or_else(|| content("has no certificate (PEM) in it".to_owned()))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, BadFile> {
    parse(path, &read(path)?)
}

fn parse(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, BadFile> {
    let content = |what: &str| BadFile::Content { path: path.to_owned(), what: what.to_owned() };
    let mut found = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        found.push(certificate.map_err(|_| content("is not PEM as certificates are"))?);
        if found.len() > MOST_CERTIFICATES {
            return Err(content(&format!("has more than {MOST_CERTIFICATES} certificates")));
        }
    }
    if found.is_empty() {
        let is_key = PrivateKeyDer::from_pem_slice(pem).is_ok();
        let what = if is_key { "holds a private key and no certificate" } else { "has no certificate (PEM) in it" };
        return Err(content(what));
    }
    Ok(found)
}

fn validity(certificate: &CertificateDer<'_>) -> Result<Validity, String> {
    let (_, read) =
        X509Certificate::from_der(certificate).map_err(|_| "holds what is no X.509 certificate".to_owned())?;
    let time = |seconds: i64| Timestamp::from_second(seconds).unwrap_or(Timestamp::MAX);
    let validity = read.validity();
    Ok(Validity { begins: time(validity.not_before.timestamp()), ends: time(validity.not_after.timestamp()) })
}

/// The whole file; wiped when it is dropped, for it may be a key.
fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, BadFile> {
    let failed = |error: std::io::Error| BadFile::Unreadable { path: path.to_owned(), reason: error.to_string() };
    // Asked before opening: opening a pipe waits for its writer.
    let found = std::fs::metadata(path).map_err(failed)?;
    if !found.is_file() || found.len() > MOST {
        let what =
            if found.is_file() { format!("has more than {MOST} bytes") } else { "is not a regular file".to_owned() };
        return Err(BadFile::Content { path: path.to_owned(), what });
    }
    // Its final size at once, so that no copy stays behind in memory when it grows.
    let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(MOST).unwrap_or(usize::MAX)));
    File::open(path).and_then(|file| file.take(MOST).read_to_end(&mut bytes)).map_err(failed)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Made {
        folder: tempfile::TempDir,
    }

    impl Made {
        fn new() -> Self {
            let made = Self { folder: tempfile::tempdir().unwrap() };
            for name in ["one", "two"] {
                let pair = rcgen::generate_simple_self_signed([format!("{name}.test")]).unwrap();
                made.write(&format!("{name}.pem"), &pair.cert.pem());
                made.write(&format!("{name}.key"), &pair.signing_key.serialize_pem());
            }
            made.write("nothing", "");
            made.write("nonsense", "-----BEGIN CERTIFICATE-----\nMAo=\n-----END CERTIFICATE-----\n");
            made
        }

        fn write(&self, name: &str, text: &str) {
            std::fs::write(self.path(name), text).unwrap();
        }

        fn path(&self, name: &str) -> PathBuf {
            self.folder.path().join(name)
        }

        fn pair(&self, certificate: &str, key: &str) -> String {
            match check_pair(&self.path(certificate), &self.path(key)) {
                Ok(_) => "good".to_owned(),
                Err(BadPair::Certificate(error)) => format!("cert: {error}"),
                Err(BadPair::Key(error)) => format!("key: {error}"),
            }
        }
    }

    #[test]
    fn a_pair_is_what_it_is_to_be() {
        let made = Made::new();
        assert_eq!(made.pair("one.pem", "one.key"), "good");
        for (certificate, key, says) in [
            ("one.pem", "two.key", ["key: ", "holds the key of another certificate"]),
            ("one.key", "one.key", ["cert: ", "holds a private key and no certificate"]),
            ("one.pem", "two.pem", ["key: ", "holds a certificate and no private key"]),
            ("nothing", "one.key", ["cert: ", "has no certificate"]),
            ("nonsense", "one.key", ["cert: ", "no X.509 certificate"]),
            ("one.pem", "nothing", ["key: ", "holds no private key"]),
            ("not-there", "one.key", ["cert: ", "cannot be read"]),
            (".", "one.key", ["cert: ", "is not a regular file"]),
        ] {
            let told = made.pair(certificate, key);
            assert!(says.iter().all(|says| told.contains(says)), "{certificate} {key}: {told}");
        }
    }

    #[test]
    fn the_end_of_a_certificate_is_told_in_time() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let validity = Validity { begins: at("2026-01-01T00:00:00Z"), ends: at("2026-03-01T00:00:00Z") };
        for (now, says) in [
            ("2025-12-31T23:59:59Z", Some("is not valid before 2026-01-01")),
            ("2026-01-01T00:00:00Z", None),
            ("2026-02-14T23:59:59Z", None),
            ("2026-02-15T00:00:00Z", Some("expires soon, on 2026-03-01")),
            ("2026-03-01T00:00:00Z", Some("expired on 2026-03-01")),
        ] {
            let told = validity.concern(at(now));
            assert_eq!(told.is_some(), says.is_some(), "{now}: {told:?}");
            assert!(says.is_none_or(|says| told.unwrap().contains(says)), "{now}");
        }
    }

    #[test]
    fn authorities_are_certificates() {
        let made = Made::new();
        let read = |name: &str| check_authorities(&made.path(name));
        assert!(read("one.pem").is_ok());
        for name in ["one.key", "nothing", "nonsense"] {
            assert!(read(name).is_err(), "{name}");
        }
    }
}
