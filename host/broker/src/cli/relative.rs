//! Times as a person says them: how long ago, in how long.

use jiff::Timestamp;

/// A length in its two largest units, such as `3 h 20 min`.
pub(super) fn length(seconds: u64) -> String {
    const UNITS: [(u64, &str); 4] = [(86_400, "d"), (3_600, "h"), (60, "min"), (1, "s")];
    let Some(first) = UNITS.iter().position(|(size, _)| seconds >= *size) else { return "0 s".to_owned() };
    let (size, unit) = UNITS[first];
    let rest = UNITS.get(first + 1).map(|(next, unit)| (seconds % size / next, unit)).filter(|(count, _)| *count > 0);
    match rest {
        Some((count, smaller)) => format!("{} {unit} {count} {smaller}", seconds / size),
        None => format!("{} {unit}", seconds / size),
    }
}

/// `3 s ago`, `in 2 min`, `now`.
pub(super) fn relative(at: Timestamp, now: Timestamp) -> String {
    let seconds = at.as_second().saturating_sub(now.as_second());
    match seconds {
        0 => "now".to_owned(),
        1.. => format!("in {}", length(seconds.unsigned_abs())),
        _ => format!("{} ago", length(seconds.unsigned_abs())),
    }
}

/// A time to the second: `2026-11-30T10:30:00Z`.
pub(super) fn seconds(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_have_two_units_at_most() {
        let said = [0, 59, 60, 61, 3_600, 3_725, 86_399, 86_400, 90_000, 86_400 * 400 + 59].map(length);
        let expected =
            ["0 s", "59 s", "1 min", "1 min 1 s", "1 h", "1 h 2 min", "23 h 59 min", "1 d", "1 d 1 h", "400 d"];
        assert_eq!(said, expected);
    }

    #[test]
    fn times_lie_before_or_after_now() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let said = [(90, 100), (100, 100), (160, 100)].map(|(then, now)| relative(at(then), at(now)));
        assert_eq!(said, ["10 s ago", "now", "in 1 min"]);
    }
}
