//! This run beside the last committed one, so that a regression is seen.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::Value;

/// A cell that makes so much less than before is named: rounds differ by less on a quiet machine.
const SLOWER: f64 = 0.9;

/// What is said of an earlier run, as Markdown.
///
/// # Errors
/// When the earlier run cannot be read.
pub(crate) fn with(now: &Value, earlier: &Path) -> Result<String> {
    let text = std::fs::read_to_string(earlier).with_context(|| format!("cannot read {}", earlier.display()))?;
    let then: Value = serde_json::from_str(&text).with_context(|| format!("no JSON in {}", earlier.display()))?;
    Ok(table(now, &then))
}

fn table(now: &Value, then: &Value) -> String {
    let kind = |run: &Value| (run["machine"]["processor"].clone(), run["machine"]["processors"].clone());
    let mut text = "## Since the last committed figures\n\n".to_owned();
    if kind(now) != kind(then) {
        let (processor, processors) = kind(then);
        let _ =
            writeln!(text, "Those are of another kind of machine ({processors} x {processor}): nothing is compared.\n");
        return text;
    }
    let date = then["date"].as_str().and_then(|date| date.get(..10)).unwrap_or("?");
    let _ = writeln!(text, "| | {date} | now | |\n|---|---|---|---|");
    for goal in now["goals"].as_array().into_iter().flatten() {
        let before = then["goals"].as_array().into_iter().flatten().find(|before| before["what"] == goal["what"]);
        let (Some(before), Some(what)) = (before, goal["what"].as_str()) else { continue };
        let (Some(was), Some(is)) = (before["measured"].as_str(), goal["measured"].as_str()) else { continue };
        let verdict = match (before["met"].as_bool(), goal["met"].as_bool()) {
            (Some(true), Some(false)) => "**no longer met**",
            (Some(false), Some(true)) => "now met",
            _ => "",
        };
        let _ = writeln!(text, "| {what} | {was} | {is} | {verdict} |");
    }
    let slower: Vec<String> =
        now["cells"].as_array().into_iter().flatten().filter_map(|cell| slower(cell, then)).collect();
    match slower.as_slice() {
        [] => text.push_str("\nNo cell is slower by a tenth or more.\n\n"),
        _ => {
            let _ = writeln!(text, "\nSlower by a tenth or more: {}.\n", slower.join("; "));
        }
    }
    text
}

/// The cell in words, where it is slower than it was.
fn slower(cell: &Value, then: &Value) -> Option<String> {
    let same = |before: &&Value| before["system"] == cell["system"] && before["clients"] == cell["clients"];
    let before = then["cells"].as_array()?.iter().find(same)?;
    let ratio = cell["per_second"].as_f64()? / before["per_second"].as_f64()?;
    (ratio < SLOWER).then(|| {
        let system = cell["system"].as_str().unwrap_or_default().replace('_', " ");
        format!("{system} at {} clients ({ratio:.2} x)", cell["clients"])
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use serde_json::json;

    use super::*;

    #[test]
    fn a_regression_is_named_and_another_machine_is_not_compared() {
        let run = |processor: &str, speed: f64, met: bool| {
            json!({
                "date": "2026-11-30T10:00:00Z",
                "machine": {"processor": processor, "processors": 2},
                "goals": [{"what": "speed", "measured": format!("{speed}"), "met": met}],
                "cells": [{"system": "jit_broker", "clients": 16, "per_second": speed}],
            })
        };
        let text = table(&run("a", 80.0, false), &run("a", 100.0, true));
        assert!(text.contains("| speed | 100 | 80 | **no longer met** |"), "{text}");
        assert!(text.contains("jit broker at 16 clients (0.80 x)"), "{text}");
        assert!(table(&run("a", 95.0, true), &run("a", 100.0, true)).contains("No cell is slower"));
        let other = table(&run("a", 80.0, false), &run("b", 100.0, true));
        assert!(other.contains("another kind of machine") && !other.contains("80"), "{other}");
    }
}
