//! What the server answers.

use std::collections::BTreeSet;

use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::message::Message;
use super::state::{Privilege, State, Variable};
use super::{error, json, reply, status};

/// Ruby's `encode64` ends a line after so many characters.
const LINE: usize = 60;

pub(super) fn answer(state: &mut State, message: &Message) -> Response {
    let path: Vec<&str> = message.path.iter().map(String::as_str).collect();
    match (message.method.as_str(), &path[..]) {
        ("POST", ["authn", account, login, "authenticate"]) => by_api_key(state, message, account, login),
        ("POST", ["authn-jwt", service, account, "authenticate"]) => by_jwt(state, message, service, account, None),
        ("POST", ["authn-jwt", service, account, login, "authenticate"]) => {
            by_jwt(state, message, service, account, Some(login))
        }
        (method, path) => match message.token().and_then(|token| state.role(token)).map(str::to_owned) {
            Some(role) => authorized(state, message, &role, method, path),
            None => status(401),
        },
    }
}

fn authorized(state: &mut State, message: &Message, role: &str, method: &str, path: &[&str]) -> Response {
    match (method, path) {
        ("GET", ["secrets"]) => batch(state, message, role),
        ("GET", ["secrets", account, "variable", id]) if *account == state.account => show(state, message, role, id),
        ("POST", ["secrets", account, "variable", id]) if *account == state.account => change(state, message, role, id),
        ("GET", ["resources", account, "variable", id]) if *account == state.account => {
            resource(state, message, role, id)
        }
        _ => status(404),
    }
}

fn by_api_key(state: &mut State, message: &Message, account: &str, login: &str) -> Response {
    // A form here is a client's mistake.
    let is_good = account == state.account
        && message.content_type.as_deref() == Some("text/plain")
        && state.knows(login, &message.body);
    if is_good { token(state, message, login) } else { status(401) }
}

fn by_jwt(state: &mut State, message: &Message, service: &str, account: &str, named: Option<&str>) -> Response {
    if account != state.account {
        return status(401);
    }
    let Some(jwt) = message.field("jwt") else { return status(400) };
    match state.login_of(service, &jwt, named) {
        Some(login) => token(state, message, &login),
        None => status(401),
    }
}

fn token(state: &mut State, message: &Message, login: &str) -> Response {
    let token = state.log_in(login);
    if message.takes_base64() {
        let headers = [("content-type", "text/plain; charset=utf-8"), ("content-encoding", "base64")];
        return reply(200, &headers, STANDARD.encode(token).into_bytes());
    }
    reply(200, &[("content-type", "application/json; charset=utf-8")], token.into_bytes())
}

/// What Conjur says of a variable without a value and of one that is not to be seen.
fn missing(id: &str) -> Response {
    error(404, "not_found", &format!("CONJ00076E Variable {id} is empty or not found."))
}

fn full_id(state: &State, id: &str) -> String {
    format!("{}:variable:{id}", state.account)
}

fn show(state: &State, message: &Message, role: &str, id: &str) -> Response {
    let full = full_id(state, id);
    if !state.sees(role, id) {
        return missing(&full);
    }
    if !state.may(role, id, Privilege::Execute) {
        return status(403);
    }
    let versions = state.variables.get(id).map(|variable| variable.versions.as_slice()).unwrap_or_default();
    let found = match message.parameter("version") {
        None => versions.last(),
        Some(wanted) => versions.iter().find(|version| version.number.to_string() == wanted),
    };
    match found {
        Some(version) => reply(200, &[("content-type", "application/octet-stream")], version.value.clone()),
        None => missing(&full),
    }
}

/// All of them or none. Unlike a single variable, one that may not be seen gives 403 here.
fn batch(state: &State, message: &Message, role: &str) -> Response {
    let ids: Vec<&str> = match message.parameter("variable_ids") {
        None | Some("") => Vec::new(),
        Some(ids) => ids.split(',').collect(),
    };
    if ids.is_empty() || ids.contains(&"") {
        return error(422, "argument_error", "variable_ids");
    }
    if ids.iter().collect::<BTreeSet<_>>().len() != ids.len() {
        return error(400, "bad_request", "CONJ00160E The request contained duplicate variable ids.");
    }
    let prefix = full_id(state, "");
    let mut variables: Vec<(&str, &str, &Variable)> = Vec::new();
    for full in ids {
        let known = full.strip_prefix(&prefix).and_then(|id| Some((id, state.variables.get(id)?)));
        let Some((id, variable)) = known else { return missing(full) };
        variables.push((full, id, variable));
    }
    if variables.iter().any(|(_, id, _)| !state.may(role, id, Privilege::Execute)) {
        return status(403);
    }
    // Here the whole header has to be that one word.
    let in_base64 = message.accept_encoding.as_deref().is_some_and(|header| header.eq_ignore_ascii_case("base64"));
    let mut values = Map::new();
    for (full, _, variable) in variables {
        let Some(version) = variable.versions.last() else { return missing(full) };
        let value =
            if in_base64 { Some(wrapped(&version.value)) } else { String::from_utf8(version.value.clone()).ok() };
        let Some(value) = value else {
            return error(406, "not_acceptable", "CONJ00167E Issue encoding secret into JSON format.");
        };
        values.insert(full.to_owned(), Value::String(value));
    }
    let mut headers = vec![("content-type", "application/json; charset=utf-8")];
    headers.extend(in_base64.then_some(("content-encoding", "base64")));
    reply(200, &headers, Value::Object(values).to_string().into_bytes())
}

/// Base64 in lines, as Ruby's `encode64` has it.
fn wrapped(value: &[u8]) -> String {
    let encoded = STANDARD.encode(value);
    encoded.as_bytes().chunks(LINE).map(|line| format!("{}\n", String::from_utf8_lossy(line))).collect()
}

fn change(state: &mut State, message: &Message, role: &str, id: &str) -> Response {
    if !state.sees(role, id) {
        let account = &state.account;
        return error(404, "not_found", &format!("Variable '{id}' not found in account '{account}'"));
    }
    if !state.may(role, id, Privilege::Update) {
        return status(403);
    }
    if message.parameter("expirations").is_some() {
        state.expire(id);
        return status(201);
    }
    if message.body.iter().all(u8::is_ascii_whitespace) {
        return error(422, "argument_error", "'value' may not be empty");
    }
    state.variables.entry(id.to_owned()).or_default().add(message.body.clone(), None);
    status(201)
}

fn resource(state: &State, message: &Message, role: &str, id: &str) -> Response {
    let not_found = || {
        let message = format!("Variable '{id}' not found in account '{}'", state.account);
        error(404, "not_found", &message)
    };
    let Some(variable) = state.variables.get(id).filter(|_| state.sees(role, id)) else { return not_found() };
    if message.parameter("check").is_some() {
        return match message.parameter("privilege").and_then(Privilege::from_word) {
            Some(privilege) if state.may(role, id, privilege) => status(204),
            Some(_) => status(404),
            None => error(422, "argument_error", "privilege"),
        };
    }
    let annotations: Vec<Value> =
        variable.annotations.iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
    let versions: Vec<Value> = variable
        .versions
        .iter()
        .map(|version| json!({"version": version.number, "expires_at": version.expires_at}))
        .collect();
    let id = full_id(state, id);
    json(200, &json!({"id": id, "annotations": annotations, "permissions": [], "secrets": versions}))
}
