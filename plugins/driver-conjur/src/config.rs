//! What an operator writes for a target and for a role of it.

use std::collections::BTreeMap;

use jit_plugin::ConfigProblem;
use serde::Deserialize;

/// Longest id of a variable or a host, in bytes.
const MAX_ID: usize = 512;

/// Most properties of a role.
const MAX_PROPERTIES: usize = 16;

/// `[targets.T.config]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TargetConfig {
    /// Conjur's account.
    pub account: String,
    /// How the broker logs in.
    pub auth: Auth,
}

/// `[targets.T.config.auth]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Auth {
    /// Which way.
    pub method: AuthMethod,
    /// Who the broker is: `host/jit-broker`. For `jwt` only where the authenticator does not take
    /// it from the token.
    pub login: Option<String>,
    /// The authenticator's service id (`jwt`).
    pub service: Option<String>,
    /// The name of the credential in the connection's `secrets` table: an API key or a JWT.
    pub secret: String,
}

/// How the broker shows who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AuthMethod {
    /// A host's API key.
    ApiKey,
    /// A JWT of the broker's platform (`authn-jwt`).
    Jwt,
}

/// `[targets.T.roles.R]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoleConfig {
    /// The variable with the password. Not called `password`: what stands there is none.
    #[serde(rename = "variable")]
    pub password: String,
    /// The variable with the user name.
    pub username: Option<String>,
    /// The user name itself, where no variable has it.
    pub fixed_username: Option<String>,
    /// This version of the password, and no later one.
    pub version: Option<u32>,
    /// Variables that are no secrets, shown to the caller under these names: `host`, `port`, …
    #[serde(default)]
    pub properties: BTreeMap<String, String>,
    /// Has Conjur change the password before it is handed out.
    #[serde(default)]
    pub rotate_before: bool,
    /// Has Conjur change the password when a lease ends.
    #[serde(default)]
    pub rotate_on_revoke: bool,
}

impl TargetConfig {
    /// What the types do not say.
    pub(crate) fn problems(&self) -> Vec<ConfigProblem> {
        let mut problems = Vec::new();
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if !(1..=60).contains(&self.account.len()) || !self.account.bytes().all(plain) {
            let message = "must be an account's name: 1 to 60 letters, digits, `-`, `_`, `.`";
            problems.push(ConfigProblem::new("account", message));
        }
        let Auth { method, login, service, secret } = &self.auth;
        match (method, login, service) {
            (AuthMethod::ApiKey, None, _) => {
                let message = "is missing: name the broker's own identity, such as `host/jit-broker`";
                problems.push(ConfigProblem::new("auth.login", message));
            }
            (AuthMethod::Jwt, _, None) => {
                problems.push(ConfigProblem::new("auth.service", "is missing: name the authenticator's service id"));
            }
            _ => {}
        }
        if *method == AuthMethod::ApiKey && service.is_some() {
            problems.push(ConfigProblem::new("auth.service", "is not used by this method: remove it"));
        }
        for (path, value) in [("auth.login", login), ("auth.service", service), ("auth.secret", &Some(secret.clone()))]
        {
            problems.extend(value.as_deref().and_then(wrong_id).map(|message| ConfigProblem::new(path, message)));
        }
        problems
    }
}

impl RoleConfig {
    /// What the types do not say.
    pub(crate) fn problems(&self) -> Vec<ConfigProblem> {
        let mut problems: Vec<ConfigProblem> = self
            .variables()
            .into_iter()
            .filter_map(|(path, id)| wrong_id(id).map(|message| ConfigProblem::new(path, message)))
            .collect();
        match (&self.username, &self.fixed_username) {
            (Some(_), Some(_)) => {
                problems.push(ConfigProblem::new("fixed_username", "stands beside `username`: keep one of them"));
            }
            (None, None) => {
                let message = "is missing: name the variable, or write `fixed_username = …`";
                problems.push(ConfigProblem::new("username", message));
            }
            _ => {}
        }
        let mut seen = Vec::new();
        for (path, id) in self.variables() {
            if seen.contains(&id) {
                let message = format!("names the variable `{id}` twice: use each variable once");
                problems.push(ConfigProblem::new(path, message));
            }
            seen.push(id);
        }
        if self.properties.len() > MAX_PROPERTIES {
            problems.push(ConfigProblem::new("properties", format!("has more than {MAX_PROPERTIES} entries")));
        }
        if self.properties.contains_key(crate::secrets::REVOCATION) {
            let message = "`revocation` is set by the driver: choose another name";
            problems.push(ConfigProblem::new("properties", message));
        }
        if self.version == Some(0) {
            problems.push(ConfigProblem::new("version", "must be 1 or more: leave it out for the latest"));
        }
        if self.version.is_some() && (self.rotate_before || self.rotate_on_revoke) {
            let message = "pins a version that the next rotation makes invalid: remove the version, or the rotation";
            problems.push(ConfigProblem::new("version", message));
        }
        problems
    }

    /// The variables that it reads, with the path of each in the configuration.
    pub(crate) fn variables(&self) -> Vec<(String, &str)> {
        let mut variables = vec![("variable".to_owned(), self.password.as_str())];
        variables.extend(self.username.iter().map(|id| ("username".to_owned(), id.as_str())));
        variables.extend(self.properties.iter().map(|(name, id)| (format!("properties.{name}"), id.as_str())));
        variables
    }

    /// Whether it has Conjur change the password.
    pub(crate) fn rotates(&self) -> bool {
        self.rotate_before || self.rotate_on_revoke
    }
}

fn wrong_id(id: &str) -> Option<String> {
    // A comma separates ids in a request for several.
    let plain = |c: char| !c.is_control() && c != ',';
    let fits = (1..=MAX_ID).contains(&id.len()) && id.chars().all(plain) && id != "." && id != "..";
    (!fits).then(|| format!("must be an id of 1 to {MAX_ID} bytes without commas, and without account and kind"))
}
