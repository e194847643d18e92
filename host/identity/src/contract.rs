//! What every identity method must do, as tests over the real thing. A method has one row:
//! `contract::for_method!(Harness)`.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use crate::evidence::{Evidence, PeerChain, RequestParts, SignedRequest, Unverified};
use crate::identity::Identity;
use crate::method::{Declined, Method};
use crate::options::IdentityOptions;
use crate::rejected::Rejected;

/// How a proof is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Proof {
    /// As the issuer makes it, for this broker.
    Good,
    /// Expired longer ago than any leeway.
    Expired,
    /// Valid from a time that is further away than any leeway.
    NotYetValid,
    /// Genuine, and changed in one place that names the caller.
    Tampered,
    /// In every part as a good one, but signed with a key that the issuer does not have.
    Forged,
    /// Good, from an issuer that the method does not know.
    UnknownIssuer,
}

/// A running issuer, and the method that is configured for it.
pub(crate) trait Harness: Sized {
    /// Starts an issuer with one key.
    fn start() -> impl Future<Output = Self>;
    /// The method, as configured for this issuer, before it has any keys. A failed fetch of keys does not keep
    /// it from the next one.
    fn method(&self) -> Arc<dyn Method>;
    /// The method for the same issuer under another configuration, which does not accept the good proof:
    /// with another audience, or another trust domain.
    fn method_that_does_not_accept_it(&self) -> Arc<dyn Method>;
    /// What a good proof says: the workload, the subject and the attributes.
    fn expected(&self) -> (String, String, BTreeMap<String, String>);
    /// Evidence, different each time where the method's proofs differ.
    fn proof(&self, proof: Proof) -> Evidence;
    /// A genuine proof for another audience; `None` where the method's proofs have no audience.
    fn for_another_audience(&self) -> Option<Evidence>;
    /// Proofs beyond each bound of the evidence, with the label of why they are refused.
    fn oversize(&self) -> Vec<(&'static str, Result<Evidence, Rejected>)>;
    /// Genuine proofs of callers whose names cannot be used: empty, too long, with invisible characters.
    fn unusable_names(&self) -> Vec<Evidence>;
    /// Replaces the issuer's key. The old one is withdrawn.
    fn rotate(&mut self);
    /// Whether the issuer's keys cannot be had.
    fn set_away(&self, away: bool);
    /// How often the issuer was asked for its keys.
    fn requests(&self) -> usize;
}

fn identity(methods: Vec<Arc<dyn Method>>) -> Identity {
    Identity::new(methods, &IdentityOptions::default()).unwrap()
}

/// The reason why a proof is refused. It must be safe to log.
async fn refused(identity: &Identity, evidence: Vec<Evidence>) -> Rejected {
    let reason = identity.verify(evidence).await.unwrap_err();
    let (text, label) = (reason.to_string(), reason.label());
    assert!(text.len() < 400 && !text.contains(char::is_control), "{text}");
    assert!(label.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{label}");
    reason
}

/// One piece of evidence of each kind, which no method has seen.
fn strangers() -> Vec<Evidence> {
    let request = RequestParts {
        method: "POST".to_owned(),
        target: "/".to_owned(),
        headers: vec![("authorization".to_owned(), "AWS4-HMAC-SHA256 Credential=a".into())],
        body_sha256: [0; 32],
    };
    vec![
        Evidence::Bearer(Unverified::from_token("a.b.c").unwrap()),
        Evidence::PeerCertificate(PeerChain::of_handshake(vec![vec![0x30, 0]]).unwrap()),
        Evidence::SignedRequest(SignedRequest::new(request).unwrap()),
    ]
}

pub(crate) async fn a_good_proof_names_the_caller<H: Harness>() {
    let harness = H::start().await;
    let method = harness.method();
    let verified = identity(vec![Arc::clone(&method)]).verify(vec![harness.proof(Proof::Good)]).await.unwrap();
    let (workload, subject, attributes) = harness.expected();
    assert_eq!(verified.principal.issuer, method.name(), "the principal carries the method's name");
    assert_eq!((&verified.principal.workload, &verified.principal.subject), (&workload, &subject));
    assert_eq!(verified.attributes, attributes);
    let known = method.attributes();
    assert!(attributes.keys().all(|name| known.contains(name)), "an attribute that the method does not list");
}

pub(crate) async fn a_proof_has_its_time<H: Harness>() {
    let harness = H::start().await;
    let identity = identity(vec![harness.method()]);
    assert_eq!(refused(&identity, vec![harness.proof(Proof::Expired)]).await, Rejected::Expired);
    assert_eq!(refused(&identity, vec![harness.proof(Proof::NotYetValid)]).await, Rejected::NotYetValid);
}

pub(crate) async fn a_changed_or_forged_proof_is_refused<H: Harness>() {
    let harness = H::start().await;
    let identity = identity(vec![harness.method()]);
    // With and without the method having seen a good one.
    for _ in 0..2 {
        assert_eq!(refused(&identity, vec![harness.proof(Proof::Tampered)]).await, Rejected::Signature);
        assert_eq!(refused(&identity, vec![harness.proof(Proof::Forged)]).await, Rejected::Signature);
        identity.verify(vec![harness.proof(Proof::Good)]).await.unwrap();
    }
}

pub(crate) async fn a_proof_for_somebody_else_is_refused<H: Harness>() {
    let harness = H::start().await;
    let method = harness.method();
    if let Some(proof) = harness.for_another_audience() {
        assert_eq!(method.verify(&proof).await.unwrap_err(), Declined::OtherAudience);
        assert_eq!(refused(&identity(vec![method]), vec![proof]).await, Rejected::WrongAudience);
    }
}

pub(crate) async fn a_strangers_proof_is_declined_without_asking_the_issuer<H: Harness>() {
    let harness = H::start().await;
    let method = harness.method();
    let kind = std::mem::discriminant(&harness.proof(Proof::Good));
    let others = strangers().into_iter().filter(|evidence| std::mem::discriminant(evidence) != kind);
    let unknown = harness.proof(Proof::UnknownIssuer);
    let identity = identity(vec![Arc::clone(&method)]);
    for evidence in others.chain([unknown]) {
        assert_eq!(method.verify(&evidence).await.unwrap_err(), Declined::Foreign, "{evidence:?}");
        refused(&identity, vec![evidence]).await;
    }
    assert_eq!(harness.requests(), 0);
}

pub(crate) async fn exactly_one_proof_is_accepted<H: Harness>() {
    let harness = H::start().await;
    let identity = identity(vec![harness.method()]);
    let good = || harness.proof(Proof::Good);
    assert_eq!(refused(&identity, vec![]).await, Rejected::Missing);
    for other in strangers().into_iter().chain([good()]) {
        assert_eq!(refused(&identity, vec![good(), other.clone()]).await, Rejected::Several);
        assert_eq!(refused(&identity, vec![other, good()]).await, Rejected::Several);
    }
    assert_eq!(refused(&identity, vec![good(), good(), good()]).await, Rejected::Several);
    identity.verify(vec![good()]).await.unwrap();
}

pub(crate) async fn what_is_too_large_is_refused<H: Harness>() {
    let harness = H::start().await;
    let identity = identity(vec![harness.method()]);
    let cases = harness.oversize();
    assert!(!cases.is_empty());
    for (label, evidence) in cases {
        let reason = match evidence {
            Ok(evidence) => refused(&identity, vec![evidence]).await,
            Err(reason) => reason,
        };
        assert_eq!(reason.label(), label, "{reason}");
    }
}

pub(crate) async fn names_that_cannot_be_used_are_refused<H: Harness>() {
    let harness = H::start().await;
    let identity = identity(vec![harness.method()]);
    let cases = harness.unusable_names();
    assert!(!cases.is_empty());
    for evidence in cases {
        assert_eq!(refused(&identity, vec![evidence.clone()]).await.label(), "claim", "{evidence:?}");
    }
}

pub(crate) async fn a_remembered_proof_does_not_outlive_its_configuration<H: Harness>() {
    let harness = H::start().await;
    let proof = harness.proof(Proof::Good);
    let before = identity(vec![harness.method()]);
    before.verify(vec![proof.clone()]).await.unwrap();
    before.verify(vec![proof.clone()]).await.unwrap();
    let after = identity(vec![harness.method_that_does_not_accept_it()]);
    refused(&after, vec![proof.clone()]).await;
    refused(&identity(vec![]), vec![proof]).await;
}

pub(crate) async fn without_its_keys_a_method_refuses<H: Harness>() {
    let harness = H::start().await;
    let identity = identity(vec![harness.method()]);
    harness.set_away(true);
    for proof in [Proof::Good, Proof::Forged, Proof::Tampered] {
        assert_eq!(refused(&identity, vec![harness.proof(proof)]).await.label(), "issuer_unavailable", "{proof:?}");
    }
    let asked = identity.ask_issuers().await;
    assert!(asked.iter().all(|(_, keys)| keys.is_err()), "{asked:?}");
    harness.set_away(false);
    identity.verify(vec![harness.proof(Proof::Good)]).await.unwrap();
    assert_eq!(identity.ask_issuers().await[0].1, Ok(1));
}

pub(crate) async fn a_withdrawn_key_takes_its_proofs_with_it<H: Harness>() {
    let mut harness = H::start().await;
    let method = harness.method();
    let identity = identity(vec![Arc::clone(&method)]);
    assert_eq!(method.generation(), None, "no keys before the first use");
    let old = harness.proof(Proof::Good);
    identity.verify(vec![old.clone()]).await.unwrap();
    let generation = method.generation();
    assert!(generation.is_some());

    harness.rotate();
    identity.verify(vec![harness.proof(Proof::Good)]).await.unwrap();
    assert_ne!(method.generation(), generation, "remembered verdicts of the old key would still count");
    let reason = refused(&identity, vec![old]).await;
    assert!(matches!(reason, Rejected::UnknownKey(_) | Rejected::Signature), "{reason}");
}

pub(crate) async fn a_caller_that_goes_away_changes_nothing<H: Harness>() {
    let harness = H::start().await;
    let identity = identity(vec![harness.method()]);
    {
        let mut caller = pin!(identity.verify(vec![harness.proof(Proof::Good)]));
        poll_fn(|context| Poll::Ready(caller.as_mut().poll(context).is_ready())).await;
    }
    identity.verify(vec![harness.proof(Proof::Good)]).await.unwrap();
    assert_eq!(refused(&identity, vec![harness.proof(Proof::Forged)]).await, Rejected::Signature);
}

pub(crate) async fn a_name_stands_for_one_method<H: Harness>() {
    let harness = H::start().await;
    let twice = Identity::new(vec![harness.method(), harness.method()], &IdentityOptions::default());
    assert!(twice.is_err_and(|error| error.to_string().contains("used twice")));
}

/// The tests of one method.
macro_rules! for_method {
    ($harness:ty) => {
        $crate::contract::for_method!($harness:
            a_good_proof_names_the_caller,
            a_proof_has_its_time,
            a_changed_or_forged_proof_is_refused,
            a_proof_for_somebody_else_is_refused,
            a_strangers_proof_is_declined_without_asking_the_issuer,
            exactly_one_proof_is_accepted,
            what_is_too_large_is_refused,
            names_that_cannot_be_used_are_refused,
            a_remembered_proof_does_not_outlive_its_configuration,
            without_its_keys_a_method_refuses,
            a_withdrawn_key_takes_its_proofs_with_it,
            a_caller_that_goes_away_changes_nothing,
            a_name_stands_for_one_method,
        );
    };
    ($harness:ty: $($test:ident),* $(,)?) => {
        $(
            #[tokio::test]
            async fn $test() {
                $crate::contract::$test::<$harness>().await;
            }
        )*
    };
}
pub(crate) use for_method;
