//! What the broker says when it does not do what it was asked (RFC 9457).

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

jit_contract::words! {
    /// Why a request is not fulfilled, for programs. The broker's one table (`http/problem.rs`) gives each code its
    /// status and title. There will be further codes.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
    #[non_exhaustive]
    pub enum ProblemCode {
        /// 400: the request itself is wrong; `field` names the field, where one is to blame.
        InvalidRequest = "invalid-request",
        /// 400: the caller's verifier breaks a rule; the detail says which.
        VerifierWeak = "verifier-weak",
        /// 400: the target does not offer that type of credential; the detail says what it offers.
        NotOffered = "not-offered",
        /// 401: the token does not prove an identity.
        Unauthenticated = "unauthenticated",
        /// 403: a policy said no; `policy` names it.
        PolicyDenied = "policy-denied",
        /// 403: accounts that this workload left behind cannot be removed.
        Blocked = "blocked",
        /// 403: the target does not offer that role.
        RoleNotAllowed = "role-not-allowed",
        /// 404: there is no such target.
        UnknownTarget = "unknown-target",
        /// 404: there is no such lease, or it is another identity's.
        UnknownLease = "unknown-lease",
        /// 404: there is no such path.
        NotFound = "not-found",
        /// 405: the path has other methods.
        MethodNotAllowed = "method-not-allowed",
        /// 409: the same Idempotency-Key came with another request.
        IdempotencyConflict = "idempotency-conflict",
        /// 409: the lease is over, or it cannot be renewed or handed out again: only a new lease helps.
        LeaseNotActive = "lease-not-active",
        /// 413: the body has too many bytes.
        PayloadTooLarge = "payload-too-large",
        /// 415: the body is not `application/json`.
        UnsupportedMediaType = "unsupported-media-type",
        /// 429: too many requests by this workload.
        RateLimited = "rate-limited",
        /// 502: the backend said no.
        TargetRefused = "target-refused",
        /// 503: what answers is not the server that has the account.
        WrongPlace = "wrong-place",
        /// 503: the target cannot be reached or used now.
        TargetUnavailable = "target-unavailable",
        /// 503: nothing can be put on record now, so nothing is handed out.
        AuditUnavailable = "audit-unavailable",
        /// 503: the broker cannot remove accounts now, so it makes none.
        RemovalDown = "removal-down",
        /// 503: the broker is overloaded.
        Overloaded = "overloaded",
        /// 504: the backend did not answer in time; the lease is doubtful and is being removed.
        TargetTimeout = "target-timeout",
    }
}

impl ProblemCode {
    /// The problem's `type`.
    #[must_use]
    pub fn urn(self) -> String {
        format!("urn:jit-broker:problem:{self}")
    }
}

/// A problem's code as it was read. A later broker, or a proxy before it, may say what is not known here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Code {
    /// One of the broker's.
    Known(ProblemCode),
    /// Any other word; empty where there was none.
    Other(String),
}

impl Code {
    /// Its word.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Known(code) => code.as_str(),
            Self::Other(word) => word,
        }
    }

    /// The code, where it is one of the broker's.
    #[must_use]
    pub fn known(&self) -> Option<ProblemCode> {
        match self {
            Self::Known(code) => Some(*code),
            Self::Other(_) => None,
        }
    }
}

impl Default for Code {
    fn default() -> Self {
        Self::Other(String::new())
    }
}

impl From<ProblemCode> for Code {
    fn from(code: ProblemCode) -> Self {
        Self::Known(code)
    }
}

impl From<String> for Code {
    fn from(word: String) -> Self {
        ProblemCode::from_word(&word).map_or(Self::Other(word), Self::Known)
    }
}

impl PartialEq<ProblemCode> for Code {
    fn eq(&self, other: &ProblemCode) -> bool {
        self.known() == Some(*other)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Code {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::from)
    }
}

/// A `application/problem+json` body.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Problem {
    /// `urn:jit-broker:problem:<code>`.
    #[serde(rename = "type", default)]
    #[cfg_attr(feature = "openapi", schema(required = true, example = "urn:jit-broker:problem:policy-denied"))]
    pub kind: String,
    /// The code in words.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(required = true))]
    pub title: String,
    /// The HTTP status.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(required = true))]
    pub status: u16,
    /// What happened and what to do.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(required = true))]
    pub detail: String,
    /// For programs.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(required = true, value_type = String, example = "policy-denied"))]
    pub code: Code,
    /// Give this to the operators: it is in their log.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(required = true))]
    pub request_id: String,
    /// The policy that said no.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// When to try again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_seconds: Option<u64>,
    /// The field that is wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// The lease that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_id: Option<String>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} {}", self.detail, self.status, self.code)?;
        if let Some(policy) = &self.policy {
            write!(f, ", policy {policy}")?;
        }
        if !self.request_id.is_empty() {
            write!(f, ", {}", self.request_id)?;
        }
        f.write_str(")")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_read_back() {
        for code in ProblemCode::ALL {
            assert_eq!(ProblemCode::from_word(code.as_str()), Some(code));
            assert_eq!(serde_json::to_value(code).unwrap(), code.as_str());
            let read: Code = serde_json::from_value(code.as_str().into()).unwrap();
            assert!(read == code && read == Code::Known(code), "{code}");
        }
    }

    #[test]
    fn a_code_that_is_not_known_is_kept() {
        let text = r#"{"status":410,"code":"request-expired","detail":"too late"}"#;
        let problem: Problem = serde_json::from_str(text).unwrap();
        assert_eq!(problem.code, Code::Other("request-expired".to_owned()));
        assert_eq!(problem.to_string(), "too late (410 request-expired)");
        assert_eq!(serde_json::to_value(&problem).unwrap()["code"], "request-expired");
        // A page of a proxy may have none of it.
        assert_eq!(serde_json::from_str::<Problem>("{}").unwrap(), Problem::default());
    }
}
