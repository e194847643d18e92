//! Patterns of the configuration: the contract's own, which plugins have too.

pub use jit_contract::glob::{Glob, GlobError, MAX_PATTERN};

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The plainest matcher: every way is tried.
    fn naive(pattern: &[char], text: &[char]) -> bool {
        match pattern.split_first() {
            None => text.is_empty(),
            Some(('*', rest)) => (0..=text.len()).any(|skipped| naive(rest, &text[skipped..])),
            Some((wanted, rest)) => {
                text.split_first().is_some_and(|(found, text)| (*wanted == '?' || wanted == found) && naive(rest, text))
            }
        }
    }

    proptest! {
        #[test]
        fn it_agrees_with_the_plainest_matcher(pattern in "[ab?*]{1,8}", text in "[abc]{0,8}") {
            let characters = |text: &str| text.chars().collect::<Vec<_>>();
            let fits = Glob::new(pattern.as_str()).unwrap().fits(&text);
            prop_assert_eq!(fits, naive(&characters(&pattern), &characters(&text)));
        }

        #[test]
        fn any_text_is_a_pattern_or_refused(pattern in ".*", text in ".*") {
            if let Ok(glob) = Glob::new(pattern.as_str()) {
                prop_assert_eq!(glob.as_str(), &pattern);
                prop_assert!(!glob.fits(&text) || !text.chars().any(char::is_control));
            }
        }
    }
}
