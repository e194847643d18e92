//! What the pages say is held against the source: metrics, audit events, links.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use xtask::plugins::root;

/// How a metric is made in the source: the macro, and the kind that the page says.
const MACROS: [(&str, &str); 3] =
    [("metrics::counter!(", "counter"), ("metrics::gauge!(", "gauge"), ("metrics::histogram!(", "histogram")];

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

/// The words between backticks.
fn words(text: &str) -> BTreeSet<String> {
    text.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// What the page says of each event: which fields its records have beside those of many records.
fn events_of(page: &str) -> BTreeMap<String, BTreeSet<String>> {
    let mut events = BTreeMap::new();
    let mut before = BTreeSet::new();
    for row in page.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").collect();
        let names = words(cells[0]);
        if names.iter().any(|name| !name.contains('.')) {
            continue;
        }
        let fields = cells.get(2).map_or("", |fields| fields.trim());
        if fields != "the same" {
            before = words(fields);
        }
        events.extend(names.into_iter().map(|name| (name, before.clone())));
    }
    events
}

/// The fields of the records of each event, as `jit-core` holds them byte for byte.
fn recorded() -> BTreeMap<String, BTreeSet<String>> {
    let folder = root().join("host/core/src/event/records");
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let fields = |file: PathBuf| {
        let records = fs::read_to_string(&file).unwrap();
        let records = records.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        let fields = records.flat_map(|record| record.as_object().unwrap().keys().cloned().collect::<Vec<_>>());
        (file.file_stem().unwrap().to_string_lossy().into_owned(), fields.collect())
    };
    files.map(fields).collect()
}

#[test]
fn the_page_has_every_audit_event_with_its_fields_and_no_other() {
    let page = fs::read_to_string(root().join("docs/reference/audit-events.md")).unwrap();
    let (of_many, _) = page.split_once("## Requests and leases").unwrap();
    let of_many = of_many.lines().filter(|line| line.starts_with("| `"));
    let of_many: BTreeSet<String> =
        of_many.flat_map(|row| words(row.trim_matches('|').split(" | ").next().unwrap())).collect();
    let (recorded, said) = (recorded(), events_of(&page));
    assert!(recorded.len() > 25, "only {} events have records", recorded.len());
    let names = |events: &BTreeMap<String, BTreeSet<String>>| events.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&said), names(&recorded));
    for (event, fields) in recorded {
        let own: BTreeSet<String> = fields.difference(&of_many).cloned().collect();
        assert_eq!(said[&event], own, "{event}: the page, and the records in host/core/src/event/records");
    }
}

#[test]
fn no_page_links_to_what_is_not_there() {
    let found = xtask::book::links::broken(&root(), &xtask::prose::all_pages(&root()).unwrap()).unwrap();
    assert!(found.is_empty(), "{}", found.join("\n"));
}
