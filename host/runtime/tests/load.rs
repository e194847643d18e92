//! Loading: digests, kinds, grants, and what is refused with which words.

#![allow(clippy::unwrap_used, reason = "tests")]

mod fixtures;

use std::collections::BTreeMap;
use std::sync::Arc;

use fixtures::{Bench, bench, bench_with, fixture, request, spec};
use jit_core::driver::Feature;
use jit_runtime::{
    Catalog, FaultKind, Grant, Limits, LoadErrorKind, LogCompilations, Plugin, PluginKind, PluginSpec, Runtime,
    RuntimeError, RuntimeOptions, Snapshots,
};

fn refusal(bench: &Bench, text: &str) -> LoadErrorKind {
    bench.load_text(text, None).expect_err(text).kind
}

/// A component that exports an empty interface of that name and imports these.
fn shell(export: &str, imports: &[&str]) -> String {
    let imports: String =
        imports.iter().map(|import| format!(r#"(import "{import}" (instance (export "f" (func))))"#)).collect();
    format!(r#"(component {imports} (instance $i) (export "{export}" (instance $i)))"#)
}

#[test]
fn every_built_plugin_loads_and_says_what_it_is() {
    let bench = bench();
    for name in ["policy-allow-list", "policy-allow", "policy-hostile"] {
        let plugin = bench.load(name);
        assert_eq!((plugin.name(), plugin.kind()), (name, PluginKind::Policy));
        assert!(plugin.grants().iter().all(|grant| *grant == Grant::Log), "{name}: {:?}", plugin.grants());
        assert_eq!(plugin.contract_version(), "0.2.0");
        assert_eq!(plugin.path(), fixture(name));
        assert_eq!(plugin.sha256().len(), 64);
    }
    for name in ["driver-postgres", "driver-hostile", "driver-scripted", "driver-noop"] {
        let plugin = bench.load(name);
        let driver = plugin.as_driver().unwrap();
        // What it imports and no more, without a word in the configuration.
        assert_eq!(plugin.grants().contains(&Grant::Sql), name != "driver-noop", "{name}");
        assert!(!plugin.grants().contains(&Grant::Http) && !plugin.grants().contains(&Grant::Ldap), "{name}");
        assert!(driver.description().has(Feature::ListAccounts), "{name}");
        assert_eq!(driver.templates().is_empty(), name == "driver-noop", "{name}");
    }
}

#[test]
fn ten_plugins_fit_beside_each_other() {
    let bench = bench();
    let mut set = BTreeMap::new();
    for number in 0..10 {
        let name = format!("policy-{number}");
        let plugin = bench.runtime.load(&PluginSpec { name: name.clone(), ..spec("policy-allow") }).unwrap();
        set.insert(name, plugin);
    }
    for plugin in set.values() {
        plugin.as_policy().unwrap().decide("{}", &request()).unwrap();
    }
}

#[test]
fn a_pinned_digest_is_that_of_the_bytes() {
    let bench = bench();
    let digest = bench.load("policy-allow").sha256().to_owned();
    let pinned = PluginSpec { sha256: Some(digest.to_uppercase()), ..spec("policy-allow") };
    assert_eq!(bench.runtime.load(&pinned).unwrap().sha256(), digest);

    let other = PluginSpec { sha256: Some(digest), ..spec("policy-hostile") };
    let error = bench.runtime.load(&other).unwrap_err();
    assert!(matches!(error.kind, LoadErrorKind::Digest { .. }), "{error}");
    assert!(error.to_string().starts_with("plugin policy-hostile ("), "{error}");
}

#[test]
fn a_warm_cache_gives_the_same_plugin_and_a_touched_one_is_replaced() {
    let bench = bench();
    let cold = bench.load("policy-allow");
    let file = std::fs::read_dir(bench.folder.path().join("cache")).unwrap().next().unwrap().unwrap().path();
    let whole = std::fs::read(&file).unwrap();
    assert_eq!(bench.load("policy-allow").sha256(), cold.sha256());

    let mut touched = whole.clone();
    let middle = touched.len() / 2;
    touched[middle] ^= 0xff;
    std::fs::write(&file, touched).unwrap();
    let plugin = bench.policy("policy-allow");
    plugin.decide("{}", &request()).unwrap();
    assert_eq!(std::fs::read(&file).unwrap().len(), whole.len());
    bench.policy("policy-allow").decide("{}", &request()).unwrap();
}

#[test]
fn what_is_no_component_is_refused_before_it_is_looked_at() {
    let bench = bench();
    let kind = |bytes: &[u8]| bench.load_bytes(bytes, None).unwrap_err().kind;
    assert!(matches!(kind(b"MZ"), LoadErrorKind::NotWasm));
    assert!(matches!(kind(b"(component)"), LoadErrorKind::NotWasm));
    assert!(matches!(kind(&wat::parse_str("(module)").unwrap()), LoadErrorKind::CoreModule));
    // The compiled code that the cache holds, given as a plugin.
    bench.load("policy-allow");
    let file = std::fs::read_dir(bench.folder.path().join("cache")).unwrap().next().unwrap().unwrap().path();
    assert!(matches!(kind(&std::fs::read(file).unwrap()), LoadErrorKind::Precompiled));
    let damaged = &std::fs::read(fixture("policy-allow")).unwrap()[..5_000];
    assert!(matches!(kind(damaged), LoadErrorKind::Compile(_)));
    let missing = PluginSpec { path: bench.folder.path().join("missing.wasm"), ..spec("policy-allow") };
    assert!(matches!(bench.runtime.load(&missing).unwrap_err().kind, LoadErrorKind::Read(_)));
}

#[test]
fn a_kind_is_what_is_exported() {
    let bench = bench();
    assert!(matches!(refusal(&bench, "(component)"), LoadErrorKind::NoKind { .. }));
    let stranger = refusal(&bench, &shell("wasi:cli/run@0.2.0", &[]));
    assert!(stranger.to_string().contains("wasi:cli/run@0.2.0"), "{stranger}");
    let two = r#"(component (instance $i)
        (export "jit:plugin/policy@0.2.0" (instance $i))
        (export "jit:plugin/driver@0.2.0" (instance $i)))"#;
    assert!(matches!(refusal(&bench, two), LoadErrorKind::TwoKinds { .. }));
    let lacking = refusal(&bench, &shell("jit:plugin/policy@0.2.0", &[]));
    assert!(matches!(lacking, LoadErrorKind::Signature(_)), "{lacking}");
    let wrong_type = r#"(component
        (core module $m (func (export "f")))
        (core instance $c (instantiate $m))
        (func $f (canon lift (core func $c "f")))
        (instance $i (export "validate" (func $f)) (export "decide" (func $f)))
        (export "jit:plugin/policy@0.2.0" (instance $i)))"#;
    assert!(matches!(refusal(&bench, wrong_type), LoadErrorKind::Signature(_)));
}

#[test]
fn another_contract_is_named() {
    let bench = bench();
    for other in ["jit:plugin/policy@0.1.0", "jit:plugin/policy@1.0.0", "jit:plugin/policy"] {
        let kind = refusal(&bench, &shell(other, &[]));
        assert!(matches!(kind, LoadErrorKind::ContractVersion { .. }), "{other}: {kind}");
        assert!(kind.to_string().contains("this broker offers contract 0.2.0"), "{kind}");
    }
    let import = refusal(&bench, &shell("jit:plugin/policy@0.2.0", &["jit:plugin/log@0.9.0"]));
    assert!(matches!(import, LoadErrorKind::ContractVersion { .. }), "{import}");
}

/// What a plugin of the first contract looks like: other functions behind the same names.
const CONTRACT_0_1: &str = r#"(component
    (import "jit:plugin/log@0.1.0" (instance (export "write" (func (param "message" string)))))
    (core module $m
        (memory (export "memory") 1)
        (func (export "realloc") (param i32 i32 i32 i32) (result i32) unreachable)
        (func (export "f") (param i32 i32) (result i32) unreachable))
    (core instance $c (instantiate $m))
    (func $validate (param "config" string) (result string)
        (canon lift (core func $c "f") (memory (core memory $c "memory")) (realloc (core func $c "realloc"))))
    (instance $i (export "validate" (func $validate)) (export "decide" (func $validate)))
    (export "jit:plugin/policy@0.1.0" (instance $i)))"#;

#[test]
fn a_plugin_of_the_first_contract_is_told_how_to_go_on() {
    let bench = bench();
    let error = bench.load_text(CONTRACT_0_1, None).unwrap_err();
    assert!(matches!(&error.kind, LoadErrorKind::ContractVersion { version } if version == "0.1.0"), "{error}");
    assert_eq!(
        error.kind.to_string(),
        "was built for contract 0.1.0, and this broker offers contract 0.2.0: rebuild it with `jit-broker plugin \
         build` and the SDK of this release"
    );
}

/// A request is read by those who are asked about one, and needs no grant.
#[test]
fn a_driver_reads_no_request() {
    let bench = bench();
    let import = &["jit:plugin/request@0.2.0"];
    let refused = refusal(&bench, &shell("jit:plugin/driver@0.2.0", import));
    assert!(matches!(refused, LoadErrorKind::Import { .. }), "{refused}");
    for kind in ["policy", "context"] {
        // Its functions are not the contract's, so it goes no further than that.
        let wrong = bench.load_text(&shell(&format!("jit:plugin/{kind}@0.2.0"), import), Some(Vec::new()));
        assert!(matches!(wrong.unwrap_err().kind, LoadErrorKind::Signature(_)));
    }
}

/// The confused deputy: every capability, for every kind, with an empty grant.
#[test]
fn nothing_is_imported_without_a_grant() {
    let bench = bench();
    for kind in PluginKind::ALL {
        for grant in Grant::ALL {
            let text = shell(&format!("jit:plugin/{kind}@0.2.0"), &[&format!("jit:plugin/{grant}@0.2.0")]);
            let refused = bench.load_text(&text, Some(Vec::new())).unwrap_err().kind;
            match refused {
                LoadErrorKind::NotGranted { grant: named, .. } => assert_eq!(named, grant),
                LoadErrorKind::Import { .. } => assert!(!kind.capabilities().contains(&grant)),
                other => panic!("{kind} {grant}: {other}"),
            }
        }
        for stranger in ["wasi:cli/environment@0.2.0", "jit:plugin/clock@0.2.0", "other:thing/x@0.2.0"] {
            let refused = refusal(&bench, &shell(&format!("jit:plugin/{kind}@0.2.0"), &[stranger]));
            assert!(matches!(refused, LoadErrorKind::Import { .. }), "{kind} {stranger}: {refused}");
        }
    }
    // The real driver, with less than it needs.
    for grants in [vec![], vec![Grant::Log], vec![Grant::Log, Grant::Secrets]] {
        let less = PluginSpec { grants: Some(grants), ..spec("driver-postgres") };
        let error = bench.runtime.load(&less).unwrap_err();
        assert!(matches!(error.kind, LoadErrorKind::NotGranted { .. }), "{error}");
    }
    let more = PluginSpec { grants: Some(vec![Grant::Sql]), ..spec("policy-allow") };
    let error = bench.runtime.load(&more).unwrap_err();
    assert!(matches!(error.kind, LoadErrorKind::GrantForKind { .. }), "{error}");
}

/// A policy's shell whose start function runs that code, with two memories and a table.
fn starting(code: &str) -> String {
    format!(
        r#"(component
            (core module $m
                (memory $a 1) (memory $b 1) (table $t 1 funcref)
                (func $start {code})
                (start $start))
            (core instance $c (instantiate $m))
            (instance $i)
            (export "jit:plugin/policy@0.2.0" (instance $i)))"#
    )
}

/// Grows both memories by so many pages of 64 KiB and traps where that fails.
fn grow_memories(pages: u32) -> String {
    let grow =
        |memory| format!("(if (i32.eq (memory.grow {memory} (i32.const {pages})) (i32.const -1)) (then unreachable))");
    starting(&format!("{} {}", grow("$a"), grow("$b")))
}

fn grow_table(elements: u32) -> String {
    starting(&format!(
        "(if (i32.eq (table.grow $t (ref.null func) (i32.const {elements})) (i32.const -1)) (then unreachable))"
    ))
}

fn start_fault(bench: &Bench, text: &str) -> Option<FaultKind> {
    match refusal(bench, text) {
        LoadErrorKind::Fault(fault) => Some(fault.kind),
        // It started, and then lacks its functions.
        LoadErrorKind::Signature(_) => None,
        other => panic!("{other}"),
    }
}

#[test]
fn two_memories_have_one_limit_together() {
    let bench = bench();
    assert_eq!(start_fault(&bench, &grow_memories(500)), None);
    // 600 pages are 37.5 MiB: within the limit for one memory, not for two.
    assert_eq!(start_fault(&bench, &grow_memories(600)), Some(FaultKind::Memory { limit: 64 << 20 }));
}

#[test]
fn table_elements_are_bounded() {
    let bench = bench();
    assert_eq!(start_fault(&bench, &grow_table(49_999)), None);
    assert_eq!(start_fault(&bench, &grow_table(50_000)), Some(FaultKind::Table { limit: 50_000 }));
}

/// A policy's shell that is linked of so many core instances.
fn linked_of(instances: usize) -> String {
    let core: String = (0..instances).map(|place| format!("(core instance $c{place} (instantiate $m))")).collect();
    format!(r#"(component (core module $m) {core} (instance $i) (export "jit:plugin/policy@0.2.0" (instance $i)))"#)
}

#[test]
fn core_instances_are_bounded_and_those_of_an_interpreter_fit() {
    let bench = bench();
    // CPython with its extension modules is linked of some forty.
    assert_eq!(start_fault(&bench, &linked_of(64)), None);
    let refused = refusal(&bench, &linked_of(65));
    assert!(matches!(&refused, LoadErrorKind::Resources(text) if text.contains("64")), "{refused}");
}

#[test]
fn a_start_function_that_never_ends_is_stopped() {
    let kind = start_fault(&bench(), &starting("(loop $l (br $l))"));
    assert_eq!(kind, Some(FaultKind::Deadline { limit_ms: 500 }));
}

#[test]
fn what_needs_too_much_from_the_start_is_told_so() {
    let big = |memory: &str| {
        format!(
            r#"(component (core module $m {memory}) (core instance $c (instantiate $m))
                (instance $i) (export "jit:plugin/policy@0.2.0" (instance $i)))"#
        )
    };
    let bench = bench_with(Limits { memory_bytes: 1 << 20, ..Limits::default() }, 1);
    for too_much in ["(memory 17)", "(memory 1) (memory 1) (memory 1)", "(table 50001 funcref)"] {
        let kind = refusal(&bench, &big(too_much));
        assert!(matches!(kind, LoadErrorKind::Resources { .. }), "{too_much}: {kind}");
    }
    assert!(matches!(refusal(&bench, &big("(memory 16)")), LoadErrorKind::Signature(_)));
}

#[test]
fn switched_off_proposals_do_not_compile() {
    let bench = bench();
    for code in [
        "(memory i64 1)",
        "(memory 1 2 shared)",
        "(tag $t) (func (throw $t))",
        "(type $s (struct)) (func (drop (struct.new $s)))",
    ] {
        let text = format!("(component (core module {code}))");
        assert!(matches!(refusal(&bench, &text), LoadErrorKind::Compile(_)), "{code}");
    }
}

#[test]
fn a_catalog_is_replaced_whole_and_calls_finish_on_the_old_one() {
    let bench = bench();
    let catalog = Catalog::new();
    assert!(catalog.get("p").is_none());
    let named = |fixture: &str| -> BTreeMap<String, Plugin> {
        [("p".to_owned(), bench.runtime.load(&PluginSpec { name: "p".to_owned(), ..spec(fixture) }).unwrap())].into()
    };
    catalog.replace_all(named("policy-allow"));
    let old = catalog.get("p").unwrap();
    let before = catalog.replace_all(named("policy-allow-list"));
    assert_eq!(before["p"].sha256(), old.sha256());
    assert_ne!(catalog.get("p").unwrap().sha256(), old.sha256());
    old.as_policy().unwrap().decide("{}", &request()).unwrap();
    assert_eq!(catalog.snapshot().len(), 1);
}

#[test]
fn options_out_of_range_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    for calls in [0, 5_000] {
        let options = RuntimeOptions {
            cache_dir: folder.path().join("cache"),
            limits: Limits::default(),
            max_concurrent_calls: calls,
            remember: true,
            snapshots: Snapshots::Off,
            watch: Arc::new(LogCompilations),
        };
        assert!(matches!(Runtime::new(options), Err(RuntimeError::Options(_))));
    }
}
