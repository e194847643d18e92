//! What an account gets as its secret.

use std::sync::{Arc, OnceLock};

use jit_password::{mysql, scram};
use secrecy::{ExposeSecret as _, SecretString};
use zeroize::Zeroizing;

pub use jit_password::{Verifier, generate_password, least_iterations, most_iterations};

/// What a server stores of a password, where computing it takes so long that it is worth doing ahead. What takes some
/// microseconds only (salted digests, `mysql_native_password`) is computed when it is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Form {
    /// PostgreSQL's SCRAM-SHA-256 verifier.
    ScramSha256 {
        /// Iterations of its hash.
        iterations: u32,
    },
    /// What MySQL's `caching_sha2_password` stores.
    CachingSha2,
}

impl Form {
    /// Computes it, with a new random salt. None where the form does not take the password: a generated one is taken
    /// by all.
    #[must_use]
    pub fn of(self, password: &SecretString) -> Option<Zeroizing<String>> {
        match self {
            Self::ScramSha256 { iterations } => scram::verifier(password, iterations).ok(),
            Self::CachingSha2 => Some(mysql::caching_sha2(password)),
        }
    }
}

/// A password that the broker made for one account, perhaps with what the server stores of it.
///
/// It cannot be cloned: its owner is the only one who has it. Both texts are wiped when it is dropped.
#[derive(Debug)]
pub struct NewPassword {
    text: SecretString,
    stored: Option<(Form, SecretString)>,
    /// The form in which a driver placed it first.
    placed_in: OnceLock<Form>,
}

impl NewPassword {
    /// A new random password, of which nothing is computed yet.
    #[must_use]
    pub fn generate() -> Self {
        Self::from(generate_password())
    }

    /// A new random password with what a server stores of it. None where it could not be computed.
    #[must_use]
    pub fn generate_in(form: Form) -> Option<Self> {
        let text = generate_password();
        let stored = form.of(&text)?;
        let stored = Some((form, SecretString::from(stored.as_str())));
        Some(Self { text, stored, placed_in: OnceLock::new() })
    }

    /// The password itself.
    #[must_use]
    pub const fn text(&self) -> &SecretString {
        &self.text
    }

    /// The form that is computed already.
    #[must_use]
    pub fn computed(&self) -> Option<Form> {
        self.stored.as_ref().map(|(form, _)| *form)
    }

    /// Notes that a driver places it in that form. Returns what the server stores, where it is computed already.
    #[must_use]
    pub fn place_in(&self, form: Form) -> Option<Zeroizing<String>> {
        self.placed_in.get_or_init(|| form);
        let (computed, stored) = self.stored.as_ref()?;
        (*computed == form).then(|| Zeroizing::new(stored.expose_secret().to_owned()))
    }

    /// The form in which a driver placed it first; none where it was placed in no such form.
    #[must_use]
    pub fn placed_in(&self) -> Option<Form> {
        self.placed_in.get().copied()
    }
}

impl From<SecretString> for NewPassword {
    fn from(text: SecretString) -> Self {
        Self { text, stored: None, placed_in: OnceLock::new() }
    }
}

/// What a new account gets. A driver places either in the same way and cannot tell which it is.
#[derive(Debug, Clone)]
pub enum AccountSecret {
    /// A password that the broker made. The clones of one call share it.
    Password(Arc<NewPassword>),
    /// What the server stores of a password that the caller made. The broker never knows that password.
    Verifier(Verifier),
}

impl From<NewPassword> for AccountSecret {
    fn from(password: NewPassword) -> Self {
        Self::Password(Arc::new(password))
    }
}

impl From<SecretString> for AccountSecret {
    fn from(password: SecretString) -> Self {
        Self::from(NewPassword::from(password))
    }
}

impl From<&SecretString> for AccountSecret {
    fn from(password: &SecretString) -> Self {
        Self::from(password.clone())
    }
}

impl From<&AccountSecret> for AccountSecret {
    fn from(secret: &AccountSecret) -> Self {
        secret.clone()
    }
}

/// The most former sealing keys: what was sealed with them can still be read.
pub const MAX_FORMER: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    const SCRAM: Form = Form::ScramSha256 { iterations: 4_096 };

    #[test]
    fn what_is_computed_ahead_is_placed_in_its_own_form_only() {
        let password = NewPassword::generate_in(SCRAM).unwrap();
        assert_eq!(password.computed(), Some(SCRAM));
        assert_eq!(password.placed_in(), None);
        assert!(password.place_in(Form::ScramSha256 { iterations: 4_097 }).is_none());
        assert!(password.place_in(Form::CachingSha2).is_none());
        let stored = SecretString::from(password.place_in(SCRAM).unwrap().as_str());
        let verifier = Verifier::parse(jit_password::VerifierKind::ScramSha256, &stored).unwrap();
        assert!(verifier.verifies(password.text().expose_secret()));
        assert_eq!(password.placed_in(), Some(Form::ScramSha256 { iterations: 4_097 }), "the first one");
    }

    #[test]
    fn nothing_of_it_is_shown() {
        let password = NewPassword::generate_in(Form::CachingSha2).unwrap();
        let stored = password.place_in(Form::CachingSha2).unwrap();
        let shown = format!("{password:?} {:?}", AccountSecret::from(NewPassword::generate()));
        assert!(!shown.contains(password.text().expose_secret()) && !shown.contains(stored.as_str()), "{shown}");
        assert!(shown.contains("REDACTED"), "{shown}");
    }
}
