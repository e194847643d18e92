//! Who vouches for a component, and what is loaded again.

#![allow(clippy::unwrap_used, reason = "tests")]

mod fixtures;

use std::path::{Path, PathBuf};

use fixtures::{Bench, bench, fixture, request, spec};
use jit_files::{open_regular, signature_path};
use jit_runtime::file::SignatureFileError;
use jit_runtime::{Grant, LoadErrorKind, Plugin, PluginKind, PluginSpec, Terms};
use jit_tlog::checkpoint::{Origin, VerifierKey};
use jit_tlog::signature::{MAX_SIGNATURE_FILE, PluginKey, SignatureError, SignatureFile};

fn key(name: &str) -> PluginKey {
    PluginKey::generate(Origin::new(name).unwrap())
}

/// Signs the file as it is now.
fn sign(component: &Path, keys: &[&PluginKey]) {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &std::fs::read(component).unwrap());
    let mut signatures = SignatureFile::new(&hex::encode(digest)).unwrap();
    keys.iter().for_each(|key| signatures.sign(key).unwrap());
    std::fs::write(signature_path(component), signatures.to_string()).unwrap();
}

/// A copy of a fixture in the bench's folder, to be signed there.
fn copy(bench: &Bench, name: &str) -> PathBuf {
    let path = bench.folder.path().join(format!("{name}.wasm"));
    std::fs::copy(fixture(name), &path).unwrap();
    path
}

fn load(bench: &Bench, path: &Path, trusted: &[VerifierKey]) -> Result<Plugin, LoadErrorKind> {
    let spec = PluginSpec { path: path.to_owned(), ..spec("policy-allow") };
    let terms = Terms { trusted: Some(trusted), ..Terms::default() };
    bench.runtime.load_on(&spec, terms).map_err(|error| error.kind)
}

#[test]
fn every_kind_needs_a_signature_of_a_trusted_key() {
    let bench = bench();
    let (team, stranger) = (key("team"), key("stranger"));
    let trusted = [team.verifier()];
    for (name, kind) in [
        ("policy-allow", PluginKind::Policy),
        ("context-facts", PluginKind::Context),
        ("driver-noop", PluginKind::Driver),
    ] {
        let path = copy(&bench, name);
        let unsigned = load(&bench, &path, &trusted).unwrap_err();
        assert!(matches!(unsigned, LoadErrorKind::Unsigned { .. }), "{unsigned}");
        assert!(unsigned.to_string().contains("jit-broker plugin sign"), "{unsigned}");
        sign(&path, &[&stranger]);
        let refused = load(&bench, &path, &trusted).unwrap_err();
        assert!(refused.to_string().contains(&stranger.verifier().label()), "{refused}");
        sign(&path, &[&stranger, &team]);
        let plugin = load(&bench, &path, &trusted).unwrap();
        assert_eq!((plugin.kind(), plugin.signed_by()), (kind, &[team.verifier().label()][..]));
        assert!(load(&bench, &path, &[]).is_err(), "nobody is trusted");
    }
}

#[test]
fn nothing_is_interpreted_before_somebody_vouches_for_it() {
    let bench = bench();
    let team = key("team");
    let trusted = [team.verifier()];
    // Each would be told apart by its first bytes, if these were looked at.
    for bytes in [b"MZ".to_vec(), wat::parse_str("(module)").unwrap(), b"\0asm\x0d\0\x01\0junk".to_vec()] {
        let path = bench.folder.path().join("written.wasm");
        let _ = std::fs::remove_file(signature_path(&path));
        std::fs::write(&path, &bytes).unwrap();
        assert!(matches!(load(&bench, &path, &trusted), Err(LoadErrorKind::Unsigned { .. })));
        sign(&path, &[&team]);
        let looked_at = load(&bench, &path, &trusted).unwrap_err();
        let named = matches!(looked_at, LoadErrorKind::NotWasm | LoadErrorKind::CoreModule | LoadErrorKind::Compile(_));
        assert!(named, "{looked_at}");
    }
}

#[test]
fn a_compiled_copy_does_not_stand_in_for_a_signature() {
    let bench = bench();
    let team = key("team");
    let trusted = [team.verifier()];
    let path = copy(&bench, "policy-allow");
    // It is in the cache now.
    bench.runtime.load(&PluginSpec { path: path.clone(), ..spec("policy-allow") }).unwrap();
    assert!(matches!(load(&bench, &path, &trusted), Err(LoadErrorKind::Unsigned { .. })));
    sign(&path, &[&team]);
    load(&bench, &path, &trusted).unwrap();
    // Other bytes under a good signature; both are in the cache.
    bench.load("policy-hostile");
    std::fs::copy(fixture("policy-hostile"), &path).unwrap();
    let altered = load(&bench, &path, &trusted).unwrap_err();
    let other =
        |error: &SignatureFileError| matches!(error, SignatureFileError::Signature(SignatureError::OtherBytes { .. }));
    assert!(matches!(&altered, LoadErrorKind::NotVouched { error, .. } if other(error)), "{altered}");
}

#[test]
fn what_is_no_signature_file_is_refused_at_once() {
    let bench = bench();
    let team = key("team");
    let trusted = [team.verifier()];
    let path = copy(&bench, "policy-allow");
    let beside = signature_path(&path);
    sign(&path, &[&team]);
    let good = std::fs::read(&beside).unwrap();
    for bad in [Vec::new(), b"\xff\xfe".to_vec(), vec![b'a'; MAX_SIGNATURE_FILE + 1], good[1..].to_vec()] {
        std::fs::write(&beside, &bad).unwrap();
        let refused = load(&bench, &path, &trusted).unwrap_err();
        assert!(matches!(refused, LoadErrorKind::NotVouched { .. }), "{refused}");
    }
    std::fs::remove_file(&beside).unwrap();
    std::fs::create_dir(&beside).unwrap();
    assert!(matches!(load(&bench, &path, &trusted), Err(LoadErrorKind::NotVouched { .. })));
    std::fs::remove_dir(&beside).unwrap();
    // A pipe that nobody writes to: neither the component nor its signature waits for it.
    let pipe = |path: &Path| {
        assert!(std::process::Command::new("mkfifo").arg(path).status().unwrap().success());
        assert!(open_regular(path).is_err());
    };
    pipe(&beside);
    assert!(matches!(load(&bench, &path, &trusted), Err(LoadErrorKind::NotVouched { .. })));
    std::fs::remove_file(&path).unwrap();
    pipe(&path);
    assert!(matches!(load(&bench, &path, &trusted), Err(LoadErrorKind::Read(_))));
    // A link to a regular file is one.
    for path in [&path, &beside] {
        std::fs::remove_file(path).unwrap();
    }
    std::fs::write(bench.folder.path().join("elsewhere.sig"), &good).unwrap();
    std::os::unix::fs::symlink("elsewhere.sig", &beside).unwrap();
    std::os::unix::fs::symlink(fixture("policy-allow"), &path).unwrap();
    load(&bench, &path, &trusted).unwrap();
}

#[test]
fn what_has_not_changed_is_not_loaded_again() {
    let bench = bench();
    let (old, new) = (key("old"), key("new"));
    let path = copy(&bench, "policy-allow");
    let spec = PluginSpec { path: path.clone(), ..spec("policy-allow") };
    let first = bench.runtime.load(&spec).unwrap();
    let again = |spec: &PluginSpec, trusted: Option<&[VerifierKey]>, serving: &Plugin| {
        bench.runtime.load_on(spec, Terms { trusted, serving: Some(serving) }).unwrap()
    };
    assert!(again(&spec, None, &first).is_same(&first));
    let granted = PluginSpec { grants: Some(vec![Grant::Log]), ..spec.clone() };
    assert!(!again(&granted, None, &first).is_same(&first));
    let renamed = PluginSpec { name: "other".to_owned(), ..spec.clone() };
    assert_eq!(again(&renamed, None, &first).name(), "other");
    let other = fixtures::bench();
    assert!(!other.runtime.load_on(&spec, Terms { serving: Some(&first), trusted: None }).unwrap().is_same(&first));

    // Who vouches for it is part of what it is.
    sign(&path, &[&old, &new]);
    let trusted = [old.verifier(), new.verifier()];
    let vouched = again(&spec, Some(&trusted), &first);
    assert!(!vouched.is_same(&first));
    assert_eq!(vouched.signed_by(), [old.verifier().label(), new.verifier().label()]);
    assert!(again(&spec, Some(&trusted), &vouched).is_same(&vouched));
    let rotated = again(&spec, Some(&trusted[1..]), &vouched);
    assert_eq!(rotated.signed_by(), [new.verifier().label()]);

    std::fs::copy(fixture("policy-allow-list"), &path).unwrap();
    let replaced = again(&spec, None, &rotated);
    assert_ne!(replaced.sha256(), rotated.sha256());
    // What serves goes on, whatever became of its file.
    rotated.as_policy().unwrap().decide("{}", &request()).unwrap();
}
