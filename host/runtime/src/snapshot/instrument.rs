//! Which components can be copied by a snapshot, and what is done to a component for that.

use std::panic::{AssertUnwindSafe, catch_unwind};

use wasmparser::{CanonicalFunction, Parser, Payload};
use wasmtime_wizer::{ComponentContext, Wizer};

use crate::text::escape;

/// Longest reason, in bytes.
const REASON: usize = 256;

/// Whether a component makes resources of its own. Reads its sections and none of its code.
fn makes_resources(bytes: &[u8]) -> bool {
    let makes = |payload| match payload {
        Payload::ComponentCanonicalSection(functions) => {
            functions.into_iter().flatten().any(|f| matches!(f, CanonicalFunction::ResourceNew { .. }))
        }
        _ => false,
    };
    Parser::new(0).parse_all(bytes).flatten().any(makes)
}

/// Wizer, as it is used here.
pub(super) fn wizer() -> Wizer {
    let mut wizer = Wizer::new();
    // Snapshots export what the component exports: nothing is taken away.
    wizer.keep_init_func(true);
    wizer
}

/// The component with functions beside its own that tell its state, and what Wizer has to know to read it. The
/// component's own code is as it was.
///
/// # Errors
/// Why a copy of its memories and globals would not be all of its state.
pub(super) fn instrumented<'a>(wizer: &Wizer, bytes: &'a [u8]) -> Result<(ComponentContext<'a>, Vec<u8>), String> {
    if makes_resources(bytes) {
        return Err("it makes resources of its own, and their handles are not in its memory".to_owned());
    }
    wizer.instrument_component(bytes).map_err(|error| reason(&error))
}

/// A component is from outside, and Wizer panics at some that it does not know.
pub(super) fn guarded<T>(work: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err("its snapshot cannot be made (Wizer panicked)".to_owned()))
}

pub(super) fn reason(error: &wasmtime::Error) -> String {
    escape(&format!("{error:#}"), REASON)
}
