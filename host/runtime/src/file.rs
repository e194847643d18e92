//! A component's bytes, read once, and who vouches for them. What is checked, compiled and put on
//! record is these bytes: nobody can swap the file in between.

use std::io;
use std::path::Path;

use aws_lc_rs::digest;
use jit_files::{read_capped, signature_path};
use jit_tlog::checkpoint::VerifierKey;
use jit_tlog::signature::{MAX_SIGNATURE_FILE, SignatureError, SignatureFile};

use crate::load::{LoadErrorKind, MAX_COMPONENT, check_format};

/// A component's bytes and their digest.
pub(crate) struct ComponentFile {
    pub(crate) bytes: Vec<u8>,
    /// In lower-case hexadecimal.
    pub(crate) sha256: String,
}

impl ComponentFile {
    pub(crate) fn read(path: &Path) -> Result<Self, LoadErrorKind> {
        let bytes = read_capped(path, MAX_COMPONENT)?.ok_or(LoadErrorKind::TooLarge)?;
        let sha256 = hex::encode(digest::digest(&digest::SHA256, &bytes));
        Ok(Self { bytes, sha256 })
    }

    /// The labels of the trusted keys that vouch for these bytes.
    pub(crate) fn vouchers(&self, path: &Path, trusted: &[VerifierKey]) -> Result<Vec<String>, LoadErrorKind> {
        let beside = signature_path(path);
        let wrong = |error| LoadErrorKind::NotVouched { signature: beside.clone(), error: Box::new(error) };
        let signatures = read_signatures(&beside).map_err(|error| match error {
            SignatureFileError::Missing => LoadErrorKind::Unsigned { component: path.to_owned() },
            error => wrong(error),
        })?;
        signatures.verify(&self.sha256, trusted).map_err(|error| wrong(error.into()))
    }
}

/// Who vouches for which bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vouched {
    /// The digest of the component, in lower-case hexadecimal.
    pub sha256: String,
    /// The labels of the trusted keys that do.
    pub signed_by: Vec<String>,
}

/// Checks that a trusted key vouches for a component, as loading does where that is required.
///
/// # Errors
/// Those of reading and of missing or wrong signatures.
pub fn verify_file(component: &Path, trusted: &[VerifierKey]) -> Result<Vouched, LoadErrorKind> {
    let file = ComponentFile::read(component)?;
    let signed_by = file.vouchers(component, trusted)?;
    Ok(Vouched { sha256: file.sha256, signed_by })
}

/// The digest of a component that is to be signed, in lower-case hexadecimal.
///
/// # Errors
/// Those of reading; [`LoadErrorKind::NotWasm`] and the like for what no broker would load.
pub fn component_digest(component: &Path) -> Result<String, LoadErrorKind> {
    let file = ComponentFile::read(component)?;
    check_format(&file.bytes)?;
    Ok(file.sha256)
}

/// Why nobody is known to vouch for a component.
#[derive(Debug, thiserror::Error)]
pub enum SignatureFileError {
    /// There is no signature file.
    #[error("is not there")]
    Missing,
    /// It cannot be read.
    #[error("cannot be read: {0}")]
    Read(io::Error),
    /// It is larger than [`MAX_SIGNATURE_FILE`].
    #[error("has more than {MAX_SIGNATURE_FILE} bytes: that is no signature")]
    TooLarge,
    /// It is not text.
    #[error("is not text: sign the component again with `jit-broker plugin sign`")]
    NotText,
    /// It does not vouch for the component.
    #[error(transparent)]
    Signature(#[from] SignatureError),
}

/// Reads a signature file. Verifies nothing.
///
/// # Errors
/// [`SignatureFileError`].
pub fn read_signatures(path: &Path) -> Result<SignatureFile, SignatureFileError> {
    let bytes = read_capped(path, MAX_SIGNATURE_FILE as u64).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => SignatureFileError::Missing,
        _ => SignatureFileError::Read(error),
    })?;
    let text = String::from_utf8(bytes.ok_or(SignatureFileError::TooLarge)?);
    Ok(SignatureFile::parse(&text.map_err(|_| SignatureFileError::NotText)?)?)
}
