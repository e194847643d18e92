//! What ARCHITECTURE.md says of the pipeline: what each flow gets, and how many unit tests each module has.
//! `UPDATE_EXPECT=1` writes the table of the flows; the table of the tests is mended by hand.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use xtask::plugins::root;

/// The row that begins the table of the flows.
const FLOWS: &str = "| flow | file | gets |\n|---|---|---|\n";
/// The row that begins the table of the unit tests.
const TESTS: &str = "| module | unit tests |";
/// The one module that may know every flow: it puts them together.
const COMPOSES: &str = "broker";

fn page() -> String {
    fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap()
}

fn source() -> PathBuf {
    root().join("host/pipeline/src")
}

/// Every Rust file below a folder, by its path without `.rs`: `issue`, `tasks/removal`.
fn files(folder: &Path, prefix: &str, all: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = format!("{prefix}{}", path.file_stem().unwrap().to_str().unwrap());
        if path.is_dir() {
            files(&path, &format!("{name}/"), all);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            all.insert(name, fs::read_to_string(&path).unwrap());
        }
    }
}

fn modules() -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    files(&source(), "", &mut all);
    all
}

/// The names of a struct's fields, as they stand.
fn fields(text: &str) -> Vec<&str> {
    let body = &text[..text.find("\n}").unwrap()];
    let lines = body.lines().map(|line| line.trim().trim_start_matches("pub(crate) ").trim_start_matches("pub "));
    lines.filter(|line| !line.starts_with("//")).filter_map(|line| Some(line.split_once(": ")?.0)).collect()
}

/// The table of the flows, from the code.
fn flows() -> String {
    let mut table = FLOWS.to_owned();
    for (name, text) in modules() {
        for (at, _) in text.match_indices("\npub struct ") {
            let rest = &text[at + "\npub struct ".len()..];
            let Some((flow, rest)) = rest.split_once(" {\n").filter(|(flow, _)| flow.ends_with("Flow")) else {
                continue;
            };
            let fields: Vec<String> = fields(rest).iter().map(|field| format!("`{field}`")).collect();
            table.push_str(&format!("| `{flow}` | `pipeline/{name}.rs` | {} |\n", fields.join(", ")));
        }
    }
    table
}

#[test]
fn the_table_says_what_each_flow_gets() {
    let (page, table) = (page(), flows());
    assert!(table.lines().count() > 10, "{table}");
    let begin = page.find(FLOWS).expect("ARCHITECTURE.md has no table of the flows");
    let end = begin + page[begin..].find("\n\n").unwrap() + 1;
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        let page = format!("{}{table}{}", &page[..begin], &page[end..]);
        fs::write(root().join("ARCHITECTURE.md"), page).unwrap();
        return;
    }
    assert!(page[begin..end] == table, "ARCHITECTURE.md should have, instead (UPDATE_EXPECT=1 writes it):\n{table}");
}

/// A flow that took the whole broker could touch everything, and its signature would say nothing.
#[test]
fn no_flow_knows_the_whole_broker() {
    for (name, text) in modules() {
        if name != COMPOSES && name != "lib" {
            assert!(!text.contains("crate::broker"), "pipeline/{name}.rs uses the module that puts the flows together");
        }
    }
}

/// How many tests a file has.
fn count(text: &str) -> usize {
    let tests = text.lines().map(str::trim);
    tests.filter(|line| *line == "#[test]" || line.starts_with("#[tokio::test")).count()
}

/// The tests of a module: of its file, of the file beside it (`x_tests.rs`), and of everything in its folder.
fn counted(all: &BTreeMap<String, String>, module: &str) -> Option<usize> {
    let folder = format!("{module}/");
    let beside = format!("{module}_tests");
    let its = all.iter().filter(|(name, _)| **name == module || **name == beside || name.starts_with(&folder));
    let counts: Vec<usize> = its.map(|(_, text)| count(text)).collect();
    (!counts.is_empty()).then(|| counts.iter().sum())
}

/// The texts in backticks.
fn quoted(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

#[test]
fn the_table_says_how_many_unit_tests_each_module_has() {
    let (page, all) = (page(), modules());
    let begin = page.find(TESTS).expect("ARCHITECTURE.md has no table of the unit tests");
    let rows = page[begin..].lines().skip(2).take_while(|line| line.starts_with('|'));
    let mut named: Vec<String> = Vec::new();
    let mut wrong = Vec::new();
    for row in rows {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let claimed: usize = cells[2].trim_end_matches(" each").parse().unwrap_or_else(|_| panic!("no number: {row}"));
        for module in quoted(cells[1]) {
            named.push(module.to_owned());
            match counted(&all, module) {
                Some(count) if count != claimed => {
                    wrong.push(format!("{module} has {count} unit tests, not {claimed}"))
                }
                Some(_) => {}
                None => wrong.push(format!("there is no module {module}")),
            }
        }
    }
    for module in all.keys().filter(|module| !module.ends_with("_tests") && *module != "lib") {
        let told = named.iter().any(|name| name == module || module.starts_with(&format!("{name}/")));
        if !told {
            wrong.push(format!("{module} is missing from the table"));
        }
    }
    assert!(wrong.is_empty(), "ARCHITECTURE.md, unit tests:\n{}", wrong.join("\n"));
}

/// The files of tests that stand beside the table, with how many tests each has: `12 in decisions.rs`.
#[test]
fn the_page_says_how_many_tests_run_the_flows_together() {
    let (page, folder) = (page(), root().join("host/pipeline/tests"));
    let mut found = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            let count = count(&fs::read_to_string(&path).unwrap());
            let claim =
                format!("`host/pipeline/tests/{}` ({count} tests)", path.file_name().unwrap().to_str().unwrap());
            assert!(page.contains(&claim), "ARCHITECTURE.md should say: {claim}");
            found += 1;
        }
    }
    assert!(found >= 2);
}
