//! What of a backend's words a caller is told: what went wrong, and not where.

/// In the place of what is left out.
const LEFT_OUT: &str = "[…]";

/// The words without what tells a caller of the network and the machines behind the broker: addresses,
/// names with a port, URLs and paths of files. The operators' log has them whole.
#[must_use]
pub fn without_places(words: &str) -> String {
    let separates = |char: char| char.is_whitespace() || "\"'`()<>{},;=".contains(char);
    let mut told = String::with_capacity(words.len());
    let mut rest = words;
    while !rest.is_empty() {
        let end = rest.find(separates).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        told.push_str(&shown(word));
        let next = after.chars().next().map_or(0, char::len_utf8);
        told.push_str(&after[..next]);
        rest = &after[next..];
    }
    told
}

/// A word, or what stands for it; punctuation behind it stays.
fn shown(word: &str) -> String {
    let bare = word.trim_end_matches(['.', ':', '!', '?']);
    if is_place(bare) { format!("{LEFT_OUT}{}", &word[bare.len()..]) } else { word.to_owned() }
}

fn is_place(word: &str) -> bool {
    let host = word.trim_start_matches('[').trim_end_matches(']');
    if host.parse::<std::net::IpAddr>().is_ok() || word.parse::<std::net::SocketAddr>().is_ok() {
        return true;
    }
    if word.contains("://") || (word.starts_with('/') && word.len() > 1) {
        return true;
    }
    // `user@host` in its forms.
    if word.split_once('@').is_some_and(|(_, host)| host.contains('.') || host.parse::<std::net::IpAddr>().is_ok()) {
        return true;
    }
    let name = |char: char| char.is_ascii_alphanumeric() || matches!(char, '.' | '-' | '_');
    word.rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty() && host.contains(char::is_alphabetic) && host.chars().all(name) && port.parse::<u16>().is_ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_went_wrong_stays_and_where_does_not() {
        for (words, told) in [
            ("permission denied to create role", "permission denied to create role"),
            ("role \"app_x\" does not exist (42704)", "role \"app_x\" does not exist (42704)"),
            ("connection to 10.1.2.3:5432 failed", "connection to […] failed"),
            ("host \"db-1.internal:5432\": refused.", "host \"[…]\": refused."),
            ("[2001:db8::1]:636, 2001:db8::1 and ::1", "[…], […] and […]"),
            ("see https://vault.internal:8200/v1/sys.", "see […]."),
            ("could not open \"/var/lib/postgresql/x\"", "could not open \"[…]\""),
            ("Access denied for user 'jit'@'10.0.0.7'", "Access denied for user 'jit'@'[…]'"),
            ("jit@db.example.com said no", "[…] said no"),
            ("error at line 3:15, ratio 1:2", "error at line 3:15, ratio 1:2"),
            ("ERROR: value é too long", "ERROR: value é too long"),
            ("", ""),
        ] {
            assert_eq!(without_places(words), told);
        }
    }
}
