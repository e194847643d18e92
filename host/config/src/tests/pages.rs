//! What the pages show as configuration has no key that the program does not know.

use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::{BASE, parse};

/// The sections of a configuration. A block with another one is something else: cases, a fixture, a manifest.
const SECTIONS: [&str; 14] = [
    "server",
    "store",
    "audit",
    "identity",
    "plugins",
    "runtime",
    "connections",
    "policies",
    "contexts",
    "targets",
    "limits",
    "reconcile",
    "log",
    "traces",
];

fn pages() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let folders = ["docs", "docs/drivers"].map(|folder| root.join(folder));
    let plugins = std::fs::read_dir(root.join("plugins")).unwrap().map(|entry| entry.unwrap().path());
    let mut found: Vec<PathBuf> = folders
        .into_iter()
        .chain(plugins)
        .flat_map(|folder| std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
        .chain([root.join("README.md")])
        .collect();
    found.sort();
    found
}

/// Puts a block into a configuration, as a person would: tables grow, and everything else is replaced.
fn merge(into: &mut Table, block: Table) {
    for (key, value) in block {
        match (into.get_mut(&key), value) {
            (Some(Value::Table(there)), Value::Table(more)) => merge(there, more),
            (_, value) => drop(into.insert(key, value)),
        }
    }
}

#[test]
fn no_page_shows_a_key_that_is_not_known() {
    let mut looked_at = 0;
    let mut unknown = Vec::new();
    for page in pages() {
        let text = std::fs::read_to_string(&page).unwrap();
        for block in text.split("\n```toml\n").skip(1).filter_map(|rest| rest.split("\n```").next()) {
            let block: Table = block.parse().unwrap_or_else(|error| panic!("{}: {error}", page.display()));
            if !block.keys().all(|key| SECTIONS.contains(&key.as_str())) {
                continue;
            }
            looked_at += 1;
            let mut whole: Table = BASE.parse().unwrap();
            merge(&mut whole, block);
            // A block may refer to what it does not show; what it shows has to be known.
            if let Err(errors) = parse(&whole.to_string()) {
                let of_keys = errors.problems().iter().filter(|problem| problem.message.starts_with("unknown key"));
                unknown.extend(of_keys.map(|problem| format!("{}: {}", page.display(), problem.message)));
            }
        }
    }
    assert!(looked_at > 20, "only {looked_at} blocks were found");
    assert!(unknown.is_empty(), "{}", unknown.join("\n"));
}
