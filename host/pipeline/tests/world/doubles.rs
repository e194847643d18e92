//! What stands for the world outside of the pipeline: a target, policies that are functions, a clock that shows the paused
//! time, somebody who asks. The unit tests of the pipeline use this file too, as a module of their own.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use jit_core::account::AccountPrefix;
use jit_core::driver::{RoleView, TargetView};
use jit_core::lease::VerifierKind;
use jit_core::looked_at::LookedAt;
use jit_core::name::{RoleName, TargetName};
use jit_core::policy::{Allowance, DecidedBy, Mode, Operation, PolicyRequest, Verdict};
use jit_core::ttl::Ttl;
use jit_identity::{Claimed, Declined, Evidence, Identity, IdentityOptions, Method, Unverified, Verified};
use jit_pipeline::facts::ContextLink;
use jit_pipeline::places::Site;
use jit_pipeline::ports::{Clock, Driver, Policy, PolicyFault, PolicyReply, SystemClock};
use jit_pipeline::ready::LastForm;
use jit_pipeline::target::{ChainLink, OfferedVerifier, Target, TargetRole};
use tokio::sync::Semaphore;
use tokio::time::Instant;

/// The target, the role, the plugin.
pub(crate) const SHOP: &str = "shop";
pub(crate) const APP: &str = "app";
/// A narrower role of the same target.
pub(crate) const READ_ONLY: &str = "read-only";
pub(crate) const PLUGIN: &str = "driver";

/// When every test begins.
pub(crate) fn began() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

/// A wall clock that shows the paused time.
#[derive(Debug)]
pub(crate) struct PausedClock(pub(crate) Instant);

impl Clock for PausedClock {
    fn wall(&self) -> Timestamp {
        began() + self.0.elapsed()
    }

    fn monotonic(&self) -> Instant {
        Instant::now()
    }
}

/// A policy that is a function.
struct Says<F>(F);

impl<F: Fn(&PolicyRequest) -> Result<Verdict, PolicyFault> + Send + Sync> Policy for Says<F> {
    fn sha256(&self) -> &str {
        "00"
    }

    fn decide(&self, request: &PolicyRequest) -> PolicyReply {
        PolicyReply { verdict: (self.0)(request), looked_at: LookedAt::default(), by: DecidedBy::Instance }
    }
}

/// A request for the target.
pub(crate) fn input() -> PolicyRequest {
    PolicyRequest {
        operation: Operation::Issue,
        time: 1_800_000_000,
        workload: "payment".to_owned(),
        issuer: "cluster".to_owned(),
        attributes: BTreeMap::new(),
        target: SHOP.to_owned(),
        role: APP.to_owned(),
        ttl_seconds: 600,
        reason: None,
        ticket: None,
        metadata: BTreeMap::new(),
        facts: BTreeMap::new(),
        caller_address: None,
        resource: BTreeMap::new(),
    }
}

/// A policy of a chain.
pub(crate) fn policy(
    name: &str,
    mode: Mode,
    says: impl Fn(&PolicyRequest) -> Result<Verdict, PolicyFault> + Send + Sync + 'static,
) -> ChainLink {
    ChainLink {
        name: name.to_owned(),
        mode,
        rollout: None,
        share_key: None,
        policy: Arc::new(Says(says)),
        config_sha256: "00".to_owned(),
    }
}

/// A yes without conditions.
pub(crate) fn yes(_: &PolicyRequest) -> Result<Verdict, PolicyFault> {
    Ok(Verdict::Allow(Allowance::default()))
}

/// A no.
pub(crate) fn no(_: &PolicyRequest) -> Result<Verdict, PolicyFault> {
    Ok(Verdict::Deny("not today".to_owned()))
}

/// A yes to a narrower role.
pub(crate) fn narrower(_: &PolicyRequest) -> Result<Verdict, PolicyFault> {
    let role = Some(RoleName::new(READ_ONLY).unwrap());
    Ok(Verdict::Allow(Allowance { role, ..Allowance::default() }))
}

/// A yes for at most so many seconds.
pub(crate) fn at_most(seconds: i64) -> impl Fn(&PolicyRequest) -> Result<Verdict, PolicyFault> {
    move |_: &PolicyRequest| {
        let max_ttl = Some(Ttl::from_seconds(seconds).unwrap());
        Ok(Verdict::Allow(Allowance { max_ttl, ..Allowance::default() }))
    }
}

/// An identity method that believes every token.
struct Anybody;

#[async_trait]
impl Method for Anybody {
    fn name(&self) -> &str {
        "cluster"
    }

    fn attributes(&self) -> Vec<String> {
        Vec::new()
    }

    async fn verify(&self, _: &Evidence) -> Result<Claimed, Declined> {
        Ok(Claimed {
            workload: "payment".to_owned(),
            subject: "payment-1".to_owned(),
            attributes: BTreeMap::new(),
            expires_at: SystemClock.wall() + SignedDuration::from_hours(1),
            generation: None,
        })
    }

    fn generation(&self) -> Option<u64> {
        None
    }

    async fn warm(&self) {}

    async fn ask(&self) -> Result<usize, String> {
        Ok(1)
    }

    fn refresh(&self) {}
}

pub(crate) fn identity() -> Identity {
    Identity::new(vec![Arc::new(Anybody)], &IdentityOptions::default()).unwrap()
}

/// The workload `payment`, verified.
pub(crate) async fn caller() -> Arc<Verified> {
    let evidence = Evidence::Bearer(Unverified::from_token("a.b.c").unwrap());
    identity().verify(vec![evidence]).await.unwrap()
}

/// The target with its two roles.
pub(crate) fn target(driver: Arc<dyn Driver>, chain: Vec<ChainLink>, contexts: Vec<ContextLink>) -> Target {
    let name = TargetName::new(SHOP).unwrap();
    let roles = [APP, READ_ONLY].map(|name| {
        let name = RoleName::new(name).unwrap();
        let view = RoleView { name: name.clone(), config: "{}".to_owned() };
        (name, TargetRole { view, slots: Arc::new(Semaphore::new(8)), form: LastForm::default(), rotating: None })
    });
    Target {
        name: name.clone(),
        driver_name: PLUGIN.to_owned(),
        driver,
        connection: None,
        view: TargetView { name, config: "{}".to_owned() },
        roles: roles.into(),
        default_role: None,
        default_ttl: Ttl::from_seconds(600).unwrap(),
        max_ttl: Ttl::from_seconds(3_600).unwrap(),
        deciding: Arc::new(Semaphore::new(8)),
        contexts: contexts.into(),
        usage_windows: None,
        chain: chain.into(),
        verifiers: vec![OfferedVerifier {
            kind: VerifierKind::ScramSha256,
            least_iterations: 4_096,
            never_empty: false,
        }],
        prefix: AccountPrefix::default(),
        endpoint: None,
        timeout: Duration::from_secs(10),
        site: Site::default(),
    }
}
