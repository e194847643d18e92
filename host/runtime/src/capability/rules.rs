//! Rules that hold for every capability.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::Grant;

/// What capabilities build on, beside what every module of the crate may use.
const BELOW: [&str; 2] = ["credentials", "secrets"];

/// Modules of the crate that know capabilities, or what calls them.
const ABOVE: [&str; 11] =
    ["call", "context", "driver", "engine", "file", "fuzzing", "load", "loaded", "plugin", "policy", "runtime"];

/// Files of this folder that are not a capability: the table, and tests over several of them.
const NOT_ONE: [&str; 3] = ["mod.rs", "rules.rs", "stranger.rs"];

fn sources(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(path);
        }
    }
}

/// The modules that a text names by a path from the crate's root: `call`, `capability::sql` and the like.
/// Comments count too: a link in a document is a way to know somebody.
fn named(text: &str) -> Vec<String> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let first = |text: &str| text.chars().take_while(|c| is_word(*c)).collect::<String>();
    let mut names = Vec::new();
    for (at, _) in text.match_indices("crate::") {
        let rest = &text[at + "crate::".len()..];
        // `use crate::{call, …}` would hide what it names.
        let module = if rest.starts_with('{') { "{".to_owned() } else { first(rest) };
        match rest.strip_prefix("capability::") {
            Some(inner) if inner.starts_with('{') => names.push("capability::{".to_owned()),
            Some(inner) if inner.starts_with(char::is_uppercase) => {}
            Some(inner) => names.push(format!("capability::{}", first(inner))),
            None => names.push(module),
        }
    }
    names
}

/// What a capability's source names although it must not.
fn strangers(own: &str, text: &str) -> Vec<String> {
    let mut strangers = named(text);
    strangers.retain(|name| match name.strip_prefix("capability::") {
        Some(other) => other != own && !BELOW.contains(&other),
        None => name == "{" || ABOVE.contains(&name.as_str()),
    });
    strangers
}

#[test]
fn a_capability_knows_no_other_and_not_the_call() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/capability");
    let mut files = Vec::new();
    sources(&folder, &mut files);
    let mut seen = BTreeMap::new();
    for file in files {
        let inner = file.strip_prefix(&folder).unwrap();
        let top = inner.components().next().unwrap().as_os_str().to_str().unwrap();
        if NOT_ONE.contains(&top) {
            continue;
        }
        let own = top.trim_end_matches(".rs");
        let text = fs::read_to_string(&file).unwrap();
        let strangers = strangers(own, &text);
        assert!(strangers.is_empty(), "{} names {strangers:?}", inner.display());
        // By a relative path, what is beneath is reached as well: only from the top of a module.
        let depth = inner.components().count() - usize::from(inner.ends_with("mod.rs"));
        let up = "super::".repeat(depth);
        for line in text.lines().filter(|line| line.trim_start().starts_with("use ")) {
            assert!(!line.contains(&up) || is_test(&text, line), "{}: {line}", inner.display());
        }
        *seen.entry(own.to_owned()).or_insert(0) += 1;
    }
    for grant in Grant::ALL {
        assert!(seen.contains_key(grant.as_str()), "{grant} is a module of its own");
    }
}

/// Whether a line stands in a module of tests within its file, where `super` is that file.
fn is_test(text: &str, line: &str) -> bool {
    text.find("mod tests {").is_some_and(|tests| text[tests..].contains(line))
}

#[test]
fn the_rule_sees_a_capability_that_knows_too_much() {
    for bad in [
        "use crate::call::Call;",
        "use crate::capability::ldap::LdapSession;",
        "fn f(call: &crate::driver::DriverPlugin) {}",
        "use crate::{call, meter};",
        "use crate::capability::{ldap, secrets};",
    ] {
        assert_eq!(strangers("sql", bad).len(), 1, "{bad}");
    }
    for good in [
        "use crate::capability::sql::template::Template;",
        "use crate::capability::secrets::GuestSecret;",
        "use crate::capability::Capability;",
        "use crate::meter::Meter;",
    ] {
        assert!(strangers("sql", good).is_empty(), "{good}");
    }
}
