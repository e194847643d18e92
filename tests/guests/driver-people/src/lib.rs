//! Fixture: a driver for the suite's people server (`tests/src/kit/people.rs`) that is small and right, and
//! makes one mistake when its target's configuration says so. Nothing but a login shows these mistakes.
//!
//! ```toml
//! [targets.t.config]
//! mistake = "no-password"
//! ```

use jit_plugin::http::{Body, HttpError, Method, Part, Request, Response};
use jit_plugin::{
    Account, AccountPage, AccountState, Description, Error, Feature, Http, HttpDriver, Issued, Role, Secret, Target,
};
use serde::Deserialize;
use serde_json::json;

/// What is done wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mistake {
    /// Nothing.
    #[default]
    None,
    /// The password that the host made is not set: every account has another, always the same.
    NoPassword,
    /// Every account is an administrator.
    Administrators,
    /// `revoke` only hides the account: nobody finds it, and it still logs in.
    Hides,
    /// `revoke` asks for the account as it was made, and takes a refusal for "it is gone".
    OnlyUnchanged,
}

/// `[targets.T.config]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TargetConfig {
    #[serde(default)]
    mistake: Mistake,
}

/// `[targets.T.roles.R]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoleConfig {
    /// The group that accounts become members of.
    group: String,
}

/// The driver.
#[derive(Debug)]
pub struct People;

/// Sends a request with the broker's token.
fn send(http: &mut dyn Http, request: Request<'_>, changes: bool) -> Result<Response, Error> {
    let token = http.credential("token").map_err(Error::Other)?;
    let request = request.header("authorization", [Part::Text("Bearer "), Part::Secret(token.borrow())]);
    let request = if changes { request.changing() } else { request };
    let response = match http.send(&request) {
        Ok(response) => response,
        // A question that was lost can be asked again.
        Err(HttpError::Unknown(reason)) if !changes => return Err(Error::retryable(reason)),
        Err(error) => return Err(error.into()),
    };
    match response.status {
        200..=299 => Ok(response),
        404 => Err(Error::NotFound),
        409 => Err(Error::Conflict("an account of that name exists".to_owned())),
        400..=499 => Err(Error::Refused(format!("the server answered {}", response.status))),
        status => Err(Error::OutcomeUnknown(format!("the server answered {status}"))),
    }
}

impl HttpDriver for People {
    type Target = TargetConfig;
    type Role = RoleConfig;

    fn describe() -> Description {
        let features = [Feature::Renew, Feature::Backstop, Feature::Inspect, Feature::ListAccounts];
        Description::new(env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"), 64, &features)
    }

    fn validate(http: &mut dyn Http, _: &Target<TargetConfig>, roles: &[Role<RoleConfig>]) -> Result<(), Error> {
        send(http, Request::new(Method::Get, ["users"]).query("prefix", "nobody-"), false)?;
        match roles.iter().find(|role| role.config.group.is_empty()) {
            Some(role) => Err(Error::invalid_config(format!("roles.{}.group", role.name), "is empty: name a group")),
            None => Ok(()),
        }
    }

    fn create(
        http: &mut dyn Http,
        target: &Target<TargetConfig>,
        role: &Role<RoleConfig>,
        account: &Account,
        password: Secret<'_>,
    ) -> Result<Issued, Error> {
        // A question first: while the server is away nothing is then in doubt.
        match send(http, Request::new(Method::Get, ["users", &account.name]), false) {
            Ok(_) => return Err(Error::Conflict("an account of that name exists".to_owned())),
            Err(Error::NotFound) => {}
            Err(error) => return Err(error),
        }
        let mistake = target.config.mistake;
        let group = if mistake == Mistake::Administrators { "administrators" } else { &role.config.group };
        let set = mistake != Mistake::NoPassword;
        let user = json!({
            "name": account.name,
            "group": group,
            "expires_at": account.expires_at,
            "password": if set { "" } else { "welcome" },
        });
        let secrets = if set { vec![("/password", Part::Secret(password))] } else { Vec::new() };
        send(http, Request::new(Method::Post, ["users"]).body(Body::Json(user, secrets)), true)?;
        Ok(Issued::default())
    }

    fn renew(
        http: &mut dyn Http,
        _: &Target<TargetConfig>,
        _: &Role<RoleConfig>,
        account: &Account,
    ) -> Result<u64, Error> {
        let body = Body::Json(json!({ "expires_at": account.expires_at }), Vec::new());
        send(http, Request::new(Method::Patch, ["users", &account.name]).body(body), true)?;
        Ok(account.expires_at)
    }

    fn revoke(http: &mut dyn Http, target: &Target<TargetConfig>, account: &Account) -> Result<(), Error> {
        let path = ["users", account.name.as_str()];
        let mistake = target.config.mistake;
        let request = match mistake {
            Mistake::Hides => Request::new(Method::Patch, path).body(Body::Json(json!({ "hidden": true }), Vec::new())),
            Mistake::OnlyUnchanged => Request::new(Method::Delete, path).query("unchanged", "true"),
            _ => Request::new(Method::Delete, path),
        };
        match send(http, request, true) {
            Ok(_) | Err(Error::NotFound) => Ok(()),
            Err(Error::Refused(_)) if mistake == Mistake::OnlyUnchanged => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn inspect(http: &mut dyn Http, _: &Target<TargetConfig>, name: &str) -> Result<AccountState, Error> {
        let user = send(http, Request::new(Method::Get, ["users", name]), false)?.json()?;
        Ok(AccountState { can_login: true, expires_at: user["expires_at"].as_u64(), properties: Vec::new() })
    }

    fn list_accounts(
        http: &mut dyn Http,
        _: &Target<TargetConfig>,
        prefix: &str,
        cursor: Option<&str>,
    ) -> Result<AccountPage, Error> {
        let request =
            Request::new(Method::Get, ["users"]).query("prefix", prefix).query("after", cursor.unwrap_or_default());
        let page = send(http, request, false)?.json()?;
        let names = page["names"].as_array().into_iter().flatten();
        let names = names.filter_map(|name| name.as_str().map(str::to_owned)).collect();
        Ok(AccountPage { names, next: page["next"].as_str().map(str::to_owned) })
    }
}

jit_plugin::register_http_driver!(People);
