//! What the pages say is held against the source: metrics, audit events, links.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// How a metric is made in the source: the macro, and the kind that the page says.
const MACROS: [(&str, &str); 3] =
    [("metrics::counter!(", "counter"), ("metrics::gauge!(", "gauge"), ("metrics::histogram!(", "histogram")];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The metrics of a text of Rust: name and kind.
fn made_in(text: &str) -> Vec<(String, &'static str)> {
    let mut found = Vec::new();
    for (start, kind) in MACROS {
        for after in text.split(start).skip(1) {
            let name = after.trim_start().strip_prefix('"').and_then(|rest| rest.split('"').next());
            found.push((
                name.unwrap_or_else(|| panic!("a metric without a literal name: {after:.60}")).to_owned(),
                kind,
            ));
        }
    }
    found
}

/// The metrics of the page: name and kind.
fn documented(page: &str) -> BTreeMap<String, String> {
    page.lines()
        .filter_map(|line| {
            let mut cells = line.strip_prefix("| ")?.split(" | ");
            let name = cells.next()?.trim_matches(['*', '`']);
            name.starts_with("jit_").then(|| (name.to_owned(), cells.next().unwrap_or_default().to_owned()))
        })
        .collect()
}

#[test]
fn the_page_has_every_metric_and_no_other() {
    let mut files = Vec::new();
    sources(&root().join("host"), &mut files);
    let made: BTreeMap<String, String> = files
        .iter()
        .flat_map(|file| made_in(&fs::read_to_string(file).unwrap()))
        .map(|(name, kind)| (name, kind.to_owned()))
        .collect();
    assert!(made.len() > 25, "only {} metrics were found in the source", made.len());
    let page = documented(&fs::read_to_string(root().join("docs/reference/metrics.md")).unwrap());
    let missing: Vec<_> = made.iter().filter(|(name, kind)| page.get(*name) != Some(kind)).collect();
    assert!(missing.is_empty(), "the page has not, or with another kind: {missing:?}");
    let invented: Vec<_> = page.keys().filter(|name| !made.contains_key(*name)).collect();
    assert!(invented.is_empty(), "the source has not: {invented:?}");
}

#[test]
fn a_metric_over_several_lines_is_found() {
    let text =
        "metrics::counter!(\n    \"jit_a_total\", \"x\" => y).increment(1); metrics::gauge!(\"jit_b\").set(1.0);";
    assert_eq!(made_in(text), [("jit_a_total".to_owned(), "counter"), ("jit_b".to_owned(), "gauge")]);
}

/// The events of a text: words such as `issue.granted` in the first column of tables, or in arms of a match.
fn events(text: &str, before: &str) -> BTreeSet<String> {
    let is_event = |word: &&str| {
        word.split_once('.').is_some_and(|(a, b)| {
            [a, b].iter().all(|part| !part.is_empty() && part.bytes().all(|c| c.is_ascii_lowercase() || c == b'_'))
        })
    };
    let lines = text.lines().filter_map(|line| line.trim_start().split_once(before));
    lines
        .flat_map(|(_, rest)| rest.split(['`', '"', '|']).filter(is_event).map(str::to_owned).collect::<Vec<_>>())
        .collect()
}

#[test]
fn the_page_has_every_audit_event_and_no_other() {
    let mut files = Vec::new();
    sources(&root().join("host/core/src"), &mut files);
    files.retain(|file| file.components().any(|part| part.as_os_str().to_string_lossy().starts_with("event")));
    let arms: BTreeSet<String> =
        files.iter().flat_map(|file| events(&fs::read_to_string(file).unwrap(), "=> \"")).collect();
    assert!(arms.len() > 25, "only {} events were found in the source", arms.len());
    let page = fs::read_to_string(root().join("docs/reference/audit-events.md")).unwrap();
    let rows: String = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `"))
        .map(|row| format!("| `{}\n", row.split(" | ").next().unwrap()))
        .collect();
    assert_eq!(events(&rows, "| `"), arms);
}

#[test]
fn no_page_links_to_what_is_not_there() {
    let root = xtask::plugins::root();
    let found = xtask::book::links::broken(&root, &xtask::prose::all_pages(&root).unwrap()).unwrap();
    assert!(found.is_empty(), "{}", found.join("\n"));
}
