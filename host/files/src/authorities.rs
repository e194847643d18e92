//! The file of a `ca`: certificates of authorities, in PEM.

use std::io;
use std::path::Path;

use crate::read_capped;

/// The longest file, in bytes. The authorities that operating systems trust are together a fourth of that.
const MOST: u64 = 1024 * 1024;
/// How each certificate begins.
const BEGIN: &[u8] = b"-----BEGIN CERTIFICATE-----";

/// Reads a file of certificates. Whether each of them can be used is for its user to say.
///
/// # Errors
/// As the system says, or that it is no regular file, is too long, or has no certificate in it.
pub fn read_authorities(path: &Path) -> io::Result<Vec<u8>> {
    let invalid = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
    let bytes = read_capped(path, MOST)?
        .ok_or_else(|| invalid(format!("it has more than {MOST} bytes: those are not certificates")))?;
    if !bytes.windows(BEGIN.len()).any(|window| window == BEGIN) {
        return Err(invalid("it has no certificate (PEM) in it".to_owned()));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
    use super::*;

    #[test]
    fn what_is_no_file_of_certificates_is_refused_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem");
        let said = || read_authorities(&path).unwrap_err().to_string();
        assert!(said().contains("No such file"), "{}", said());
        for (content, says) in [("", "no certificate"), ("x", "no certificate"), (&"x".repeat(2_000_000), "more than")]
        {
            std::fs::write(&path, content).unwrap();
            assert!(said().contains(says), "{}", said());
        }
        std::fs::remove_file(&path).unwrap();
        // Whoever opened a pipe would wait for its writer.
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        assert!(said().contains("not a regular file"), "{}", said());
        std::fs::remove_file(&path).unwrap();
        let certificate = format!("{}\nMAo=\n-----END CERTIFICATE-----\n", String::from_utf8_lossy(BEGIN));
        std::fs::write(&path, &certificate).unwrap();
        assert_eq!(read_authorities(&path).unwrap(), certificate.as_bytes());
    }
}
