//! What can go wrong, in words that say what to do. No error holds a token or a secret.

use std::time::Duration;

use jit_api::certificate::{Remedy, explained};
use jit_api::{Problem, ProblemCode};

use crate::token::TokenError;

/// Why there is no credential.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting is wrong; no request was made.
    #[error("{0}")]
    Config(String),
    /// There is no workload token to ask with.
    #[error("there is no workload token")]
    Token(#[from] TokenError),
    /// No answer: no connection, or it broke, or it took too long. Whether the broker did what was
    /// asked is unknown; a retry with the same Idempotency-Key finds out.
    #[error("the broker at {broker} does not answer: {reason}")]
    Unreachable {
        /// Its URL.
        broker: String,
        /// What happened.
        reason: String,
    },
    /// The broker said no.
    #[error("the broker refuses: {0}")]
    Refused(Box<Problem>),
    /// What came is not the broker's answer.
    #[error("the answer of {broker} is not a broker's: {reason}")]
    Answer {
        /// Its URL.
        broker: String,
        /// What is wrong with it.
        reason: String,
    },
    /// It was tried for as long as it was to be tried.
    #[error("gave up after {attempts} attempts in {} s", after.as_secs())]
    GaveUp {
        /// How often.
        attempts: u32,
        /// For how long.
        after: Duration,
        /// The last failure.
        #[source]
        last: Box<Self>,
    },
    /// The watch was closed.
    #[error("the credential was given back")]
    Closed,
}

impl Error {
    /// Whether a later attempt with the same request may succeed.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Config(_) | Self::GaveUp { .. } | Self::Closed => false,
            Self::Token(error) => error.is_transient(),
            Self::Unreachable { .. } => true,
            // A proxy before the broker that has no broker behind it right now.
            Self::Answer { .. } => true,
            Self::Refused(problem) => matches!(problem.status, 408 | 425 | 429 | 500..),
        }
    }

    /// When the broker wants to be asked again.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused(problem) => problem.retry_after_seconds.map(Duration::from_secs),
            _ => None,
        }
    }

    /// The broker's answer, where it was one.
    #[must_use]
    pub fn problem(&self) -> Option<&Problem> {
        match self {
            Self::Refused(problem) => Some(problem),
            Self::GaveUp { last, .. } => last.problem(),
            _ => None,
        }
    }

    /// The code of the broker's answer; empty where it was none.
    #[must_use]
    pub fn code(&self) -> &str {
        self.problem().map_or("", |problem| problem.code.as_str())
    }

    /// Whether the broker refused with that code.
    #[must_use]
    pub fn is(&self, code: ProblemCode) -> bool {
        self.problem().is_some_and(|problem| problem.code == code)
    }

    /// The error with its causes, on one line.
    #[must_use]
    pub fn chain(&self) -> String {
        chain(self)
    }
}

/// An error with its causes, on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let further = error.to_string();
        if !text.ends_with(&further) {
            text.push_str(": ");
            text.push_str(&further);
        }
        cause = error.source();
    }
    explained(&text, Remedy::CLIENT)
}
