//! What an account gets as its secret.

use secrecy::SecretString;

pub use jit_password::{Verifier, generate_password, least_iterations, most_iterations};

/// What a new account gets. A driver places either in the same way and cannot tell which it is.
#[derive(Debug, Clone)]
pub enum AccountSecret {
    /// A password that the broker made.
    Password(SecretString),
    /// What the server stores of a password that the caller made. The broker never knows that password.
    Verifier(Verifier),
}

impl From<SecretString> for AccountSecret {
    fn from(password: SecretString) -> Self {
        Self::Password(password)
    }
}

impl From<&SecretString> for AccountSecret {
    fn from(password: &SecretString) -> Self {
        Self::Password(password.clone())
    }
}

impl From<&AccountSecret> for AccountSecret {
    fn from(secret: &AccountSecret) -> Self {
        secret.clone()
    }
}

/// The most former sealing keys: what was sealed with them can still be read.
pub const MAX_FORMER: usize = 8;
