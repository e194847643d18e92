//! Times as Vault writes them.

/// Seconds since the Unix epoch of an RFC 3339 time, fractions cut off; none where it is no such
/// time or before the epoch.
pub(crate) fn epoch_seconds(text: &str) -> Option<u64> {
    let bytes = text.as_bytes();
    let number = |from: usize, to: usize| -> Option<i64> {
        let digits = bytes.get(from..to)?;
        digits
            .iter()
            .all(u8::is_ascii_digit)
            .then(|| digits.iter().fold(0, |sum, digit| sum * 10 + i64::from(digit - b'0')))
    };
    let is = |at: usize, wanted: &[u8]| bytes.get(at).is_some_and(|byte| wanted.contains(byte));
    let punctuated = is(4, b"-") && is(7, b"-") && is(10, b"Tt ") && is(13, b":") && is(16, b":");
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    let in_range = (1..=12).contains(&month) && (1..=31).contains(&day) && hour < 24 && minute < 60 && second <= 60;
    if !punctuated || !in_range {
        return None;
    }
    let mut zone = 19;
    if is(zone, b".") {
        zone += 1;
        while bytes.get(zone).is_some_and(u8::is_ascii_digit) {
            zone += 1;
        }
    }
    let offset = match bytes.get(zone)? {
        b'Z' | b'z' if bytes.len() == zone + 1 => 0,
        sign @ (b'+' | b'-') if bytes.len() == zone + 6 && is(zone + 3, b":") => {
            let minutes = number(zone + 1, zone + 3)? * 60 + number(zone + 4, zone + 6)?;
            if *sign == b'+' { minutes * 60 } else { minutes * -60 }
        }
        _ => return None,
    };
    let seconds = days(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - offset;
    u64::try_from(seconds).ok()
}

/// Days since 1970-01-01 in the Gregorian calendar. Years begin in March here, so that the leap day
/// is a year's last.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
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
