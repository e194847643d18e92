//! Every input that is kept, on its target: faults that were found once stay found.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::path::Path;

use jit_fuzz::{all, runner};

#[test]
fn the_whole_corpus_holds() {
    for target in all() {
        for input in runner::corpus(&runner::corpus_folder(target.name)).unwrap() {
            if let Err(said) = runner::run_one(target, &input) {
                panic!("{}: {said}\n{}", target.name, String::from_utf8_lossy(&input));
            }
        }
    }
}

#[test]
fn every_corpus_belongs_to_a_target() {
    let names: BTreeSet<&str> = all().iter().map(|target| target.name).collect();
    assert_eq!(names.len(), all().len(), "two targets have one name");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    for entry in std::fs::read_dir(folder).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(names.contains(name.as_str()), "no target reads fuzz/corpus/{name}");
    }
}
