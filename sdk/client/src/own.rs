//! Passwords that the application makes itself: the broker gets what the target stores of them, and never the
//! password (NEVER-HELD).

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Mutex;
use std::time::Duration;

use jit_api::{CredentialRequest, CredentialType, IssueRequest, OfferedCredential, ProblemCode, TargetView};
use jit_password::{Verifier, VerifierKind, generate_password, least_iterations};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};

use crate::error::Error;

/// For how long it is known what a target offers.
const KNOWN_FOR: Duration = Duration::from_secs(600);
/// The most targets and roles of which it is known.
const MOST_KNOWN: usize = 64;

/// Which type of credential a client asks for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CredentialChoice {
    /// The client makes the password where the target takes a verifier; otherwise the broker makes it, and the log
    /// says so.
    #[default]
    Auto,
    /// The broker makes the password.
    Password,
    /// The client makes the password. Where the target does not take a verifier, there is no credential.
    Verifier,
}

impl CredentialChoice {
    /// Its word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Password => "password",
            Self::Verifier => "verifier",
        }
    }
}

impl fmt::Display for CredentialChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for CredentialChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let all = [Self::Auto, Self::Password, Self::Verifier];
        let found = all.into_iter().find(|choice| choice.as_str() == text);
        found.ok_or_else(|| "must be auto, password or verifier".to_owned())
    }
}

/// What all attempts with one key ask for.
#[derive(Clone)]
pub(crate) enum Asked {
    /// A password of the broker's.
    Password,
    /// An account with this password, by its verifier.
    Own {
        /// It never leaves this process.
        password: SecretString,
        /// What is sent.
        request: CredentialRequest,
    },
}

impl Asked {
    /// A new password and its verifier. Takes as long as a login to the target.
    pub(crate) async fn made(offer: Offer) -> Result<Self, Error> {
        let making = tokio::task::spawn_blocking(move || {
            let password = generate_password();
            let verifier = Verifier::of(offer.kind, &password, offer.iterations);
            verifier.map(|verifier| {
                let request = CredentialRequest::verifier(verifier.kind(), verifier.text());
                Self::Own { password, request }
            })
        });
        let made = making.await.map_err(|_| Error::Config("the verifier was not computed".to_owned()))?;
        made.map_err(|error| Error::Config(format!("no verifier of the target's kind: {error}")))
    }

    /// The request with it.
    pub(crate) fn request(&self, request: &IssueRequest) -> IssueRequest {
        let mut request = request.clone();
        if let Self::Own { request: own, .. } = self {
            request.credential = Some(own.clone());
        }
        request
    }

    pub(crate) fn is_own(&self) -> bool {
        matches!(self, Self::Own { .. })
    }

    /// The password that the caller made.
    pub(crate) fn password(self) -> Option<SecretString> {
        match self {
            Self::Password => None,
            Self::Own { password, .. } => Some(password),
        }
    }
}

/// A verifier that a target takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Offer {
    kind: VerifierKind,
    iterations: u32,
}

impl Offer {
    /// The first that this client can make: the broker lists them in its order of preference.
    pub(crate) fn of(view: &TargetView) -> Option<Self> {
        view.credentials.iter().find_map(Self::of_one)
    }

    fn of_one(offered: &OfferedCredential) -> Option<Self> {
        if CredentialType::from_word(&offered.kind) != Some(CredentialType::Verifier) {
            return None;
        }
        let kind = VerifierKind::from_word(offered.verifier.as_deref()?)?;
        let least = offered.least_iterations.unwrap_or(0).max(least_iterations(kind));
        // MySQL counts its rounds in thousands.
        let iterations = if kind == VerifierKind::CachingSha2 { least.next_multiple_of(1_000) } else { least };
        Some(Self { kind, iterations })
    }
}

/// What targets offer, as far as it was asked, for a while.
#[derive(Default)]
pub(crate) struct Known(Mutex<HashMap<Key, (Duration, Option<Offer>)>>);

type Key = (String, Option<String>);

impl Known {
    fn key(request: &IssueRequest) -> Key {
        (request.target.clone(), request.role.clone())
    }

    /// What the target offers; the outer `None` where it has to be asked.
    pub(crate) fn get(&self, request: &IssueRequest, now: Duration) -> Option<Option<Offer>> {
        let known = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let (since, offer) = known.get(&Self::key(request))?;
        (now.saturating_sub(*since) < KNOWN_FOR).then_some(*offer)
    }

    pub(crate) fn put(&self, request: &IssueRequest, now: Duration, offer: Option<Offer>) {
        let mut known = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if known.len() >= MOST_KNOWN {
            known.clear();
        }
        known.insert(Self::key(request), (now, offer));
    }
}

/// Whether the broker's no means that the caller may ask for a password of the broker's instead.
pub(crate) fn may_ask_for_a_password(error: &Error) -> bool {
    error.is(ProblemCode::NotOffered) || error.is(ProblemCode::VerifierWeak)
}

/// A URI with the password after its user name. One without a user name holds no credential.
pub(crate) fn with_password(uri: &SecretString, username: &str, password: &SecretString) -> SecretString {
    let uri = uri.expose_secret();
    let user = format!("://{}@", jit_api::url::encode(username));
    let Some((scheme, rest)) = uri.split_once(&user) else { return SecretString::from(uri) };
    let password = jit_api::url::encode(password.expose_secret());
    SecretString::from(format!("{scheme}{}:{password}@{rest}", user.trim_end_matches('@')))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn offered(kind: &str, verifier: Option<&str>, least: Option<u32>) -> OfferedCredential {
        let verifier = verifier.map(str::to_owned);
        OfferedCredential { kind: kind.to_owned(), verifier, least_iterations: least, most_iterations: None }
    }

    fn view(credentials: Vec<OfferedCredential>) -> TargetView {
        let (target, role) = ("t".to_owned(), "r".to_owned());
        TargetView { target, role, credentials, default_ttl_seconds: 60, max_ttl_seconds: 60 }
    }

    #[test]
    fn the_first_verifier_that_the_client_knows_is_made() {
        let of = |credentials| Offer::of(&view(credentials));
        assert_eq!(of(vec![]), None);
        assert_eq!(of(vec![offered("password", None, None), offered("x509", Some("ssha"), None)]), None);
        assert_eq!(of(vec![offered("verifier", Some("argon2"), None), offered("verifier", None, None)]), None);
        let scram = |iterations| Some(Offer { kind: VerifierKind::ScramSha256, iterations });
        assert_eq!(of(vec![offered("verifier", Some("scram_sha_256"), None)]), scram(4_096));
        assert_eq!(of(vec![offered("verifier", Some("scram_sha_256"), Some(1))]), scram(4_096), "never fewer");
        assert_eq!(of(vec![offered("verifier", Some("scram_sha_256"), Some(9_000))]), scram(9_000));
        let rounds = Some(Offer { kind: VerifierKind::CachingSha2, iterations: 6_000 });
        assert_eq!(of(vec![offered("verifier", Some("caching_sha2"), Some(5_500))]), rounds);
    }

    #[tokio::test]
    async fn what_is_sent_verifies_the_password_that_is_kept() {
        for kind in VerifierKind::ALL {
            let asked =
                Asked::made(Offer { kind, iterations: least_iterations(kind) }).await.unwrap_or(Asked::Password);
            let sent = asked.request(&IssueRequest::new("t")).credential;
            let Some(password) = asked.password() else { panic!("{kind}") };
            let (found, text) = sent.as_ref().and_then(|sent| sent.verifiers().next()).unwrap();
            let verifier = Verifier::parse(found, &text.0).unwrap();
            assert!(found == kind && verifier.verifies(password.expose_secret()), "{kind}");
            assert!(!format!("{sent:?}").contains(password.expose_secret()));
        }
    }

    #[test]
    fn a_uri_gets_the_password_where_it_has_a_user() {
        let put = |uri: &str, user: &str| {
            let uri = with_password(&SecretString::from(uri), user, &SecretString::from("p@w"));
            uri.expose_secret().to_owned()
        };
        assert_eq!(put("postgres://v-x@db:5432/a", "v-x"), "postgres://v-x:p%40w@db:5432/a");
        assert_eq!(put("mysql://v-%C3%A9@db:1", "v-é"), "mysql://v-%C3%A9:p%40w@db:1");
        assert_eq!(put("ldaps://directory:636", "cn=x"), "ldaps://directory:636");
    }

    #[test]
    fn what_is_known_ages() {
        let (known, request) = (Known::default(), IssueRequest::new("t"));
        assert_eq!(known.get(&request, Duration::ZERO), None);
        known.put(&request, Duration::from_secs(1), None);
        assert_eq!(known.get(&request, Duration::from_secs(2)), Some(None));
        assert_eq!(known.get(&request, Duration::from_secs(601)), None);
        assert_eq!(known.get(&request.clone().role("r"), Duration::from_secs(2)), None);
        for number in 0..1_000 {
            known.put(&IssueRequest::new(number.to_string()), Duration::ZERO, None);
        }
        assert!(known.0.lock().unwrap().len() <= MOST_KNOWN);
    }
}
