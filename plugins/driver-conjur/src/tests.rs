//! The driver on a scripted server: what it sends, and what it makes of the answers. A strict server
//! of the end to end suite answers the same requests over HTTP.
#![allow(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

mod errors;
mod fixtures;
mod rotation;
mod validation;
mod variables;

use jit_plugin::config;
use jit_plugin::http::HttpError;
use jit_plugin::testing::{FakeHttp, Reply, Sent, account, role, secret, target};
use jit_plugin::{Account, Error, HttpDriver as _, Issued, Role, Target};
use serde_json::{Value, json};

use crate::{ConjurDriver, RoleConfig, TargetConfig};

const LOGIN: &str = "POST /authn/acme/host%2Fjit-broker/authenticate";
const BATCH: &str = "GET /secrets?variable_ids=acme%3Avariable%3Ainventory%2Fdb%2Fpassword%2Cacme%3Avariable%3Ainventory%2Fdb%2Fusername";
const SHOW: &str = "GET /resources/acme/variable/inventory%2Fdb%2Fpassword";
const EXPIRE: &str = "POST /secrets/acme/variable/inventory%2Fdb%2Fpassword?expirations=";

fn a_target() -> Target<TargetConfig> {
    target_of(&json!({
        "account": "acme",
        "auth": {"method": "api-key", "login": "host/jit-broker", "secret": "api-key"},
    }))
}

fn target_of(config: &Value) -> Target<TargetConfig> {
    target(config::parse(&config.to_string()).unwrap())
}

/// A role with two variables, and what else is said.
fn role_with(more: &Value) -> Role<RoleConfig> {
    let mut config = json!({"variable": "inventory/db/password", "username": "inventory/db/username"});
    for (name, value) in more.as_object().unwrap() {
        config[name] = value.clone();
        if value.is_null() {
            config.as_object_mut().unwrap().remove(name);
        }
    }
    role(config::parse(&config.to_string()).unwrap())
}

fn a_role() -> Role<RoleConfig> {
    role_with(&json!({}))
}

fn an_account() -> Account {
    account("v-payment-4qk2", 1_800_003_600)
}

fn key() -> String {
    crate::client::key(&a_target().config)
}

/// A server with the broker's API key at hand and no token yet.
fn server(answer: impl FnMut(&Sent) -> Result<Reply, HttpError> + 'static) -> FakeHttp<'static> {
    FakeHttp::new(answer).with_credential("api-key", "api-key")
}

/// A server with a token kept from an earlier call.
fn with_token(answer: impl FnMut(&Sent) -> Result<Reply, HttpError> + 'static) -> FakeHttp<'static> {
    server(answer).with_kept(&key(), "token", 400)
}

/// What Conjur makes of a request when all is well.
fn good(sent: &Sent) -> Reply {
    match sent.line().as_str() {
        LOGIN => Reply::text(200, "token"),
        BATCH => values(),
        SHOW => resource(&[1]),
        EXPIRE => Reply::text(201, ""),
        line if line.starts_with("GET /resources/") && line.contains("?check=true") => Reply::text(204, ""),
        line => panic!("not expected: {line}"),
    }
}

fn values() -> Reply {
    let values = json!({
        "acme:variable:inventory/db/password": "pw-of-conjur",
        "acme:variable:inventory/db/username": "app",
    });
    Reply::json(200, &values)
}

/// A variable with a rotator and these versions.
fn resource(versions: &[u64]) -> Reply {
    let secrets: Vec<Value> = versions.iter().map(|version| json!({"version": version, "expires_at": null})).collect();
    let annotations = json!([{"name": "rotation/rotator", "value": "postgresql/password"}]);
    Reply::json(
        200,
        &json!({"id": "acme:variable:inventory/db/password", "annotations": annotations, "secrets": secrets}),
    )
}

fn error(status: u16, message: &str) -> Reply {
    Reply::json(status, &json!({"error": {"code": "not_found", "message": message}}))
}

fn create(http: &mut FakeHttp<'_>, role: &Role<RoleConfig>) -> Result<Issued, Error> {
    ConjurDriver::create(http, &a_target(), role, &an_account(), secret("the host's, not used"))
}

/// The name under which a test knows the secret that was issued.
fn password_of(issued: &Issued) -> String {
    use jit_plugin::http::{Body, Http as _, Method, Part, Request};
    let secret = issued.secret.as_ref().unwrap();
    let mut http = FakeHttp::new(|_| Ok(Reply::text(204, "")));
    let body = Body::Text(vec![Part::Secret(secret.borrow())]);
    http.send(&Request::new(Method::Post, ["x"]).body(body)).unwrap();
    http.sent[0].body.clone()
}

fn pair(name: &str, value: &str) -> (String, String) {
    (name.to_owned(), value.to_owned())
}
