//! "Did you mean …?": the nearest of the words that would have been right.

/// Longer words than this are not compared: no key or name of ours is that long.
const MAX_WORD: usize = 64;

/// The candidate that is nearest to `word`, when it is near enough to be a slip of the hand.
pub(crate) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = plain(word);
    if word.is_empty() || word.len() > MAX_WORD {
        return None;
    }
    candidates
        .into_iter()
        .filter(|candidate| candidate.len() <= MAX_WORD)
        .map(|candidate| {
            let other = plain(candidate);
            // "max-ttl" beside "ttl": a word that holds the other is one step away.
            let held = word.len().min(other.len()) >= 4 && (contains(&word, &other) || contains(&other, &word));
            (if held { 1 } else { distance(&word, &other) }, candidate)
        })
        .filter(|(steps, candidate)| *steps <= (candidate.len().max(word.len()) / 3).max(1))
        .min_by_key(|(steps, _)| *steps)
        .map(|(_, candidate)| candidate)
}

/// Without case, and with `-` and `_` as one: those are the commonest slips.
fn plain(word: &str) -> Vec<char> {
    word.chars().flat_map(char::to_lowercase).map(|c| if c == '-' { '_' } else { c }).collect()
}

fn contains(long: &[char], short: &[char]) -> bool {
    long.windows(short.len()).any(|part| part == short)
}

/// Insertions, deletions, changes and swaps of neighbours (optimal string alignment).
fn distance(a: &[char], b: &[char]) -> usize {
    let mut rows = vec![vec![0_usize; b.len() + 1]; a.len() + 1];
    for (i, row) in rows.iter_mut().enumerate() {
        row[0] = i;
    }
    for (j, cell) in rows[0].iter_mut().enumerate() {
        *cell = j;
    }
    for i in 1..=a.len() {
        for j in 1..=b.len() {
            let change = usize::from(a[i - 1] != b[j - 1]);
            let mut least = (rows[i - 1][j] + 1).min(rows[i][j - 1] + 1).min(rows[i - 1][j - 1] + change);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = least;
        }
    }
    rows[a.len()][b.len()]
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
