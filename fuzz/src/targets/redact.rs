//! Redaction: whatever way a backend quotes a secret, the text that is shown does not have it.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use jit_runtime::fuzzing::redact;
use secrecy::SecretString;

use super::Target;

/// Base64 of a secret that is shorter is found by chance in other texts.
const SHORTEST_CORE: usize = 6;

/// Answers of backends with a secret in them.
pub(super) const REDACT: Target = Target {
    name: "redact",
    about: "a text has no trace of a secret left: plain, JSON, percent, form or base64, at any place",
    tokens: &[
        "hunter2-s3cr/et",
        "***",
        "\\u00e9",
        "\\/",
        "\\\"",
        "%2F",
        "%2f",
        "%25",
        "+",
        "=",
        "==",
        "\\ud83d\\ude42",
        "🙂",
        "-_",
        "https://u:",
        "@h/",
        "{\"p\":\"",
        "\"}",
    ],
    run: |input| {
        let [spelling, secret, before, after] = input.parts();
        // A secret that stands in the mark itself cannot be absent from it.
        if secret.trim().is_empty() || "***".contains(&secret) {
            return;
        }
        // Base64 of so little, within a longer text, is found by chance: there the code promises nothing.
        let cores = cores(&secret);
        let number = spelling.bytes().fold(0_usize, |sum, byte| sum.wrapping_add(usize::from(byte)));
        if BASE64.contains(&(number % SPELLINGS)) && cores.len() < 6 {
            return;
        }
        let text = spelled(number % SPELLINGS, &before, &secret, &after);
        let shown = redact(&text, &[SecretString::from(secret.clone())]);
        assert!(shown.contains("***"), "spelling {}: {secret:?} was not found in {text:?}", number % SPELLINGS);
        // Where the text around it had the secret too, all of it is gone.
        assert!(!shown.contains(&secret), "{secret:?} is left in {shown:?}");
        for core in cores {
            assert!(!shown.contains(&core), "{core:?}, base64 of {secret:?}, is left in {shown:?}");
        }
        let again = redact(&shown, &[SecretString::from(secret.clone())]);
        assert!(!again.contains(&secret));
        let other = redact("nothing here", &[SecretString::from("another-secret")]);
        assert_eq!(other, "nothing here");
    },
};

/// How many spellings [`spelled`] knows.
const SPELLINGS: usize = 8;
/// Those of them that are base64.
const BASE64: [usize; 2] = [5, 6];

/// The texts with the secret between them, in one of the ways in which backends write it.
fn spelled(spelling: usize, before: &str, secret: &str, after: &str) -> String {
    let whole = format!("{before}{secret}{after}");
    match spelling {
        0 => whole,
        1 => serde_json::to_string(&whole).expect("a text is JSON"),
        2 => {
            // Every character as \u escapes.
            let units: String = secret.encode_utf16().map(|unit| format!("\\u{unit:04x}")).collect();
            format!("{{\"p\":\"{units}\"}}")
        }
        3 => percent(secret, "%20"),
        4 if secret.contains(' ') => percent(secret, "+"),
        4 => lower_escapes(&percent(secret, "%20")),
        5 => STANDARD.encode(&whole),
        6 => URL_SAFE_NO_PAD.encode(&whole),
        _ => serde_json::to_string(&percent(secret, "%20")).expect("a text is JSON"),
    }
}

/// Percent-encoded as in a URL's query.
fn percent(text: &str, space: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b' ' => out.push_str(space),
            b if b.is_ascii_alphanumeric() || b"-._~".contains(&b) => out.push(char::from(b)),
            b => out.push_str(&format!("%{b:02X}")),
        }
    }
    out
}

/// The same with `%2f` for `%2F`.
fn lower_escapes(text: &str) -> String {
    let mut out = String::new();
    let mut left = 0;
    for c in text.chars() {
        left = if c == '%' { 2 } else { i32::max(left - 1, -1) };
        out.push(if c != '%' && left >= 0 { c.to_ascii_lowercase() } else { c });
    }
    out
}

/// What of a secret's base64 does not depend on the text around it, at each of three alignments.
fn cores(secret: &str) -> Vec<String> {
    let mut cores = Vec::new();
    for before in 0..3 {
        let mut bytes = vec![0_u8; before];
        bytes.extend_from_slice(secret.as_bytes());
        let (first, last) = ((before * 8).div_ceil(6), bytes.len() * 8 / 6);
        if last.saturating_sub(first) < SHORTEST_CORE {
            continue;
        }
        for encoded in [STANDARD_NO_PAD.encode(&bytes), URL_SAFE_NO_PAD.encode(&bytes)] {
            cores.push(encoded[first..last].to_owned());
        }
    }
    cores
}
