//! Every file of the tree that a page names is there. Pages that name files go stale with each move otherwise.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs;

use xtask::plugins::root;
use xtask::prose::all_pages;

/// What the first part of a path must be for it to be one of this tree.
const TOP: [&str; 9] = ["host/", "sdk/", "wit/", "plugins/", "tests/", "xtask/", "fuzz/", "docs/", "deploy/"];

/// `a/{b,c}.rs` is two paths.
fn each(path: &str) -> Vec<String> {
    let Some((before, (middle, after))) =
        path.split_once('{').and_then(|(before, rest)| Some((before, rest.split_once('}')?)))
    else {
        return vec![path.to_owned()];
    };
    middle.split(',').map(|one| format!("{before}{}{after}", one.trim())).collect()
}

/// What stands between backticks on one line and is a path of this tree; short names of the host's crates are written
/// out.
fn named(text: &str, short: &[String]) -> Vec<String> {
    let mut found = Vec::new();
    for line in text.lines() {
        for (number, code) in line.split('`').enumerate() {
            let plain = code.chars().all(|c| c.is_ascii_alphanumeric() || "-_./{},*".contains(c));
            if number % 2 == 0 || !plain || !code.contains('/') {
                continue;
            }
            let first = code.split('/').next().unwrap();
            if TOP.iter().any(|top| code.starts_with(top)) {
                found.extend(each(code));
            } else if short.iter().any(|name| name == first) && code.ends_with(['s', '/']) {
                let rest = code.split_once('/').unwrap().1;
                found.extend(each(&format!("host/{first}/src/{rest}")));
            }
        }
    }
    found
}

/// Whether the path, with `*` for any name, is there.
fn is_there(path: &str) -> bool {
    let mut places = vec![root()];
    for part in path.trim_end_matches('/').split('/') {
        places = match part.split_once('*') {
            None => places.iter().map(|place| place.join(part)).filter(|place| place.exists()).collect(),
            Some((before, after)) => places
                .iter()
                .flat_map(|place| fs::read_dir(place).into_iter().flatten())
                .map(|entry| entry.unwrap())
                .filter(|entry| {
                    let name = entry.file_name().into_string().unwrap();
                    name.starts_with(before) && name.ends_with(after)
                })
                .map(|entry| entry.path())
                .collect(),
        };
    }
    !places.is_empty()
}

#[test]
fn every_file_that_a_page_names_is_there() {
    let crates: Vec<String> = fs::read_dir(root().join("host"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let mut wrong = Vec::new();
    let mut checked = 0;
    for page in all_pages(&root()).unwrap() {
        let text = fs::read_to_string(&page).unwrap();
        for path in named(&text, &crates) {
            checked += 1;
            if !is_there(&path) {
                wrong.push(format!("{}: {path}", page.strip_prefix(root()).unwrap().display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(checked > 100, "only {checked} paths were found: does the test still read the pages?");
}

#[test]
fn a_path_that_is_not_there_is_found() {
    assert!(is_there("host/core/src/lib.rs") && is_there("plugins/driver-*/src/revoke.rs"));
    assert!(!is_there("host/core/src/nothing.rs") && !is_there("plugins/driver-*/src/nothing.rs"));
    let short = ["http".to_owned()];
    assert_eq!(named("see `http/{a,b}.rs` and `x/y.rs`", &short), ["host/http/src/a.rs", "host/http/src/b.rs"]);
}
