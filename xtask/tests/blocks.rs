//! Every block of shell commands that a page shows is run by a test: the line before it names the module of tests/suite
//! that runs it to the letter, or it stands here.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeMap;
use std::fs;

use xtask::plugins::root;
use xtask::prose::pages;

/// Pages with blocks that name no module, how many those are, and which module plays them in its own way.
const OTHERWISE: [(&str, usize, &str); 6] = [
    // Its first command, which the suite cannot be asked to run: it builds and starts what the suite has.
    ("README.md", 1, "story"),
    // Pieces of the examples, whole files of which are run.
    ("docs/clients.md", 3, "examples"),
    // The same commands with files of the test's own, and the broker stopped by other means.
    ("docs/operating.md", 2, "disposable"),
    ("docs/plugins.md", 1, "languages"),
    ("docs/scaling.md", 1, "disposable"),
    ("docs/start.md", 4, "dev"),
];

/// A page that shows a file whole: whoever starts that server runs the file.
const SHOWN: [(&str, &str); 1] = [("docs/drivers/ldap.md", "plugins/driver-ldap/setup/active-directory.sh")];

#[test]
fn a_page_that_shows_a_file_shows_all_of_it() {
    for (page, file) in SHOWN {
        let [page, file] = [page, file].map(|path| fs::read_to_string(root().join(path)).unwrap());
        let block = page.split("\n```sh\n").nth(1).unwrap().split("\n```").next().unwrap();
        assert_eq!(block, file.trim_end());
    }
}

/// The first start of `dev` stands on two pages. The suite runs the one of docs/dev.md.
#[test]
fn both_pages_start_dev_in_the_same_way() {
    let [start, dev] = ["docs/start.md", "docs/dev.md"].map(|page| fs::read_to_string(root().join(page)).unwrap());
    let first = dev.split("\n```sh\n").nth(1).unwrap().split("```").next().unwrap();
    assert!(start.contains(first), "{first}");
}

/// Whether there is such a module of the suite.
fn is_module(name: &str) -> bool {
    ["", "/mod"].iter().any(|end| root().join(format!("tests/suite/{name}{end}.rs")).is_file())
}

#[test]
fn each_block_of_commands_has_a_test_that_runs_it() {
    let root = root();
    let mut unnamed = BTreeMap::new();
    for path in pages(&root).unwrap() {
        let page = path.strip_prefix(&root).unwrap().display().to_string();
        if page != "README.md" && !page.starts_with("docs/") || SHOWN.iter().any(|(shown, _)| *shown == page) {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        for (at, _) in
            lines.iter().enumerate().filter(|(_, line)| ["```sh", "```bash", "```console"].contains(&line.trim()))
        {
            let before = at.checked_sub(1).map_or("", |before| lines[before]);
            match before.strip_prefix("<!-- run by tests/suite/").and_then(|rest| rest.strip_suffix(".rs -->")) {
                Some(module) => assert!(is_module(module), "{page}: there is no module {module} in tests/suite"),
                None => *unnamed.entry(page.clone()).or_insert(0) += 1,
            }
        }
    }
    let otherwise: BTreeMap<String, usize> =
        OTHERWISE.iter().map(|(page, count, _)| ((*page).to_owned(), *count)).collect();
    assert_eq!(unnamed, otherwise, "a new block names the module that runs it, in the line before");
    for (page, _, module) in OTHERWISE {
        assert!(is_module(module), "{page}: there is no module {module} in tests/suite");
    }
}
