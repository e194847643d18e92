//! Times as Vault writes them.

use jiff::Timestamp;

/// Seconds since the Unix epoch of an RFC 3339 time, fractions cut off; none where it is no such
/// time or before the epoch.
pub(crate) fn epoch_seconds(text: &str) -> Option<u64> {
    u64::try_from(text.parse::<Timestamp>().ok()?.as_second()).ok()
}

#[cfg(test)]
mod tests {
    use super::epoch_seconds;

    #[test]
    fn times_of_vault_are_read() {
        for (text, seconds) in [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("2026-11-22T10:21:53.474457847Z", Some(1_795_342_913)),
            ("2026-11-22T11:21:53+01:00", Some(1_795_342_913)),
            ("2026-11-22T04:51:53.5-05:30", Some(1_795_342_913)),
            ("2024-02-29T23:59:59Z", Some(1_709_251_199)),
            ("2000-03-01T00:00:00Z", Some(951_868_800)),
            ("2100-12-31T23:59:59Z", Some(4_133_980_799)),
            ("1969-12-31T23:59:59Z", None),
            ("2026-13-01T00:00:00Z", None),
            ("2026-11-22T10:21:53", None),
            ("2026-11-22T10:21:53Zx", None),
            ("2026-11-22", None),
            ("", None),
            ("äöüäöüäöüäöüäöüäöü", None),
        ] {
            assert_eq!(epoch_seconds(text), seconds, "{text}");
        }
    }
}
