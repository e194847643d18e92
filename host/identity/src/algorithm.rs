//! The signature algorithms that an issuer may use.

use std::str::FromStr;

use jsonwebtoken::Algorithm;

/// A signature algorithm with a public key. There is no HS* here: with those, whoever can verify
/// can also sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names of RFC 7518 section 3.1 and RFC 8037")]
pub enum SigningAlgorithm {
    Rs256,
    Rs384,
    Rs512,
    Ps256,
    Ps384,
    Ps512,
    Es256,
    Es384,
    EdDsa,
}

impl SigningAlgorithm {
    const ALL: [(SigningAlgorithm, &'static str); 9] = [
        (Self::Rs256, "RS256"),
        (Self::Rs384, "RS384"),
        (Self::Rs512, "RS512"),
        (Self::Ps256, "PS256"),
        (Self::Ps384, "PS384"),
        (Self::Ps512, "PS512"),
        (Self::Es256, "ES256"),
        (Self::Es384, "ES384"),
        (Self::EdDsa, "EdDSA"),
    ];

    /// What an entry accepts that lists none: what Kubernetes and most OIDC issuers sign with.
    #[must_use]
    pub fn usual() -> Vec<Self> {
        vec![Self::Rs256, Self::Es256]
    }

    /// The name in a token's header.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(a, _)| *a == self).map_or("", |(_, name)| name)
    }

    /// From the name in a token's header. What a token asks for is not configured, so there is no reason.
    pub(crate) fn from_header(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, n)| *n == name).map(|(algorithm, _)| *algorithm)
    }
}

/// Why a name in a configuration is not an algorithm that an issuer may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AlgorithmError {
    /// HS256 and its sisters.
    #[error("with it, whoever can check a token can make one")]
    Symmetric,
    /// `none`.
    #[error("a token without a signature proves nothing")]
    Unsigned,
    /// Anything else.
    #[error("there are: {}", SigningAlgorithm::ALL.map(|(_, name)| name).join(", "))]
    Unknown,
}

impl FromStr for SigningAlgorithm {
    type Err = AlgorithmError;

    fn from_str(name: &str) -> Result<Self, AlgorithmError> {
        Self::from_header(name).ok_or(if name.starts_with("HS") {
            AlgorithmError::Symmetric
        } else if name.eq_ignore_ascii_case("none") {
            AlgorithmError::Unsigned
        } else {
            AlgorithmError::Unknown
        })
    }
}

impl From<SigningAlgorithm> for Algorithm {
    fn from(algorithm: SigningAlgorithm) -> Self {
        match algorithm {
            SigningAlgorithm::Rs256 => Algorithm::RS256,
            SigningAlgorithm::Rs384 => Algorithm::RS384,
            SigningAlgorithm::Rs512 => Algorithm::RS512,
            SigningAlgorithm::Ps256 => Algorithm::PS256,
            SigningAlgorithm::Ps384 => Algorithm::PS384,
            SigningAlgorithm::Ps512 => Algorithm::PS512,
            SigningAlgorithm::Es256 => Algorithm::ES256,
            SigningAlgorithm::Es384 => Algorithm::ES384,
            SigningAlgorithm::EdDsa => Algorithm::EdDSA,
        }
    }
}
