//! What a request is made of, each part checked where it enters: the request's id, the verified
//! caller, a JSON body.

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use axum::response::Response;
use futures_util::StreamExt as _;
use jit_core::id::RequestId;
use jit_identity::{Evidence, Rejected, Unverified, Verified};
use secrecy::zeroize::Zeroizing;
use serde::de::DeserializeOwned;
use tokio::sync::OwnedSemaphorePermit;
use tracing::Span;

use crate::trace::{self, NotAccepted};

use super::{App, MOST_BODY};
use crate::problem::HttpRefused;
use jit_pipeline::refusal::Refused;
use jit_pipeline::request::IdempotencyKey;

/// The most bytes beyond [`MOST_BODY`] that are taken in and thrown away before a refusal.
const MOST_SURPLUS: usize = 16 * 1024 * 1024;
/// How long they may take.
const SURPLUS_DEADLINE: Duration = Duration::from_secs(2);

/// The request's id, given by the outermost layer.
#[derive(Debug, Clone)]
pub struct Id(pub RequestId);

impl<S: Sync> FromRequestParts<S> for Id {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(_: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        Ok(Self(trace::request_id()))
    }
}

/// Where the connection of a request comes from, given by the listener.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub IpAddr);

/// The caller's address; `None` on the administration's socket. Behind a proxy it is the proxy's: no header
/// is believed.
#[derive(Debug, Clone, Copy)]
pub struct CallerAddress(pub Option<IpAddr>);

impl<S: Sync> FromRequestParts<S> for CallerAddress {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        Ok(Self(parts.extensions.get::<Peer>().map(|Peer(address)| *address)))
    }
}

/// A request's place among those at work, held until its reply is made. It is taken once the caller is
/// known: a stranger takes no place from anybody.
#[derive(Debug, Clone, Default)]
pub struct Slot(Arc<OnceLock<OwnedSemaphorePermit>>);

impl Slot {
    /// Keeps the place for as long as the request lasts.
    fn hold(parts: &Parts, place: OwnedSemaphorePermit) {
        if let Some(Slot(slot)) = parts.extensions.get::<Slot>() {
            let _one_for_each_request = slot.set(place);
        }
    }
}

/// A caller whose token was verified, who has not asked too much, and for whom there is room.
pub struct Caller(pub Arc<Verified>);

impl FromRequestParts<Arc<App>> for Caller {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Response> {
        let (caller, id) = verified(parts, app).await?;
        let refuse = |refused: Refused| HttpRefused::from(refused).reply(&id);
        app.broker.limits.count(&caller.principal).map_err(refuse)?;
        let place = Arc::clone(&app.in_flight).try_acquire_owned().map_err(|_| {
            metrics::counter!("jit_overloaded_total").increment(1);
            refuse(Refused::Overloaded)
        })?;
        Slot::hold(parts, place);
        Ok(Self(caller))
    }
}

/// A verified caller who gives access back. There is no rate at which that is refused, and it waits for its
/// turn in a room of its own: whatever else there is to do.
pub struct Returning {
    /// Who it is.
    pub caller: Arc<Verified>,
    /// Whether it is within the rate at which it is done while the caller waits.
    pub at_once: bool,
}

impl FromRequestParts<Arc<App>> for Returning {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Response> {
        let (caller, id) = verified(parts, app).await?;
        let at_once = app.broker.limits.count_return(&caller.principal);
        // Waits for no longer than any request may last. Closed it is never.
        let place = Arc::clone(&app.returning).acquire_owned().await;
        Slot::hold(parts, place.map_err(|_| HttpRefused::from(Refused::Overloaded).reply(&id))?);
        Ok(Self { caller, at_once })
    }
}

/// What the request brings to prove who sends it. Nothing is chosen here: [`Identity::verify`] takes all of it.
///
/// [`Identity::verify`]: jit_identity::Identity::verify
fn evidence(headers: &HeaderMap) -> Result<Vec<Evidence>, Rejected> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return Err(Rejected::NotOneHeader);
    };
    let value = value.to_str().map_err(|_| Rejected::NotAscii)?;
    Ok(vec![Evidence::Bearer(Unverified::from_header(value)?)])
}

/// The caller whom the request's evidence proves.
async fn verified(parts: &mut Parts, app: &Arc<App>) -> Result<(Arc<Verified>, RequestId), Response> {
    let Ok(Id(id)) = Id::from_request_parts(parts, app).await;
    let verified = match evidence(&parts.headers) {
        Ok(evidence) => app.broker.identity.load_full().verify(evidence).await,
        Err(reason) => Err(reason),
    };
    let verified = verified.map_err(|reason| {
        metrics::counter!("jit_auth_rejected_total", "reason" => reason.label()).increment(1);
        if let Rejected::IssuerBusy { .. } = reason {
            return HttpRefused::from(Refused::Overloaded).reply(&id);
        }
        // The caller knows that it sent no token, so the reply may say so.
        let has_none = !parts.headers.contains_key(header::AUTHORIZATION);
        let refused = if has_none { HttpRefused::NoToken } else { Refused::Unauthenticated.into() };
        let mut reply = refused.reply(&id);
        reply.extensions_mut().insert(NotAccepted(reason.to_string()));
        reply
    })?;
    Span::current().record("workload", tracing::field::display(&verified.principal.workload));
    Ok((verified, id))
}

/// A JSON body of at most [`MOST_BODY`] bytes.
pub struct Json<T>(pub T);

impl<T: DeserializeOwned> FromRequest<Arc<App>> for Json<T> {
    type Rejection = Response;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, Response> {
        let (mut parts, body) = request.into_parts();
        let Ok(Id(id)) = Id::from_request_parts(&mut parts, app).await;
        let bytes = read(&parts.headers, body).await.map_err(|refused| refused.reply(&id))?;
        if !is_json(&parts.headers) {
            return Err(HttpRefused::UnsupportedMediaType.reply(&id));
        }
        let wrong = |detail: String| HttpRefused::from(Refused::InvalidRequest { field: None, detail }).reply(&id);
        // serde would take a list too, as the fields in their order.
        if bytes.iter().find(|byte| !byte.is_ascii_whitespace()) != Some(&b'{') {
            return Err(wrong("the body must be a JSON object".to_owned()));
        }
        // serde_json's words name the field and place and quote no values but of the wrong type.
        serde_json::from_slice(&bytes)
            .map(Json)
            .map_err(|error| wrong(format!("the body is not what is expected here: {error}")))
    }
}

/// The whole body, of at most [`MOST_BODY`] bytes. It may hold a verifier, so it is wiped afterwards.
async fn read(headers: &HeaderMap, body: Body) -> Result<Zeroizing<Vec<u8>>, HttpRefused> {
    let told = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    let mut chunks = body.into_data_stream();
    // Reserved at once, so that no reallocation leaves a copy behind.
    let room = told.and_then(|length| usize::try_from(length).ok()).unwrap_or(0).min(MOST_BODY);
    let mut bytes = Zeroizing::new(Vec::with_capacity(room));
    if told.is_none_or(|length| length <= MOST_BODY as u64) {
        loop {
            match chunks.next().await {
                None => return Ok(bytes),
                Some(Ok(chunk)) if bytes.len() + chunk.len() <= MOST_BODY => bytes.extend_from_slice(&chunk),
                Some(Ok(_)) => break,
                Some(Err(_)) => {
                    let detail = "the body ended before its length".to_owned();
                    return Err(Refused::InvalidRequest { field: None, detail }.into());
                }
            }
        }
    } else if headers.contains_key(header::EXPECT) {
        // It asked first and has sent nothing yet.
        return Err(HttpRefused::PayloadTooLarge);
    }
    // Closing on bytes that nobody read resets the connection, reply and all: what is on its way
    // is taken in, within bounds, so that the caller learns what was wrong.
    let surplus = async {
        let mut taken = 0;
        while let Some(Ok(chunk)) = chunks.next().await {
            taken += chunk.len();
            if taken > MOST_SURPLUS {
                break;
            }
        }
    };
    let _ = tokio::time::timeout(SURPLUS_DEADLINE, surplus).await;
    Err(HttpRefused::PayloadTooLarge)
}

fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
}

/// The request's Idempotency-Key, if it has one.
///
/// # Errors
/// [`Refused::InvalidRequest`] for one that is no key, or for two.
pub fn idempotency_key(headers: &HeaderMap) -> Result<Option<IdempotencyKey>, Refused> {
    let mut keys = headers.get_all("idempotency-key").iter();
    match (keys.next(), keys.next()) {
        (None, _) => Ok(None),
        (Some(key), None) => IdempotencyKey::new(key.as_bytes()).map(Some),
        (Some(_), Some(_)) => Err(Refused::field("Idempotency-Key", "send one Idempotency-Key, not several")),
    }
}
