//! Blots secrets out of texts that a backend sent, whatever way it wrote them.
//!
//! A backend may quote a secret back: as it is, with JSON's escapes (any of several spellings),
//! percent-encoded, in hexadecimal, or in base64, perhaps within a longer encoded text. So the text is looked at
//! as it is and with its escapes undone, and what was found is blotted in the text itself.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use memchr::memmem;
use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

/// What stands in a secret's place.
const BLOT: &str = "***";

/// Shorter base64 is looked for only as the whole encoding: less of it would be found by chance.
const SHORTEST_CORE: usize = 6;

/// Characters of base64 beside a find that may hold a few bits of the secret.
const BESIDE: usize = 3;

/// The text with every secret in it replaced.
pub(crate) fn blot(text: &str, secrets: &[SecretString]) -> String {
    let mut found: Vec<(usize, usize)> = Vec::new();
    let secrets = secrets.iter().map(ExposeSecret::expose_secret).filter(|secret| !secret.is_empty());
    let secrets: Vec<&str> = secrets.collect();
    if secrets.is_empty() || text.is_empty() {
        return text.to_owned();
    }
    let views = views(text, secrets.iter().any(|secret| secret.contains(' ')));
    for secret in secrets {
        let encoded = base64_forms(secret.as_bytes());
        let hexadecimal = hex_forms(secret.as_bytes());
        for view in &views {
            for needle in hexadecimal.iter().map(|form| form.as_bytes()).chain([secret.as_bytes()]) {
                for at in memmem::find_iter(&view.bytes, needle) {
                    found.push((view.start(at), view.start(at + needle.len())));
                }
            }
            for needle in &encoded {
                for at in memmem::find_iter(&view.bytes, needle.as_bytes()) {
                    let is_base64 = |b: &&u8| b.is_ascii_alphanumeric() || b"+/-_=".contains(b);
                    let before = view.bytes[..at].iter().rev().take(BESIDE).take_while(is_base64).count();
                    let end = at + needle.len();
                    let after = view.bytes[end..].iter().take(BESIDE).take_while(is_base64).count();
                    found.push((view.start(at - before), view.start(end + after)));
                }
            }
        }
    }
    replaced(text, found)
}

fn replaced(text: &str, mut found: Vec<(usize, usize)>) -> String {
    found.sort_unstable();
    let mut out = String::with_capacity(text.len());
    let mut done = 0;
    for (start, end) in found {
        // A find within a longer one has been blotted with it; one that overlaps ends later.
        if end <= done {
            continue;
        }
        // A percent-encoded find may begin inside of a character only in a text that is no URL.
        let (start, end) = (text.floor_char_boundary(start), text.ceil_char_boundary(end));
        if start >= done {
            out.push_str(&text[done..start]);
            out.push_str(BLOT);
        }
        done = end;
    }
    out.push_str(&text[done..]);
    out
}

/// A text with escapes undone, and where each of its bytes came from.
struct View {
    bytes: Zeroizing<Vec<u8>>,
    /// Where each byte begins in the text, and the text's length. None where that is the same.
    starts: Option<Vec<usize>>,
}

impl View {
    /// Where the byte at that place begins in the text.
    fn start(&self, at: usize) -> usize {
        self.starts.as_ref().map_or(at, |starts| starts[at])
    }

    /// Undoes escapes: `decode` gives the bytes that an escape at the beginning stands for, and how
    /// long the escape is. None where there is no escape at all.
    fn unescaped(&self, mark: &[u8], decode: impl Fn(&[u8]) -> Option<(Decoded, usize)>) -> Option<View> {
        if !self.bytes.iter().any(|byte| mark.contains(byte)) {
            return None;
        }
        let mut bytes = Zeroizing::new(Vec::with_capacity(self.bytes.len()));
        let mut starts = Vec::with_capacity(self.bytes.len() + 1);
        let mut at = 0;
        while at < self.bytes.len() {
            let escape = if mark.contains(&self.bytes[at]) { decode(&self.bytes[at..]) } else { None };
            let (decoded, length) = escape.unwrap_or((Decoded::byte(self.bytes[at]), 1));
            for &byte in decoded.bytes() {
                bytes.push(byte);
                starts.push(self.start(at));
            }
            at += length;
        }
        starts.push(self.start(at));
        Some(View { bytes, starts: Some(starts) })
    }
}

/// One character of at most four bytes.
struct Decoded([u8; 4], usize);

impl Decoded {
    fn byte(byte: u8) -> Self {
        Self([byte, 0, 0, 0], 1)
    }

    fn char(c: char) -> Self {
        let mut bytes = [0; 4];
        let length = c.encode_utf8(&mut bytes).len();
        Self(bytes, length)
    }

    fn bytes(&self) -> &[u8] {
        &self.0[..self.1]
    }
}

/// The text as it is and with its escapes undone.
fn views(text: &str, spaces: bool) -> Vec<View> {
    let raw = View { bytes: Zeroizing::new(text.as_bytes().to_vec()), starts: None };
    let mut views: Vec<View> = raw.unescaped(b"\\", json_escape).into_iter().collect();
    views.push(raw);
    let mut encoded: Vec<View> = views.iter().filter_map(|view| view.unescaped(b"%", percent_escape)).collect();
    views.append(&mut encoded);
    if spaces {
        let mut plus: Vec<View> =
            views.iter().filter_map(|view| view.unescaped(b"+", |_| Some((Decoded::byte(b' '), 1)))).collect();
        // In a form, `+` is decoded before `%2B`.
        plus.extend(plus.iter().filter_map(|view| view.unescaped(b"%", percent_escape)).collect::<Vec<_>>());
        views.append(&mut plus);
    }
    views
}

/// RFC 8259, section 7.
fn json_escape(bytes: &[u8]) -> Option<(Decoded, usize)> {
    let plain = |byte| Some((Decoded::byte(byte), 2));
    match bytes.get(1)? {
        b'b' => plain(8),
        b'f' => plain(12),
        b'n' => plain(b'\n'),
        b'r' => plain(b'\r'),
        b't' => plain(b'\t'),
        byte @ (b'"' | b'\\' | b'/') => plain(*byte),
        b'u' => {
            let unit = |at: usize| {
                let digits = std::str::from_utf8(bytes.get(at..at + 4)?).ok()?;
                u16::from_str_radix(digits, 16).ok()
            };
            let first = unit(2)?;
            if let Some(c) = char::from_u32(u32::from(first)) {
                return Some((Decoded::char(c), 6));
            }
            if bytes.get(6..8)? != b"\\u" {
                return None;
            }
            let pair = char::decode_utf16([first, unit(8)?]).next()?.ok()?;
            Some((Decoded::char(pair), 12))
        }
        _ => None,
    }
}

/// RFC 3986, section 2.1.
fn percent_escape(bytes: &[u8]) -> Option<(Decoded, usize)> {
    let digit = |at: usize| char::from(*bytes.get(at)?).to_digit(16);
    let byte = u8::try_from(digit(1)? * 16 + digit(2)?).ok()?;
    Some((Decoded::byte(byte), 3))
}

/// The bytes in hexadecimal, in lower and in upper case. A very short secret is found by chance: it has none.
fn hex_forms(bytes: &[u8]) -> Vec<Zeroizing<String>> {
    if 2 * bytes.len() < SHORTEST_CORE {
        return Vec::new();
    }
    vec![Zeroizing::new(hex::encode(bytes)), Zeroizing::new(hex::encode_upper(bytes))]
}

/// What base64 makes of the bytes, alone or within a longer text: at each of three alignments, what
/// depends on nothing beside them.
fn base64_forms(bytes: &[u8]) -> Vec<Zeroizing<String>> {
    let mut forms: Vec<Zeroizing<String>> = Vec::new();
    let mut add = |form: Zeroizing<String>| {
        if !form.is_empty() && !forms.contains(&form) {
            forms.push(form);
        }
    };
    for before in 0..3 {
        let mut shifted = Zeroizing::new(vec![0; before]);
        shifted.reserve_exact(bytes.len());
        shifted.extend_from_slice(bytes);
        // Characters of six bits: the first ones also hold bits of what stands before, the last
        // one of what follows.
        let first = (before * 8).div_ceil(6);
        let last = shifted.len() * 8 / 6;
        for engine in [&STANDARD_NO_PAD, &URL_SAFE_NO_PAD] {
            let whole = Zeroizing::new(engine.encode(&*shifted));
            if last.saturating_sub(first) >= SHORTEST_CORE {
                add(Zeroizing::new(whole[first..last].to_owned()));
            } else if before == 0 {
                add(whole);
            }
        }
    }
    forms
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::STANDARD;
    use proptest::prelude::*;

    use super::*;

    fn without(text: &str, secret: &str) -> String {
        blot(text, &[SecretString::from(secret)])
    }

    #[test]
    fn a_secret_is_found_however_it_is_written() {
        let secret = "s3cr/et<\"é 1+%";
        for written in [
            secret,
            r#"s3cr/et<\"é 1+%"#,
            r#"s3cr\/et\u003c\"\u00e9 1\u002B%"#,
            "s3cr%2Fet%3C%22%C3%A9%201%2B%25",
            "s3cr%2fet%3c%22%c3%a9%201%2b%25",
            "s3cr%2Fet%3C%22%C3%A9+1%2B%25",
            "s3cr/et%3C%22é%201+%25",
            "733363722f65743c22c3a920312b25",
            "733363722F65743C22C3A920312B25",
        ] {
            assert_eq!(without(&format!("[{written}]"), secret), "[***]", "{written}");
        }
    }

    #[test]
    fn what_is_no_secret_stays() {
        for text in ["", "plain", r#"{"a":"\u00e9\/","b":"%zz%4"}"#, "100% of \\x \\u12 \\ud800"] {
            assert_eq!(without(text, "secret"), text);
        }
        assert_eq!(without("text", ""), "text");
    }

    #[test]
    fn finds_that_touch_or_overlap_become_one_blot_each() {
        let secrets = ["abcabc", "bca", "xyz"].map(SecretString::from);
        assert_eq!(blot("0abcabca1xyz", &secrets), "0***1***");
    }

    #[test]
    fn a_pair_of_surrogates_is_one_character() {
        assert_eq!(without(r#"{"p":"a\ud83d\ude42b"}"#, "a🙂b"), r#"{"p":"***"}"#);
    }

    proptest! {
        #[test]
        fn no_secret_survives_base64_at_any_place(secret in "[ -~]{8,40}", before in "[ -~]{0,9}", after in "[ -~]{0,9}") {
            let text = STANDARD.encode(format!("{before}{secret}{after}"));
            let out = without(&text, &secret);
            // What is left of the encoding has none of the secret's whole groups of three.
            let core = &base64_forms(secret.as_bytes());
            prop_assert!(out.contains("***"), "{out}");
            prop_assert!(core.iter().all(|core| !out.contains(core.as_str())), "{out}");
        }

        #[test]
        fn no_secret_survives_json(secret in any::<String>(), before in ".{0,9}") {
            prop_assume!(!secret.is_empty() && !"***".contains(&secret));
            let text = serde_json::to_string(&format!("{before}{secret}")).unwrap_or_default();
            let out = without(&text, &secret);
            prop_assert!(out.contains("***"), "{out}");
        }
    }
}
