//! The test stand: a loaded driver, its target, and what was made on it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use jiff::Timestamp;
use jit_core::account::{AccountName, AccountPrefix, Mark};
use jit_core::driver::{AccountState, AccountView, Feature, Issued, RoleView, RotationStep, TargetView};
use jit_core::id::LeaseId;
use jit_core::outcome::{Outcome, Refusal};
use jit_core::secret::{AccountSecret, generate_password};
use jit_runtime::{Connection, DriverPlugin, DriverScope, Lane};
use parking_lot::Mutex;
use secrecy::SecretString;

use super::gate::Gate;
use super::login::{Login, OpenSession};

/// Attempts to remove an account that a fault may have left, and the wait between two.
const ATTEMPTS: usize = 40;
const BETWEEN: Duration = Duration::from_millis(250);
/// Pages of a listing at most.
const MOST_PAGES: usize = 200;
/// The life of an account that is not about its end, in seconds.
const LIFE: u64 = 3_600;

/// Everything a case works with.
pub struct Stand {
    /// The driver.
    pub driver: DriverPlugin,
    /// The target as the driver sees it.
    pub target: TargetView,
    /// The role that accounts are made in.
    pub role: RoleView,
    /// Roles that must be refused.
    pub refused_roles: Vec<RoleView>,
    /// How it is seen that an account can log in.
    pub login: Option<Login>,
    /// Before the backend, where that is on this machine.
    pub gate: Option<Gate>,
    /// Whether the backend makes more than one account.
    pub many_accounts: bool,
    pub(super) without: Vec<Feature>,
    pub(super) scope: DriverScope,
    /// Through other credentials, and why not where there are none.
    pub(super) wrong_credentials: Result<Connection, String>,
    pub(super) wrong_authority: Result<Connection, String>,
    pub(super) weak: Result<Connection, String>,
    pub(super) roles: Vec<RoleView>,
    pub(super) prefix: AccountPrefix,
    pub(super) mark: Mark,
    pub(super) seen: Seen,
}

/// What was made and said so far.
#[derive(Default)]
pub(super) struct Seen {
    made: Mutex<Vec<AccountView>>,
    told: Mutex<Vec<String>>,
    secrets: Mutex<Vec<SecretString>>,
    /// Whether a case wanted to log in and could not.
    untried: AtomicBool,
}

/// An account that a case made.
pub struct Made {
    /// As its driver sees it.
    pub account: AccountView,
    /// What its user calls it.
    pub username: String,
    /// Its password.
    pub password: SecretString,
}

/// A case that the fixture or the driver's features leave out.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct NotApplicable(pub String);

/// A case that applies and cannot be tried: the fixture does not say how to look.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct NotTried(pub String);

/// Ends a case as skipped.
pub fn skip<T>(why: impl Into<String>) -> Result<T> {
    Err(NotTried(why.into()).into())
}

/// Ends a case as not applicable.
pub fn leave_out<T>(why: impl Into<String>) -> Result<T> {
    Err(NotApplicable(why.into()).into())
}

impl Stand {
    /// The backend answers; whether it likes what it is asked is a case's to see.
    ///
    /// # Errors
    /// When it does not.
    pub async fn must_reach_the_backend(&self) -> Result<()> {
        match self.driver.validate(&self.scope(), &self.target, &self.good_roles()).await {
            Outcome::Refused(Refusal::Unavailable { reason, .. }) => bail!("the backend cannot be reached: {reason}"),
            _ => Ok(()),
        }
    }

    /// The features that it claims.
    pub fn has(&self, feature: Feature) -> bool {
        self.driver.description().has(feature) && !self.without.contains(&feature)
    }

    /// Whether the driver says that it does not end sessions.
    pub fn says_that_sessions_stay(&self) -> bool {
        self.driver.description().properties.iter().any(|(name, value)| name == "sessions" && value == "stay")
    }

    /// Leaves the case out unless the driver has the feature.
    ///
    /// # Errors
    /// [`NotApplicable`].
    pub fn need(&self, feature: Feature, word: &str) -> Result<()> {
        if self.has(feature) { Ok(()) } else { leave_out(format!("the driver has no feature {word}")) }
    }

    /// The login; the case is skipped without one.
    ///
    /// # Errors
    /// [`NotTried`].
    pub fn login(&self) -> Result<&Login> {
        self.login.as_ref().map_or_else(|| skip("the fixture has no [conformance.login]"), Ok)
    }

    /// The gate; the case is skipped without one.
    ///
    /// # Errors
    /// [`NotTried`].
    pub fn gate(&self) -> Result<&Gate> {
        self.gate.as_ref().map_or_else(|| skip("the backend is not on this machine: no faults are played"), Ok)
    }

    /// A call's scope.
    pub fn scope(&self) -> DriverScope {
        self.scope.clone()
    }

    /// A call's scope with another deadline.
    pub fn scope_within(&self, deadline: Duration) -> DriverScope {
        DriverScope { deadline, ..self.scope() }
    }

    /// The scope of removals.
    pub fn removal(&self) -> DriverScope {
        DriverScope { lane: Lane::Removal, ..self.scope() }
    }

    /// With credentials that the backend does not take.
    ///
    /// # Errors
    /// [`NotApplicable`].
    pub fn with_wrong_credentials(&self) -> Result<DriverScope> {
        self.with(&self.wrong_credentials)
    }

    /// Trusting an authority that did not sign the backend's certificate.
    ///
    /// # Errors
    /// [`NotApplicable`].
    pub fn with_wrong_authority(&self) -> Result<DriverScope> {
        self.with(&self.wrong_authority)
    }

    /// As somebody who may not make accounts.
    ///
    /// # Errors
    /// [`NotApplicable`].
    pub fn as_weak(&self) -> Result<DriverScope> {
        self.with(&self.weak)
    }

    fn with(&self, connection: &Result<Connection, String>) -> Result<DriverScope> {
        match connection {
            Ok(connection) => Ok(DriverScope { connection: Some(connection.clone()), ..self.scope() }),
            Err(why) => skip(why.clone()),
        }
    }

    /// The roles that must be accepted.
    pub fn good_roles(&self) -> Vec<RoleView> {
        let refused = |role: &RoleView| self.refused_roles.iter().any(|refused| refused.name == role.name);
        self.roles.iter().filter(|role| !refused(role)).cloned().collect()
    }

    /// A new account of the kit's own, for an hour.
    pub fn account(&self) -> AccountView {
        self.account_for("conformance", LIFE)
    }

    /// Whether a run with this fixture made the account of that name.
    pub(super) fn made(&self, name: &str) -> bool {
        self.prefix.owns(&self.mark, name)
    }

    /// An account of an earlier run, of which only the name is known.
    pub(super) fn known_by_name(&self, name: AccountName) -> AccountView {
        AccountView { name, expires_at: now(), ..self.account() }
    }

    /// A new account that lives for so many seconds.
    pub fn account_for(&self, workload: &str, life: u64) -> AccountView {
        let now = Timestamp::now();
        let seconds = u64::try_from(now.as_second()).unwrap_or(0);
        AccountView {
            name: self.prefix.generate(&self.mark, workload, self.driver.description().max_name_length),
            lease_id: LeaseId::generate(now),
            workload: workload.to_owned(),
            expires_at: seconds + life,
            external_id: None,
            now: seconds,
        }
    }

    /// Creates with a new password, whatever comes of it. What may have been made is remembered.
    pub async fn try_create(
        &self,
        scope: &DriverScope,
        role: &RoleView,
        account: &AccountView,
    ) -> (Outcome<Issued>, SecretString) {
        let password = generate_password();
        self.keep_secret(&password);
        let outcome = self.try_create_with(scope, role, account, AccountSecret::from(&password)).await;
        (outcome, password)
    }

    /// Creates with that secret, whatever comes of it. What may have been made is remembered.
    pub async fn try_create_with(
        &self,
        scope: &DriverScope,
        role: &RoleView,
        account: &AccountView,
        secret: AccountSecret,
    ) -> Outcome<Issued> {
        self.seen.made.lock().push(account.clone());
        let outcome = self.driver.create(scope, &self.target, role, account, secret).await;
        self.note(&outcome);
        if let Outcome::Done(issued) = &outcome {
            let mut made = self.seen.made.lock();
            if let Some(known) = made.iter_mut().find(|known| known.name == account.name) {
                known.external_id.clone_from(&issued.external_id);
            }
            if let Some(secret) = &issued.secret {
                self.keep_secret(secret);
            }
        }
        outcome
    }

    /// Creates an account.
    ///
    /// # Errors
    /// When the driver does not.
    pub async fn create(&self) -> Result<Made> {
        self.create_as(self.account()).await
    }

    /// Creates that account.
    ///
    /// # Errors
    /// When the driver does not.
    pub async fn create_as(&self, account: AccountView) -> Result<Made> {
        let (outcome, password) = self.try_create(&self.scope(), &self.role.clone(), &account).await;
        match outcome {
            Outcome::Done(issued) => Ok(made(account, issued, password)),
            other => bail!("create: {}", shown(&other)),
        }
    }

    /// Revokes, whatever comes of it.
    pub async fn try_revoke(&self, scope: &DriverScope, account: &AccountView) -> Outcome<()> {
        let account = AccountView { now: now(), ..account.clone() };
        let outcome = self.driver.revoke(scope, &self.target, &account).await;
        self.note(&outcome);
        if outcome == Outcome::Done(()) {
            self.seen.made.lock().retain(|known| known.name != account.name);
        }
        outcome
    }

    /// Revokes.
    ///
    /// # Errors
    /// When the driver does not.
    pub async fn revoke(&self, account: &AccountView) -> Result<()> {
        match self.try_revoke(&self.removal(), account).await {
            Outcome::Done(()) => Ok(()),
            other => bail!("revoke: {}", shown(&other)),
        }
    }

    /// Revokes as the broker would after a fault: again and again, for a bounded time.
    ///
    /// # Errors
    /// What the last attempt said.
    pub async fn revoke_in_the_end(&self, account: &AccountView) -> Result<()> {
        let mut last = String::new();
        for _ in 0..ATTEMPTS {
            match self.try_revoke(&self.removal(), account).await {
                Outcome::Done(()) => return Ok(()),
                other => last = shown(&other),
            }
            tokio::time::sleep(BETWEEN).await;
        }
        bail!("the account cannot be removed: {last}")
    }

    /// Changes the password, one step.
    ///
    /// # Errors
    /// When the driver does not.
    pub async fn rotate(&self, made: &Made, step: RotationStep, password: Option<&SecretString>) -> Result<()> {
        if let Some(password) = password {
            self.keep_secret(password);
        }
        let outcome = self.driver.rotate(&self.scope(), &self.target, &made.account, step, password).await;
        self.note(&outcome);
        match outcome {
            Outcome::Done(()) => Ok(()),
            other => bail!("rotate ({step:?}): {}", shown(&other)),
        }
    }

    /// What the backend says of an account; `None` when it is not there.
    ///
    /// # Errors
    /// When the driver does not say.
    pub async fn inspect(&self, name: &str) -> Result<Option<AccountState>> {
        let outcome = self.read(|| self.driver.inspect(&self.scope, &self.target, name)).await;
        match outcome {
            Outcome::Done(state) => Ok(Some(state)),
            Outcome::Refused(Refusal::NotFound) => Ok(None),
            other => bail!("inspect: {}", shown(&other)),
        }
    }

    /// Every name with the kit's prefix (for external accounts: every id).
    ///
    /// # Errors
    /// When the driver does not list, or lists without end.
    pub async fn list(&self) -> Result<Vec<String>> {
        let mut names = Vec::new();
        let mut cursor: Option<String> = None;
        for _ in 0..MOST_PAGES {
            let prefix = if self.has(Feature::ExternalAccounts) { "" } else { self.prefix.as_str() };
            let cursor_now = cursor.as_deref();
            let outcome = self.read(|| self.driver.list_accounts(&self.scope, &self.target, prefix, cursor_now)).await;
            let page = match outcome {
                Outcome::Done(page) => page,
                other => bail!("list-accounts: {}", shown(&other)),
            };
            names.extend(page.names);
            match page.next {
                None => return Ok(names),
                Some(next) => cursor = Some(next),
            }
        }
        bail!("list-accounts does not end within {MOST_PAGES} pages")
    }

    /// A call that only reads, again while the backend is said to be away: after a fault a
    /// connection from before may still be tried once.
    async fn read<T, F: Future<Output = Outcome<T>>>(&self, call: impl Fn() -> F) -> Outcome<T> {
        for _ in 1..ATTEMPTS {
            let outcome = call().await;
            self.note(&outcome);
            if !matches!(outcome, Outcome::Refused(Refusal::Unavailable { .. })) {
                return outcome;
            }
            tokio::time::sleep(BETWEEN).await;
        }
        call().await
    }

    /// How the account is listed.
    pub fn listed_as(&self, account: &AccountView) -> String {
        if self.has(Feature::ExternalAccounts) {
            return account.external_id.clone().unwrap_or_default();
        }
        account.name.to_string()
    }

    /// What `inspect` is asked for.
    pub fn inspected_as(&self, made: &Made) -> String {
        if self.has(Feature::ExternalAccounts) {
            return made.account.external_id.clone().unwrap_or_default();
        }
        made.account.name.to_string()
    }

    /// Whether a login was wanted and not tried since this was asked last.
    pub fn took_untried_login(&self) -> bool {
        self.seen.untried.swap(false, Ordering::Relaxed)
    }

    /// Whether the account can log in, where the fixture says how to look.
    ///
    /// # Errors
    /// When the server does not say.
    pub async fn can_log_in(&self, username: &str, password: &SecretString) -> Result<Option<bool>> {
        let Some(login) = &self.login else {
            self.seen.untried.store(true, Ordering::Relaxed);
            return Ok(None);
        };
        match login.try_in(username, password).await? {
            Some(session) => {
                session.close().await;
                Ok(Some(true))
            }
            None => Ok(Some(false)),
        }
    }

    /// An open session of the account.
    ///
    /// # Errors
    /// When there is none.
    pub async fn session(&self, made: &Made) -> Result<OpenSession> {
        let opened = self.login()?.try_in(&made.username, &made.password).await?;
        opened.context("the account cannot log in")
    }

    /// The account must be able to log in.
    ///
    /// # Errors
    /// When it cannot.
    pub async fn must_log_in(&self, made: &Made) -> Result<()> {
        let can = self.can_log_in(&made.username, &made.password).await?;
        ensure!(can != Some(false), "the account cannot log in");
        Ok(())
    }

    /// The account must be gone, by every way of looking that there is.
    ///
    /// # Errors
    /// Where it still is.
    pub async fn must_be_gone(&self, made: &Made) -> Result<()> {
        let looks =
            self.has(Feature::ListAccounts) || self.has(Feature::Inspect) && !self.has(Feature::ExternalAccounts);
        if self.login.is_none() && !looks {
            return skip(
                "nothing can be seen of an account: the driver has neither inspect nor list-accounts, and the fixture has no [conformance.login]",
            );
        }
        let can = self.can_log_in(&made.username, &made.password).await?;
        ensure!(can != Some(true), "the account can still log in");
        self.must_not_be_there(&made.account).await
    }

    /// The same without a login, for an account whose creation gave nothing.
    ///
    /// # Errors
    /// Where it still is.
    pub async fn must_not_be_there(&self, account: &AccountView) -> Result<()> {
        if self.has(Feature::Inspect) && !self.has(Feature::ExternalAccounts) {
            let state = self.inspect(account.name.as_str()).await?;
            ensure!(state.is_none(), "inspect still finds the account: {state:?}");
        }
        if self.has(Feature::ListAccounts) {
            let listed = self.listed_as(account);
            ensure!(!self.list().await?.contains(&listed), "list-accounts still has the account");
        }
        Ok(())
    }

    /// Has the pool connected before a fault is played.
    pub async fn warm(&self) {
        // Whatever it says: only the connection counts.
        let _ = self.inspect(self.account().name.as_str()).await;
    }

    /// Remembers what a call said, for the search for secrets at the end.
    pub fn note<T>(&self, outcome: &Outcome<T>) {
        if !matches!(outcome, Outcome::Done(_)) {
            self.seen.told.lock().push(shown(outcome));
        }
    }

    /// Remembers a secret that no answer may hold.
    pub fn keep_secret(&self, secret: &SecretString) {
        self.seen.secrets.lock().push(secret.clone());
    }

    /// Everything that was said, and every secret that was in play.
    pub fn told_and_secret(&self) -> (Vec<String>, Vec<SecretString>) {
        (self.seen.told.lock().clone(), self.seen.secrets.lock().clone())
    }

    /// Removes whatever a case left behind.
    ///
    /// # Errors
    /// What could not be removed.
    pub async fn clear(&self) -> Result<()> {
        if let Some(gate) = &self.gate {
            gate.open();
        }
        // Taken out, so that what cannot be removed is told once and fails one case.
        let left = std::mem::take(&mut *self.seen.made.lock());
        let mut failure = Ok(());
        for account in left {
            let removed = self.revoke_in_the_end(&account).await.with_context(|| format!("account {}", account.name));
            failure = failure.and(removed);
        }
        failure
    }
}

/// What creation gave, as a user of it would have it.
pub fn made(account: AccountView, issued: Issued, password: SecretString) -> Made {
    Made {
        username: issued.username.unwrap_or_else(|| account.name.to_string()),
        password: issued.secret.unwrap_or(password),
        account: AccountView { external_id: issued.external_id, ..account },
    }
}

/// An outcome in words.
pub fn shown<T>(outcome: &Outcome<T>) -> String {
    match outcome {
        Outcome::Done(_) => "done".to_owned(),
        Outcome::Refused(refusal) => format!("refused: {}", refusal.reason()),
        Outcome::Unknown(reason) => format!("unknown: {reason}"),
    }
}

fn now() -> u64 {
    u64::try_from(Timestamp::now().as_second()).unwrap_or(0)
}
