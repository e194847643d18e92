//! Verifiers of callers: what is placed, what is never stored, which are refused, and that each is used once.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![allow(dead_code, reason = "each test file uses a part of the world")]

mod world;

use jit_api::{CredentialRequest, IssueRequest};
use jit_core::lease::LeaseState;
use jit_core::policy::{Mode, PolicyRequest, Verdict};
use jit_ledger::Store as _;
use jit_password::{Verifier, VerifierKind, WeakVerifier, generate_password};
use jit_pipeline::refusal::Refused;
use secrecy::{ExposeSecret as _, SecretString};
use world::{APP, Answer, READ_ONLY, SHOP, STANDING, Verb, World, policy};

fn verifier() -> Verifier {
    Verifier::of(VerifierKind::ScramSha256, &generate_password(), 4_096).unwrap()
}

fn request(verifier: &Verifier) -> IssueRequest {
    let credential = CredentialRequest::verifier(verifier.kind(), verifier.text());
    IssueRequest { credential: Some(credential), ..IssueRequest::new(SHOP).role(APP) }
}

fn of_text(text: &str) -> IssueRequest {
    let credential = CredentialRequest::verifier(VerifierKind::ScramSha256, SecretString::from(text));
    IssueRequest { credential: Some(credential), ..IssueRequest::new(SHOP).role(APP) }
}

#[tokio::test(start_paused = true)]
async fn the_target_gets_the_callers_verifier_and_nothing_else_keeps_it() {
    let (world, made) = (World::new().await, verifier());
    let broker = world.broker();
    let disclosure = world.issue_asking(&broker, request(&made), Some("key")).await.unwrap();
    assert!(disclosure.handover.secret.is_none());
    let account = &world.backend.accounts()[&disclosure.handover.username];
    assert_eq!(account.password, made.stored().expose_secret(), "placed as it was sent");
    let lease = world.leases().await.remove(0);
    let kept = lease.verifier.clone().unwrap();
    assert_eq!((kept.kind, kept.digest), (VerifierKind::ScramSha256, made.digest()));
    let records = world.records().await;
    let granted = records.iter().find(|record| record["event"] == "issue.granted").unwrap();
    assert_eq!(granted["verifier"], "scram_sha_256");
    assert_eq!(granted["input"]["resource"]["credential"], "verifier");
    let stored = serde_json::to_string(&(&lease, &records)).unwrap();
    for part in made.stored().expose_secret().split(['$', ':']).filter(|part| part.len() > 12) {
        let part = part.trim_end_matches('=');
        assert!(part == "SCRAM-SHA-256" || !stored.contains(part), "{stored}");
    }
    // A password is what everybody gets who asks for nothing else.
    let other = world.issue(&broker).await.unwrap();
    assert!(other.handover.secret.is_some() && other.lease.verifier.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_retry_gets_the_same_lease_and_changes_nothing_in_the_target() {
    let (world, made) = (World::new().await, verifier());
    let first = world.issue_asking(&world.broker(), request(&made), Some("key")).await.unwrap();
    // The second broker has nothing of the first in memory.
    for broker in [world.broker(), world.restart().await] {
        let again = world.issue_asking(&broker, request(&made), Some("key")).await.unwrap();
        assert_eq!(again.lease.id, first.lease.id);
        assert!(again.handover.secret.is_none() && again.handover.username == first.handover.username);
        let other = world.issue_asking(&broker, request(&verifier()), Some("key")).await.err().unwrap();
        assert!(matches!(other, Refused::IdempotencyConflict(_)), "{other}");
        let password = world.issue_asking(&broker, IssueRequest::new(SHOP).role(APP), Some("key")).await.err();
        assert!(matches!(password, Some(Refused::IdempotencyConflict(_))));
    }
    assert_eq!((world.backend.called(Verb::Create), world.backend.called(Verb::Rotate)), (1, 0));
    assert_eq!(world.backend.accounts()[&first.handover.username].password, made.stored().expose_secret());
    let replays = world.events().await.into_iter().filter(|event| event == "issue.replayed").count();
    assert_eq!(replays, 2, "each on record");
}

#[tokio::test(start_paused = true)]
async fn a_verifier_is_used_for_one_lease() {
    let (world, made) = (World::new().await, verifier());
    let broker = world.broker();
    let first = world.issue_asking(&broker, request(&made), Some("one")).await.unwrap();
    for (broker, key) in [(world.broker(), None), (world.broker(), Some("two")), (world.restart().await, None)] {
        let again = world.issue_asking(&broker, request(&made), key).await.err().unwrap();
        assert!(matches!(again, Refused::WeakVerifier(WeakVerifier::Used)), "{again}");
    }
    world.revoke(&broker, &first.lease.id).await.unwrap();
    let after = world.issue_asking(&broker, request(&made), None).await.err().unwrap();
    assert!(matches!(after, Refused::WeakVerifier(WeakVerifier::Used)), "{after}");
    assert_eq!(world.leases().await.len(), 1, "nothing was begun");
    assert_eq!(world.backend.called(Verb::Create), 1);
}

/// The account of the first attempt was never handed out: the same request may go on with what it brought.
#[tokio::test(start_paused = true)]
async fn an_attempt_that_failed_leaves_the_verifier_to_its_retry_alone() {
    for answer in [Answer::Refused, Answer::Away, Answer::UnknownUndone, Answer::UnknownDone] {
        let (world, made) = (World::new().await, verifier());
        let broker = world.broker();
        world.backend.plan(Verb::Create, answer);
        world.issue_asking(&broker, request(&made), Some("key")).await.err().unwrap();
        let stranger = world.issue_asking(&broker, request(&made), Some("another")).await.err().unwrap();
        assert!(matches!(stranger, Refused::WeakVerifier(WeakVerifier::Used)), "{answer:?}: {stranger}");
        let retried = world.issue_asking(&broker, request(&made), Some("key")).await;
        let retried = retried.unwrap_or_else(|refused| panic!("{answer:?}: {refused}"));
        let lease = world.ledger.lease(&retried.lease.id).await.unwrap().unwrap();
        assert!(lease.state == LeaseState::Active && lease.verifier.unwrap().takes_over.is_some(), "{answer:?}");
        let third = world.issue_asking(&broker, request(&made), Some("key")).await.unwrap();
        assert_eq!(third.lease.id, lease.id, "{answer:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_breaks_a_rule_makes_no_account() {
    let (salt, key) = ("W22ZaJ0SNY7soEsUEjb6gQ==", "WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=");
    let world = World::rotating().await;
    let broker = world.broker();
    let empty = Verifier::of_empty_password(VerifierKind::ScramSha256, 4_096).unwrap();
    let iterations = WeakVerifier::Iterations { least: 4_096, most: 1_000_000 };
    for (text, rule) in [
        (format!("SCRAM-SHA-256$4095:{salt}${key}:{key}"), iterations),
        (format!("SCRAM-SHA-256$1000001:{salt}${key}:{key}"), iterations),
        ("pencil".to_owned(), WeakVerifier::Form(VerifierKind::ScramSha256)),
        (empty.text().expose_secret().to_owned(), WeakVerifier::Empty),
    ] {
        let refused = world.issue_asking(&broker, of_text(&text), None).await.err().unwrap();
        assert!(matches!(&refused, Refused::WeakVerifier(broken) if *broken == rule), "{refused}");
    }
    assert!(world.leases().await.is_empty() && world.events().await.is_empty());

    let other_kind = Verifier::of(VerifierKind::Ssha, &generate_password(), 0).unwrap();
    let standing = IssueRequest { role: Some(STANDING.to_owned()), ..request(&verifier()) };
    for asked in [request(&other_kind), standing] {
        let refused = world.issue_asking(&broker, asked, None).await.err().unwrap();
        assert!(matches!(&refused, Refused::NotOffered { .. }), "{refused}");
        assert!(refused.to_string().contains("offers password"), "{refused}");
    }
    assert_eq!(world.events().await, ["issue.denied", "issue.denied"], "asked for what is not offered");
    assert!(world.leases().await.is_empty() && world.backend.accounts().is_empty());
    for credential in [
        r#"{"type":"verifier"}"#,
        r#"{"type":"verifier","ssha":"x","scram_sha_256":"x"}"#,
        r#"{"type":"password","ssha":"x"}"#,
    ] {
        let credential = Some(serde_json::from_str(credential).unwrap());
        let refused = world.issue_asking(&broker, IssueRequest { credential, ..IssueRequest::new(SHOP) }, None).await;
        assert!(matches!(refused.err().unwrap(), Refused::InvalidRequest { field: Some("credential"), .. }));
    }
}

/// The broker leaves that check to a server that makes it, and makes it itself everywhere else.
#[tokio::test(start_paused = true)]
async fn the_verifier_of_an_empty_password_is_left_to_a_server_that_looks_itself() {
    let empty = Verifier::of_empty_password(VerifierKind::ScramSha256, 4_096).unwrap();
    let world = World::new().await;
    let refused = world.issue_asking(&world.broker(), request(&empty), None).await.err().unwrap();
    assert!(matches!(refused, Refused::WeakVerifier(WeakVerifier::Empty)), "{refused}");
    assert_eq!(world.backend.called(Verb::Create), 0);
    let world = World::new().await.never_empty();
    world.issue_asking(&world.broker(), request(&empty), None).await.unwrap();
    assert_eq!(world.backend.called(Verb::Create), 1);
    // All other rules are still the broker's.
    let few = "SCRAM-SHA-256$4095:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=";
    let refused = world.issue_asking(&world.broker(), of_text(few), None).await.err().unwrap();
    assert!(matches!(refused, Refused::WeakVerifier(WeakVerifier::Iterations { .. })), "{refused}");
}

fn only_verifiers(request: &PolicyRequest) -> Result<Verdict, jit_pipeline::ports::PolicyFault> {
    match request.resource.get("credential").map(String::as_str) {
        Some("verifier") => world::yes(request),
        other => Ok(Verdict::Deny(format!("{other:?} is not enough"))),
    }
}

#[tokio::test(start_paused = true)]
async fn a_policy_may_require_a_verifier_also_of_a_renewal() {
    let world = World::new().await.with_chain(vec![policy("blind", Mode::Enforce, only_verifiers)]);
    let broker = world.broker();
    let denied = world.issue(&broker).await.err().unwrap();
    assert!(matches!(&denied, Refused::PolicyDenied { policy, .. } if policy == "blind"), "{denied}");
    let granted = world.issue_asking(&broker, request(&verifier()), None).await.unwrap();
    tokio::time::sleep(std::time::Duration::from_secs(60)).await;
    let renewed = world.renew(&broker, &granted.lease.id).await.unwrap();
    assert!(renewed.expires_at > granted.lease.expires_at);
    let gone = world.revoke(&broker, &granted.lease.id).await.unwrap();
    assert_eq!(gone.state, LeaseState::Revoked);
}

/// A policy may name a role that hands out a standing account: the broker knows its password.
#[tokio::test(start_paused = true)]
async fn a_narrower_role_takes_verifiers_or_there_is_no_account() {
    let narrower = policy("narrower", Mode::Enforce, world::narrower);
    let world = World::new().await.with_chain(vec![narrower]);
    let granted = world.issue_asking(&world.broker(), request(&verifier()), None).await.unwrap();
    assert_eq!(granted.lease.role.as_str(), READ_ONLY);
}
