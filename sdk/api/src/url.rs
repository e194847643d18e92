//! Percent-encoding of one part of a URL: a path segment, a user name, a password.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, PercentEncode, utf8_percent_encode};

/// All but the unreserved characters of RFC 3986, section 2.3.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Encodes all but RFC 3986's unreserved characters. The result is written where it is displayed: a secret leaves no
/// copy behind that the caller does not make.
#[must_use]
pub fn encode(text: &str) -> PercentEncode<'_> {
    utf8_percent_encode(text, RESERVED)
}

#[cfg(test)]
mod tests {
    use super::encode;

    #[test]
    fn only_unreserved_characters_stay() {
        assert_eq!(encode("aZ9-._~").to_string(), "aZ9-._~");
        assert_eq!(encode("p@:/ ?#%é").to_string(), "p%40%3A%2F%20%3F%23%25%C3%A9");
    }
}
