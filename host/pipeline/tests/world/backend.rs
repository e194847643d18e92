//! A backend with accounts, whose calls end as a test says.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use async_trait::async_trait;
use jit_core::driver::{
    AccountPage, AccountState, AccountView, Description, Feature, Issued, RoleView, RotationStep, TargetView,
};
use jit_core::outcome::{Outcome, Refusal};
use jit_core::secret::AccountSecret;
use jit_pipeline::ports::{Driver, Scope};
use parking_lot::Mutex;
use secrecy::{ExposeSecret as _, SecretString};

/// The standing account, whose password is rotated.
pub(crate) const STANDING_ACCOUNT: &str = "shop_standing";

/// How one call ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Done, and the broker hears it.
    Done,
    /// The backend says no, and does nothing.
    Refused,
    /// The backend is away, and does nothing.
    Away,
    /// Nobody knows; in truth nothing was done.
    UnknownUndone,
    /// Nobody knows; in truth it was done.
    UnknownDone,
    /// The code panics before anything was done.
    PanicUndone,
    /// The code panics after it was done.
    PanicDone,
}

impl Answer {
    /// How a call of the table of failures ends.
    pub(crate) const ALL: [Self; 5] = [Self::Done, Self::Refused, Self::Away, Self::UnknownUndone, Self::UnknownDone];

    fn has_effect(self) -> bool {
        matches!(self, Self::Done | Self::UnknownDone | Self::PanicDone)
    }

    fn outcome<T>(self, done: T) -> Outcome<T> {
        match self {
            Self::Done => Outcome::Done(done),
            Self::Refused => Outcome::Refused(Refusal::Target("no".to_owned())),
            Self::Away => {
                Outcome::Refused(Refusal::Unavailable { reason: "away".to_owned(), answered: false, after_ms: None })
            }
            Self::UnknownUndone | Self::UnknownDone => Outcome::Unknown("no answer".to_owned()),
            Self::PanicUndone | Self::PanicDone => panic!("a driver that panics"),
        }
    }
}

/// What a driver is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Verb {
    Create,
    Renew,
    Revoke,
    Rotate,
    List,
    Inspect,
    Maintain,
}

/// An account of the backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) password: String,
    pub(crate) expires_at: u64,
}

/// A standing account, whose password is rotated: the newest password, and the one before it as long as it works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Standing {
    newest: String,
    before: Option<String>,
}

impl Standing {
    /// Every password that works, the newest first.
    pub(crate) fn passwords(&self) -> Vec<&str> {
        std::iter::once(self.newest.as_str()).chain(self.before.as_deref()).collect()
    }

    pub(crate) fn lets_in(&self, password: &SecretString) -> bool {
        self.passwords().contains(&password.expose_secret())
    }

    /// As a server with dual passwords takes a step: a step that was made is made again without harm.
    fn step(&mut self, step: RotationStep, password: Option<&SecretString>) {
        let password = password.map(|password| password.expose_secret().to_owned());
        match (step, password) {
            (RotationStep::Stage, Some(next)) if next != self.newest => {
                self.before = Some(std::mem::replace(&mut self.newest, next));
            }
            (RotationStep::Replace, Some(next)) => *self = Self { newest: next, before: None },
            (RotationStep::Discard, _) => self.before = None,
            (RotationStep::Stage | RotationStep::Commit | RotationStep::Replace, _) => {}
        }
    }
}

/// The backend, and the driver for it.
#[derive(Debug)]
pub(crate) struct Backend {
    accounts: Mutex<BTreeMap<String, Account>>,
    standing: Mutex<Standing>,
    planned: Mutex<BTreeMap<Verb, VecDeque<Answer>>>,
    /// How often each verb was called.
    called: Mutex<BTreeMap<Verb, usize>>,
    description: Description,
}

impl Default for Backend {
    fn default() -> Self {
        let description = Description {
            name: "memory".to_owned(),
            version: "1".to_owned(),
            features: vec![
                Feature::Backstop,
                Feature::Renew,
                Feature::ListAccounts,
                Feature::Rotate,
                Feature::Overlap,
                Feature::Maintain,
            ],
            max_name_length: 63,
            properties: Vec::new(),
        };
        let standing = Mutex::new(Standing { newest: "nobody knows it".to_owned(), before: None });
        Self { accounts: Mutex::default(), standing, planned: Mutex::default(), called: Mutex::default(), description }
    }
}

impl Backend {
    /// The next call of that verb ends so.
    pub(crate) fn plan(&self, verb: Verb, answer: Answer) {
        self.planned.lock().entry(verb).or_default().push_back(answer);
    }

    /// Every call is done from here on.
    pub(crate) fn mend(&self) {
        self.planned.lock().clear();
    }

    pub(crate) fn accounts(&self) -> BTreeMap<String, Account> {
        self.accounts.lock().clone()
    }

    /// An account that somebody or something made.
    pub(crate) fn put(&self, name: &str) {
        let account = Account { password: "-".to_owned(), expires_at: u64::MAX };
        self.accounts.lock().insert(name.to_owned(), account);
    }

    /// An account goes without the broker.
    pub(crate) fn take(&self, name: &str) {
        assert!(self.accounts.lock().remove(name).is_some(), "{name} is not there");
    }

    pub(crate) fn standing(&self) -> Standing {
        self.standing.lock().clone()
    }

    /// How often that verb was called so far.
    pub(crate) fn called(&self, verb: Verb) -> usize {
        self.called.lock().get(&verb).copied().unwrap_or(0)
    }

    fn next(&self, verb: Verb) -> Answer {
        *self.called.lock().entry(verb).or_default() += 1;
        self.planned.lock().get_mut(&verb).and_then(VecDeque::pop_front).unwrap_or(Answer::Done)
    }
}

#[async_trait]
impl Driver for Backend {
    fn sha256(&self) -> &str {
        "00"
    }

    fn description(&self) -> &Description {
        &self.description
    }

    async fn validate(&self, _: &Scope, _: &TargetView, _: &[RoleView]) -> Outcome<()> {
        Outcome::Done(())
    }

    async fn create(
        &self,
        _: &Scope,
        _: &TargetView,
        _: &RoleView,
        account: &AccountView,
        secret: &AccountSecret,
    ) -> Outcome<Issued> {
        let answer = self.next(Verb::Create);
        if answer.has_effect() {
            let stored = match secret {
                AccountSecret::Password(password) => password.text().expose_secret().to_owned(),
                AccountSecret::Verifier(verifier) => verifier.stored().expose_secret().to_owned(),
            };
            let made = Account { password: stored, expires_at: account.expires_at };
            let before = self.accounts.lock().insert(account.name.to_string(), made);
            assert!(before.is_none(), "an account was made twice");
        }
        answer.outcome(Issued {
            username: None,
            secret: None,
            external_id: None,
            expires_at: None,
            properties: Vec::new(),
        })
    }

    async fn renew(&self, _: &Scope, _: &TargetView, _: &RoleView, account: &AccountView) -> Outcome<u64> {
        let answer = self.next(Verb::Renew);
        if answer.has_effect() {
            match self.accounts.lock().get_mut(account.name.as_str()) {
                Some(there) => there.expires_at = account.expires_at,
                None => return Outcome::Refused(Refusal::NotFound),
            }
        }
        answer.outcome(account.expires_at)
    }

    async fn rotate(
        &self,
        _: &Scope,
        _: &TargetView,
        _: &AccountView,
        step: RotationStep,
        password: Option<&SecretString>,
    ) -> Outcome<()> {
        let answer = self.next(Verb::Rotate);
        if answer.has_effect() {
            self.standing.lock().step(step, password);
        }
        answer.outcome(())
    }

    async fn revoke(&self, _: &Scope, _: &TargetView, account: &AccountView) -> Outcome<()> {
        let answer = self.next(Verb::Revoke);
        if answer.has_effect() {
            self.accounts.lock().remove(account.name.as_str());
        }
        answer.outcome(())
    }

    async fn inspect(&self, _: &Scope, _: &TargetView, name: &str) -> Outcome<AccountState> {
        let answer = self.next(Verb::Inspect);
        if answer != Answer::Done {
            return answer.outcome(AccountState { can_login: true, expires_at: None, properties: Vec::new() });
        }
        match self.accounts.lock().get(name) {
            Some(account) => Outcome::Done(AccountState {
                can_login: true,
                expires_at: Some(account.expires_at).filter(|at| *at < u64::MAX),
                properties: Vec::new(),
            }),
            None => Outcome::Refused(Refusal::NotFound),
        }
    }

    async fn list_accounts(&self, _: &Scope, _: &TargetView, prefix: &str, _: Option<&str>) -> Outcome<AccountPage> {
        let names = self.accounts.lock().keys().filter(|name| name.starts_with(prefix)).cloned().collect();
        self.next(Verb::List).outcome(AccountPage { names, next: None })
    }

    async fn maintain(&self, _: &Scope, _: &TargetView) -> Outcome<Duration> {
        self.next(Verb::Maintain).outcome(Duration::from_secs(60))
    }

    async fn place(&self, _: &Scope, _: &TargetView) -> Outcome<Vec<(String, String)>> {
        Outcome::Done(vec![("server".to_owned(), "memory".to_owned())])
    }

    async fn authenticate(&self, _: &Scope, user: &str, password: &SecretString) -> Option<Result<bool, String>> {
        if user == STANDING_ACCOUNT {
            return Some(Ok(self.standing().lets_in(password)));
        }
        let accounts = self.accounts.lock();
        Some(Ok(accounts.get(user).is_some_and(|account| account.password == password.expose_secret())))
    }
}
