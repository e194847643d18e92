//! Spans for a collector: `[traces]` of the configuration.
//!
//! They are sent in batches by a thread of their own. Where the collector does not keep up or is away, spans are
//! dropped; nothing that is asked of the broker waits for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, Response};
use jit_assembly::connection::read_ca;
use jit_config::Traces;
use jit_core::causes::with_causes;
use jit_core::certificate::{Remedy, explained};
use opentelemetry::trace::{SpanKind, TraceContextExt as _, TraceId, TracerProvider as _};
use opentelemetry::{Context, KeyValue};
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{
    Sampler, SamplingDecision, SamplingResult, SdkTracer, SdkTracerProvider, ShouldSample, SpanLimits,
};
use secrecy::ExposeSecret as _;

/// How long one batch may take to be sent.
const SEND_DEADLINE: Duration = Duration::from_secs(10);
/// How long the last batch has at a stop.
const STOP_DEADLINE: Duration = Duration::from_secs(3);
/// The most bytes of a collector's answer that are read.
const MOST_ANSWER: usize = 64 * 1024;

/// What sends spans, until the process ends.
pub(crate) struct Exporter(SdkTracerProvider);

impl Exporter {
    /// Prepares it. Nothing is sent yet, and nobody is asked whether the collector is there.
    ///
    /// # Errors
    /// When a secret or an authority cannot be read, or no client can be made of them.
    pub(crate) fn new(traces: &Traces) -> anyhow::Result<Self> {
        let collector = Collector::new(traces).context("[traces]")?;
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(collector)
            .with_endpoint(traces.url.as_str())
            .with_protocol(Protocol::HttpBinary)
            .with_timeout(SEND_DEADLINE)
            .build()
            .context("[traces]")?;
        let resource = Resource::builder()
            .with_service_name("jit-broker")
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
            .build();
        let limits = SpanLimits { max_events_per_span: 16, max_attributes_per_span: 32, ..SpanLimits::default() };
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_sampler(Share(Sampler::TraceIdRatioBased(traces.percent / 100.0)))
            .with_span_limits(limits)
            .with_resource(resource)
            .build();
        Ok(Self(provider))
    }

    /// What the log's spans are given to.
    pub(crate) fn tracer(&self) -> SdkTracer {
        self.0.tracer("jit-broker")
    }
}

/// Sends what is left.
impl Drop for Exporter {
    fn drop(&mut self) {
        if let Err(error) = self.0.shutdown_with_timeout(STOP_DEADLINE) {
            tracing::warn!(%error, "the last spans were not sent");
        }
    }
}

/// The configured share of all traces. A caller that does not keep its trace has none kept of it here; one that keeps
/// it does not get more than the share, since anybody can claim that.
#[derive(Debug, Clone)]
struct Share(Sampler);

impl ShouldSample for Share {
    fn should_sample(
        &self,
        parent: Option<&Context>,
        trace: TraceId,
        name: &str,
        kind: &SpanKind,
        attributes: &[KeyValue],
        links: &[opentelemetry::trace::Link],
    ) -> SamplingResult {
        let of_parent = parent.filter(|parent| parent.has_active_span()).map(|parent| {
            let context = parent.span().span_context().clone();
            (context.is_sampled(), context.is_remote(), context.trace_state().clone())
        });
        match of_parent {
            // Within the broker: as the request was decided.
            Some((sampled, false, trace_state)) => {
                let decision = if sampled { SamplingDecision::RecordAndSample } else { SamplingDecision::Drop };
                SamplingResult { decision, attributes: Vec::new(), trace_state }
            }
            Some((false, true, trace_state)) => {
                SamplingResult { decision: SamplingDecision::Drop, attributes: Vec::new(), trace_state }
            }
            _ => self.0.should_sample(None, trace, name, kind, attributes, links),
        }
    }
}

/// Sends batches with the HTTP client that the broker has anyway.
#[derive(Debug)]
struct Collector {
    client: reqwest::Client,
    headers: Vec<(HeaderName, HeaderValue)>,
    /// The thread of batches has no runtime of its own.
    runtime: Option<tokio::runtime::Runtime>,
    away: Arc<AtomicBool>,
}

impl Collector {
    fn new(traces: &Traces) -> anyhow::Result<Self> {
        let secure = traces.url.scheme() == "https";
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("jit-broker/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            // A proxy from the environment would see the headers.
            .no_proxy()
            .https_only(secure)
            .timeout(SEND_DEADLINE);
        if let Some(ca) = &traces.ca {
            builder = builder.tls_certs_only(reqwest::Certificate::from_pem_bundle(&read_ca(ca)?)?);
        } else if !secure {
            builder = builder.tls_certs_only([]);
        }
        let mut headers = Vec::new();
        for (name, place) in &traces.headers {
            let secret = place.resolve().with_context(|| format!("headers.{name}"))?;
            let mut value = HeaderValue::from_str(secret.expose_secret())
                .with_context(|| format!("headers.{name}: the secret is no header's value"))?;
            value.set_sensitive(true);
            headers.push((name.parse().with_context(|| format!("headers.{name}"))?, value));
        }
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("traces")
            .enable_all()
            .build()
            .context("no thread for traces")?;
        Ok(Self { client: builder.build()?, headers, runtime: Some(runtime), away: Arc::default() })
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        // Waiting for it is not allowed where other work runs.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

#[async_trait]
impl HttpClient for Collector {
    async fn send_bytes(&self, mut request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        request.headers_mut().extend(self.headers.iter().map(|(name, value)| (Some(name.clone()), value.clone())));
        let client = self.client.clone();
        let runtime = self.runtime.as_ref().ok_or("no more is sent")?;
        let sending = runtime.spawn(async move {
            let mut answer = client.execute(request.try_into()?).await?;
            let mut body = Vec::new();
            while let Some(chunk) = answer.chunk().await? {
                body.extend_from_slice(&chunk[..chunk.len().min(MOST_ANSWER - body.len())]);
                if body.len() == MOST_ANSWER {
                    break;
                }
            }
            let mut response = Response::new(Bytes::from(body));
            *response.status_mut() = answer.status();
            Ok::<_, reqwest::Error>(response)
        });
        let sent = sending.await?;
        tell(&self.away, &sent);
        Ok(sent?)
    }
}

/// Tells when it begins and when it ends, not at each batch.
fn tell(away: &AtomicBool, sent: &Result<Response<Bytes>, reqwest::Error>) {
    let wrong = match sent {
        Ok(answer) if answer.status().is_success() => None,
        Ok(answer) => Some(format!("it answered {}", answer.status())),
        Err(error) => {
            Some(explained(&with_causes(error), Remedy { authority: "the `ca` of `[traces]`", address: "its `url`" }))
        }
    };
    let outcome = if wrong.is_none() { "sent" } else { "lost" };
    metrics::counter!("jit_trace_batches_total", "outcome" => outcome).increment(1);
    let was_away = away.swap(wrong.is_some(), Ordering::Relaxed);
    match wrong {
        Some(reason) if !was_away => {
            tracing::warn!(reason, "the collector of [traces] does not take spans: they are dropped until it does");
        }
        None if was_away => tracing::info!("the collector of [traces] takes spans again"),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceState};

    use super::*;

    fn decided(share: f64, flags: Option<(TraceFlags, bool)>) -> SamplingDecision {
        let trace = TraceId::from(1_u128);
        let parent = flags.map(|(flags, remote)| {
            let context = SpanContext::new(trace, SpanId::from(1_u64), flags, remote, TraceState::default());
            Context::new().with_remote_span_context(context)
        });
        let sampler = Share(Sampler::TraceIdRatioBased(share));
        sampler.should_sample(parent.as_ref(), trace, "request", &SpanKind::Internal, &[], &[]).decision
    }

    #[test]
    fn nobody_gets_more_than_the_share() {
        let sampled = TraceFlags::SAMPLED;
        assert_eq!(decided(1.0, None), SamplingDecision::RecordAndSample);
        assert_eq!(decided(1.0, Some((sampled, true))), SamplingDecision::RecordAndSample);
        assert_eq!(decided(1.0, Some((TraceFlags::default(), true))), SamplingDecision::Drop);
        assert_eq!(decided(0.0, Some((sampled, true))), SamplingDecision::Drop);
        // A span within a request is kept if the request's is.
        assert_eq!(decided(0.0, Some((sampled, false))), SamplingDecision::RecordAndSample);
        assert_eq!(decided(1.0, Some((TraceFlags::default(), false))), SamplingDecision::Drop);
    }
}
