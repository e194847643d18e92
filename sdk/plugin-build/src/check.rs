//! Tells before a broker does whether it would load a plugin, and what to change if not.

use std::collections::BTreeMap;
use std::fmt;

use wasmparser::{Parser, Payload, Validator};
use wit_parser::{Resolve, SourceMap};

use crate::contract::{Contract, Kind, host_contract, own_interface};

/// The contract, as it is in wit/; a unit test holds the list against the folder.
pub(crate) const WIT: [(&str, &str); 13] = [
    ("context.wit", include_str!("../../../wit/context.wit")),
    ("driver.wit", include_str!("../../../wit/driver.wit")),
    ("http.wit", include_str!("../../../wit/http.wit")),
    ("ldap.wit", include_str!("../../../wit/ldap.wit")),
    ("log.wit", include_str!("../../../wit/log.wit")),
    ("policy.wit", include_str!("../../../wit/policy.wit")),
    ("request.wit", include_str!("../../../wit/request.wit")),
    ("secrets.wit", include_str!("../../../wit/secrets.wit")),
    ("session.wit", include_str!("../../../wit/session.wit")),
    ("sql.wit", include_str!("../../../wit/sql.wit")),
    ("types.wit", include_str!("../../../wit/types.wit")),
    ("usage.wit", include_str!("../../../wit/usage.wit")),
    ("worlds.wit", include_str!("../../../wit/worlds.wit")),
];

/// One thing that is wrong with a plugin, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}\n    fix: {fix}")]
pub struct Problem {
    /// What is wrong.
    pub what: String,
    /// What to change.
    pub fix: String,
}

impl Problem {
    pub(crate) fn new(what: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { what: what.into(), fix: fix.into() }
    }

    /// Both on one line.
    #[must_use]
    pub fn in_a_line(&self) -> String {
        format!("{}: {}", self.what.replace('\n', " "), self.fix.replace('\n', " "))
    }
}

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckReport {
    /// What the plugin says about itself, if it could be read.
    pub contract: Option<Contract>,
    /// All that is wrong; a broker loads the plugin when there is nothing.
    pub problems: Vec<Problem>,
}

impl fmt::Display for CheckReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "  - {problem}")?;
        }
        Ok(())
    }
}

/// Checks a plugin against the contract of this source tree. Compiles and runs nothing.
#[must_use]
pub fn check(bytes: &[u8]) -> CheckReport {
    let contract = match Contract::read(bytes) {
        Ok(contract) => contract,
        Err(problem) => {
            return CheckReport { contract: None, problems: vec![problem] };
        }
    };
    let mut problems = Vec::new();
    if let Err(error) = Validator::new().validate_all(bytes) {
        problems.push(Problem::new(
            format!("it is not valid WebAssembly: {error}"),
            "build it again with `jit-broker plugin build`, and copy the file whole",
        ));
    }
    problems.extend(contract.imports.iter().filter_map(|name| foreign(name)));
    problems.extend(skew(&contract));
    match contract.kind {
        None => problems.push(Problem::new(
            match contract.exports.as_slice() {
                [] => "it exports nothing".to_owned(),
                exports => format!("it exports nothing known: {}", exports.join(", ")),
            },
            "implement `Policy`, `Context` or `Driver` of the SDK and register it with its macro \
             (`jit:plugin/policy`, `context` or `driver` is what a broker looks for)",
        )),
        // The types are compared last: a problem found above shows there again, less readably.
        Some(kind) if problems.is_empty() => {
            let name = contract.world().unwrap_or_else(|| kind.world());
            problems.extend(beyond_its_kind(&contract, kind, name));
            if problems.is_empty() {
                problems.extend(other_types(bytes, name));
            }
        }
        Some(_) => {}
    }
    CheckReport { contract: Some(contract), problems }
}

/// An import from outside the contract: nobody would answer it (NO-AMBIENT).
fn foreign(name: &str) -> Option<Problem> {
    if own_interface(name).is_some() {
        return None;
    }
    let what = format!("it imports `{name}`, which no broker offers");
    let Some(interface) = name.strip_prefix("wasi:") else {
        return Some(Problem::new(what, "use what jit:plugin offers: see wit/worlds.wit"));
    };
    let interface = interface.split('@').next().unwrap_or_default();
    let cause = WASI.iter().find(|(prefix, _)| interface.starts_with(prefix)).map_or("", |(_, cause)| *cause);
    Some(Problem::new(
        what,
        format!(
            "{cause}build for {} (`jit-broker plugin build` does), for Python with \
             `componentize-py componentize --stub-wasi`, for JavaScript with `disableFeatures`",
            crate::GUEST_TARGET
        ),
    ))
}

/// What in the standard library usually brings a WASI import, and what to use instead.
const WASI: [(&str, &str); 12] = [
    ("cli/std", "`println!`, `eprintln!` and `dbg!` bring it: use the SDK's log; "),
    ("cli/terminal", "`println!`, `eprintln!` and `dbg!` bring it: use the SDK's log; "),
    ("cli/environment", "`std::env` brings it: a plugin's settings are its configuration; "),
    ("cli/exit", "`std::process::exit` brings it: return an error instead; "),
    ("clocks/", "`Instant` and `SystemTime` bring it: the time is in the request; "),
    ("random/", "`HashMap`'s hasher, `rand` or `uuid` bring it: use `BTreeMap`; secrets are the host's; "),
    ("filesystem/", "`std::fs` brings it: a plugin's data is its configuration; "),
    ("sockets/", "`std::net` brings it: connections are opened by the host; "),
    ("http/", "an HTTP client brings it: requests are made by the host; "),
    ("io/", "it comes with standard output, files or sockets; "),
    ("logging/", "use the SDK's log; "),
    ("config/", "a plugin's settings are handed to each of its functions; "),
];

/// Contracts of other versions: one problem for each version, with the interfaces that have it.
fn skew(contract: &Contract) -> Vec<Problem> {
    let mut versions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for name in contract.exports.iter().chain(&contract.imports) {
        if let Some((interface, Some(version))) = own_interface(name) {
            versions.entry(version).or_default().push(interface);
        }
    }
    if let Some(version) = contract.version.as_deref().filter(|_| versions.is_empty()) {
        versions.insert(version, Vec::new());
    }
    let name = contract
        .identity
        .as_ref()
        .map_or_else(String::new, |identity| format!(" ({} {})", identity.name, identity.version));
    let problem = |(version, interfaces): (&&str, &Vec<&str>)| skew_of(&name, version, interfaces);
    versions.iter().filter_map(problem).collect()
}

fn skew_of(name: &str, plugin: &str, interfaces: &[&str]) -> Option<Problem> {
    let host = host_contract();
    let of = if interfaces.is_empty() { String::new() } else { format!(" (its {})", interfaces.join(", ")) };
    let what = format!("it{name} was built for contract {plugin}{of}, and this broker offers {host}");
    let Some((plugin, host)) = version(plugin).zip(version(host)) else {
        return Some(Problem::new(what, format!("build it again with the SDK for contract {host}")));
    };
    if track(plugin) != track(host) {
        let fix = if plugin < host {
            "build it again with this broker's SDK: `jit-broker plugin build`"
        } else {
            "update the broker, or build it with this broker's SDK"
        };
        return Some(Problem::new(what, fix));
    }
    (plugin > host).then(|| Problem::new(what, "update the broker, or build it with this broker's SDK"))
}

fn version(text: &str) -> Option<[u64; 3]> {
    let mut numbers = text.split('.').map(|number| number.parse().ok());
    let version = [numbers.next()??, numbers.next()??, numbers.next()??];
    numbers.next().is_none().then_some(version)
}

/// Versions on one track are linked to each other: 1.2.3 and 1.9.0, 0.1.0 and 0.1.7; never 0.0.x.
const fn track(version: [u64; 3]) -> (u64, u64, u64) {
    match version {
        [0, 0, patch] => (0, 0, patch),
        [0, minor, _] => (0, minor, 0),
        [major, ..] => (major, 0, 0),
    }
}

/// Imports of the contract that the plugin's own kind does not have.
fn beyond_its_kind(contract: &Contract, kind: Kind, name: &str) -> Vec<Problem> {
    let Ok((resolve, world)) = world(name) else {
        return Vec::new();
    };
    let allowed: Vec<String> = resolve.worlds[world].imports.keys().map(|key| resolve.name_world_key(key)).collect();
    let is_allowed = |name: &str| {
        own_interface(name).is_some_and(|(interface, _)| {
            allowed.iter().filter_map(|allowed| own_interface(allowed)).any(|(allowed, _)| allowed == interface)
        })
    };
    contract
        .imports
        .iter()
        .filter(|name| !is_allowed(name))
        .map(|name| {
            Problem::new(
                format!("it imports `{name}`, which {} is not offered", kind.with_article()),
                match (kind, own_interface(name)) {
                    (Kind::BareDriver, Some(("sql", _))) => {
                        "export `statements` too: then it is an SQL driver".to_owned()
                    }
                    _ => format!("do without it: world `{}` in wit/worlds.wit says what there is", name),
                },
            )
        })
        .collect()
}

/// Same names, other types: made from a changed copy of the contract.
fn other_types(bytes: &[u8], name: &str) -> Option<Problem> {
    let error = world(name).and_then(|(resolve, world)| wit_component::targets(&resolve, world, bytes)).err()?;
    Some(Problem::new(
        format!("its types are not those of contract {}: {}", host_contract(), error.root_cause()),
        "build it against this broker's SDK or wit/, unchanged",
    ))
}

fn world(name: &str) -> anyhow::Result<(Resolve, wit_parser::WorldId)> {
    let mut sources = SourceMap::default();
    for (name, text) in WIT {
        sources.push(name.as_ref(), text);
    }
    let group = sources.parse().map_err(|(sources, error)| anyhow::anyhow!(error.render(&sources)))?;
    let mut resolve = Resolve::default();
    let package = resolve.push_group(group).map_err(|error| anyhow::anyhow!("{error:?}"))?;
    let world = resolve.select_world(&[package], Some(name))?;
    Ok((resolve, world))
}

/// Why a core module cannot become a component, where it is an import that no interface has.
pub(crate) fn core_import_advice(module: &[u8]) -> Option<String> {
    for payload in Parser::new(0).parse_all(module) {
        let Ok(Payload::ImportSection(section)) = payload else {
            continue;
        };
        for import in section.into_imports().flatten() {
            let advice = match import.module {
                name if name.starts_with("__wbindgen") => {
                    "a dependency believes that it runs in a browser: switch off features such as \
                     `js`, `wasm-bindgen`, `wasmbind` (getrandom, chrono, uuid)"
                }
                "wasi_snapshot_preview1" => "it was compiled for WASI: build for wasm32-unknown-unknown",
                "env" => {
                    "a dependency calls a C function that nobody defines: switch off features \
                     that bind to C libraries"
                }
                _ => continue,
            };
            return Some(format!("it imports `{}` of `{}`; {advice}", import.name, import.module));
        }
    }
    None
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::contract::tests::{component, dummy, dummy_of_the_contract, policy_module, with_section};

    fn only(bytes: &[u8]) -> Problem {
        let report = check(bytes);
        assert_eq!(report.problems.len(), 1, "{report}");
        report.problems.into_iter().next().unwrap()
    }

    #[test]
    fn all_of_wit_is_known_here() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../wit");
        let there: BTreeSet<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.ends_with(".wit"))
            .collect();
        assert_eq!(there, WIT.iter().map(|(name, _)| (*name).to_owned()).collect());
    }

    #[test]
    fn every_kind_passes() {
        for world in ["policy-plugin", "usage-policy-plugin", "context-plugin", "sql-driver", "bare-driver"] {
            let report = check(&component(&dummy_of_the_contract(world)));
            assert!(report.problems.is_empty(), "{world}:\n{report}");
        }
        assert!(check(&component(&policy_module())).problems.is_empty());
    }

    #[test]
    fn foreign_imports_are_told_with_their_cause() {
        let wit = r"
            package wasi:clocks@0.2.3;
            interface wall-clock { now: func() -> u64; }
            world w { import wall-clock; }
        ";
        let report = check(&component(&dummy(wit, "w")));
        let clock = &report.problems[0];
        assert!(clock.what.contains("wasi:clocks/wall-clock@0.2.3"));
        assert!(clock.fix.contains("SystemTime"));
        assert!(report.problems[1].what.contains("exports nothing"));

        let wit = "package acme:x; interface y { z: func(); } world w { import y; }";
        let report = check(&component(&dummy(wit, "w")));
        assert!(report.problems[0].what.contains("acme:x/y"));
    }

    #[test]
    fn version_skew_names_both_versions_and_the_plugin() {
        let wit = "package jit:plugin@0.3.0; interface policy { decide: func(); } world w { export policy; }";
        let module =
            with_section(dummy(wit, "w"), "jit-plugin", br#"{"name":"policy-x","version":"1.2.3","contract":"0.3.0"}"#);
        let problem = only(&component(&module));
        for part in ["policy-x 1.2.3", "0.3.0", host_contract()] {
            assert!(problem.what.contains(part), "{problem}");
        }
        assert!(problem.fix.contains("update the broker"));

        let old = wit.replace("0.3.0", "0.1.0");
        assert!(
            only(&component(&dummy(&old, "w"))).fix.contains("again with this broker's SDK: `jit-broker plugin build`")
        );
        let newer = wit.replace("0.3.0", "0.2.1");
        assert!(only(&component(&dummy(&newer, "w"))).fix.contains("update"));
    }

    #[test]
    fn tracks_are_those_of_the_component_model() {
        let same = |a: &str, b: &str| track(version(a).unwrap()) == track(version(b).unwrap());
        assert!(same("1.2.3", "1.9.0") && same("0.1.0", "0.1.7"));
        assert!(!same("0.1.0", "0.2.0") && !same("0.0.1", "0.0.2") && !same("1.0.0", "2.0.0"));
        assert!(version("0.1").is_none() && version("0.1.0-rc.1").is_none());
        assert!(version("0.1.0.0").is_none() && version("").is_none());
    }

    #[test]
    fn no_known_export() {
        let wit = "package acme:x; interface y { z: func(); } world w { export y; }";
        let problem = only(&component(&dummy(wit, "w")));
        assert!(problem.what.contains("acme:x/y"), "{problem}");
    }

    #[test]
    fn a_capability_of_another_kind_is_refused() {
        let mut wit: String = WIT.iter().map(|(_, text)| text.replace("package jit:plugin@0.2.0;", "")).collect();
        wit.push_str("world greedy { import sql; export policy; }");
        wit.push_str("world half { import sql; export driver; }");
        let wit = format!("package jit:plugin@0.2.0;\n{wit}");
        // `sql` brings `secrets`, whose types it uses.
        let report = check(&component(&dummy(&wit, "greedy")));
        assert_eq!(report.problems.len(), 2, "{report}");
        assert!(report.to_string().contains("`jit:plugin/sql@0.2.0`"));
        let problem = only(&component(&dummy(&wit, "half")));
        assert!(problem.fix.contains("statements"), "{problem}");
    }

    #[test]
    fn changed_types_are_refused() {
        let wit = "package jit:plugin@0.2.0; interface policy { decide: func(); } world w { export policy; }";
        let problem = only(&component(&dummy(wit, "w")));
        assert!(problem.what.contains("types"), "{problem}");
    }

    #[test]
    fn the_types_of_what_a_policy_exports_beside_itself_are_compared_too() {
        let mut wit: String = WIT.iter().map(|(_, text)| text.replace("package jit:plugin@0.2.0;", "")).collect();
        wit = wit.replace("windows: func()", "windows: func(more: u8)");
        let problem = only(&component(&dummy(&format!("package jit:plugin@0.2.0;\n{wit}"), "usage-policy-plugin")));
        assert!(problem.what.contains("types"), "{problem}");
    }

    #[test]
    fn core_imports_that_cannot_be_are_explained() {
        // (module (import "__wbindgen_placeholder__" "f" (func))), by hand: type section with
        // one `func()`, import section with one function.
        let module_name = b"__wbindgen_placeholder__";
        let mut import = vec![1, module_name.len() as u8];
        import.extend(module_name);
        import.extend([1, b'f', 0, 0]);
        let mut module = b"\0asm\x01\0\0\0\x01\x04\x01\x60\0\0\x02".to_vec();
        module.push(import.len() as u8);
        module.extend(import);
        assert!(core_import_advice(&module).unwrap().contains("getrandom"));
        assert_eq!(core_import_advice(&policy_module()), None);
        let error = crate::encode_component("p", &module).unwrap_err();
        assert!(error.to_string().contains("browser"), "{error}");
    }
}
