//! How a target reads an input.

use std::borrow::Cow;

/// Separates the parts of an input. People can write it into a corpus file.
pub const SEPARATOR: &str = "\n===\n";

/// The bytes of one run of a target.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    /// Wraps bytes.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// All bytes.
    #[must_use]
    pub const fn bytes(self) -> &'a [u8] {
        self.0
    }

    /// The whole input as text; what is not UTF-8 becomes replacement characters.
    #[must_use]
    pub fn text(self) -> Cow<'a, str> {
        String::from_utf8_lossy(self.0)
    }

    /// The first `N` parts between separators. Missing parts are empty; the last one takes the rest.
    #[must_use]
    pub fn parts<const N: usize>(self) -> [String; N] {
        let text = self.text();
        let mut parts = text.splitn(N, SEPARATOR);
        std::array::from_fn(|_| parts.next().unwrap_or_default().to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_read_between_separators() {
        let input = Input::new(b"a\n===\nb\n===\nc\n===\nd");
        assert_eq!(input.parts::<3>(), ["a", "b", "c\n===\nd"]);
        assert_eq!(Input::new(b"a").parts::<2>(), ["a", ""]);
        assert_eq!(Input::new(b"\xff").parts::<1>(), ["\u{fffd}"]);
    }
}
