//! Why a proof of identity was refused: for the log and a metric's label, never for the caller.

use std::fmt;
use std::sync::Arc;

use crate::claims::ClaimProblem;

/// Text from a caller that nobody vouches for, made harmless for a log line: escaped, and cut
/// after 80 characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quoted(String);

impl Quoted {
    /// Escapes and cuts.
    #[must_use]
    pub fn new(text: &str) -> Self {
        const MAX: usize = 80;
        let mut quoted: String = text.chars().take(MAX).flat_map(char::escape_debug).collect();
        if text.chars().nth(MAX).is_some() {
            quoted.push('…');
        }
        Self(quoted)
    }
}

impl fmt::Display for Quoted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0)
    }
}

/// Why a proof of identity was refused. Holds no secret and no part of a signature. Until a signature was
/// checked, what a reason says about a token is the token's own claim: cheap checks come first.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// No `Authorization: Bearer` header, or an empty one.
    #[error("no bearer token")]
    Missing,
    /// No `Authorization` header, or several.
    #[error("not exactly one Authorization header")]
    NotOneHeader,
    /// An `Authorization` header with other bytes than ASCII.
    #[error("the Authorization header is not ASCII")]
    NotAscii,
    /// More than one proof: which of the two identities is meant could not be decided.
    #[error("more than one proof of identity")]
    Several,
    /// No configured method accepts such evidence.
    #[error("no identity method for {0} is configured")]
    NoMethod(&'static str),
    /// Longer than is looked at.
    #[error("{what} longer than {limit} bytes")]
    TooLarge {
        /// The part that is too long.
        what: &'static str,
        /// The bound, in bytes.
        limit: usize,
    },
    /// More than are looked at.
    #[error("more than {limit} {what}")]
    TooMany {
        /// The parts.
        what: &'static str,
        /// The bound.
        limit: usize,
    },
    /// Not what it should be, such as a signed JWT in compact form.
    #[error("not a {what}: {problem}")]
    Malformed {
        /// What it should be.
        what: &'static str,
        /// What is wrong.
        problem: &'static str,
    },
    /// The header has `crit`: extensions that must be understood, and none is.
    #[error("header has `crit`, and no extension is supported")]
    CriticalExtension,
    /// The header's `typ` is of something else.
    #[error("token type {0} is neither JWT nor at+jwt")]
    Type(Quoted),
    /// `none`, a symmetric one, an unknown one, or not in the issuer's list.
    #[error("algorithm {0} is not allowed")]
    Algorithm(Quoted),
    /// No configured entry has exactly this `iss`.
    #[error("no issuer {0} is configured")]
    UnknownIssuer(Quoted),
    /// A required claim is absent or of the wrong type.
    #[error("claim `{0}` is missing or not of the right type")]
    MissingClaim(String),
    /// The token is for somebody else.
    #[error("no accepted audience among the token's")]
    WrongAudience,
    /// `exp` has passed.
    #[error("expired")]
    Expired,
    /// `nbf` or `iat` is in the future.
    #[error("not yet valid")]
    NotYetValid,
    /// Lives longer than the entry's `max_token_lifetime`.
    #[error("lives longer than max_token_lifetime")]
    TooLongLived,
    /// The issuer publishes no key for the token's `kid` and algorithm.
    #[error("the issuer has no key {0} for the token's algorithm")]
    UnknownKey(Quoted),
    /// The token has no `kid`, and several keys could be meant.
    #[error("the token has no `kid`, and the issuer has several keys for its algorithm")]
    AmbiguousKey,
    /// The signature is not the issuer's.
    #[error("bad signature")]
    Signature,
    /// The issuer's keys are needed and cannot be had.
    #[error("keys of issuer `{issuer}` are not available: {detail}")]
    IssuerUnavailable {
        /// The entry's name.
        issuer: String,
        /// What went wrong at the last attempt.
        detail: Arc<str>,
    },
    /// Too many wait for the issuer's keys already. Not the token's fault: the caller may come back.
    #[error("too many callers wait for the keys of issuer `{issuer}`")]
    IssuerBusy {
        /// The entry's name.
        issuer: String,
    },
    /// A verified token's claims do not give what the configuration maps.
    #[error("{mapping}: {problem}")]
    Claim {
        /// `workload`, `sub` or the attribute's name.
        mapping: String,
        /// What is wrong with it.
        problem: ClaimProblem,
    },
}

impl Rejected {
    pub(crate) fn not_a_jwt(problem: &'static str) -> Self {
        Rejected::Malformed { what: "JWT", problem }
    }

    pub(crate) fn too_large(what: &'static str, limit: usize) -> Self {
        Rejected::TooLarge { what, limit }
    }

    pub(crate) fn too_many(what: &'static str, limit: usize) -> Self {
        Rejected::TooMany { what, limit }
    }

    /// A short name out of a fixed set, for a metric's label.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Rejected::Missing => "missing",
            Rejected::NotOneHeader => "no-token",
            Rejected::NotAscii => "malformed",
            Rejected::Several => "several",
            Rejected::NoMethod(_) => "no_method",
            Rejected::TooLarge { .. } => "too_large",
            Rejected::TooMany { .. } => "too_many",
            Rejected::Malformed { .. } => "malformed",
            Rejected::CriticalExtension => "critical_extension",
            Rejected::Type(_) => "type",
            Rejected::Algorithm(_) => "algorithm",
            Rejected::UnknownIssuer(_) => "unknown_issuer",
            Rejected::MissingClaim(_) => "missing_claim",
            Rejected::WrongAudience => "wrong_audience",
            Rejected::Expired => "expired",
            Rejected::NotYetValid => "not_yet_valid",
            Rejected::TooLongLived => "too_long_lived",
            Rejected::UnknownKey(_) => "unknown_key",
            Rejected::AmbiguousKey => "ambiguous_key",
            Rejected::Signature => "signature",
            Rejected::IssuerUnavailable { .. } => "issuer_unavailable",
            Rejected::IssuerBusy { .. } => "issuer_busy",
            Rejected::Claim { .. } => "claim",
        }
    }
}
