//! The driver my-http-driver: accounts behind an HTTP API that keeps them at `users/NAME`.
//!
//! A place to begin from: it speaks an API that any test server can play. The requests go to the connection's
//! URL; its token is a secret of the connection that the host puts into the header and this driver never sees.

use jit_plugin::http::{Body, HttpError, Method, Part, Request, Response};
use jit_plugin::{
    Account, AccountPage, AccountState, Description, Error, Feature, Http, HttpDriver, Issued, Role, Secret, Target,
};
use serde::Deserialize;
use serde_json::json;

/// The secret of the connection that is sent as a bearer token.
const TOKEN: &str = "token";

/// `[targets.T.config]`: nothing to say.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TargetConfig {}

/// `[targets.T.roles.R]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoleConfig {
    /// The group that accounts become members of.
    group: String,
}

/// The driver.
#[derive(Debug)]
pub struct MyHttpDriver;

/// Sends a request with the broker's token.
fn send(http: &mut dyn Http, request: Request<'_>) -> Result<Response, Error> {
    let token = http.credential(TOKEN).map_err(Error::Other)?;
    let request = request.header("authorization", [Part::Text("Bearer "), Part::Secret(token.borrow())]);
    let response = match http.send(&request) {
        Ok(response) => response,
        // A question whose answer was lost can be asked again: nothing was changed.
        Err(HttpError::Unknown(reason)) if !request.changes => return Err(Error::retryable(reason)),
        Err(error) => return Err(error.into()),
    };
    match response.status {
        200..=299 => Ok(response),
        404 => Err(Error::NotFound),
        409 => Err(Error::Conflict("an account of that name exists".to_owned())),
        // The server answered before it did anything.
        429 | 503 => Err(Error::retryable(format!("the server answered {}", response.status))),
        400..=499 => Err(Error::Refused(format!("the server answered {}", response.status))),
        // It may have failed in the middle.
        status => Err(Error::OutcomeUnknown(format!("the server answered {status}"))),
    }
}

impl HttpDriver for MyHttpDriver {
    type Target = TargetConfig;
    type Role = RoleConfig;

    fn describe() -> Description {
        let features = [Feature::Renew, Feature::Backstop, Feature::Inspect, Feature::ListAccounts];
        Description::new(env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"), 64, &features)
    }

    fn validate(_: &mut dyn Http, _: &Target<TargetConfig>, roles: &[Role<RoleConfig>]) -> Result<(), Error> {
        match roles.iter().find(|role| role.config.group.is_empty()) {
            Some(role) => Err(Error::invalid_config(format!("roles.{}.group", role.name), "is empty: name a group")),
            None => Ok(()),
        }
    }

    fn create(
        http: &mut dyn Http,
        _: &Target<TargetConfig>,
        role: &Role<RoleConfig>,
        account: &Account,
        password: Secret<'_>,
    ) -> Result<Issued, Error> {
        // A question first: while the server is away, nothing is then in doubt.
        match send(http, Request::new(Method::Get, ["users", &account.name])) {
            Ok(_) => return Err(Error::Conflict(account.name.clone())),
            Err(Error::NotFound) => {}
            Err(error) => return Err(error),
        }
        // The expiry is set in the same step: whatever happens to the broker, the account dies.
        let user = json!({ "name": account.name, "group": role.config.group, "expires_at": account.expires_at, "password": "" });
        let body = Body::Json(user, vec![("/password", Part::Secret(password))]);
        send(http, Request::new(Method::Post, ["users"]).body(body).changing())?;
        Ok(Issued::default())
    }

    fn renew(
        http: &mut dyn Http,
        _: &Target<TargetConfig>,
        _: &Role<RoleConfig>,
        account: &Account,
    ) -> Result<u64, Error> {
        let body = Body::Json(json!({ "expires_at": account.expires_at }), vec![]);
        send(http, Request::new(Method::Patch, ["users", &account.name]).body(body).changing())?;
        Ok(account.expires_at)
    }

    fn revoke(http: &mut dyn Http, _: &Target<TargetConfig>, account: &Account) -> Result<(), Error> {
        match send(http, Request::new(Method::Delete, ["users", &account.name]).changing()) {
            Ok(_) | Err(Error::NotFound) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn inspect(http: &mut dyn Http, _: &Target<TargetConfig>, name: &str) -> Result<AccountState, Error> {
        let user = send(http, Request::new(Method::Get, ["users", name]))?.json()?;
        Ok(AccountState {
            can_login: user["enabled"].as_bool().unwrap_or(true),
            expires_at: user["expires_at"].as_u64(),
            properties: Vec::new(),
        })
    }

    fn list_accounts(
        http: &mut dyn Http,
        _: &Target<TargetConfig>,
        prefix: &str,
        cursor: Option<&str>,
    ) -> Result<AccountPage, Error> {
        let request =
            Request::new(Method::Get, ["users"]).query("prefix", prefix).query("after", cursor.unwrap_or_default());
        let page = send(http, request)?.json()?;
        let names = page["names"].as_array().into_iter().flatten();
        let names = names.filter_map(|name| name.as_str().map(str::to_owned)).collect();
        Ok(AccountPage { names, next: page["next"].as_str().map(str::to_owned) })
    }
}

jit_plugin::register_http_driver!(MyHttpDriver);

#[cfg(test)]
mod tests {
    use jit_plugin::testing::{FakeHttp, Reply, account, role, secret, target};

    use super::*;

    const HERE: TargetConfig = TargetConfig {};

    fn group() -> RoleConfig {
        RoleConfig { group: "readers".to_owned() }
    }

    /// Knows no account, and answers so to whatever changes something.
    fn answers(status: u16) -> FakeHttp<'static> {
        FakeHttp::new(move |sent| Ok(Reply::json(if sent.changes { status } else { 404 }, &json!({}))))
            .with_credential(TOKEN, "the-brokers-token")
    }

    #[test]
    fn an_account_expires_in_the_step_that_makes_it() {
        let mut http = answers(201);
        MyHttpDriver::create(&mut http, &target(HERE), &role(group()), &account("v-a", 1_800_000_000), secret("pw"))
            .expect("it is made");
        let [asked, sent] = &http.sent[..] else { panic!("{:?}", http.sent) };
        assert_eq!((asked.line().as_str(), asked.changes), ("GET /users/v-a", false));
        assert_eq!((sent.line().as_str(), sent.changes), ("POST /users", true));
        assert_eq!(sent.json()["expires_at"], 1_800_000_000);
        // Placed by the host: the driver has only handles.
        assert_eq!(sent.json()["password"], "<pw>");
        assert_eq!(sent.header("authorization"), Some("Bearer <the-brokers-token>"));
    }

    #[test]
    fn a_name_that_exists_is_a_conflict_and_nothing_is_sent_to_it() {
        let mut http = FakeHttp::new(|_| Ok(Reply::json(200, &json!({})))).with_credential(TOKEN, "the-brokers-token");
        let made = MyHttpDriver::create(&mut http, &target(HERE), &role(group()), &account("v-a", 2), secret("pw"));
        assert!(matches!(made, Err(Error::Conflict(_))));
        assert_eq!(http.lines(), ["GET /users/v-a"]);
    }

    #[test]
    fn a_lost_answer_leaves_a_doubt_only_where_something_may_have_changed() {
        let lost = |when_changing: bool| {
            let mut http = FakeHttp::new(move |sent| match sent.changes == when_changing {
                true => Err(HttpError::Unknown("lost".to_owned())),
                false => Ok(Reply::json(404, &json!({}))),
            })
            .with_credential(TOKEN, "the-brokers-token");
            MyHttpDriver::create(&mut http, &target(HERE), &role(group()), &account("v-a", 2), secret("pw")).map(|_| ())
        };
        assert!(matches!(lost(true), Err(Error::OutcomeUnknown(_))));
        assert!(matches!(lost(false), Err(Error::Retryable(_))));
    }

    #[test]
    fn each_answer_tells_what_the_host_has_to_do() {
        let create = |status| {
            let mut http = answers(status);
            let made = MyHttpDriver::create(&mut http, &target(HERE), &role(group()), &account("v-a", 2), secret("pw"));
            made.map(|_| ())
        };
        assert!(matches!(create(409), Err(Error::Conflict(_))));
        assert!(matches!(create(403), Err(Error::Refused(_))));
        assert!(matches!(create(503), Err(Error::Retryable(_))));
        assert!(matches!(create(500), Err(Error::OutcomeUnknown(_))));
    }

    #[test]
    fn revoking_what_is_not_there_is_success() {
        assert_eq!(MyHttpDriver::revoke(&mut answers(404), &target(HERE), &account("v-a", 2)), Ok(()));
        assert!(MyHttpDriver::revoke(&mut answers(500), &target(HERE), &account("v-a", 2)).is_err());
    }
}
