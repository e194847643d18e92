//! The trace that calls to backends belong to.

use std::num::{NonZeroU64, NonZeroU128};

use jit_core::trace::{OnBehalf, TraceParent};
use jit_pipeline::trace;
use opentelemetry::trace::TraceContextExt as _;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

/// For whom a call is made now. Where spans are exported, the call belongs to the current one; where they are not, to
/// the caller's own span, if the caller named it.
pub(crate) fn on_behalf() -> OnBehalf {
    let mut on_behalf = trace::on_behalf();
    let context = Span::current().context();
    let current = context.span().span_context().clone();
    let trace = NonZeroU128::new(u128::from_be_bytes(current.trace_id().to_bytes()));
    let parent = NonZeroU64::new(u64::from_be_bytes(current.span_id().to_bytes()));
    if let (Some(trace), Some(parent)) = (trace, parent) {
        on_behalf.trace = Some(TraceParent { trace, parent, sampled: current.is_sampled() });
    }
    on_behalf
}
