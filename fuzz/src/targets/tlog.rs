//! The tamper-evident log: whoever changes a note or a proof is noticed.

use std::sync::LazyLock;

use jit_tlog::checkpoint::{Checkpoint, LogKey, Origin};
use jit_tlog::merkle::{CompactRange, Hash, root};
use jit_tlog::signature::{PluginKey, SignatureFile};

use super::Target;

const TOKENS: &[&str] = &["\n", "\n\n", "— ", "+", "=", "AAAA", "log.example", "0", "01", "\r", " ", "\t", "\u{2014}"];
/// The most leaves of a tree that is compared with the definition.
const MAX_LEAVES: usize = 200;

/// Signed once: signing is slow in a debug build.
static SIGNED: LazyLock<(LogKey, Checkpoint, String)> = LazyLock::new(|| {
    let key = LogKey::from_seed(&[7; 32]);
    let origin = Origin::new("log.example/broker").expect("a valid origin");
    let checkpoint = Checkpoint { origin, size: 1234, root: Hash::of_leaf(b"a record") };
    let note = key.sign(&checkpoint);
    (key, checkpoint, note)
});

/// Notes of anybody.
pub(super) const NOTE: Target = Target {
    name: "note",
    about: "a checkpoint that was read is written as it was read, and a note of a stranger does not verify",
    tokens: TOKENS,
    run: |input| {
        let (key, checkpoint, _) = &*SIGNED;
        let text = input.text();
        if let Ok(read) = Checkpoint::read_unverified(&text) {
            let body = read.body();
            assert!(text.starts_with(&body), "{text:?} was read as {body:?}");
            let signed = key.sign(&read);
            assert_eq!(Checkpoint::read_unverified(&signed), Ok(read), "{body:?} does not read back");
        }
        // Only our own note verifies; it is in the corpus.
        if let Ok(opened) = key.verifier(&checkpoint.origin).open(&text) {
            assert_eq!(&opened, checkpoint, "a note that nobody signed verifies: {text:?}");
        }
    },
};

/// Our own note with changes.
pub(super) const TAMPERED: Target = Target {
    name: "note_tampered",
    about: "a signed note that was changed does not verify, or says the same",
    tokens: TOKENS,
    run: |input| {
        let (key, checkpoint, note) = &*SIGNED;
        let [place, with] = input.parts();
        let place = place.bytes().fold(0_usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(usize::from(byte)));
        let at = note.floor_char_boundary(place % (note.len() + 1));
        let end = note.ceil_char_boundary((at + with.len() % 8).min(note.len()));
        let changed = format!("{}{with}{}", &note[..at], &note[end..]);
        if let Ok(opened) = key.verifier(&checkpoint.origin).open(&changed) {
            assert_eq!(&opened, checkpoint, "verifies and says something else: {changed:?}");
        }
        let stranger = LogKey::from_seed(&[8; 32]).verifier(&checkpoint.origin);
        assert!(stranger.open(&changed).is_err(), "verifies with another key: {changed:?}");
    },
};

/// Trees of records.
pub(super) const TREE: Target = Target {
    name: "merkle",
    about: "the root that is kept up to date is the one of the definition, and goes on after a restart",
    tokens: TOKENS,
    run: |input| {
        let leaves: Vec<Hash> =
            input.bytes().split(|byte| *byte == b'\n').take(MAX_LEAVES).map(Hash::of_leaf).collect();
        let mut range = CompactRange::new();
        for (index, leaf) in leaves.iter().enumerate() {
            range.push(*leaf);
            // Stored and read again, at some place.
            if index % 7 == input.bytes().len() % 7 {
                range = CompactRange::from_parts(range.size(), range.nodes().to_vec()).expect("it was stored");
            }
        }
        assert_eq!(range.root(), root(&leaves), "of {} leaves", leaves.len());
        if let Some((last, others)) = leaves.split_last() {
            let mut changed = others.to_vec();
            changed.push(Hash::of_leaf(last.as_bytes()));
            assert_ne!(root(&changed), range.root(), "another last record has the same root");
            assert_ne!(root(others), range.root(), "a removed record is not noticed");
        }
    },
};

/// Files that vouch for a plugin.
pub(super) const PLUGIN_SIGNATURE: Target = Target {
    name: "plugin_signature",
    about: "a signature file reads back as written and vouches for no other bytes",
    tokens: TOKENS,
    run: |input| {
        let text = input.text();
        let Ok(file) = SignatureFile::parse(&text) else { return };
        let again = SignatureFile::parse(&file.to_string()).expect("what it wrote itself");
        assert_eq!(again.to_string(), file.to_string());
        let trusted = PluginKey::generate(Origin::new("somebody.example").expect("a valid name")).verifier();
        assert!(file.verify(file.sha256(), &[trusted]).is_err(), "a new key never signed {text:?}");
    },
};

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::{Input, runner};

    /// Without it, no changed input would ever come near a note that verifies.
    #[test]
    fn the_corpus_holds_the_note_that_verifies() {
        let note = &SIGNED.2;
        let corpus = runner::corpus(&runner::corpus_folder(NOTE.name)).unwrap();
        assert!(corpus.iter().any(|input| input == note.as_bytes()), "fuzz/corpus/note/own must be\n{note}");
    }

    #[test]
    fn the_corpus_holds_a_signature_file() {
        let corpus = runner::corpus(&runner::corpus_folder(PLUGIN_SIGNATURE.name)).unwrap();
        let mut file = SignatureFile::new(&"ab".repeat(32)).unwrap();
        file.sign(&PluginKey::generate(Origin::new("security.example").unwrap())).unwrap();
        let parses = |input: &Vec<u8>| SignatureFile::parse(&Input::new(input).text()).is_ok();
        assert!(corpus.iter().any(parses), "fuzz/corpus/plugin_signature needs a file such as\n{file}");
    }
}
