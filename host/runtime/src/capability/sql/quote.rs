//! How values become SQL text, as far as dialects agree. The rest is in [`super::postgres::quote`]
//! and [`super::mysql::quote`].

/// Why a value cannot stand in a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum QuoteError {
    /// No text of a server can hold it.
    #[error("a value holds the character NUL")]
    Nul,
    /// Empty or longer than the dialect takes.
    #[error("an identifier must have 1 to {most} {unit}")]
    IdentLength {
        /// The longest.
        most: usize,
        /// In what: bytes or characters.
        unit: &'static str,
    },
    /// A list without elements.
    #[error("a list must not be empty")]
    EmptyList,
    /// A time after the year 9999.
    #[error("a timestamp is out of range")]
    Timestamp,
    /// A secret was placed that nobody prepared.
    #[error("a secret is not there")]
    Secret,
}

/// Appends several, separated by commas.
///
/// # Errors
/// When the list is empty or `one` fails.
pub fn list<T: AsRef<str>>(
    out: &mut String,
    values: &[T],
    one: impl Fn(&mut String, &str) -> Result<(), QuoteError>,
) -> Result<(), QuoteError> {
    if values.is_empty() {
        return Err(QuoteError::EmptyList);
    }
    for (place, value) in values.iter().enumerate() {
        if place > 0 {
            out.push_str(", ");
        }
        one(out, value.as_ref())?;
    }
    Ok(())
}

/// Appends the text with each quote doubled.
pub(super) fn push_doubled(out: &mut String, text: &str, quote: char) {
    for c in text.chars() {
        if c == quote {
            out.push(quote);
        }
        out.push(c);
    }
}

/// A time of the day in UTC.
///
/// # Errors
/// When it lies after the year 9999.
pub(super) fn utc(seconds: u64) -> Result<jiff::Timestamp, QuoteError> {
    i64::try_from(seconds)
        .ok()
        .and_then(|seconds| jiff::Timestamp::from_second(seconds).ok())
        .ok_or(QuoteError::Timestamp)
}
