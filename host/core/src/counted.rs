//! Numbers of things, as people read them.

use std::fmt;

/// Shows `1 removal`, `2 removals`, `0 removals`. For nouns whose plural has an `s`.
#[must_use]
pub fn counted(count: u64, noun: &str) -> impl fmt::Display {
    struct Counted<'a>(u64, &'a str);
    impl fmt::Display for Counted<'_> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "{} {}{}", self.0, self.1, if self.0 == 1 { "" } else { "s" })
        }
    }
    Counted(count, noun)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_thing_is_singular() {
        let shown = [0, 1, 2].map(|count| counted(count, "lease").to_string());
        assert_eq!(shown, ["0 leases", "1 lease", "2 leases"]);
    }
}
