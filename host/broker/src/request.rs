//! What a caller asks, as it arrives and after its check. Every field has a size.

use std::collections::BTreeMap;

use jit_core::name::{RoleName, TargetName};
use jit_core::ttl::{Ttl, TtlError};
use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::refusal::Refused;

/// The body of `POST /issue` and `POST /v1/simulate`.
#[derive(Debug, Clone, Deserialize, Serialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct IssueRequest {
    /// The configured target.
    #[schema(example = "inventory_db", max_length = 63)]
    pub target: String,
    /// The role; may be left out where the target has a default.
    #[schema(example = "app_read_only", max_length = 63)]
    #[serde(default)]
    pub role: Option<String>,
    /// A duration ("90s", "30m", "1h") or whole seconds; lowered to the target's or a policy's cap.
    #[schema(value_type = Option<String>, example = "30m")]
    #[serde(default, deserialize_with = "length")]
    pub ttl: Option<Ttl>,
    /// Why; for policies and the audit log.
    #[schema(max_length = 1024)]
    #[serde(default)]
    pub reason: Option<String>,
    /// A ticket; for policies and the audit log.
    #[schema(max_length = 128)]
    #[serde(default)]
    pub ticket: Option<String>,
    /// Anything else worth recording: at most 16 entries.
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
}

/// The body of `POST /v1/leases/{id}/renew`.
#[derive(Debug, Clone, Default, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RenewRequest {
    /// As in `/issue`; the target's default when left out.
    #[schema(value_type = Option<String>, example = "30m")]
    #[serde(default, deserialize_with = "length")]
    pub ttl: Option<Ttl>,
}

/// The most leases that one request gives back by name.
pub const MOST_NAMED: usize = 1_000;

/// The body of `POST /v1/leases/revoke`: either field.
#[derive(Debug, Clone, Default, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct GiveBackRequest {
    /// These leases: 1 to 1000 ids.
    #[schema(example = json!(["lease_01jd3x7k2m9v5q8w4r6t0y1z3b"]), min_items = 1, max_items = 1000)]
    #[serde(default)]
    pub leases: Option<Vec<String>>,
    /// `true`: every lease of the caller's.
    #[serde(default)]
    pub all: Option<bool>,
}

/// Which leases are given back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GivenBack {
    /// These, each once, in the order of the request.
    Named(Vec<String>),
    /// All of the caller's.
    All,
}

impl GiveBackRequest {
    /// Checks the fields.
    ///
    /// # Errors
    /// [`Refused::InvalidRequest`] naming the field that is wrong.
    pub fn check(self) -> Result<GivenBack, Refused> {
        match (self.leases, self.all) {
            (None, Some(true)) => Ok(GivenBack::All),
            (Some(mut leases), None | Some(false)) => {
                if leases.is_empty() || leases.len() > MOST_NAMED {
                    return Err(Refused::field("leases", format!("leases must have 1 to {MOST_NAMED} ids")));
                }
                let mut seen = std::collections::BTreeSet::new();
                leases.retain(|lease| seen.insert(lease.clone()));
                Ok(GivenBack::Named(leases))
            }
            _ => Err(Refused::field("leases", "send {\"leases\": [\"lease_…\"]} or {\"all\": true}")),
        }
    }
}

/// A length of time that a caller asks for. What is longer than any lease counts as the longest that there
/// is, so that the target's cap lowers it: a length above the cap is never refused for that alone.
fn length<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Ttl>, D::Error> {
    struct Length;
    impl<'de> Visitor<'de> for Length {
        type Value = Option<Ttl>;
        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a duration such as \"30m\" or whole seconds")
        }
        fn visit_unit<E: de::Error>(self) -> Result<Option<Ttl>, E> {
            Ok(None)
        }
        fn visit_none<E: de::Error>(self) -> Result<Option<Ttl>, E> {
            Ok(None)
        }
        fn visit_some<D: Deserializer<'de>>(self, from: D) -> Result<Option<Ttl>, D::Error> {
            from.deserialize_any(Length)
        }
        fn visit_str<E: de::Error>(self, text: &str) -> Result<Option<Ttl>, E> {
            lowered(text.parse()).map_err(E::custom)
        }
        fn visit_i64<E: de::Error>(self, seconds: i64) -> Result<Option<Ttl>, E> {
            lowered(Ttl::from_seconds(seconds)).map_err(E::custom)
        }
        fn visit_u64<E: de::Error>(self, seconds: u64) -> Result<Option<Ttl>, E> {
            lowered(Ttl::from_seconds(i64::try_from(seconds).unwrap_or(i64::MAX))).map_err(E::custom)
        }
        // What is no u64 arrives as this, and so does 1e9.
        fn visit_f64<E: de::Error>(self, seconds: f64) -> Result<Option<Ttl>, E> {
            if seconds.fract() != 0.0 {
                return Err(E::custom(TtlError::Syntax));
            }
            #[allow(clippy::cast_possible_truncation)] // `as` saturates, and all of these are too long
            lowered(Ttl::from_seconds(seconds as i64)).map_err(E::custom)
        }
    }
    from.deserialize_any(Length)
}

fn lowered(read: Result<Ttl, TtlError>) -> Result<Option<Ttl>, TtlError> {
    match read {
        Err(TtlError::TooLong) => Ok(Some(Ttl::MAX)),
        other => other.map(Some),
    }
}

/// A request whose fields are names, sizes and texts that can go further. Only
/// [`IssueRequest::check`] makes one.
#[derive(Debug, Clone)]
pub struct CheckedRequest {
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
    /// SHA-256 over the request's meaning: what an Idempotency-Key is bound to.
    pub digest: String,
    /// Not public: what makes this type unforgeable outside of this module.
    _proof: Proof,
}

impl CheckedRequest {
    /// The same request for another length, which is checked already.
    #[must_use]
    pub fn for_length(&self, ttl: Ttl) -> Self {
        Self { ttl: Some(ttl), ..self.clone() }
    }
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

impl IssueRequest {
    /// Checks every field.
    ///
    /// # Errors
    /// [`Refused::InvalidRequest`] naming the first field that is wrong.
    pub fn check(self) -> Result<CheckedRequest, Refused> {
        let canonical = serde_json::to_vec(&self).unwrap_or_default();
        let digest = hex::encode(Sha256::digest(&canonical));
        let target =
            TargetName::new(self.target).map_err(|error| Refused::field("target", format!("target {error}")))?;
        let role = self
            .role
            .map(RoleName::new)
            .transpose()
            .map_err(|error| Refused::field("role", format!("role {error}")))?;
        let reason = text("reason", self.reason, 1_024)?;
        let ticket = text("ticket", self.ticket, 128)?;
        if self.metadata.len() > 16 {
            return Err(Refused::field("metadata", "metadata must have at most 16 entries"));
        }
        for (key, value) in &self.metadata {
            RoleName::new(key.as_str())
                .map_err(|error| Refused::field("metadata", format!("a metadata key {error}")))?;
            text("metadata", Some(value.clone()), 256)?;
        }
        Ok(CheckedRequest {
            target,
            role,
            ttl: self.ttl,
            reason,
            ticket,
            metadata: self.metadata,
            digest,
            _proof: Proof,
        })
    }
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
            .and_then(IssueRequest::check)
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
    fn a_length_beyond_every_cap_is_the_longest_there_is() {
        let ttl = |text: &str| {
            let json = format!("{{\"target\": \"t\", \"ttl\": {text}}}");
            serde_json::from_str::<IssueRequest>(&json).map(|request| request.ttl.map(Ttl::seconds)).ok()
        };
        let most = Some(Some(Ttl::MAX.seconds()));
        for long in [
            "1000000000",
            "9223372036854775807",
            "9223372036854775808",
            "18446744073709551615",
            "18446744073709551616",
            "1e300",
            "\"9999h\"",
            "\"1000000d\"",
            "\"99999999999999999999d\"",
            "\"9223372036854775808\"",
        ] {
            let got = ttl(long);
            assert!(got == most || (long == "\"9999h\"" && got == Some(Some(9_999 * 3_600))), "{long}: {got:?}");
        }
        assert_eq!((ttl("1e3"), ttl("60.0"), ttl("null")), (Some(Some(1_000)), Some(Some(60)), Some(None)));
        for wrong in [
            "0",
            "-0.0",
            "0.0",
            "-1",
            "-1e300",
            "-9223372036854775809",
            "1.5",
            "\"-99999999999999999999d\"",
            "\"0d\"",
            "[]",
            "true",
        ] {
            assert_eq!(ttl(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn giving_back_is_of_named_leases_or_of_all() {
        let read =
            |json: serde_json::Value| serde_json::from_value::<GiveBackRequest>(json).map(GiveBackRequest::check);
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
            serde_json::json!({"leases": vec!["a"; MOST_NAMED + 1]}),
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
