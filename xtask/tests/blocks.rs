//! Every block of shell commands that a page shows is run by a test, to the letter. Here stands which.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use xtask::plugins::root;

/// A page, how many such blocks it has, and the module of tests/suite (or the command) that runs them.
const RUN: [(&str, usize, &str); 11] = [
    ("README.md", 3, "readme"),
    ("docs/clients.md", 3, "examples"),
    ("docs/dev.md", 4, "dev"),
    ("docs/drivers/conformance.md", 2, "new_drivers"),
    ("docs/drivers/vault.md", 1, "pages"),
    ("docs/operating.md", 1, "pages"),
    ("docs/plugins-signing.md", 2, "pages"),
    ("docs/plugins.md", 1, "languages"),
    ("docs/policies-replay.md", 2, "pages"),
    ("docs/policies.md", 10, "policy_story"),
    ("docs/start.md", 4, "dev"),
];

fn pages(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            pages(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "md") {
            found.push(path);
        }
    }
}

/// Blocks in the languages of a shell.
fn blocks(text: &str) -> usize {
    text.lines().filter(|line| ["```sh", "```bash", "```console"].contains(&line.trim())).count()
}

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

#[test]
fn each_block_of_commands_has_a_test_that_runs_it() {
    let root = root();
    let mut all = vec![root.join("README.md")];
    pages(&root.join("docs"), &mut all);
    let mut shown = BTreeMap::new();
    for page in all {
        let count = blocks(&fs::read_to_string(&page).unwrap());
        let page = page.strip_prefix(&root).unwrap().display().to_string();
        if count > 0 && !SHOWN.iter().any(|(shown, _)| *shown == page) {
            shown.insert(page, count);
        }
    }
    let run: BTreeMap<String, usize> = RUN.iter().map(|(page, count, _)| ((*page).to_owned(), *count)).collect();
    assert_eq!(shown, run, "a new block needs a test that runs it, and its number here");
    for (page, _, module) in RUN {
        let file = ["", "/mod"].map(|end| root.join(format!("tests/suite/{module}{end}.rs")));
        let text = file.iter().find_map(|file| fs::read_to_string(file).ok());
        assert!(text.is_some(), "{page}: there is no module {module} in tests/suite");
    }
}
