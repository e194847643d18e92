//! What an operator writes for a target and for a role of it.

use jit_plugin::ConfigProblem;
use serde::Deserialize;

/// Longest mount, namespace or name, in bytes.
const MAX_NAME: usize = 128;

/// Most roles that a target lists as its own.
const MAX_ROLES: usize = 256;

/// `[targets.T.config]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TargetConfig {
    /// How the broker logs in.
    pub auth: Auth,
    /// Where the secrets engine is mounted.
    #[serde(default = "default_mount")]
    pub mount: String,
    /// The namespace, where the server has them.
    pub namespace: Option<String>,
    /// Whether nobody but this broker gets credentials from `roles` (or, without them, from the
    /// whole mount). Only then can it tell which leases are its own, and remove those whose answer
    /// it never got.
    #[serde(default)]
    pub exclusive: bool,
    /// The roles that `exclusive` speaks of, by their names in Vault.
    #[serde(default)]
    pub roles: Vec<String>,
    /// Sends `X-Vault-Forward: active-node`. For clusters whose standbys answer reads by themselves
    /// and that allow it (`allow_forwarding_via_header`): a new token or lease is then never
    /// unknown to the node that is asked next.
    #[serde(default)]
    pub forward_to_active_node: bool,
}

fn default_mount() -> String {
    "database".to_owned()
}

/// `[targets.T.config.auth]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Auth {
    /// Which way.
    pub method: AuthMethod,
    /// Where the method is mounted, if not at its own name. Not for `token`.
    pub mount: Option<String>,
    /// The role to log in as (`jwt`, `kubernetes`).
    pub role: Option<String>,
    /// The role id (`approle`); it is no secret.
    pub role_id: Option<String>,
    /// The name of the credential in the connection's `secrets` table: a JWT, a secret id or a
    /// token.
    pub secret: String,
}

/// How the broker shows who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AuthMethod {
    /// A JWT, by the JWT/OIDC method.
    Jwt,
    /// A service account's JWT, by the Kubernetes method.
    Kubernetes,
    /// A role id and a secret id.
    Approle,
    /// A token that somebody else made and keeps in a file.
    Token,
}

impl AuthMethod {
    /// Where it is mounted unless somebody chose otherwise.
    fn default_mount(self) -> &'static str {
        match self {
            Self::Jwt => "jwt",
            Self::Kubernetes => "kubernetes",
            Self::Approle => "approle",
            Self::Token => "token",
        }
    }
}

impl Auth {
    /// Where the method is mounted.
    pub(crate) fn mount(&self) -> &str {
        self.mount.as_deref().unwrap_or(self.method.default_mount())
    }

    /// What the method wants to know besides the secret: the member of the login's body and its value.
    pub(crate) fn login_as(&self) -> (&'static str, &str) {
        match self.method {
            AuthMethod::Approle => ("role_id", self.role_id.as_deref().unwrap_or_default()),
            _ => ("role", self.role.as_deref().unwrap_or_default()),
        }
    }

    fn problems(&self) -> Vec<ConfigProblem> {
        let mut problems = Vec::new();
        let (wanted, unwanted): (&[_], &[_]) = match self.method {
            AuthMethod::Jwt | AuthMethod::Kubernetes => {
                (&[("auth.role", &self.role)], &[("auth.role_id", &self.role_id)])
            }
            AuthMethod::Approle => (&[("auth.role_id", &self.role_id)], &[("auth.role", &self.role)]),
            AuthMethod::Token => {
                (&[], &[("auth.role", &self.role), ("auth.role_id", &self.role_id), ("auth.mount", &self.mount)])
            }
        };
        for (path, value) in wanted {
            match value {
                None => problems.push(ConfigProblem::new(*path, "is missing: this method logs in with it")),
                Some(value) => problems.extend(wrong_name(value).map(|message| ConfigProblem::new(*path, message))),
            }
        }
        for (path, _) in unwanted.iter().filter(|(_, value)| value.is_some()) {
            problems.push(ConfigProblem::new(*path, "is not used by this method: remove it"));
        }
        if let Some(message) = wrong_path(self.mount()) {
            problems.push(ConfigProblem::new("auth.mount", message));
        }
        if let Some(message) = wrong_name(&self.secret) {
            problems.push(ConfigProblem::new("auth.secret", message));
        }
        problems
    }
}

/// `[targets.T.roles.R]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoleConfig {
    /// The role's name in Vault.
    pub role: String,
}

impl TargetConfig {
    /// What the types do not say.
    pub(crate) fn problems(&self) -> Vec<ConfigProblem> {
        let mut problems = self.auth.problems();
        if let Some(message) = wrong_path(&self.mount) {
            problems.push(ConfigProblem::new("mount", message));
        }
        if let Some(message) = self.namespace.as_deref().and_then(wrong_path) {
            problems.push(ConfigProblem::new("namespace", message));
        }
        if self.roles.len() > MAX_ROLES {
            let message = format!("has more than {MAX_ROLES} roles: give the broker a mount of its own");
            problems.push(ConfigProblem::new("roles", message));
        }
        for (index, role) in self.roles.iter().enumerate() {
            if let Some(message) = wrong_role(role) {
                problems.push(ConfigProblem::new(format!("roles[{index}]"), message));
            }
        }
        if !self.roles.is_empty() && !self.exclusive {
            problems
                .push(ConfigProblem::new("roles", "says nothing without `exclusive = true`: add that, or remove it"));
        }
        problems
    }

    /// The path of a role's credentials, below `/v1/`.
    pub(crate) fn creds<'a>(&'a self, role: &'a str) -> Vec<&'a str> {
        let mut path = segments(&self.mount);
        path.extend(["creds", role]);
        path
    }

    /// What the id of each lease of this mount begins with.
    pub(crate) fn lease_prefix(&self) -> String {
        format!("{}/creds/", self.mount)
    }
}

impl RoleConfig {
    /// What the types do not say.
    pub(crate) fn problems(&self) -> Vec<ConfigProblem> {
        wrong_role(&self.role).map(|message| ConfigProblem::new("role", message)).into_iter().collect()
    }
}

/// A mount's segments.
pub(crate) fn segments(path: &str) -> Vec<&str> {
    path.split('/').collect()
}

fn wrong_path(path: &str) -> Option<String> {
    let good = |segment: &str| !segment.is_empty() && segment != "." && segment != ".." && is_plain(segment);
    let fits = path.len() <= MAX_NAME && path.split('/').all(good);
    (!fits)
        .then(|| format!("must be a path of at most {MAX_NAME} bytes without a slash at its ends, such as `database`"))
}

/// A role's name as Vault's engines take it.
fn wrong_role(name: &str) -> Option<String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.@".contains(&byte);
    let fits = (1..=MAX_NAME).contains(&name.len()) && name.bytes().all(plain) && name != "." && name != "..";
    (!fits).then(|| format!("must be a role's name in Vault: 1 to {MAX_NAME} letters, digits, `-`, `_`, `.`"))
}

fn wrong_name(name: &str) -> Option<String> {
    let fits = (1..=MAX_NAME).contains(&name.len()) && is_plain(name);
    (!fits).then(|| format!("must be a name of 1 to {MAX_NAME} bytes"))
}

fn is_plain(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_graphic())
}
