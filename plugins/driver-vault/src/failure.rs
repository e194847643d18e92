//! What a status means for the host. Vault's list: "HTTP Status Codes" of its API documentation;
//! the texts were seen on OpenBao 2.7.

use jit_plugin::http::{HttpError, Response};
use jit_plugin::{Error, Retry};
use serde_json::Value;

use crate::client::Call;

/// Most of Vault's own words that are passed on, in bytes.
const MAX_WORDS: usize = 512;

/// The failure of a call that came back with no success.
pub(crate) fn of(call: &Call<'_>, response: &Response) -> Error {
    let words = words(response);
    let what = call.shown();
    match response.status {
        // A standby that does not forward. The host follows no redirect; nothing was done.
        301 | 302 | 307 | 308 => Error::retryable(format!(
            "{what}: a standby node redirects to {}; point the connection at the active node, or let it forward",
            response.header("location").unwrap_or("another node")
        )),
        400 | 405 | 406 | 415 | 422 => Error::Refused(format!("{what}: {words}")),
        401 | 403 => Error::Refused(format!("{what}: {words}; {}", call.policy_hint())),
        404 => Error::Refused(format!(
            "{what}: there is no such role or mount, or it may not be seen: {words}; {}",
            call.policy_hint()
        )),
        // The node lacks what another one has already (replication).
        412 => Error::retryable(format!("{what}: the node is behind the active one: {words}")),
        429 => Error::Retryable(Retry {
            reason: format!("{what}: too many requests: {words}"),
            after_ms: response.retry_after_ms(),
        }),
        // Roles of nodes that serve nothing by themselves: recovery, performance standby.
        472 | 473 => Error::retryable(format!("{what}: the node is a standby: {words}")),
        503 if !call.changes || is_vaults(response) => Error::Retryable(Retry {
            reason: format!("{what}: sealed, or without an active node: {words}"),
            after_ms: response.retry_after_ms(),
        }),
        // Anything else of the 5xx may come after the effect, a proxy's 503 too.
        500..=599 if call.changes => Error::OutcomeUnknown(format!("{what}: status {}: {words}", response.status)),
        500..=599 => Error::retryable(format!("{what}: status {}: {words}", response.status)),
        // The host decides by whether something was sent.
        status => Error::Other(format!("{what}: status {status}: {words}")),
    }
}

/// The failure of a call that has no whole answer.
pub(crate) fn of_sending(call: &Call<'_>, error: HttpError) -> Error {
    match error {
        HttpError::Unknown(reason) if call.changes => Error::OutcomeUnknown(format!("{}: {reason}", call.shown())),
        HttpError::Unknown(reason) | HttpError::Unavailable(reason) => {
            Error::retryable(format!("{}: {reason}", call.shown()))
        }
        HttpError::Denied(reason) => Error::Other(format!("{}: {reason}", call.shown())),
    }
}

/// Whether Vault says that it does not know the lease.
pub(crate) fn is_unknown_lease(response: &Response) -> bool {
    response.status == 400
        && errors(response).iter().any(|error| matches!(error.as_str(), "lease not found" | "invalid lease"))
}

/// An answer that Vault does not give, whatever its status: nothing is known by it.
pub(crate) fn not_vaults(call: &Call<'_>, response: &Response) -> Error {
    let (what, status, words) = (call.shown(), response.status, words(response));
    let text = format!("{what}: no answer of Vault's own (status {status}): is something else before it? {words}");
    if call.changes { Error::OutcomeUnknown(text) } else { Error::retryable(text) }
}

/// Whether it is a success in Vault's own form.
pub(crate) fn is_vaults_success(response: &Response) -> bool {
    response.json().is_ok_and(|body| body.get("request_id").is_some_and(Value::is_string))
}

/// Whether it is a failure of Vault's, and not one of a proxy before it.
pub(crate) fn is_vaults(response: &Response) -> bool {
    response.json().is_ok_and(|body| body.get("errors").is_some_and(Value::is_array))
}

/// Vault's own words, short.
pub(crate) fn words(response: &Response) -> String {
    let errors = errors(response).join("; ");
    let text = errors.split_whitespace().collect::<Vec<_>>().join(" ");
    match text.as_str() {
        "" => format!("no reason given (status {})", response.status),
        text => text[..text.floor_char_boundary(MAX_WORDS)].to_owned(),
    }
}

/// A "not found" in which Vault says nothing more: what is asked for does not exist.
pub(crate) fn is_wordless(response: &Response) -> bool {
    is_vaults(response) && errors(response).is_empty()
}

/// A failure as a part of another one's text.
pub(crate) fn reason(error: &Error) -> String {
    match error {
        Error::NotFound => "Vault does not know the lease".to_owned(),
        Error::Refused(text) | Error::OutcomeUnknown(text) | Error::Conflict(text) | Error::Other(text) => text.clone(),
        Error::Retryable(retry) => retry.reason.clone(),
        Error::Dependents(list) => list.join(", "),
        Error::InvalidConfig(problems) => problems.iter().map(|problem| problem.message.as_str()).collect(),
    }
}

fn errors(response: &Response) -> Vec<String> {
    let body = response.json().unwrap_or_default();
    let errors = body.get("errors").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    errors.iter().filter_map(Value::as_str).map(str::to_owned).collect()
}
