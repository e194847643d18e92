//! An example driver: users of RabbitMQ, by its management API.
//!
//! The API has what makes HTTP drivers hard: `PUT` makes or overwrites, a user is made in two steps, nothing expires,
//! a list has no pages and shows the hashes of all passwords. docs/drivers/recipes.md explains each part of this file.

use jit_plugin::http::{
    Body, Digest, Encoding, HttpError, Method, Notation, Part, Request, Response, SaltPlace, SaltedDigest,
};
use jit_plugin::{
    Account, AccountPage, AccountState, ConfigProblem, Description, Error, Feature, Http, HttpDriver, Issued, Role,
    Secret, Target,
};
use serde::Deserialize;
use serde_json::{Value, json};

/// The secret of the connection: the password of the broker's own user.
const PASSWORD: &str = "password";

/// How many names of one page.
const PAGE: usize = 100;

/// How RabbitMQ stores a password: base64(salt ‖ sha256(salt ‖ password)), with four bytes of salt.
const PASSWORD_HASH: Encoding = Encoding::SaltedDigest(SaltedDigest {
    digest: Digest::Sha256,
    salt_place: SaltPlace::Before,
    salt_bytes: 4,
    notation: Notation::Base64,
});

/// How RabbitMQ calls that.
const HASHING_ALGORITHM: &str = "rabbit_password_hashing_sha256";

/// `[targets.T.config]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TargetConfig {
    /// The broker's own user, with the tag `administrator`.
    user: String,
}

/// `[targets.T.roles.R]`: what its accounts may do in one virtual host, as patterns of names.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoleConfig {
    vhost: String,
    #[serde(default)]
    configure: String,
    #[serde(default)]
    write: String,
    #[serde(default)]
    read: String,
    /// Whether they may also log in to the management interface.
    #[serde(default)]
    management: bool,
}

/// The driver.
#[derive(Debug)]
pub struct RabbitMq;

/// Sends a request as the broker's own user, and tells by the answer what the host has to do.
fn send(http: &mut dyn Http, target: &TargetConfig, request: Request<'_>) -> Result<Response, Error> {
    let password = http.credential(PASSWORD).map_err(Error::Other)?;
    let changes = request.changes;
    let response = match http.send(&request.basic(&target.user, password.borrow())) {
        Ok(response) => response,
        // A question changes nothing: when its answer is lost, it can be asked again.
        Err(HttpError::Unknown(reason)) if !changes => return Err(Error::retryable(reason)),
        Err(error) => return Err(error.into()),
    };
    let reason = || reason_of(&response);
    match response.status {
        200..=299 => Ok(response),
        404 => Err(Error::NotFound),
        429 | 503 => Err(Error::retryable(reason())),
        400..=499 => Err(Error::Refused(reason())),
        // It may have failed in the middle.
        _ if changes => Err(Error::OutcomeUnknown(reason())),
        _ => Err(Error::retryable(reason())),
    }
}

/// What the server says, in one sentence.
fn reason_of(response: &Response) -> String {
    let body = response.json().unwrap_or(Value::Null);
    let reason = body["reason"].as_str().or_else(|| body["error"].as_str()).unwrap_or("it gives no reason");
    format!("RabbitMQ answers {}: {reason}", response.status)
}

/// Whether the user is there.
fn is_there(http: &mut dyn Http, target: &TargetConfig, name: &str) -> Result<bool, Error> {
    match send(http, target, Request::new(Method::Get, ["users", name]).withhold("/password_hash")) {
        Ok(_) => Ok(true),
        Err(Error::NotFound) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Removes the user, if there is one.
fn remove(http: &mut dyn Http, target: &TargetConfig, name: &str) -> Result<(), Error> {
    match send(http, target, Request::new(Method::Delete, ["users", name]).changing()) {
        Ok(_) | Err(Error::NotFound) => Ok(()),
        Err(error) => Err(error),
    }
}

impl HttpDriver for RabbitMq {
    type Target = TargetConfig;
    type Role = RoleConfig;

    // Renew is claimed although there is nothing to extend. Backstop is not: the server expires nothing by itself.
    fn describe() -> Description {
        let features = [Feature::Renew, Feature::Inspect, Feature::ListAccounts];
        Description::new(env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"), 255, &features)
    }

    fn validate(http: &mut dyn Http, target: &Target<TargetConfig>, roles: &[Role<RoleConfig>]) -> Result<(), Error> {
        let mut problems = Vec::new();
        for role in roles {
            let vhost = Request::new(Method::Get, ["vhosts", &role.config.vhost]);
            match send(http, &target.config, vhost) {
                Ok(_) => {}
                Err(Error::NotFound) => {
                    let message = format!("the server has no virtual host \"{}\"", role.config.vhost);
                    problems.push(ConfigProblem::new(format!("roles.{}.vhost", role.name), message));
                }
                Err(error) => return Err(error),
            }
        }
        if problems.is_empty() { Ok(()) } else { Err(Error::InvalidConfig(problems)) }
    }

    fn create(
        http: &mut dyn Http,
        target: &Target<TargetConfig>,
        role: &Role<RoleConfig>,
        account: &Account,
        password: Secret<'_>,
    ) -> Result<Issued, Error> {
        let (target, name) = (&target.config, account.name.as_str());
        // PUT would overwrite a user of that name: ask first.
        if is_there(http, target, name)? {
            return Err(Error::Conflict("a user of that name exists".to_owned()));
        }
        let tags = if role.config.management { "management" } else { "" };
        let user = json!({ "password_hash": "", "hashing_algorithm": HASHING_ALGORITHM, "tags": tags });
        let user = Body::Json(user, vec![("/password_hash", Part::Encoded(password, PASSWORD_HASH))]);
        let made = send(http, target, Request::new(Method::Put, ["users", name]).body(user).changing())?;
        if made.status != 201 {
            // Somebody made it in between. Nobody knows whose it is now.
            return Err(Error::OutcomeUnknown("a user of that name was there after all".to_owned()));
        }
        // The second step. While it is missing, the user may do nothing.
        let RoleConfig { vhost, configure, write, read, .. } = &role.config;
        let rights = Body::Json(json!({ "configure": configure, "write": write, "read": read }), Vec::new());
        let rights = Request::new(Method::Put, ["permissions", vhost, name]).body(rights).changing();
        match send(http, target, rights) {
            Ok(_) => Ok(Issued::default()),
            // Refused: take the first step back, and only then say that nothing was done.
            Err(Error::Refused(reason)) => match remove(http, target, name) {
                Ok(()) => Err(Error::Refused(reason)),
                Err(_) => Err(Error::OutcomeUnknown(reason)),
            },
            Err(Error::NotFound) => match remove(http, target, name) {
                Ok(()) => Err(Error::Refused(format!("the server has no virtual host \"{vhost}\""))),
                Err(_) => Err(Error::OutcomeUnknown(format!("the server has no virtual host \"{vhost}\""))),
            },
            // Whatever else: the user is there, so nothing that says "not done" may leave this function.
            Err(error) => Err(Error::OutcomeUnknown(format!("the user has no rights yet: {error}"))),
        }
    }

    fn renew(
        http: &mut dyn Http,
        target: &Target<TargetConfig>,
        _: &Role<RoleConfig>,
        account: &Account,
    ) -> Result<u64, Error> {
        // The server has no expiry to move. What can be said is whether the account is still there.
        if is_there(http, &target.config, &account.name)? { Ok(account.expires_at) } else { Err(Error::NotFound) }
    }

    fn revoke(http: &mut dyn Http, target: &Target<TargetConfig>, account: &Account) -> Result<(), Error> {
        // First the right to log in, which goes with the user; then the sessions. Both each time: the call may have
        // been cut off between the two.
        remove(http, &target.config, &account.name)?;
        let sessions = Request::new(Method::Delete, ["connections", "username", &account.name]).changing();
        match send(http, &target.config, sessions) {
            Ok(_) | Err(Error::NotFound) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn inspect(http: &mut dyn Http, target: &Target<TargetConfig>, name: &str) -> Result<AccountState, Error> {
        match is_there(http, &target.config, name)? {
            true => Ok(AccountState { can_login: true, expires_at: None, properties: Vec::new() }),
            false => Err(Error::NotFound),
        }
    }

    fn list_accounts(
        http: &mut dyn Http,
        target: &Target<TargetConfig>,
        prefix: &str,
        cursor: Option<&str>,
    ) -> Result<AccountPage, Error> {
        // The rows have the hashes of all users. The host takes them out before this driver sees the answer.
        let everybody = Request::new(Method::Get, ["users"]).withhold("/*/password_hash");
        let rows = send(http, &target.config, everybody)?.json()?;
        let names = rows.as_array().into_iter().flatten().filter_map(|row| row["name"].as_str());
        Ok(page(names.filter(|name| name.starts_with(prefix)), cursor))
    }
}

/// A page of names that come without an order: those after the cursor, which is the last name of the page before.
/// An account that is removed in between moves no other from its place.
fn page<'n>(names: impl Iterator<Item = &'n str>, cursor: Option<&str>) -> AccountPage {
    let mut names: Vec<&str> = names.filter(|name| cursor.is_none_or(|cursor| *name > cursor)).collect();
    names.sort_unstable();
    let more = names.len() > PAGE;
    names.truncate(PAGE);
    let next = names.last().filter(|_| more).map(|name| (*name).to_owned());
    AccountPage { names: names.into_iter().map(str::to_owned).collect(), next }
}

jit_plugin::register_http_driver!(RabbitMq);

#[cfg(test)]
mod tests;
