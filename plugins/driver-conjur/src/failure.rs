//! What a status means for the host.

use jit_plugin::http::{HttpError, Response};
use jit_plugin::{Error, Retry};
use serde_json::Value;

/// Most of Conjur's own words that are passed on, in bytes.
const MAX_WORDS: usize = 512;

/// What was asked, for the texts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked<'a> {
    /// Of what: an id of a variable, or a login.
    pub(crate) what: &'a str,
    /// The privilege that the broker's host needs for it.
    pub(crate) privilege: &'a str,
    /// Whether it may change an account.
    pub(crate) changes: bool,
}

/// The failure of a request that came back with no success.
pub(crate) fn of(asked: Asked<'_>, response: &Response) -> Error {
    let Asked { what, privilege, changes } = asked;
    let (status, words) = (response.status, words(response));
    match status {
        400 | 405 | 409 | 422 => Error::Refused(format!("{what}: {words}")),
        401 => Error::Refused(format!("{what}: Conjur refuses the broker's token")),
        403 => Error::Refused(format!("{what}: the broker's host lacks the privilege `{privilege}`")),
        // Conjur says the same of all three, so that nobody learns what there is.
        404 => Error::Refused(format!(
            "{what} is empty, is not there, or may not be seen; the broker's host needs `read` and `{privilege}`: {words}"
        )),
        406 => Error::Refused(format!("{what}: the value is not UTF-8 text; binary values cannot be handed out")),
        429 => Error::Retryable(Retry {
            reason: format!("{what}: too many requests"),
            after_ms: response.retry_after_ms(),
        }),
        500..=599 if changes => Error::OutcomeUnknown(format!("{what}: status {status}: {words}")),
        500..=599 => Error::Retryable(Retry {
            reason: format!("{what}: status {status}: {words}"),
            after_ms: response.retry_after_ms(),
        }),
        _ => Error::Other(format!("{what}: status {status}: {words}")),
    }
}

/// The failure of a request that has no whole answer.
pub(crate) fn of_sending(asked: Asked<'_>, error: HttpError) -> Error {
    let what = asked.what;
    match error {
        HttpError::Unknown(reason) if asked.changes => Error::OutcomeUnknown(format!("{what}: {reason}")),
        HttpError::Unknown(reason) | HttpError::Unavailable(reason) => Error::retryable(format!("{what}: {reason}")),
        HttpError::Denied(reason) => Error::Other(format!("{what}: {reason}")),
    }
}

/// Conjur's own words, short. An answer that is withheld whole has none.
fn words(response: &Response) -> String {
    let body = response.json().unwrap_or_default();
    let words = body.pointer("/error/message").and_then(Value::as_str).unwrap_or_default();
    let words = words.split_whitespace().collect::<Vec<_>>().join(" ");
    match words.as_str() {
        "" => "no reason given".to_owned(),
        words => words[..words.floor_char_boundary(MAX_WORDS)].to_owned(),
    }
}
