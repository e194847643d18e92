//! The certificates that a TLS client presented.

use std::fmt;
use std::sync::Arc;

use crate::rejected::Rejected;

/// The most certificates of one chain, the client's own included.
pub const MAX_CERTIFICATES: usize = 8;
/// The largest certificate, in bytes of DER.
pub const MAX_CERTIFICATE: usize = 16 * 1024;

/// A client's certificate chain in DER, its own certificate first, as the TLS stack received it. The
/// handshake proved that the client holds the first certificate's private key; whether anybody trusts
/// the chain is for an identity method to decide.
#[derive(Clone, PartialEq, Eq)]
pub struct PeerChain(Arc<[Vec<u8>]>);

impl PeerChain {
    /// From a finished handshake, and from nothing else: a chain that a header or a file names proves
    /// nothing, because anybody can copy it.
    ///
    /// # Errors
    /// [`Rejected::Missing`] without a certificate, [`Rejected::TooMany`] and [`Rejected::TooLarge`] beyond
    /// [`MAX_CERTIFICATES`] and [`MAX_CERTIFICATE`], [`Rejected::Malformed`] when one is not a DER
    /// sequence of exactly its length.
    pub fn of_handshake(certificates: Vec<Vec<u8>>) -> Result<Self, Rejected> {
        if certificates.is_empty() {
            return Err(Rejected::Missing);
        }
        if certificates.len() > MAX_CERTIFICATES {
            return Err(Rejected::too_many("certificates", MAX_CERTIFICATES));
        }
        if certificates.iter().any(|certificate| certificate.len() > MAX_CERTIFICATE) {
            return Err(Rejected::too_large("certificate", MAX_CERTIFICATE));
        }
        if !certificates.iter().all(|certificate| is_one_sequence(certificate)) {
            let problem = "one is not a DER sequence";
            return Err(Rejected::Malformed { what: "certificate chain", problem });
        }
        Ok(Self(certificates.into()))
    }

    /// The certificates in DER, the client's own first. At least one.
    #[must_use]
    pub fn certificates(&self) -> &[Vec<u8>] {
        &self.0
    }
}

impl fmt::Debug for PeerChain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PeerChain({} certificates)", self.0.len())
    }
}

/// Whether the bytes are one DER SEQUENCE (X.690 section 8.1) and nothing after it.
fn is_one_sequence(der: &[u8]) -> bool {
    let [0x30, first, rest @ ..] = der else { return false };
    // DER writes each length in the shortest way. A longer form than these is beyond MAX_CERTIFICATE.
    match (first, rest) {
        (0..=0x7f, content) => usize::from(*first) == content.len(),
        (0x81, [length, content @ ..]) => *length > 0x7f && usize::from(*length) == content.len(),
        (0x82, [high, low, content @ ..]) => {
            *high > 0 && usize::from(u16::from_be_bytes([*high, *low])) == content.len()
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test stops where it fails

    use super::*;

    /// A sequence of that many bytes in all.
    fn sequence(size: usize) -> Vec<u8> {
        let content = u16::try_from(size - 4).unwrap().to_be_bytes();
        [&[0x30, 0x82][..], &content, &vec![5; size - 4]].concat()
    }

    fn reason(certificates: Vec<Vec<u8>>) -> &'static str {
        PeerChain::of_handshake(certificates).map_or_else(|reason| reason.label(), |_| "ok")
    }

    #[test]
    fn chains_have_bounds() {
        assert_eq!(reason(vec![]), "missing");
        assert_eq!(reason(vec![sequence(1000); MAX_CERTIFICATES]), "ok");
        assert_eq!(reason(vec![sequence(1000); MAX_CERTIFICATES + 1]), "too_many");
        assert_eq!(reason(vec![sequence(1000), sequence(MAX_CERTIFICATE)]), "ok");
        assert_eq!(reason(vec![sequence(1000), sequence(MAX_CERTIFICATE + 1)]), "too_large");
    }

    #[test]
    fn each_certificate_is_one_sequence_of_der() {
        let short = [&[0x30, 0x81, 200][..], &[5; 200]].concat();
        for good in [&[0x30, 0][..], &[0x30, 1, 5], &short, &sequence(300)] {
            assert_eq!(reason(vec![good.to_vec()]), "ok", "{good:?}");
        }
        for bad in [
            &[][..],
            &[0x30],
            &[0x31, 0],
            &[0x30, 1],
            &[0x30, 1, 5, 5],
            &[0x30, 0x80, 0, 0],
            &[0x30, 0x81],
            &[0x30, 0x81, 1, 5],
            &[0x30, 0x82, 1],
            &[0x30, 0x82, 0, 1, 5],
            &[0x30, 0x84, 0, 0, 0, 0],
            &[0x30, 0xff],
            b"-----BEGIN CERTIFICATE-----",
        ] {
            assert_eq!(reason(vec![sequence(100), bad.to_vec()]), "malformed", "{bad:?}");
        }
    }
}
