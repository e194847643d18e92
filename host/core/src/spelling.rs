//! "Did you mean …?": the nearest of the words that would have been right.

/// Longer words than this are not compared: no key or name of ours is that long.
const MAX_WORD: usize = 64;

/// The candidate that is nearest to `word`, when it is near enough to be a slip of the hand.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = plain(word);
    if word.is_empty() || word.chars().count() > MAX_WORD {
        return None;
    }
    candidates
        .into_iter()
        .filter(|candidate| candidate.len() <= MAX_WORD)
        .map(|candidate| {
            let other = plain(candidate);
            // "max-ttl" beside "ttl": a word that holds the other is one step away.
            let shorter = word.len().min(other.len());
            let held = (shorter >= 4 && (word.contains(&other) || other.contains(&word)))
                // "loging" beside "log".
                || (shorter >= 3 && word.len() <= 2 * other.len() && word.starts_with(&other));
            // Optimal string alignment: insertions, deletions, changes and swaps of neighbours.
            (if held { 1 } else { strsim::osa_distance(&word, &other) }, candidate)
        })
        .filter(|(steps, candidate)| *steps <= (candidate.len().max(word.chars().count()) / 3).max(1))
        .min_by_key(|(steps, _)| *steps)
        .map(|(_, candidate)| candidate)
}

/// Without case, and with `-` and `_` as one: those are the commonest slips.
fn plain(word: &str) -> String {
    word.chars().flat_map(char::to_lowercase).map(|c| if c == '-' { '_' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn finds_slips_and_leaves_other_words_alone() {
        let keys = ["listen", "admin_socket", "request_timeout", "max_ttl", "default_ttl"];
        for (slip, meant) in [
            ("lisen", Some("listen")),
            ("litsen", Some("listen")),
            ("Listen", Some("listen")),
            ("admin-socket", Some("admin_socket")),
            ("timeout", Some("request_timeout")),
            ("maxttl", Some("max_ttl")),
            ("password", None),
            ("x", None),
            ("", None),
        ] {
            assert_eq!(nearest(slip, keys), meant, "{slip:?}");
        }
        assert_eq!(nearest(&"l".repeat(10_000), keys), None);
    }
}
