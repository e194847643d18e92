//! What an operator writes for a target and for a role of it.

use jit_plugin::ConfigProblem;
use serde::Deserialize;

use crate::MAX_NAME_LENGTH;
use crate::flavour::Flavour;

/// More roles than this are a role that should exist on the server.
const MAX_ROLES: usize = 64;

/// Sessions of an account at a time, where its role says nothing. Each must be ended with the lease.
pub(crate) const MAX_USER_CONNECTIONS: u16 = 100;

/// Longest host part of an account, in bytes (ASCII).
const MAX_HOST_LENGTH: usize = 255;

/// `[targets.T.config]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TargetConfig {
    /// From where accounts may log in: the host part of their names.
    #[serde(default = "default_host")]
    pub host: String,
    /// Whether revocation ends the account's sessions. A session outlives its account otherwise.
    #[serde(default = "default_terminate")]
    pub terminate_sessions: bool,
    /// Which server it is. Validation holds the real one against it. Only where it says `mysql` may callers make their
    /// passwords: the broker has to know before it asks the server.
    pub server: Option<Flavour>,
}

fn default_host() -> String {
    "%".to_owned()
}

fn default_terminate() -> bool {
    true
}

/// `[targets.T.roles.R]`: either `roles`, for an account of each lease, or `rotating`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoleConfig {
    /// Roles of the server that an account has, active from its login on. MariaDB takes one.
    #[serde(default)]
    pub roles: Vec<String>,
    /// Whether the account can log in only over TLS. On MariaDB it does where nothing is said: its hashes
    /// and a login that was listened to are as good as the password.
    pub require_tls: Option<bool>,
    /// How many sessions an account may have at a time; [`MAX_USER_CONNECTIONS`] where nothing is said.
    pub max_user_connections: Option<u16>,
    /// A standing account whose password changes.
    pub rotating: Option<Rotating>,
}

/// `rotating = { account = "app", period = "1h", overlap = "10m" }`; the times are the host's.
#[derive(Clone, Debug, Deserialize)]
pub struct Rotating {
    /// The account's name. Its host part is the target's `host`.
    pub account: String,
}

impl TargetConfig {
    /// What the types do not say.
    pub(crate) fn problems(&self) -> Vec<ConfigProblem> {
        let fits = (1..=MAX_HOST_LENGTH).contains(&self.host.len())
            && self.host.bytes().all(|b| b.is_ascii_graphic() && b != b'@');
        if fits {
            return Vec::new();
        }
        let message = "must be the host part of an account, such as `%`, `10.0.0.%` or `app.internal`";
        vec![ConfigProblem::new("host", message)]
    }
}

impl RoleConfig {
    /// What the types do not say.
    pub(crate) fn problems(&self) -> Vec<ConfigProblem> {
        let mut problems = Vec::new();
        if let Some(rotating) = &self.rotating {
            if let Some(message) = wrong_name(&rotating.account) {
                problems.push(ConfigProblem::new("rotating.account", message));
            }
            let other = !self.roles.is_empty() || self.require_tls.is_some() || self.max_user_connections.is_some();
            if other {
                let message = "`roles`, `require_tls` and `max_user_connections` are for accounts that the \
                               broker makes: a rotating account has what it was given, leave them out";
                problems.push(ConfigProblem::new("", message));
            }
            return problems;
        }
        if self.roles.is_empty() {
            let message = "is empty: name the roles of the server that an account gets, such as \
                           `[\"app_read_only\"]`, or a standing account: `rotating = { account = \"app\" }`";
            problems.push(ConfigProblem::new("roles", message));
        }
        if self.roles.len() > MAX_ROLES {
            let message = format!("has more than {MAX_ROLES} roles: make one role on the server that has them all");
            problems.push(ConfigProblem::new("roles", message));
        }
        for (index, role) in self.roles.iter().enumerate() {
            if let Some(message) = wrong_name(role) {
                problems.push(ConfigProblem::new(format!("roles[{index}]"), message));
            }
        }
        if self.max_user_connections == Some(0) {
            let message = "must be 1 or more";
            problems.push(ConfigProblem::new("max_user_connections", message));
        }
        problems
    }
}

fn wrong_name(name: &str) -> Option<String> {
    let fits = (1..=MAX_NAME_LENGTH).contains(&name.chars().count()) && !name.contains('\0');
    (!fits).then(|| format!("must be a name of 1 to {MAX_NAME_LENGTH} characters, without a host"))
}
