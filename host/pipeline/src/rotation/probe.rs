//! What is shared is looked at, not assumed: whoever holds a rotating account's password may be able to
//! change it, and then all that the broker hands out is dead. So the current password is tried before
//! it is handed out, before each step, and from time to time. An account that somebody changed is taken
//! back.

use std::time::Duration;

use jit_core::rotation::Generation;
use secrecy::SecretString;

use super::{Site, Working};

/// A password that worked so short a time ago is handed out without another trial: many who ask at once
/// are not as many logins.
pub const FRESH: Duration = Duration::from_secs(1);

/// How often the password of an account is tried that nobody asks for.
pub const EVERY: Duration = Duration::from_secs(60);

/// What trying to log in with a password said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Login {
    /// It works.
    Works,
    /// The backend says that name and password do not belong together.
    Refused,
    /// That could not be found out: the backend is away, or the account locked, or the connection
    /// cannot try logins.
    Untold,
}

/// Tries a password, and remembers what came of it.
pub(super) async fn login(site: &Site, working: &Working, generation: Generation, secret: &SecretString) -> Login {
    let login = match site.driver.authenticate(&site.scope, site.account.as_str(), secret).await {
        Some(Ok(true)) => Login::Works,
        Some(Ok(false)) => Login::Refused,
        Some(Err(reason)) => {
            tracing::debug!(account = %site.account, target = %site.target, reason, "the password of a rotating account could not be tried");
            Login::Untold
        }
        None => Login::Untold,
    };
    working.note_login(generation, login);
    login
}

/// Whether it is known not to work, from a login of a moment ago or one that is tried now.
pub(super) async fn is_dead(site: &Site, working: &Working, generation: Generation, secret: &SecretString) -> bool {
    let known = working.tried(generation, FRESH).filter(|login| *login != Login::Untold);
    let login = match known {
        Some(login) => login,
        None => login(site, working, generation, secret).await,
    };
    login == Login::Refused
}
