//! How a directory is trusted: TLS with its host name verified.

use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};

/// Most bytes of a file of certificates.
const MOST: usize = 1 << 20;

/// TLS that trusts these certificates, or the public ones, and that host name.
///
/// # Errors
/// What is wrong with the host's name or with the certificates.
pub(crate) fn config(host: &str, ca: Option<&[u8]>) -> Result<Arc<ClientConfig>, String> {
    ServerName::try_from(host.to_owned())
        .map_err(|_| "the URL's host cannot be the name of a certificate".to_owned())?;
    let mut roots = RootCertStore::empty();
    match ca {
        None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        Some(pem) if pem.len() > MOST => return Err(format!("ca has more than {MOST} bytes")),
        Some(pem) => {
            for certificate in CertificateDer::pem_slice_iter(pem) {
                let certificate = certificate.map_err(|_| "ca is not PEM".to_owned())?;
                roots.add(certificate).map_err(|error| format!("ca holds no usable certificate: {error}"))?;
            }
            if roots.is_empty() {
                return Err("ca holds no certificate in PEM".to_owned());
            }
        }
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("TLS: {error}"))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_certificate_is_told_when_the_settings_are_read() {
        assert!(config("ldap.example.com", None).is_ok());
        assert!(config("127.0.0.1", None).is_ok());
        for ca in ["", "nonsense", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
            assert!(config("ldap.example.com", Some(ca.as_bytes())).is_err(), "{ca}");
        }
        assert!(config("not a name", None).is_err());
        assert!(config("[::1]", None).is_err());
    }
}
