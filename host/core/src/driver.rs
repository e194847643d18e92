//! What the host says to a driver and what a driver answers, after the host's checks.

use secrecy::SecretString;

use crate::account::AccountName;
use crate::id::LeaseId;
use crate::name::{RoleName, TargetName};

pub use jit_contract::{Feature, PlacedVerifier};
use jit_contract::{VERIFIERS, VerifierRule};

/// What a driver says of itself, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// The driver's name and version, for the log.
    pub name: String,
    /// Its version.
    pub version: String,
    /// What it can do.
    pub features: Vec<Feature>,
    /// The longest account name, in bytes.
    pub max_name_length: usize,
    /// Anything else it says.
    pub properties: Vec<(String, String)>,
}

impl Description {
    /// Whether it has the feature.
    #[must_use]
    pub fn has(&self, feature: Feature) -> bool {
        self.features.contains(&feature)
    }

    /// The verifiers of callers that it places in a target with that `config`. None where the backend makes the secret, or what is handed out stands
    /// before its lease.
    ///
    /// # Errors
    /// What is wrong with its list, in words for its author.
    pub fn verifiers(&self, config: &serde_json::Value) -> Result<Vec<PlacedVerifier>, String> {
        let made_here = !self.has(Feature::ExternalAccounts) && !self.has(Feature::StandingAccounts);
        let said = self.properties.iter().find(|(name, _)| name == VERIFIERS).filter(|_| made_here);
        let Some((_, said)) = said else { return Ok(Vec::new()) };
        let text_of = |key: &str| {
            let value = config.get(key)?;
            let scalar = value.is_boolean() || value.is_number();
            value.as_str().map(str::to_owned).or_else(|| scalar.then(|| value.to_string()))
        };
        Ok(VerifierRule::parse_all(said)?.iter().filter_map(|rule| rule.applies(text_of)).collect())
    }
}

/// A target as its driver sees it.
#[derive(Debug, Clone)]
pub struct TargetView {
    /// The target's name.
    pub name: TargetName,
    /// Its `config` table, as JSON.
    pub config: String,
}

/// A role as its driver sees it.
#[derive(Debug, Clone)]
pub struct RoleView {
    /// The role's name.
    pub name: RoleName,
    /// The role's whole table, as JSON.
    pub config: String,
}

/// An account as its driver sees it.
#[derive(Debug, Clone)]
pub struct AccountView {
    /// The name the host chose (or, for external accounts, the one that the backend gave).
    pub name: AccountName,
    /// The lease it belongs to.
    pub lease_id: LeaseId,
    /// The workload's name.
    pub workload: String,
    /// Seconds since the Unix epoch.
    pub expires_at: u64,
    /// The backend's own handle.
    pub external_id: Option<String>,
    /// Seconds since the Unix epoch when the call is made: a driver has no clock.
    pub now: u64,
}

/// What creation gave, checked.
#[derive(Debug, Default)]
pub struct Issued {
    /// The name that the backend chose, if it does.
    pub username: Option<String>,
    /// The secret that the backend chose, if it does.
    pub secret: Option<SecretString>,
    /// The backend's own handle.
    pub external_id: Option<String>,
    /// Where the backend capped the life, in seconds since the Unix epoch.
    pub expires_at: Option<u64>,
    /// Shown to the caller.
    pub properties: Vec<(String, String)>,
}

/// What the backend says of an account, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountState {
    /// Whether it can log in now.
    pub can_login: bool,
    /// The backend's own expiry, in seconds since the Unix epoch.
    pub expires_at: Option<u64>,
    /// Anything else.
    pub properties: Vec<(String, String)>,
}

/// The steps of a change of password.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RotationStep {
    /// Set the new password (without overlap, that is all).
    Stage,
    /// Make it the current one.
    Commit,
    /// Drop the old one, and what was opened with it.
    Discard,
    /// Set the new password in place of every other and end the account's sessions.
    Replace,
}

/// One page of account names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountPage {
    /// Names with the asked prefix.
    pub names: Vec<String>,
    /// Where the next page starts; `None` at the end.
    pub next: Option<String>,
}
/// On whose behalf a driver is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// A request that somebody waits for.
    Live,
    /// A removal: it has slots and connections of its own, so that expiry never starves behind
    /// issues.
    Removal,
}
