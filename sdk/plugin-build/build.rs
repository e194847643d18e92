//! Embeds what `plugin new` and `plugin build` write out: the contract, the SDKs and their templates. A
//! broker's binary is then enough to write and build a plugin, without this source tree.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

/// What is embedded, below the source tree's root. Of a folder, all of it but what building leaves there.
const EMBEDDED: [&str; 12] = [
    "Cargo.toml",
    "sdk/contract/Cargo.toml",
    "sdk/contract/src",
    "sdk/js/jit-plugin",
    "sdk/js/template",
    "sdk/js/toolchain",
    "sdk/plugin/Cargo.toml",
    "sdk/plugin/src",
    "sdk/plugin/template",
    "sdk/python/jit_plugin",
    "sdk/python/template",
    "wit",
];
/// What is left by building and testing there.
const LEFT: [&str; 4] = ["__pycache__", "node_modules", "target", "Cargo.lock"];

fn main() -> io::Result<()> {
    let root = PathBuf::from(variable("CARGO_MANIFEST_DIR")?).join("../..").canonicalize()?;
    let out = PathBuf::from(variable("OUT_DIR")?);
    let mut files = Vec::new();
    for path in EMBEDDED {
        println!("cargo:rerun-if-changed={}", root.join(path).display());
        collect(&root.join(path), &mut files)?;
    }
    files.sort();
    let mut source = String::from("static TREE: &[(&str, &str)] = &[\n");
    for file in &files {
        let name = file.strip_prefix(&root).map_err(io::Error::other)?.display().to_string();
        let _ = writeln!(source, "    ({name:?}, include_str!({:?})),", file.display().to_string());
    }
    source.push_str("];\n");
    fs::write(out.join("embedded.rs"), source)?;

    let lock = root.join("Cargo.lock");
    println!("cargo:rerun-if-changed={}", lock.display());
    fs::write(out.join("guest.lock"), pruned(&fs::read_to_string(lock)?, "jit-plugin"))
}

fn variable(name: &str) -> io::Result<String> {
    env::var(name).map_err(io::Error::other)
}

fn collect(path: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    if path.file_name().is_some_and(|name| LEFT.iter().any(|left| name == *left)) {
        return Ok(());
    }
    if path.is_dir() {
        for entry in fs::read_dir(path)? {
            collect(&entry?.path(), files)?;
        }
    } else {
        files.push(path.to_owned());
    }
    Ok(())
}

/// Of a Cargo.lock, the packages that this one needs: with them, a new plugin is built of the very versions
/// that the broker's own plugins are built of.
fn pruned(lock: &str, of: &str) -> String {
    // Blocks are separated by empty lines; the first is the file's head.
    let mut blocks = lock.split("\n\n");
    let head = blocks.next().unwrap_or_default();
    let packages: BTreeMap<(String, String), &str> = blocks
        .filter_map(|block| Some(((value(block, "name")?, value(block, "version")?), block.trim_end())))
        .collect();
    let mut wanted: Vec<(String, Option<String>)> = vec![(of.to_owned(), None)];
    let mut taken = BTreeSet::new();
    while let Some((name, version)) = wanted.pop() {
        for (key, block) in &packages {
            if key.0 != name || version.as_ref().is_some_and(|version| *version != key.1) || !taken.insert(key) {
                continue;
            }
            // ` "name",` or, where there are several versions, ` "name version",`.
            for line in block.lines().filter_map(|line| line.strip_prefix(" \"")) {
                let mut words = line.trim_end_matches("\",").split(' ').map(str::to_owned);
                wanted.extend(words.next().map(|name| (name, words.next())));
            }
        }
    }
    taken.iter().fold(head.to_owned(), |lock, key| lock + "\n\n" + packages[key]) + "\n"
}

fn value(block: &str, key: &str) -> Option<String> {
    let line = block.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(" = \""))?;
    Some(line.trim_end_matches('"').to_owned())
}
