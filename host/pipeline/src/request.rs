//! What a caller asks, as it arrives and after its check. Every field has a size.

use std::collections::BTreeMap;
use std::net::IpAddr;

use jit_api::{CredentialRequest, CredentialType, GiveBackRequest, IssueRequest, MAX_NAMED};
use jit_core::name::{RoleName, TargetName};
use jit_core::ttl::Ttl;
use jit_password::{Verifier, VerifierKind};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::refusal::Refused;

/// Which leases are given back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GivenBack {
    /// These, each once, in the order of the request.
    Named(Vec<String>),
    /// All of the caller's.
    All,
}

impl GivenBack {
    /// Checks the fields.
    ///
    /// # Errors
    /// [`Refused::InvalidRequest`] naming the field that is wrong.
    pub fn check(request: GiveBackRequest) -> Result<Self, Refused> {
        match (request.leases, request.all) {
            (None, Some(true)) => Ok(Self::All),
            (Some(mut leases), None | Some(false)) => {
                if leases.is_empty() || leases.len() > MAX_NAMED {
                    return Err(Refused::field("leases", format!("leases must have 1 to {MAX_NAMED} ids")));
                }
                let mut seen = std::collections::BTreeSet::new();
                leases.retain(|lease| seen.insert(lease.clone()));
                Ok(Self::Named(leases))
            }
            _ => Err(Refused::field("leases", "send {\"leases\": [\"lease_…\"]} or {\"all\": true}")),
        }
    }
}

/// A request whose fields are names, sizes and texts that can go further. Only
/// [`CheckedRequest::check`] makes one.
#[derive(Debug, Clone)]
pub struct CheckedRequest {
    /// The caller's IP address as the listener sees it; behind a proxy, the proxy's. `None` where there is no
    /// connection.
    pub caller_address: Option<IpAddr>,
    /// The target's name.
    pub target: TargetName,
    /// The role's name.
    pub role: Option<RoleName>,
    /// The length asked for.
    pub ttl: Option<Ttl>,
    /// Why.
    pub reason: Option<String>,
    /// The ticket.
    pub ticket: Option<String>,
    /// The rest.
    pub metadata: BTreeMap<String, String>,
    /// What the target shall store of a password that the caller made. None where the broker makes the password.
    pub verifier: Option<Verifier>,
    /// SHA-256 over the request's meaning: what an Idempotency-Key is bound to.
    pub digest: String,
    /// Not public: what makes this type unforgeable outside of this module.
    _proof: Proof,
}

impl CheckedRequest {
    /// Checks every field.
    ///
    /// # Errors
    /// [`Refused::InvalidRequest`] naming the first field that is wrong.
    pub fn check(request: IssueRequest) -> Result<Self, Refused> {
        let IssueRequest { target, role, ttl, reason, ticket, metadata, credential } = request;
        let ttl =
            ttl.map(|ttl| ttl.read()).transpose().map_err(|error| Refused::field("ttl", format!("ttl {error}")))?;
        let verifier = credential.map(verifier).transpose()?.flatten();
        let digest = digest(&Meaning {
            target: &target,
            role: role.as_deref(),
            ttl,
            reason: reason.as_deref(),
            ticket: ticket.as_deref(),
            metadata: &metadata,
            verifier: verifier.as_ref().map(Verifier::digest),
        });
        let target = TargetName::new(target).map_err(|error| Refused::field("target", format!("target {error}")))?;
        let role =
            role.map(RoleName::new).transpose().map_err(|error| Refused::field("role", format!("role {error}")))?;
        let reason = text("reason", reason, 1_024)?;
        let ticket = text("ticket", ticket, 128)?;
        if metadata.len() > 16 {
            return Err(Refused::field("metadata", "metadata must have at most 16 entries"));
        }
        for (key, value) in &metadata {
            RoleName::new(key.as_str())
                .map_err(|error| Refused::field("metadata", format!("a metadata key {error}")))?;
            text("metadata", Some(value.clone()), 256)?;
        }
        Ok(Self { caller_address: None, target, role, ttl, reason, ticket, metadata, verifier, digest, _proof: Proof })
    }

    /// The same request, from that address.
    #[must_use]
    pub fn from_address(self, caller_address: Option<IpAddr>) -> Self {
        Self { caller_address, ..self }
    }

    /// The same request for another length, which is checked already.
    #[must_use]
    pub fn for_length(&self, ttl: Ttl) -> Self {
        Self { ttl: Some(ttl), ..self.clone() }
    }
}

/// What a request means, however it was written: "60s" and "1m" are the same length.
#[derive(Serialize)]
struct Meaning<'a> {
    target: &'a str,
    role: Option<&'a str>,
    ttl: Option<Ttl>,
    reason: Option<&'a str>,
    ticket: Option<&'a str>,
    metadata: &'a BTreeMap<String, String>,
    /// Its digest.
    #[serde(skip_serializing_if = "Option::is_none")]
    verifier: Option<String>,
}

/// What the caller made, if it made something.
fn verifier(asked: CredentialRequest) -> Result<Option<Verifier>, Refused> {
    let mut verifiers = asked.verifiers();
    match (asked.kind, verifiers.next(), verifiers.next()) {
        (CredentialType::Password, None, _) => Ok(None),
        (CredentialType::Password, Some(_), _) => {
            Err(Refused::field("credential", "a credential of type password has no verifier"))
        }
        (CredentialType::Verifier, Some((kind, text)), None) => Ok(Some(Verifier::parse(kind, &text.0)?)),
        (CredentialType::Verifier, _, _) => {
            let kinds = VerifierKind::ALL.map(VerifierKind::as_str).join(", ");
            Err(Refused::field("credential", format!("a credential of type verifier has exactly one of {kinds}")))
        }
    }
}

fn digest(meaning: &Meaning<'_>) -> String {
    #[allow(clippy::expect_used, reason = "texts, and a map whose keys are texts, are JSON")]
    let canonical = serde_json::to_vec(meaning).expect("a request is JSON");
    hex::encode(Sha256::digest(&canonical))
}

/// That every field was checked.
#[derive(Debug, Clone)]
struct Proof;

/// A text for people: bounded, without control characters (which forge log lines and terminals).
fn text(field: &'static str, value: Option<String>, most: usize) -> Result<Option<String>, Refused> {
    if let Some(text) = &value {
        if text.len() > most {
            return Err(Refused::field(field, format!("{field} must have at most {most} bytes")));
        }
        if text.chars().any(char::is_control) {
            return Err(Refused::field(field, format!("{field} must not have control characters")));
        }
    }
    Ok(value)
}

/// An `Idempotency-Key` header: 1 to 128 visible ASCII characters.
#[derive(Debug, Clone)]
pub struct IdempotencyKey(String);

impl IdempotencyKey {
    /// Checks the header's bytes.
    ///
    /// # Errors
    /// [`Refused::InvalidRequest`] when it is no key.
    pub fn new(header: &[u8]) -> Result<Self, Refused> {
        let visible = header.iter().all(u8::is_ascii_graphic);
        match std::str::from_utf8(header) {
            Ok(text) if visible && (1..=128).contains(&text.len()) => Ok(Self(text.to_owned())),
            _ => Err(Refused::field("Idempotency-Key", "Idempotency-Key must have 1 to 128 visible ASCII characters")),
        }
    }

    /// The digest under which the store keeps it: one owner's keys never meet another's (ONE-OWNER).
    #[must_use]
    pub fn digest(&self, principal: &jit_core::name::Principal) -> String {
        let mut hash = Sha256::new();
        for part in [principal.issuer.as_str(), &principal.workload, &principal.subject, &self.0] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part.as_bytes());
        }
        hex::encode(hash.finalize())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(json: serde_json::Value) -> Result<CheckedRequest, Refused> {
        serde_json::from_value::<IssueRequest>(json)
            .map_err(|error| Refused::field("body", error.to_string()))
            .and_then(CheckedRequest::check)
    }

    #[test]
    fn hostile_texts_are_refused_by_field() {
        let long = "x".repeat(2_000);
        for (field, value) in [
            ("target", "a'b"),
            ("target", "a\0"),
            ("role", "\"; DROP TABLE x"),
            ("role", "😀"),
            ("reason", "line\nbreak"),
            ("reason", "nul\0"),
            ("reason", long.as_str()),
            ("ticket", "\u{1b}[31m"),
        ] {
            let mut json = serde_json::json!({"target": "t"});
            json[field] = value.into();
            let refused = body(json).unwrap_err();
            assert!(
                matches!(&refused, Refused::InvalidRequest { field: Some(f), .. } if *f == field),
                "{field}: {refused:?}"
            );
        }
    }

    #[test]
    fn texts_for_people_keep_their_quotes_and_letters() {
        let checked = body(serde_json::json!({"target": "t", "reason": "O'Brien's \"nightly\" 😀; --"})).unwrap();
        assert_eq!(checked.reason.as_deref(), Some("O'Brien's \"nightly\" 😀; --"));
    }

    #[test]
    fn unknown_fields_and_wrong_types_are_refused() {
        for json in [
            serde_json::json!({"target": "t", "rolle": "x"}),
            serde_json::json!({"target": 7}),
            serde_json::json!({"target": "t", "ttl": "0s"}),
            serde_json::json!({"target": "t", "ttl": -5}),
            serde_json::json!({"target": "t", "ttl": 1.5}),
            serde_json::json!({"target": "t", "metadata": {"k": 1}}),
            serde_json::json!([]),
        ] {
            assert!(body(json.clone()).is_err(), "{json}");
        }
    }

    #[test]
    fn a_length_that_cannot_be_read_is_named() {
        let sentence = "ttl must be a duration such as \"90s\", \"30m\" or \"1h30m\", from one second to ten years";
        for ttl in ["0s", "-5m", "1.5h", "soon", ""] {
            match body(serde_json::json!({"target": "t", "ttl": ttl})).unwrap_err() {
                Refused::InvalidRequest { field, detail } => {
                    assert_eq!((field, detail.as_str()), (Some("ttl"), sentence))
                }
                other => panic!("{ttl}: {other:?}"),
            }
        }
        let checked = body(serde_json::json!({"target": "t", "ttl": "1000000d"})).unwrap();
        assert_eq!(checked.ttl, Some(Ttl::MAX), "a length above every cap is lowered");
    }

    #[test]
    fn giving_back_is_of_named_leases_or_of_all() {
        let read = |json: serde_json::Value| serde_json::from_value::<GiveBackRequest>(json).map(GivenBack::check);
        let good = |json| read(json).unwrap().unwrap();
        assert_eq!(good(serde_json::json!({"all": true})), GivenBack::All);
        assert_eq!(
            good(serde_json::json!({"leases": ["a", "b", "a"]})),
            GivenBack::Named(vec!["a".into(), "b".into()])
        );
        for wrong in [
            serde_json::json!({}),
            serde_json::json!({"all": false}),
            serde_json::json!({"leases": []}),
            serde_json::json!({"leases": ["a"], "all": true}),
            serde_json::json!({"leases": vec!["a"; MAX_NAMED + 1]}),
        ] {
            assert!(read(wrong.clone()).unwrap().is_err(), "{wrong}");
        }
        assert!(read(serde_json::json!({"lease": ["a"]})).is_err());
    }

    #[test]
    fn the_digest_is_of_the_meaning() {
        let one = body(serde_json::json!({"target": "t", "ttl": "60s"})).unwrap();
        let same = body(serde_json::json!({"ttl": "1m", "target": "t"})).unwrap();
        let other = body(serde_json::json!({"target": "t", "ttl": "2m"})).unwrap();
        assert_eq!(one.digest, same.digest);
        assert_ne!(one.digest, other.digest);
    }

    #[test]
    fn keys_of_two_workloads_never_meet() {
        let key = IdempotencyKey::new(b"abc").unwrap();
        let of = |issuer: &str, workload: &str, subject: &str| jit_core::name::Principal {
            issuer: issuer.into(),
            workload: workload.into(),
            subject: subject.into(),
        };
        let principal = |issuer: &str, workload: &str| of(issuer, workload, "s");
        assert_ne!(key.digest(&of("a", "payment", "shop")), key.digest(&of("a", "payment", "evil")));
        assert_ne!(key.digest(&principal("a", "bc")), key.digest(&principal("ab", "c")));
        for bad in [&b""[..], b"a b", b"a\n", "é".as_bytes(), &[b'x'; 129]] {
            assert!(IdempotencyKey::new(bad).is_err(), "{bad:?}");
        }
    }
}
