//! What each request leaves behind: a span with its id, which every line of the log within it has; and one line where
//! it was not done as asked.

use std::time::Instant;

use axum::extract::Request;
use axum::http::{HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::Response;
use jiff::Timestamp;
use jit_api::ProblemCode;
use jit_core::id::RequestId;
use jit_core::trace::{OnBehalf, TraceParent};
use jit_pipeline::trace;
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState};
use tracing::field::Empty;
use tracing::{Instrument as _, Span};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

/// The most characters of a path that the log has.
const MOST_PATH: usize = 200;

/// The id of the request that is being answered: the one that its reply and the log have. A new one where none is.
#[must_use]
pub fn request_id() -> RequestId {
    trace::on_behalf().request().cloned().unwrap_or_else(|| RequestId::generate(Timestamp::now()))
}

/// What a refusal tells the log beside its reply.
#[derive(Debug, Clone)]
pub struct Told {
    /// The problem's code.
    pub code: ProblemCode,
    /// The policy that denied.
    pub policy: Option<String>,
    /// The field that is wrong.
    pub field: Option<&'static str>,
    /// What the target said, or why it cannot be reached: in full, for operators.
    pub reason: Option<String>,
}

/// Why somebody was not taken for who they say they are: for the log alone.
#[derive(Debug, Clone)]
pub struct NotAccepted(pub String);

/// Gives the request its id, and does what `work` makes of it in a span of its own.
///
/// A `traceparent` of the caller's (W3C Trace Context) names the trace that the span belongs to; one that cannot be
/// read is none.
pub(crate) async fn traced<W>(request: Request, work: impl FnOnce(Request, RequestId) -> W) -> Response
where
    W: Future<Output = Response>,
{
    let id = RequestId::generate(Timestamp::now());
    let started = Instant::now();
    let path: String = request.uri().path().escape_debug().take(MOST_PATH).collect();
    let parent = parent(&request);
    let span = tracing::info_span!(
        "request",
        request_id = %id,
        method = known(request.method()),
        path,
        workload = Empty,
        target = Empty,
        role = Empty,
        lease = Empty,
        trace_id = Empty,
    );
    let mut on_behalf = OnBehalf::of_request(&id);
    on_behalf.trace = parent;
    if let Some(parent) = parent {
        span.record("trace_id", format!("{:032x}", parent.trace));
        belongs_to(&span, parent);
    }
    let work = work(request, id.clone());
    let told = async {
        let mut reply = work.await;
        if let Ok(value) = HeaderValue::from_str(id.as_str()) {
            reply.headers_mut().insert("x-request-id", value);
        }
        // Whatever it says is of this caller, at this moment: a secret, a lease, a no.
        reply.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        tell(&reply, started);
        reply
    };
    trace::scope(on_behalf, told.instrument(span)).await
}

/// A layer for routes that need nothing else around them.
pub(crate) async fn around(request: Request, next: Next) -> Response {
    traced(request, |request, _id| next.run(request)).await
}

/// One line: for people who look for what went wrong at info, for the rest at debug.
fn tell(reply: &Response, started: Instant) {
    let status = reply.status().as_u16();
    let micros = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
    if reply.status().is_success() {
        tracing::debug!(status, micros, "answered");
        return;
    }
    let told = reply.extensions().get::<Told>();
    if let Some((told, reason)) = told.and_then(|told| Some((told, told.reason.as_deref()?))) {
        // Not the caller's doing.
        tracing::warn!(status, code = told.code.as_str(), reason, micros, "refused");
        return;
    }
    let why = reply.extensions().get::<NotAccepted>();
    tracing::info!(
        status,
        code = told.map(|told| told.code.as_str()),
        policy = told.and_then(|told| told.policy.as_deref()),
        field = told.and_then(|told| told.field),
        why = why.map(|why| why.0.as_str()),
        micros,
        "refused"
    );
}

/// The method, where it is one of the API's: any other is a stranger's word.
fn known(method: &Method) -> &str {
    match *method {
        Method::GET | Method::POST | Method::HEAD | Method::OPTIONS | Method::PUT | Method::PATCH | Method::DELETE => {
            method.as_str()
        }
        _ => "other",
    }
}

fn parent(request: &Request) -> Option<TraceParent> {
    let mut values = request.headers().get_all("traceparent").iter();
    match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().ok()?.parse().ok(),
        _ => None,
    }
}

/// Where spans are exported, this one is a child of the caller's.
fn belongs_to(span: &Span, parent: TraceParent) {
    let flags = if parent.sampled { TraceFlags::SAMPLED } else { TraceFlags::default() };
    let (trace, of) = (TraceId::from(parent.trace.get()), SpanId::from(parent.parent.get()));
    let remote = SpanContext::new(trace, of, flags, true, TraceState::default());
    // Without an exporter there is nothing to set it on.
    let _not_exported = span.set_parent(opentelemetry::Context::new().with_remote_span_context(remote));
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::StatusCode;
    use axum::response::IntoResponse as _;

    use super::*;

    /// Nothing between the broker and its caller may keep an answer: it may be a secret.
    #[tokio::test]
    async fn every_reply_names_its_request_and_is_kept_by_nobody() {
        for status in [StatusCode::CREATED, StatusCode::OK, StatusCode::NOT_FOUND, StatusCode::SERVICE_UNAVAILABLE] {
            // What a handler says of it does not count.
            let answer = (status, [(header::CACHE_CONTROL, "public")], "x").into_response();
            let mut seen = None;
            let reply = traced(Request::new(Body::empty()), |_, id| {
                seen = Some(id);
                async { answer }
            });
            let reply = reply.await;
            assert_eq!(reply.headers()[header::CACHE_CONTROL], "no-store", "{status}");
            assert_eq!(reply.headers().get_all(header::CACHE_CONTROL).iter().count(), 1, "{status}");
            assert_eq!(reply.headers()["x-request-id"], seen.unwrap().as_str(), "{status}");
        }
    }
}
