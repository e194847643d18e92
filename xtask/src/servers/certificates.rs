//! A certificate authority of one server, made anew at each start.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};

use super::place::Place;

/// What every server is called.
pub const NAMES: [&str; 2] = ["localhost", "127.0.0.1"];

/// The files of one server's TLS.
#[derive(Debug, Clone)]
pub struct Certificates {
    /// The authority that a client is to trust.
    pub authority: PathBuf,
    /// The server's certificate, signed by that authority.
    pub certificate: PathBuf,
    /// The server's private key.
    pub key: PathBuf,
}

impl Certificates {
    /// Makes an authority and a certificate for these names and addresses, and writes them into a
    /// folder of the place, for its user. The authority's key is not kept.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub(super) fn make(place: &Place, names: &[&str]) -> Result<Self> {
        let mut authority = CertificateParams::default();
        authority.distinguished_name.push(DnType::CommonName, "jit-broker test authority");
        authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let authority_key = KeyPair::generate()?;
        let authority_certificate = authority.self_signed(&authority_key)?;
        let issuer = Issuer::new(authority, authority_key);

        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut server = CertificateParams::new(names)?;
        server.distinguished_name.push(DnType::CommonName, "localhost");
        server.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate()?;
        let certificate = server.signed_by(&key, &issuer)?;

        let folder = place.make_folder("tls")?;
        let files = Self {
            authority: folder.join("ca.pem"),
            certificate: folder.join("server.pem"),
            key: folder.join("server.key"),
        };
        let write =
            |path: &Path, text: &str| fs::write(path, text).with_context(|| format!("cannot write {}", path.display()));
        write(&files.authority, &authority_certificate.pem())?;
        write(&files.certificate, &certificate.pem())?;
        place.write_secret(&files.key, &key.serialize_pem())?;
        Ok(files)
    }
}
