//! Small words of configuration and API: patterns, durations, names and ids.

use jit_core::account::AccountPrefix;
use jit_core::glob::Glob;
use jit_core::id::LeaseId;
use jit_core::name::{RoleName, TargetName};
use jit_core::ttl::Ttl;

use super::Target;

/// Texts longer than this are too slow for the reference matcher.
const MAX_MATCHED: usize = 40;

/// Patterns with `*` and `?`.
pub(super) const GLOB: Target = Target {
    name: "glob",
    about: "a pattern matches what the definition says",
    tokens: &["*", "?", "**", "*?", "a", "payment-*", "-", "é"],
    run: |input| {
        let [pattern, text] = input.parts();
        let Ok(glob) = Glob::new(pattern.clone()) else { return };
        assert_eq!(glob.to_string(), pattern);
        let fits = glob.fits(&text);
        let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
        if pattern.len() <= MAX_MATCHED && text.len() <= MAX_MATCHED {
            // A name with a control character is meant to be taken for another one: it fits nothing.
            let fitting = !text.iter().any(|c| c.is_control()) && matches(&pattern, &text);
            assert_eq!(fits, fitting, "{pattern:?} on {text:?}");
        }
    },
};

/// The definition, by a table: `table[i]` says whether the pattern so far matches the first `i` characters.
fn matches(pattern: &[char], text: &[char]) -> bool {
    let mut table = vec![false; text.len() + 1];
    table[0] = true;
    for &p in pattern {
        let mut next = vec![false; text.len() + 1];
        for i in 0..=text.len() {
            next[i] = match p {
                '*' => table[i] || (i > 0 && next[i - 1]),
                '?' => i > 0 && table[i - 1],
                c => i > 0 && table[i - 1] && text[i - 1] == c,
            };
        }
        table = next;
    }
    table[text.len()]
}

/// Durations as people write them.
pub(super) const DURATION: Target = Target {
    name: "duration",
    about: "a duration that was read is written in a way that reads as the same duration",
    tokens: &[
        "1",
        "90s",
        "30m",
        "1h",
        "2d",
        "1h30m",
        "-",
        "+",
        "0",
        "9999999999999999999999",
        "s",
        "m",
        "h",
        "d",
        " ",
        ".",
    ],
    run: |input| {
        let text = input.text();
        if let Ok(ttl) = text.parse::<Ttl>() {
            assert!(ttl.seconds() > 0 && ttl <= Ttl::MAX, "{text:?}");
            assert_eq!(ttl.to_string().parse(), Ok(ttl), "{text:?} is written as {ttl}");
        }
    },
};

/// Names and ids.
pub(super) const NAMES: Target = Target {
    name: "names",
    about: "a name or id that was accepted is kept as it was written and can be shown on one line",
    tokens: &["lease_", "lease_01jd3x7k2m9v5q8w4r6t0y1z3b", "v-", "-", "_", ".", "/", "..", "\u{202e}", "\u{7f}", "A"],
    run: |input| {
        let text = input.text().into_owned();
        if let Ok(id) = text.parse::<LeaseId>() {
            assert_eq!(id.to_string(), text);
        }
        if let Ok(name) = TargetName::new(text.clone()) {
            assert_eq!(name.as_str(), text);
            assert!(!text.chars().any(char::is_control), "{text:?}");
        }
        if let Ok(name) = RoleName::new(text.clone()) {
            assert_eq!(name.as_str(), text);
            assert!(!text.chars().any(char::is_control), "{text:?}");
        }
        if let Ok(prefix) = AccountPrefix::try_from(text.clone()) {
            assert_eq!(prefix.as_str(), text);
            assert!(text.bytes().all(|b| b.is_ascii_graphic()), "{text:?}");
        }
    },
};
