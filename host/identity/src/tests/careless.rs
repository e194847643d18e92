//! The contract suite finds what it is for: a method with one planted mistake fails the test that names it.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::FutureExt as _;
use jiff::Timestamp;

use super::contract::Jwt;
use crate::contract::{self, Harness, Proof};
use crate::{Claimed, Declined, Evidence, Method, Rejected};

const EXPIRED: u8 = 0;
const EARLY: u8 = 1;
const FORGED: u8 = 2;
const AUDIENCE: u8 = 3;
const STRANGER: u8 = 4;
const AWAY: u8 = 5;
const NAMES: u8 = 6;
const OLD_KEYS: u8 = 7;
const WRONG_NAME: u8 = 8;

/// JWT, but for one mistake.
struct Careless<const MISTAKE: u8>(Jwt);

struct CarelessMethod {
    jwt: Arc<dyn Method>,
    mistake: u8,
    expected: (String, String, BTreeMap<String, String>),
}

impl CarelessMethod {
    fn forgives(&self, declined: &Declined) -> bool {
        match declined {
            Declined::Foreign => self.mistake == STRANGER,
            Declined::OtherAudience => self.mistake == AUDIENCE,
            Declined::Rejected(Rejected::Expired) => self.mistake == EXPIRED,
            Declined::Rejected(Rejected::NotYetValid) => self.mistake == EARLY,
            Declined::Rejected(Rejected::Signature) => self.mistake == FORGED,
            Declined::Rejected(Rejected::IssuerUnavailable { .. }) => self.mistake == AWAY,
            Declined::Rejected(Rejected::Claim { .. }) => self.mistake == NAMES,
            Declined::Rejected(_) => false,
        }
    }
}

#[async_trait]
impl Method for CarelessMethod {
    fn name(&self) -> &str {
        self.jwt.name()
    }

    fn attributes(&self) -> Vec<String> {
        self.jwt.attributes()
    }

    async fn verify(&self, evidence: &Evidence) -> Result<Claimed, Declined> {
        let mut claimed = match self.jwt.verify(evidence).await {
            Err(declined) if self.forgives(&declined) => {
                let (workload, subject, attributes) = self.expected.clone();
                Claimed { workload, subject, attributes, expires_at: Timestamp::now(), generation: None }
            }
            verdict => verdict?,
        };
        match self.mistake {
            OLD_KEYS => claimed.generation = Some(1),
            WRONG_NAME => claimed.workload = "admin".to_owned(),
            NAMES => claimed.subject = self.expected.1.clone(),
            _ => {}
        }
        Ok(claimed)
    }

    fn generation(&self) -> Option<u64> {
        let generation = self.jwt.generation();
        if self.mistake == OLD_KEYS { generation.map(|_| 1) } else { generation }
    }

    async fn warm(&self) {
        self.jwt.warm().await;
    }

    async fn ask(&self) -> Result<usize, String> {
        self.jwt.ask().await
    }

    fn refresh(&self) {
        self.jwt.refresh();
    }
}

impl<const MISTAKE: u8> Careless<MISTAKE> {
    fn careless(&self, jwt: Arc<dyn Method>) -> Arc<dyn Method> {
        Arc::new(CarelessMethod { jwt, mistake: MISTAKE, expected: self.0.expected() })
    }
}

impl<const MISTAKE: u8> Harness for Careless<MISTAKE> {
    async fn start() -> Self {
        Self(Jwt::start().await)
    }

    fn method(&self) -> Arc<dyn Method> {
        self.careless(self.0.method())
    }

    fn method_that_does_not_accept_it(&self) -> Arc<dyn Method> {
        self.careless(self.0.method_that_does_not_accept_it())
    }

    fn expected(&self) -> (String, String, BTreeMap<String, String>) {
        self.0.expected()
    }

    fn proof(&self, proof: Proof) -> Evidence {
        self.0.proof(proof)
    }

    fn for_another_audience(&self) -> Option<Evidence> {
        self.0.for_another_audience()
    }

    fn oversize(&self) -> Vec<(&'static str, Result<Evidence, Rejected>)> {
        self.0.oversize()
    }

    fn unusable_names(&self) -> Vec<Evidence> {
        self.0.unusable_names()
    }

    fn rotate(&mut self) {
        self.0.rotate();
    }

    fn set_away(&self, away: bool) {
        self.0.set_away(away);
    }

    fn requests(&self) -> usize {
        self.0.requests()
    }
}

async fn fails(test: impl Future<Output = ()>) {
    assert!(AssertUnwindSafe(test).catch_unwind().await.is_err(), "the planted mistake was not found");
}

#[tokio::test]
async fn each_planted_mistake_is_found() {
    fails(contract::a_proof_has_its_time::<Careless<EXPIRED>>()).await;
    fails(contract::a_proof_has_its_time::<Careless<EARLY>>()).await;
    fails(contract::a_changed_or_forged_proof_is_refused::<Careless<FORGED>>()).await;
    fails(contract::a_proof_for_somebody_else_is_refused::<Careless<AUDIENCE>>()).await;
    fails(contract::a_remembered_proof_does_not_outlive_its_configuration::<Careless<AUDIENCE>>()).await;
    fails(contract::a_strangers_proof_is_declined_without_asking_the_issuer::<Careless<STRANGER>>()).await;
    fails(contract::without_its_keys_a_method_refuses::<Careless<AWAY>>()).await;
    fails(contract::names_that_cannot_be_used_are_refused::<Careless<NAMES>>()).await;
    fails(contract::a_withdrawn_key_takes_its_proofs_with_it::<Careless<OLD_KEYS>>()).await;
    fails(contract::a_good_proof_names_the_caller::<Careless<WRONG_NAME>>()).await;
}
