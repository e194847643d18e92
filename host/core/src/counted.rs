//! Numbers of things, as people read them.

/// Shows `1 removal`, `2 removals`, `0 removals`, of the two words.
#[must_use]
pub fn counted(count: u64, one: &str, several: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { several })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_thing_is_singular() {
        let shown = [0, 1, 2].map(|count| counted(count, "lease", "leases"));
        assert_eq!(shown, ["0 leases", "1 lease", "2 leases"]);
    }
}
