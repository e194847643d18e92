use std::collections::BTreeSet;
use std::time::Duration;

use jit_core::id::LeaseId;
use jit_core::lease::LeaseState;
use jit_pipeline::refusal::WeakVerifier;
use serde_json::{Value, json};

use super::*;

/// Every refusal, by a name of its own: some share a code.
fn all() -> Vec<(&'static str, HttpRefused)> {
    let id: LeaseId = "lease_01jd3x7k2m9v5q8w4r6t0y1z3b".parse().unwrap();
    let pipeline = [
        ("invalid-request", Refused::InvalidRequest { field: None, detail: "the body must be a JSON object".into() }),
        ("invalid-request of a field", Refused::field("ttl", "ttl must be a duration")),
        ("verifier-weak", Refused::WeakVerifier(WeakVerifier::Used)),
        ("not-offered", Refused::NotOffered { target: "shop_db".into(), reason: "role app offers password".into() }),
        ("unauthenticated", Refused::Unauthenticated),
        ("policy-denied", Refused::PolicyDenied { policy: "business-hours".into(), reason: "it is night".into() }),
        ("blocked", Refused::Blocked { target: "shop_db".into(), most: 20 }),
        ("role-not-allowed", Refused::RoleNotAllowed { target: "shop_db".into(), role: "admin".into() }),
        ("unknown-target", Refused::UnknownTarget("no_such_db".into())),
        ("unknown-lease", Refused::UnknownLease),
        ("idempotency-conflict", Refused::IdempotencyConflict(id.clone())),
        ("lease-not-active", Refused::LeaseNotActive { id: id.clone(), state: LeaseState::Revoked }),
        (
            "lease-not-active for a renewal",
            Refused::LeaseNotRenewable { id: id.clone(), reason: "ask for a new lease" },
        ),
        ("lease-not-active for a replay", Refused::NotAgain { id: id.clone(), reason: "its password was rotated" }),
        ("rate-limited", Refused::RateLimited { retry_after: Duration::from_millis(10) }),
        ("target-refused", Refused::TargetRefused("permission denied on 10.1.2.3:5432".into())),
        ("wrong-place", Refused::WrongPlace { id: id.clone(), target: "shop_db".into() }),
        ("target-unavailable", Refused::TargetUnavailable("its plugin is not loaded".into())),
        ("target-unavailable in the backend's words", Refused::TargetAway("10.1.2.3:5432 refused".into())),
        ("audit-unavailable", Refused::AuditUnavailable),
        ("audit-unavailable for want of room", Refused::NoRoom),
        ("removal-down", Refused::RemovalDown),
        ("overloaded", Refused::Overloaded),
        ("target-timeout", Refused::TargetTimeout(id)),
    ];
    let http = [
        ("payload-too-large", HttpRefused::PayloadTooLarge),
        ("unsupported-media-type", HttpRefused::UnsupportedMediaType),
        ("not-found", HttpRefused::NoSuchPath),
        ("method-not-allowed", HttpRefused::MethodNotAllowed),
    ];
    pipeline.map(|(name, refused)| (name, HttpRefused::Pipeline(refused))).into_iter().chain(http).collect()
}

#[test]
fn no_refusal_is_the_brokers_own_error() {
    for (name, refused) in all() {
        let (status, _, _, retry) = row(&refused);
        assert_ne!(status, StatusCode::INTERNAL_SERVER_ERROR, "{name}");
        let must_retry = matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(retry.is_some(), must_retry, "{name}");
    }
}

#[test]
fn every_code_has_a_refusal() {
    let reached: BTreeSet<ProblemCode> = all().iter().map(|(_, refused)| refused.code()).collect();
    assert_eq!(reached, BTreeSet::from(ProblemCode::ALL));
}

/// Clients are written against these: status, type, title, code, retry hints and the rest. A difference is a
/// change of the API.
#[tokio::test]
async fn each_reply_is_as_it_was() {
    let request_id = RequestId::generate(jiff::Timestamp::now());
    let mut told = serde_json::Map::new();
    for (name, refused) in all() {
        let reply = refused.reply(&request_id);
        let header =
            |name: header::HeaderName| reply.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
        assert_eq!(header(header::CONTENT_TYPE).as_deref(), Some("application/problem+json"), "{name}");
        let mut entry = json!({ "status": reply.status().as_u16() });
        for (key, value) in
            [("retry-after", header(header::RETRY_AFTER)), ("www-authenticate", header(header::WWW_AUTHENTICATE))]
        {
            if let Some(value) = value {
                entry[key] = value.into();
            }
        }
        let bytes = axum::body::to_bytes(reply.into_body(), 64 * 1024).await.unwrap();
        let mut body: Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(body["request_id"].take(), request_id.as_str(), "{name}");
        body["request_id"] = "req_…".into();
        entry["body"] = body;
        told.insert(name.to_owned(), entry);
    }
    let told = Value::Object(told);
    let expected: Value = serde_json::from_str(include_str!("problems.json")).unwrap();
    assert!(told == expected, "problems.json would be:\n{told:#}");
}

/// docs/reference/problem-codes.md has one row for each code, with its status.
#[test]
fn the_documented_codes_are_the_brokers() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/reference/problem-codes.md"));
    let page = page.unwrap();
    let documented: BTreeSet<(u16, &str)> = page
        .lines()
        .filter_map(|line| {
            let mut cells = line.strip_prefix("| ")?.split(" | ");
            let status = cells.next()?.parse().ok()?;
            Some((status, cells.next()?.trim_matches('`')))
        })
        .collect();
    let rows: BTreeSet<(u16, &str)> = all()
        .iter()
        .map(|(_, refused)| {
            let (status, code, ..) = row(refused);
            (status.as_u16(), code.as_str())
        })
        .collect();
    assert_eq!(documented, rows);
}
