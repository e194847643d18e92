//! Why not: what the clock shows, and when asking helps.

use jiff::Timestamp;
use jit_plugin::Request;
use jit_plugin::text::shown;

use crate::config::Window;

/// For windows all of which are closed.
pub(crate) fn why_not(windows: &[Window<'_>], now: Timestamp, request: &Request) -> String {
    let what = format!("role {} of target {}", shown(request.role()), shown(request.target()));
    let Some(first) = windows.first() else {
        return format!("no time window is for {what}, so it is never given: ask the target's owner to add one");
    };
    let opening = windows.iter().filter_map(|window| Some((window.hours.opens_after(now)?, window)));
    match opening.min_by_key(|(at, _)| *at) {
        Some((at, window)) => format!(
            "{what} is not given at this time: it is {}; {} opens {}",
            clock(now, window),
            window.name,
            at.to_zoned(window.zone.rules.clone()).strftime(FORM)
        ),
        None => {
            format!("{what} is not given at this time: it is {}; no window opens in the next year", clock(now, first))
        }
    }
}

const FORM: &str = "%a %Y-%m-%d %H:%M (UTC%:z)";

/// `Fri 2026-12-25 10:00 (UTC+01:00) in Europe/Berlin, Christmas Day`
fn clock(now: Timestamp, window: &Window<'_>) -> String {
    let zoned = now.to_zoned(window.zone.rules.clone());
    let holiday = window.holidays.on(zoned.date()).map(|name| format!(", {name}")).unwrap_or_default();
    format!("{} in {}{holiday}", zoned.strftime(FORM), window.zone.name)
}
