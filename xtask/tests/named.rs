//! The tests that the tables of the security page, of ARCHITECTURE.md, of the comparison and of the complaints name are
//! there: a claim whose test nobody can find is a claim that nobody can check.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{fs, path::Path};

use xtask::plugins::root;

const PAGES: [&str; 4] = ["docs/security.md", "docs/comparison.md", "docs/complaints.md", "ARCHITECTURE.md"];
/// Folders with tests.
const FOLDERS: [&str; 5] = ["host", "plugins", "sdk", "tests", "xtask"];
/// Folders that other programs fill.
const NOT_OURS: [&str; 2] = ["target", "node_modules"];

/// The tree's Rust.
struct Tree {
    /// The names of files and folders that are modules.
    modules: Vec<String>,
    text: String,
}

impl Tree {
    fn read() -> Self {
        let mut tree = Self { modules: Vec::new(), text: String::new() };
        for folder in FOLDERS {
            tree.collect(&root().join(folder));
        }
        tree
    }

    fn collect(&mut self, folder: &Path) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let is_rust = path.extension().is_some_and(|extension| extension == "rs");
            if path.is_dir() && !NOT_OURS.iter().any(|name| path.ends_with(name)) {
                self.collect(&path);
            } else if is_rust {
                self.text.push_str(&fs::read_to_string(&path).unwrap());
            }
            if is_rust || path.is_dir() {
                self.modules.push(path.file_stem().unwrap().to_string_lossy().into_owned());
            }
        }
    }

    /// Whether there is such a test or module: `outage::`, `removal::what_cannot_be_seen…`.
    fn has(&self, named: &str) -> bool {
        let is_begun = named.ends_with('…');
        let last = named.trim_end_matches('…').rsplit("::").find(|part| !part.is_empty()).unwrap_or_default();
        let end = if is_begun { "" } else { "(" };
        self.text.contains(&format!("fn {last}{end}"))
            || self.text.contains(&format!("mod {last}"))
            || self.modules.iter().any(|module| module == last)
    }
}

/// The names of tests in a page's tables: `module::test`, `module::the_test_begins_so…`, `module::`.
fn named(page: &str) -> impl Iterator<Item = &str> {
    let rows = page.lines().filter(|line| line.starts_with('|'));
    let spans = rows.flat_map(|line| line.split('`').skip(1).step_by(2));
    spans.filter(|span| {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_:…".contains(c);
        span.contains("::") && span.chars().all(plain)
    })
}

#[test]
fn every_test_that_a_table_names_is_there() {
    let tree = Tree::read();
    let mut missing = Vec::new();
    let mut checked = 0;
    for page in PAGES {
        let text = fs::read_to_string(root().join(page)).unwrap();
        for test in named(&text) {
            checked += 1;
            if !tree.has(test) {
                missing.push(format!("{page}: {test}"));
            }
        }
    }
    assert!(missing.is_empty(), "{}", missing.join("\n"));
    assert!(checked > 60, "only {checked} names were found: does the test still read the tables?");
}

#[test]
fn a_test_that_is_not_there_is_found() {
    let tree = Tree::read();
    assert!(tree.has("named::a_test_that_is_not…") && tree.has("outage::"));
    assert!(
        !tree.has("named::a_test_that_never_was…") && !tree.has("named::a_test_that_is_not") && !tree.has("outrage::")
    );
    assert_eq!(named("`a::b`\n| `c::d…` `E::f` | `g` | `h::` |").collect::<Vec<_>>(), ["c::d…", "h::"]);
}
