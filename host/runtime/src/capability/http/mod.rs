//! The `http` capability: requests to the connection's HTTP server.
//!
//! A guest gives data; [`encode`] writes secrets as the backend takes them, [`mod@compose`] makes the
//! request, [`connection`] sends it to an address that [`address`] has checked, [`answer`] takes the
//! secrets out of what comes back and [`blot`] what the request had placed.
//!
//! A request whose answer never came may still take effect: HTTP has no way to end it. The host
//! then knows that the backend may have been changed, and a driver finds by name what it made.

use std::sync::Arc;

use reqwest::StatusCode;
use reqwest::header::HeaderValue;
use wasmtime::component::Linker;

use crate::backend::{Backend, Session};
use crate::bindings::http::{Host, HttpError, Request, Response, add_to_linker};
use crate::capability::Capability;
use crate::capability::Grant;
use crate::capability::credentials::CredentialsInUse;
use crate::declared::{Declared, Reading, Said, Undeclared};
use crate::meter::Track;
use crate::view::{HasView, View, ViewOf};
use jit_core::driver::Lane;

pub(crate) mod address;
mod answer;
pub(crate) mod blot;
#[cfg(test)]
mod case;
mod compose;
mod connection;
mod effects;
mod encode;

pub use connection::{HttpConnection, HttpConnectionError, HttpConnectionOptions};

use answer::Answer;
use compose::{Composed, Unfit, compose, size_of};
use connection::Failure;
use effects::Effects;

/// A longer body is looked through on a thread for blocking work.
const INLINE_BODY: usize = 64 << 10;

/// Registers it.
pub(crate) struct HttpCapability;

impl Capability for HttpCapability {
    fn link<T: HasView>(linker: &mut Linker<T>) -> wasmtime::Result<()> {
        add_to_linker::<T, ViewOf<HttpSession>>(linker, |data| data.view().on())
    }

    fn declare(said: &Said<'_>) -> Result<Option<Reading>, Undeclared> {
        let effects = Effects::of(said).map_err(Undeclared::Description)?;
        Ok(Some(Arc::new(effects)))
    }
}

/// What a call needs to send requests.
struct HttpSession {
    connection: Arc<HttpConnection>,
    lane: Lane,
    /// What the driver's description says of its requests.
    effects: Arc<Effects>,
    credentials: CredentialsInUse,
}

impl Session for HttpSession {
    fn credentials(&mut self) -> Option<&mut CredentialsInUse> {
        Some(&mut self.credentials)
    }
}

// What is behind an API is not where the API is: it tells no endpoint.
impl Backend for HttpConnection {
    fn name(&self) -> &str {
        self.name()
    }

    fn capability(&self) -> &'static str {
        Grant::Http.as_str()
    }

    fn session(self: Arc<Self>, lane: Lane, declared: &Declared) -> Box<dyn Session> {
        let credentials = CredentialsInUse::new(self.credentials());
        Box::new(HttpSession { connection: self, lane, effects: declared.get(), credentials })
    }
}

impl Host for View<'_, HttpSession> {
    async fn send(&mut self, request: Request) -> wasmtime::Result<Result<Response, HttpError>> {
        self.meter.enter_host(size_of(&request))?;
        let track = Arc::clone(&self.meter.track);
        let result = track.unmetered(self.exchange(request)).await?;
        let bytes = match &result {
            // The answer itself has been counted, with what was withheld of it.
            Ok(_) => 0,
            Err(HttpError::Unavailable(text) | HttpError::Unknown(text) | HttpError::Denied(text)) => text.len(),
        };
        self.meter.count_bytes(bytes)?;
        Ok(result)
    }
}

impl View<'_, HttpSession> {
    /// One request and its answer.
    ///
    /// # Errors
    /// Traps on a handle that is not the call's, and on a limit.
    async fn exchange(&mut self, request: Request) -> wasmtime::Result<Result<Response, HttpError>> {
        let Some(HttpSession { connection, lane, effects, .. }) = self.session.as_deref() else {
            return Ok(Err(HttpError::Denied("this call has no HTTP connection".to_owned())));
        };
        let (connection, lane, effects) = (Arc::clone(connection), *lane, Arc::clone(effects));
        let wanted = match encode::wanted(&request, self.table) {
            Ok(wanted) => wanted,
            Err(unfit) => return refused(unfit),
        };
        let encoded = match encode::encode(wanted).await {
            Ok(encoded) => encoded,
            Err(reason) => return Ok(Err(HttpError::Denied(reason))),
        };
        let composed = match compose(connection.base(), &request, self.table, encoded) {
            Ok(composed) => composed,
            Err(unfit) => return refused(unfit),
        };
        let Composed { request: mut composed, placed } = composed;
        if let Some(trace) = self.meter.on_behalf.trace
            && let Ok(trace) = HeaderValue::try_from(trace.to_string())
        {
            composed.headers_mut().insert("traceparent", trace);
        }
        let limit = self.meter.bytes_left();
        let changes = effects.may_change(&request).then_some(&*effects);
        let answer = match send(&connection, lane, &self.meter.track, composed, changes, limit).await {
            Ok(answer) => answer,
            Err(failure) => return Ok(Err(http_error(failure))),
        };
        let raw = answer.len();
        let withhold = request.withhold;
        let opened = if raw <= INLINE_BODY {
            answer.open(&withhold, &placed)
        } else {
            let opening = tokio::task::spawn_blocking(move || answer.open(&withhold, &placed));
            opening.await.unwrap_or_else(|_| Err("the answer could not be read".to_owned()))
        };
        let (shown, withheld) = match opened {
            Ok(opened) => opened,
            Err(reason) => return Ok(Err(HttpError::Unknown(reason))),
        };
        let headers = shown.headers.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
        self.meter.count_bytes(headers + raw.max(shown.body.len()))?;
        let withheld = withheld.into_iter().map(|secret| secret.map(|secret| self.hand_out(secret)).transpose());
        let withheld = withheld.collect::<wasmtime::Result<Vec<_>>>()?;
        Ok(Ok(Response { status: shown.status, headers: shown.headers, body: shown.body, withheld }))
    }
}

/// Why a request is not sent, for the guest; a trap for a handle that is not the call's.
fn refused<T>(unfit: Unfit) -> wasmtime::Result<Result<T, HttpError>> {
    match unfit {
        Unfit::Denied(reason) => Ok(Err(HttpError::Denied(reason))),
        Unfit::Handle(error) => Err(error.into()),
    }
}

/// Sends in turn and reads the whole answer. `changes` says by what rules its effect is judged, where the
/// request may have one.
async fn send(
    connection: &HttpConnection,
    lane: Lane,
    track: &Track,
    request: reqwest::Request,
    changes: Option<&Effects>,
    limit: usize,
) -> Result<Answer, Failure> {
    let _turn = connection.turn(lane).await?;
    // From here on it may take effect, until the server says that it did not.
    let before = if changes.is_some() { track.set_effect_possible(true) } else { track.effect_possible() };
    let exchange = async {
        let response = connection.head(request).await?;
        Answer::read(response, limit).await.map_err(Failure::Lost)
    };
    let result = match tokio::time::timeout(connection.request_timeout, exchange).await {
        Ok(result) => result,
        Err(_) => {
            let waited = connection.request_timeout.as_millis();
            Err(Failure::Lost(format!("no whole answer within {waited} ms")))
        }
    };
    if let Some(effects) = changes {
        let nothing_happened = match &result {
            Ok(answer) => effects.is_refusal(answer),
            Err(Failure::Refused(_) | Failure::NotSent(_)) => true,
            Err(Failure::Lost(_)) => false,
        };
        if nothing_happened {
            track.set_effect_possible(before);
        }
        match &result {
            Ok(answer) => track.set_in_doubt(effects.is_open(answer)),
            Err(Failure::Lost(_)) => track.set_in_doubt(true),
            // Nothing was sent: what became of an earlier request is as open as it was.
            Err(Failure::Refused(_) | Failure::NotSent(_)) => {}
        }
    }
    match &result {
        Ok(answer) => track.set_answered(!is_away(answer.status)),
        Err(Failure::NotSent(_)) => track.set_answered(false),
        Err(Failure::Refused(_) | Failure::Lost(_)) => {}
    }
    result
}

/// What a gateway or a server says that answers nobody now (RFC 9110, RFC 6585).
fn is_away(status: StatusCode) -> bool {
    use StatusCode as S;
    matches!(status, S::BAD_GATEWAY | S::SERVICE_UNAVAILABLE | S::GATEWAY_TIMEOUT | S::TOO_MANY_REQUESTS)
}

fn http_error(failure: Failure) -> HttpError {
    match failure {
        Failure::Refused(text) => HttpError::Denied(text),
        Failure::NotSent(text) => HttpError::Unavailable(text),
        Failure::Lost(text) => HttpError::Unknown(text),
    }
}
