//! The files that a configuration names.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::super::Severity;
use super::{BASE, Config};

fn write(folder: &Path, name: &str, mode: u32) {
    let path = folder.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, "x").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// A folder with the base's files, all as they should be.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, mode) in [
        ("data/audit.key", 0o600),
        ("secrets/inventory", 0o600),
        ("plugins/driver-postgres.wasm", 0o644),
        ("plugins/policy-allow-list.wasm", 0o644),
    ] {
        write(folder.path(), name, mode);
    }
    folder
}

fn config(folder: &Path, text: &str) -> Config {
    let file = folder.join("broker.toml");
    Config::parse(text, &file.display().to_string()).unwrap()
}

#[test]
fn files_that_are_there_and_kept_well_are_not_mentioned() {
    let folder = folder();
    assert!(config(folder.path(), BASE).check_files().unwrap().is_empty());
}

#[test]
fn what_is_not_there_is_told_with_its_line() {
    for (name, line) in [("plugins/driver-postgres.wasm", 14), ("secrets/inventory", 22), ("data/audit.key", 5)] {
        let folder = folder();
        std::fs::remove_file(folder.path().join(name)).unwrap();
        let errors = config(folder.path(), BASE).check_files().unwrap_err();
        assert_eq!(errors.problems().len(), 1);
        let told = errors.problems()[0].plain();
        assert!(
            told.contains(&format!("broker.toml:{line}:")) && told.contains(&format!("{name} is not there")),
            "{told}"
        );
        std::fs::create_dir(folder.path().join(name)).unwrap();
        let errors = config(folder.path(), BASE).check_files().unwrap_err();
        assert!(errors.problems()[0].message.ends_with("is not a regular file"), "{errors:?}");
    }
}

#[test]
fn others_may_not_read_the_signing_key_and_should_not_read_a_password() {
    for mode in [0o640, 0o604, 0o644, 0o620] {
        let folder = folder();
        write(folder.path(), "secrets/inventory", mode);
        let warnings = config(folder.path(), BASE).check_files().unwrap();
        assert_eq!(warnings.len(), 1);
        assert_eq!(warnings[0].severity, Severity::Warning);
        assert!(warnings[0].message.contains(&format!("(mode {mode:04o})")), "{}", warnings[0]);
        write(folder.path(), "data/audit.key", mode);
        let errors = config(folder.path(), BASE).check_files().unwrap_err();
        let severe: Vec<_> = errors.problems().iter().filter(|p| p.severity == Severity::Error).collect();
        assert_eq!(severe.len(), 1);
        assert!(severe[0].message.contains("audit.key") && severe[0].help.as_deref().unwrap().contains("chmod 600"));
    }
}

#[test]
fn tls_files_and_authorities_are_looked_at() {
    let folder = folder();
    write(folder.path(), "key.pem", 0o644);
    let text = BASE
        .replace("[server]\n", "[server]\ntls = { cert = \"cert.pem\", key = \"key.pem\" }\n")
        .replace("\"{sub}\"", "\"{sub}\"\nca = \"ca.pem\"");
    let errors = config(folder.path(), &text).check_files().unwrap_err();
    let told: Vec<_> =
        errors.problems().iter().map(|problem| (problem.severity, problem.place.as_ref().unwrap().line)).collect();
    assert_eq!(told, [(Severity::Error, 2), (Severity::Warning, 2), (Severity::Error, 13)], "{errors:?}");
}

#[test]
fn a_variable_that_is_not_set_here_is_a_warning() {
    let folder = folder();
    let text = BASE.replace("{ file = \"secrets/inventory\" }", "{ env = \"JIT_TEST_THIS_IS_NOT_SET\" }");
    let warnings = config(folder.path(), &text).check_files().unwrap();
    assert_eq!(warnings.len(), 1);
    assert!(warnings[0].message.contains("JIT_TEST_THIS_IS_NOT_SET is not set here"));
}

#[test]
fn a_broker_that_could_not_know_anybody_does_not_serve() {
    let folder = folder();
    let start = BASE.find("[[identity.jwt]]").unwrap();
    let end = BASE[start..].find("\n[plugins").or_else(|| BASE[start..].find("\n\n")).unwrap() + start;
    let text = format!("{}{}", &BASE[..start], &BASE[end..]);
    let errors = config(folder.path(), &text).check_files().unwrap_err().render(false);
    assert!(errors.contains("no identity"), "{errors}");
}
