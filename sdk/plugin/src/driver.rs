//! Drivers: they make, change and remove accounts in one kind of backend.
//!
//! Every verb is idempotent by the account's name, which the host chose before the call, and may
//! be cut off at any point and called again.

use std::fmt;
use std::marker::PhantomData;

use serde::de::DeserializeOwned;

use crate::bindings::driver::exports::jit::plugin::driver as contract;
use crate::bindings::host::jit::plugin::secrets;
use crate::config::{self, ConfigProblem};
use crate::error::Error;

pub use jit_contract::Feature;

pub use contract::{Account, AccountPage, AccountState, Description, RotationStep};

impl Description {
    /// Give `env!("CARGO_PKG_NAME")` and `env!("CARGO_PKG_VERSION")`, and the longest account name
    /// that the backend takes, in bytes.
    pub fn new(name: &str, version: &str, max_name_length: u32, features: &[Feature]) -> Self {
        Self {
            name: name.to_owned(),
            version: version.to_owned(),
            features: features.iter().map(ToString::to_string).collect(),
            max_name_length,
            properties: Vec::new(),
        }
    }
}

/// A secret that the host owns: a handle that can be placed into a statement and has no way to be
/// read (BLIND-PLUGIN).
#[derive(Clone, Copy)]
pub struct Secret<'a>(pub(crate) Handle<'a>);

#[derive(Clone, Copy)]
pub(crate) enum Handle<'a> {
    /// A handle of the host's.
    Host(&'a secrets::Secret),
    /// In a native test: a name to recognise it by.
    Test(&'a str),
}

impl fmt::Debug for Secret<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// A secret of the host's that the plugin was given: taken out of an answer, or kept from an
/// earlier call. As blind a handle as [`Secret`].
pub struct OwnedSecret(Owned);

enum Owned {
    Host(secrets::Secret),
    Test(String),
}

impl OwnedSecret {
    /// The handle, to place it.
    pub fn borrow(&self) -> Secret<'_> {
        match &self.0 {
            Owned::Host(handle) => Secret(Handle::Host(handle)),
            Owned::Test(name) => Secret(Handle::Test(name)),
        }
    }

    pub(crate) fn of_host(handle: secrets::Secret) -> Self {
        Self(Owned::Host(handle))
    }

    pub(crate) fn of_test(name: &str) -> Self {
        Self(Owned::Test(name.to_owned()))
    }

    /// None for a test's own.
    fn into_host(self) -> Option<secrets::Secret> {
        match self.0 {
            Owned::Host(handle) => Some(handle),
            Owned::Test(_) => None,
        }
    }
}

impl fmt::Debug for OwnedSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OwnedSecret")
    }
}

/// A configured target.
#[derive(Clone, Debug)]
pub struct Target<C> {
    /// Its name in the broker's configuration.
    pub name: String,
    /// Its `config` table.
    pub config: C,
}

/// A role of a target.
#[derive(Clone, Debug)]
pub struct Role<C> {
    /// Its name in the broker's configuration.
    pub name: String,
    /// Its table.
    pub config: C,
}

/// What creation gave. All fields are for backends that choose something themselves.
#[derive(Debug, Default)]
pub struct Issued {
    /// The name, where the backend chose it.
    pub username: Option<String>,
    /// The secret, where the backend chose it.
    pub secret: Option<OwnedSecret>,
    /// The backend's own handle for renewal and revocation.
    pub external_id: Option<String>,
    /// Where the backend capped the life: seconds since the Unix epoch.
    pub expires_at: Option<u64>,
    /// Shown to the caller beside the connection.
    pub properties: Vec<(String, String)>,
}

/// A driver that needs no capability but the log.
pub trait BareDriver {
    /// The target's `config` table. Give it `#[serde(deny_unknown_fields)]`.
    type Target: DeserializeOwned;
    /// A role's table. Give it `#[serde(deny_unknown_fields)]`.
    type Role: DeserializeOwned;

    /// What the driver can do. Called at load.
    fn describe() -> Description;

    /// Mistakes that the types cannot express.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`] with what to mend.
    fn validate(target: &Target<Self::Target>, roles: &[Role<Self::Role>]) -> Result<(), Error> {
        let _ = (target, roles);
        Ok(())
    }

    /// Makes the account, able to log in, its expiry set in the same step where the backend can.
    ///
    /// # Errors
    /// [`Error::Conflict`] when the name exists.
    fn create(
        target: &Target<Self::Target>,
        role: &Role<Self::Role>,
        account: &Account,
        password: Secret<'_>,
    ) -> Result<Issued, Error>;

    /// Moves the backend's expiry to `account.expires_at` and gives the expiry that it set.
    ///
    /// # Errors
    /// [`Error::NotFound`] when the account is not there.
    fn renew(target: &Target<Self::Target>, role: &Role<Self::Role>, account: &Account) -> Result<u64, Error>;

    /// Changes the account's password, in three steps where the backend keeps the old one valid.
    ///
    /// # Errors
    /// [`Error::NotFound`] when the account is not there.
    fn rotate(
        target: &Target<Self::Target>,
        account: &Account,
        step: RotationStep,
        password: Option<Secret<'_>>,
    ) -> Result<(), Error> {
        let _ = (target, account, step, password);
        Err(Error::Other("this driver does not rotate".into()))
    }

    /// Disables the login, ends the sessions, keeps the data, removes the account. Success when it
    /// is not there.
    ///
    /// # Errors
    /// Any but [`Error::NotFound`], which the host takes for success.
    fn revoke(target: &Target<Self::Target>, account: &Account) -> Result<(), Error>;

    /// What the backend says of an account.
    ///
    /// # Errors
    /// [`Error::NotFound`] when it is not there.
    fn inspect(target: &Target<Self::Target>, name: &str) -> Result<AccountState, Error>;

    /// Names that begin with the prefix, in a stable order, a page at a time.
    ///
    /// # Errors
    /// When the backend does not answer.
    fn list_accounts(target: &Target<Self::Target>, prefix: &str, cursor: Option<&str>) -> Result<AccountPage, Error>;

    /// With [`Feature::Maintain`]: does what has to be done between calls, and says after how many
    /// seconds again.
    ///
    /// # Errors
    /// When the backend does not answer; the host calls again.
    fn maintain(target: &Target<Self::Target>) -> Result<u64, Error> {
        let _ = target;
        Err(Error::Other("this driver has nothing to maintain".into()))
    }

    /// Where the target's accounts are: `server`, the server's own identity, and what says where in it.
    /// The host removes an account in no other place than the one where it was made. Without `server` it
    /// goes by the connection's host and port; a pair named like a key of `config` makes that key part of
    /// the place.
    ///
    /// # Errors
    /// When the backend does not answer; the host then removes nothing.
    fn place(target: &Target<Self::Target>) -> Result<Vec<(String, String)>, Error> {
        let _ = target;
        Ok(Vec::new())
    }
}

/// What [`crate::register_bare_driver!`] exports.
#[doc(hidden)]
pub struct Exported<D>(PhantomData<D>);

impl<D: BareDriver> contract::Guest for Exported<D> {
    fn describe() -> Description {
        crate::panic::install();
        D::describe()
    }

    fn validate(target: contract::Target, roles: Vec<contract::Role>) -> Result<(), Error> {
        crate::panic::install();
        let (target, roles) = all_typed(target, roles).map_err(Error::InvalidConfig)?;
        D::validate(&target, &roles)
    }

    fn create(
        target: contract::Target,
        role: contract::Role,
        account: Account,
        password: &secrets::Secret,
    ) -> Result<contract::Issued, Error> {
        crate::panic::install();
        let (target, role) = (typed_target(target)?, typed_role(role)?);
        let issued = D::create(&target, &role, &account, Secret(Handle::Host(password)))?;
        Ok(contract::Issued {
            username: issued.username,
            secret: issued.secret.and_then(OwnedSecret::into_host),
            external_id: issued.external_id,
            expires_at: issued.expires_at,
            properties: issued.properties,
        })
    }

    fn renew(target: contract::Target, role: contract::Role, account: Account) -> Result<u64, Error> {
        crate::panic::install();
        D::renew(&typed_target(target)?, &typed_role(role)?, &account)
    }

    fn rotate(
        target: contract::Target,
        account: Account,
        step: RotationStep,
        password: Option<&secrets::Secret>,
    ) -> Result<(), Error> {
        crate::panic::install();
        let password = password.map(|handle| Secret(Handle::Host(handle)));
        D::rotate(&typed_target(target)?, &account, step, password)
    }

    fn revoke(target: contract::Target, account: Account) -> Result<(), Error> {
        crate::panic::install();
        D::revoke(&typed_target(target)?, &account)
    }

    fn inspect(target: contract::Target, name: String) -> Result<AccountState, Error> {
        crate::panic::install();
        D::inspect(&typed_target(target)?, &name)
    }

    fn list_accounts(target: contract::Target, prefix: String, cursor: Option<String>) -> Result<AccountPage, Error> {
        crate::panic::install();
        D::list_accounts(&typed_target(target)?, &prefix, cursor.as_deref())
    }

    fn maintain(target: contract::Target) -> Result<u64, Error> {
        crate::panic::install();
        D::maintain(&typed_target(target)?)
    }

    fn place(target: contract::Target) -> Result<Vec<(String, String)>, Error> {
        crate::panic::install();
        D::place(&typed_target(target)?)
    }
}

fn typed_target<C: DeserializeOwned>(target: contract::Target) -> Result<Target<C>, Error> {
    Ok(Target { config: config::parse(&target.config).map_err(Error::InvalidConfig)?, name: target.name })
}

fn typed_role<C: DeserializeOwned>(role: contract::Role) -> Result<Role<C>, Error> {
    let config = config::parse(&role.config).map_err(|problems| Error::InvalidConfig(of_role(&role.name, problems)))?;
    Ok(Role { config, name: role.name })
}

/// The target and its roles, or everything that is wrong with any of them: an operator mends all
/// of it in one go.
#[allow(clippy::type_complexity, reason = "a pair of the two public types, used once")]
fn all_typed<T: DeserializeOwned, R: DeserializeOwned>(
    target: contract::Target,
    roles: Vec<contract::Role>,
) -> Result<(Target<T>, Vec<Role<R>>), Vec<ConfigProblem>> {
    let mut problems = Vec::new();
    let mut typed = Vec::with_capacity(roles.len());
    let config = config::parse(&target.config).map_err(|found| problems.extend(found));
    for role in roles {
        match config::parse(&role.config) {
            Ok(config) => typed.push(Role { config, name: role.name }),
            Err(found) => problems.extend(of_role(&role.name, found)),
        }
    }
    match config {
        Ok(config) if problems.is_empty() => Ok((Target { name: target.name, config }, typed)),
        _ => Err(problems),
    }
}

/// Puts the role before the path: `roles.app_read_only.grants[0]`. Drivers that check roles in
/// [`BareDriver::validate`] name them the same way.
pub fn of_role(role: &str, problems: Vec<ConfigProblem>) -> Vec<ConfigProblem> {
    let place = |path: String| match path.as_str() {
        "" => format!("roles.{role}"),
        path => format!("roles.{role}.{path}"),
    };
    problems.into_iter().map(|problem| ConfigProblem::new(place(problem.path), problem.message)).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test stops at what it did not expect")]
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Config {
        #[allow(dead_code, reason = "only its parsing is looked at")]
        size: u32,
    }

    #[test]
    fn every_mistake_of_a_target_and_its_roles_is_told_at_once() {
        let target = contract::Target { name: "inventory_db".into(), config: "{}".into() };
        let role = |name: &str, config: &str| contract::Role { name: name.into(), config: config.into() };
        let roles =
            vec![role("good", r#"{"size": 1}"#), role("bad", r#"{"size": -1}"#), role("misspelt", r#"{"sise": 1}"#)];
        let problems = all_typed::<Config, Config>(target, roles).unwrap_err();
        let paths: Vec<&str> = problems.iter().map(|p| p.path.as_str()).collect();
        assert_eq!(paths, ["", "roles.bad.size", "roles.misspelt.sise"]);
    }

    #[test]
    fn a_secret_is_not_shown() {
        let shown = format!("{:?}", Secret(Handle::Test("canary")));
        assert_eq!(shown, "Secret");
    }
}
