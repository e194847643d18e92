//! An error with what is behind it.

use std::error::Error;

/// The error and its causes on one line, from the outermost to the innermost.
#[must_use]
pub fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
