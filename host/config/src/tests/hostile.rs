//! Files that nobody would write: told in a line or two, without a panic.

use std::path::Path;

use proptest::prelude::*;

use super::super::MAX_FILE;
use super::{BASE, Config, changed, parse};

fn load(content: &[u8]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("broker.toml");
    std::fs::write(&path, content).unwrap();
    Config::load(&path).unwrap_err().render(false)
}

#[test]
fn what_is_no_text_file_is_told_so() {
    assert!(load(&vec![b'#'; 10 * MAX_FILE]).contains("has more than 1048576 bytes"));
    assert!(load(b"[server]\nx = \"\xff\"").contains("line 2 has a byte that is not UTF-8"));
    let missing = Config::load(Path::new("/nowhere/broker.toml")).unwrap_err().render(false);
    assert!(missing.contains("there is no such file") && missing.contains("config example"), "{missing}");
    let folder = Config::load(tempfile::tempdir().unwrap().path()).unwrap_err().render(false);
    assert!(folder.contains("is a folder"), "{folder}");
    let device = Config::load(Path::new("/dev/zero")).unwrap_err().render(false);
    assert!(device.contains("is not a regular file"), "{device}");
}

#[test]
fn a_file_is_loaded_and_its_paths_begin_at_its_folder() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("broker.toml");
    std::fs::write(&path, BASE).unwrap();
    let config = Config::load(&path).unwrap();
    assert_eq!(config.plugins["postgres"].path, folder.path().join("plugins/driver-postgres.wasm"));
}

#[test]
fn control_characters_are_refused_and_do_not_reach_the_terminal() {
    for bad in ["\0", "\u{1b}[2J", "\u{7f}"] {
        let told = parse(&changed("\"cluster\"", &format!("\"clu{bad}ster\""))).unwrap_err().render(false);
        assert!(told.contains("broker.toml:8:") && !told.contains(bad), "{told:?}");
    }
    for escaped in ["\\u0000", "\\u001b", "\\n"] {
        let told = parse(&changed("plugins/driver-postgres.wasm", &format!("a{escaped}b"))).unwrap_err().render(false);
        assert!(told.contains("it must not have control characters"), "{told}");
    }
    let told = parse("\"a\\u001b[2J\\u202e\" = 1").unwrap_err().render(false);
    assert!(told.contains("unknown key `a\\u{1b}[2J") && !told.contains(['\u{1b}', '\u{202e}']), "{told:?}");
}

#[test]
fn depth_is_bounded() {
    for deep in [
        format!("x = {}1{}", "[".repeat(200_000), "]".repeat(200_000)),
        format!("x = {}", "[".repeat(500_000)),
        format!("x = {}", "{a=".repeat(200_000)),
        format!("{}x = 1", "a.".repeat(400_000)),
        format!("[{}x]", "a.".repeat(400_000)),
        format!("x = {}1{}", "{a=[".repeat(100_000), "]}".repeat(100_000)),
    ] {
        let told = parse(&deep).unwrap_err().render(false);
        assert!(told.starts_with("broker.toml:1:"), "{}", &told[..200]);
        assert!(told.len() < 100_000, "{} bytes of output", told.len());
    }
}

#[test]
fn a_plugin_gets_what_is_as_deep_as_the_reader_allows() {
    let deep = format!("config.x = {}1{}\n", "[".repeat(70), "]".repeat(70));
    let config = parse(&format!("{BASE}{deep}")).unwrap();
    assert!(config.targets["inventory_db"].config["x"][0][0][0].is_array());
}

#[test]
fn thousands_of_mistakes_are_counted_and_not_printed() {
    let text = (0..20_000).map(|i| format!("key{i} = {i}\n")).collect::<String>() + BASE;
    let errors = parse(&text).unwrap_err();
    assert_eq!(errors.problems().len(), 1_000);
    assert_eq!(errors.to_string(), "broker.toml: more than 1000 mistakes");
    let told = errors.render(false);
    assert!(told.contains("… and 19950 more") && told.len() < 40_000, "{}", told.len());
    // Warnings beyond the cap do not push an error out.
    let unused = (0..3_000).map(|i| format!("[plugins.p{i}]\npath = \"x\"\n")).collect::<String>();
    let config = parse(&format!("{BASE}{unused}")).unwrap();
    assert_eq!(config.warnings.len(), 1_000);
    parse(&format!("{BASE}{unused}path = 1\n[server.x]\n")).unwrap_err();
    let long = format!("{} = 1\n{BASE}", "k".repeat(500_000));
    assert!(parse(&long).unwrap_err().render(false).len() < 2_000);
    assert!(parse(&long).unwrap_err().render(true).len() < 4_000);
}

proptest! {
    #[test]
    fn no_text_panics_and_every_refusal_can_be_shown(text in "(\\[|\\]|\\{|\\}|=|\"|'|\\.|,|#|\n|\r\n| |a|server|targets|identity\\.jwt|password|url|://|@|:|1|é|😀|\u{1b}){0,60}") {
        if let Err(errors) = parse(&text) {
            prop_assert!(!errors.problems().is_empty());
            prop_assert!(!errors.render(true).is_empty() && !errors.render(false).is_empty());
        }
    }

    #[test]
    fn no_damage_to_a_good_file_panics(at in 0..BASE.len(), cut in 0_usize..40, put in "(\\[|\\]|\\{|\\}|=|\"|'|\\.|,|\n|a|1|é){0,4}") {
        let end = (at + cut).min(BASE.len());
        let text = format!("{}{put}{}", &BASE[..at], &BASE[end..]);
        if let Err(errors) = parse(&text) {
            prop_assert!(!errors.render(true).is_empty() && !errors.render(false).is_empty());
        }
    }
}
