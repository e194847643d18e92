//! What the pipeline needs of the world, as traits. The assembly implements them over Wasm plugins and connections;
//! the tests of the pipeline implement them in memory, on paused time.
//!
//! Whoever implements them checks every answer before it gets here (UNTRUSTED-ANSWER).

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use jit_core::driver::{
    AccountPage, AccountState, AccountView, Description, Issued, Lane, RoleView, RotationStep, TargetView,
};
use jit_core::looked_at::LookedAt;
use jit_core::outcome::Outcome;
use jit_core::policy::{DecidedBy, PolicyRequest, Verdict};
use jit_core::secret::AccountSecret;
use secrecy::SecretString;
use tokio::time::Instant;

use crate::places::Site;

/// How a driver is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scope {
    /// How long the whole call may take: waiting for a slot, the driver's own time and calls to the backend.
    pub deadline: Duration,
    /// On whose behalf.
    pub lane: Lane,
}

/// A driver on one connection. Each verb ends as one of THREE-OUTCOMES: the implementation knows whether anything
/// was sent that may have changed the backend, and does not rely on the driver's word for it.
///
/// Dropping a call's future ends the call.
#[async_trait]
pub trait Driver: fmt::Debug + Send + Sync {
    /// The SHA-256 of its component, in hexadecimal.
    fn sha256(&self) -> &str;

    /// What it says of itself, checked at load.
    fn description(&self) -> &Description;

    /// Checks a target's configuration, as far as the backend answers.
    async fn validate(&self, scope: &Scope, target: &TargetView, roles: &[RoleView]) -> Outcome<()>;

    /// Makes the account with that secret.
    async fn create(
        &self,
        scope: &Scope,
        target: &TargetView,
        role: &RoleView,
        account: &AccountView,
        secret: &AccountSecret,
    ) -> Outcome<Issued>;

    /// Moves the account's own expiry. Returns what the backend set, in seconds since the Unix epoch.
    async fn renew(&self, scope: &Scope, target: &TargetView, role: &RoleView, account: &AccountView) -> Outcome<u64>;

    /// Changes the account's password, one step of several.
    async fn rotate(
        &self,
        scope: &Scope,
        target: &TargetView,
        account: &AccountView,
        step: RotationStep,
        password: Option<&SecretString>,
    ) -> Outcome<()>;

    /// Removes the account. Done, too, when there is none.
    async fn revoke(&self, scope: &Scope, target: &TargetView, account: &AccountView) -> Outcome<()>;

    /// What the backend says of an account.
    async fn inspect(&self, scope: &Scope, target: &TargetView, name: &str) -> Outcome<AccountState>;

    /// A page of the accounts whose names begin with the prefix; for external accounts, the handles of all that the
    /// broker had made.
    async fn list_accounts(
        &self,
        scope: &Scope,
        target: &TargetView,
        prefix: &str,
        cursor: Option<&str>,
    ) -> Outcome<AccountPage>;

    /// Does what has to be done between calls. Returns after how long it wants to be called again.
    async fn maintain(&self, scope: &Scope, target: &TargetView) -> Outcome<Duration>;

    /// Where the target's accounts are, in the backend's words: names and values.
    async fn place(&self, scope: &Scope, target: &TargetView) -> Outcome<Vec<(String, String)>>;

    /// Whether a login with that name and password succeeds now. None where the connection cannot try.
    ///
    /// # Errors
    /// When the backend neither lets it in nor says that name or password are wrong.
    async fn authenticate(&self, scope: &Scope, user: &str, password: &SecretString) -> Option<Result<bool, String>>;
}

/// A driver that was found by what a lease records of it.
pub struct FoundDriver {
    /// The driver on the lease's connection.
    pub driver: Arc<dyn Driver>,
    /// What the host knows of where its server is.
    pub site: Site,
}

/// The drivers and connections of a configuration, also those that no target uses any more: their accounts still
/// have to be removed.
pub trait Drivers: Send + Sync {
    /// The driver that has this name in the configuration, on the connection of that name.
    ///
    /// # Errors
    /// In words for operators, when the configuration no longer has one of them.
    fn find(&self, plugin: &str, connection: Option<&str>) -> Result<FoundDriver, String>;

    /// Whether any driver wants to be called between requests.
    fn any_needs_upkeep(&self) -> bool;
}

/// A configuration without drivers.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoDrivers;

impl Drivers for NoDrivers {
    fn find(&self, plugin: &str, _connection: Option<&str>) -> Result<FoundDriver, String> {
        Err(format!("the configuration no longer has the driver {plugin}"))
    }

    fn any_needs_upkeep(&self) -> bool {
        false
    }
}

/// Why a policy did not answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyFault {
    /// There was no room to ask it: not its doing, so not its no.
    #[error("all slots are busy")]
    Overloaded,
    /// It failed: trapped, took too long, or answered what cannot be used. The words are for the record.
    #[error("{0}")]
    Failed(String),
}

/// What a policy says, and what it looked at to say it.
#[derive(Debug, Clone)]
pub struct PolicyReply {
    /// The verdict; a [`PolicyFault`], whatever it is, does not allow (CLOSED).
    pub verdict: Result<Verdict, PolicyFault>,
    /// What of the request it read, until it answered or failed.
    pub looked_at: LookedAt,
    /// How it was found.
    pub by: DecidedBy,
}

/// A policy with its configuration.
pub trait Policy: Send + Sync {
    /// The SHA-256 of its component, in hexadecimal.
    fn sha256(&self) -> &str;

    /// Asks it. Blocks for as long as the policy takes, within its own limit.
    fn decide(&self, request: &PolicyRequest) -> PolicyReply;
}

/// A context provider with its configuration, connection and deadline.
#[async_trait]
pub trait Context: Send + Sync {
    /// The SHA-256 of its component, in hexadecimal.
    fn sha256(&self) -> &str;

    /// Gathers facts for a request.
    ///
    /// # Errors
    /// In words for the record and for operators.
    async fn gather(&self, request: &PolicyRequest) -> Result<BTreeMap<String, String>, String>;
}

/// The clocks of the machine.
pub trait Clock: fmt::Debug + Send + Sync {
    /// What the wall clock shows.
    fn wall(&self) -> Timestamp;

    /// A clock that never jumps.
    fn monotonic(&self) -> Instant;
}

/// The clocks of this machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods, reason = "this is where the time comes from")]
    fn wall(&self) -> Timestamp {
        Timestamp::now()
    }

    fn monotonic(&self) -> Instant {
        Instant::now()
    }
}
