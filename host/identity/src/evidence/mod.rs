//! What a request can bring to prove who sends it. Nobody vouches for anything in here.
//!
//! | module | what it holds |
//! |---|---|
//! | `bearer` | a token from the `Authorization` header |
//! | `preview` | header and claims of a token before verification |
//! | `chain` | the certificates that a TLS client presented |
//! | `signed` | a request that carries a signature over its own parts |
//!
//! Whoever reads the request builds an [`Evidence`] of each proof that it finds, and never chooses between
//! them: that is the work of [`Identity::verify`](crate::Identity::verify).

mod bearer;
mod chain;
mod preview;
mod signed;

use sha2::{Digest as _, Sha256};

pub use self::bearer::{MAX_TOKEN, Unverified};
pub use self::chain::{MAX_CERTIFICATE, MAX_CERTIFICATES, PeerChain};
pub use self::preview::{Preview, read_preview};
pub use self::signed::{MAX_HEADER_BYTES, MAX_HEADERS, MAX_TARGET, RequestParts, SignedRequest};

use crate::rejected::{Quoted, Rejected};

/// One proof of identity as it came, bounded and well formed but not verified.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Evidence {
    /// A bearer token.
    Bearer(Unverified),
    /// The certificate chain of a TLS client.
    PeerCertificate(PeerChain),
    /// A request that is signed as a whole.
    SignedRequest(SignedRequest),
}

impl Evidence {
    /// What a verdict about this evidence is remembered by: a SHA-256, so that the memory of verdicts holds
    /// no token. `None` for a signed request: it is good once, and the method has to see each of them.
    pub(crate) fn digest(&self) -> Option<[u8; 32]> {
        // The kind is part of the digest: a token never passes for a chain of the same bytes.
        let mut hash = Sha256::new();
        match self {
            Evidence::Bearer(token) => {
                hash.update([1]);
                hash.update(token.expose());
            }
            Evidence::PeerCertificate(chain) => {
                hash.update([2]);
                for certificate in chain.certificates() {
                    hash.update((certificate.len() as u64).to_be_bytes());
                    hash.update(certificate);
                }
            }
            Evidence::SignedRequest(_) => return None,
        }
        Some(hash.finalize().into())
    }

    /// The reason when no method takes this evidence for its own.
    pub(crate) fn unclaimed(&self) -> Rejected {
        match self {
            Evidence::Bearer(token) => match token.preview() {
                Ok(preview) => Rejected::UnknownIssuer(Quoted::new(&preview.issuer)),
                Err(reason) => reason,
            },
            Evidence::PeerCertificate(_) => Rejected::NoMethod("peer certificates"),
            Evidence::SignedRequest(_) => Rejected::NoMethod("signed requests"),
        }
    }
}
