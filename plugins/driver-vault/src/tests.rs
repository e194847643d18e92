//! The driver on a scripted server: what it sends, and what it makes of the answers. The shapes are
//! those of OpenBao 2.7; the end to end suite runs the same verbs on a real one.
#![allow(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

mod errors;
mod leases;
mod lists;
mod tokens;
mod validation;

use jit_plugin::config;
use jit_plugin::http::HttpError;
use jit_plugin::testing::{FakeHttp, Reply, Sent, account, role, target};
use jit_plugin::{Account, Role, Target};
use serde_json::{Value, json};

use crate::{RoleConfig, TargetConfig};

/// Where the token of [`a_target`] is kept: a hash, so that the store finds it after an upgrade.
const KEY: &str = "token 875b3f8fda483069";
const LEASE: &str = "database/creds/app_read_only/uNzONKfcZt82jvIC0z8WRQYt";
const EXPIRES_AT: u64 = 1_800_003_600;

fn a_target() -> Target<TargetConfig> {
    target_of(&json!({"auth": {"method": "jwt", "role": "jit-broker", "secret": "jwt"}}))
}

fn target_of(config: &Value) -> Target<TargetConfig> {
    target(config::parse(&config.to_string()).unwrap())
}

fn a_role() -> Role<RoleConfig> {
    role(config::parse(r#"{"role": "app_read_only"}"#).unwrap())
}

/// Asked for an hour.
fn an_account() -> Account {
    account("v-payment-4qk2", EXPIRES_AT)
}

fn a_lease() -> Account {
    Account { external_id: Some(LEASE.into()), ..an_account() }
}

/// A server with the broker's JWT at hand and no token yet.
fn server(answer: impl FnMut(&Sent) -> Result<Reply, HttpError> + 'static) -> FakeHttp<'static> {
    FakeHttp::new(answer).with_credential("jwt", "jwt-1")
}

/// A server with a token kept from an earlier call.
fn with_token(answer: impl FnMut(&Sent) -> Result<Reply, HttpError> + 'static) -> FakeHttp<'static> {
    server(answer).with_kept(KEY, "hvs-kept", 3_000)
}

/// What Vault makes of a request when all is well; leases last two hours, tokens one.
fn good(sent: &Sent) -> Reply {
    match sent.line().as_str() {
        "POST /v1/auth/jwt/login" => login("hvs-new"),
        "GET /v1/database/creds/app_read_only" => made(7_200, true),
        "POST /v1/sys/leases/renew" => lasting(sent.json()["increment"].as_u64().unwrap()),
        "POST /v1/sys/leases/revoke" => Reply::text(204, ""),
        "POST /v1/sys/leases/lookup" => {
            Reply::json(200, &json!({"data": {"id": LEASE, "expire_time": "2027-01-15T08:00:00.123Z", "ttl": 3600}}))
        }
        "GET /v1/auth/token/lookup-self" => token_state(3_000, 3_600, true),
        "POST /v1/auth/token/renew-self" => renewed(3_600),
        line => panic!("not expected: {line}"),
    }
}

fn login(token: &str) -> Reply {
    Reply::json(200, &json!({"auth": {"client_token": token, "lease_duration": 3600, "renewable": true}}))
}

fn made(lasts: u64, renewable: bool) -> Reply {
    let data = json!({"username": "v-jwt-app-1", "password": "pw-of-vault"});
    Reply::json(200, &json!({"lease_id": LEASE, "lease_duration": lasts, "renewable": renewable, "data": data}))
}

fn lasting(seconds: u64) -> Reply {
    Reply::json(200, &json!({"lease_id": LEASE, "lease_duration": seconds, "renewable": true, "data": null}))
}

fn renewed(seconds: u64) -> Reply {
    Reply::json(200, &json!({"auth": {"client_token": "hvs-kept", "lease_duration": seconds, "renewable": true}}))
}

/// Of a periodic token, whose full time is `full`.
fn token_state(left: u64, full: u64, renewable: bool) -> Reply {
    let data = json!({"id": "hvs-kept", "ttl": left, "period": full, "creation_ttl": full, "renewable": renewable});
    Reply::json(200, &json!({ "data": data }))
}

fn errors(status: u16, errors: &[&str]) -> Reply {
    Reply::json(status, &json!({ "errors": errors }))
}

fn token_of(sent: &Sent) -> &str {
    sent.header("x-vault-token").unwrap_or("none")
}
