//! Signed checkpoints of the audit log: a C2SP `tlog-checkpoint` in a C2SP `signed-note` with an
//! Ed25519 signature, so that tools of the transparency-log world can read and witness it.
//!
//! ```text
//! jit-broker/prod          origin: which log
//! 42                       how many records
//! GOk…=                    root of the Merkle tree over them, base64
//!
//! — jit-broker/prod x08go…=    key name, then base64 of key id (4 bytes) and signature
//! ```
//!
//! Trusted with: who holds the signing key can write a new history of the log. It cannot hide that
//! from somebody who kept an older checkpoint elsewhere.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use rand::Rng as _;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::merkle::Hash;

/// The longest signed note that is read, in bytes.
pub const MAX_NOTE: usize = 16 * 1024;
/// The most signatures on a note (ours and those of witnesses).
pub const MAX_SIGNATURES: usize = 32;
/// The longest origin, in bytes.
pub const MAX_ORIGIN: usize = 255;

/// The signature algorithm's byte in key ids and key texts: Ed25519.
const ED25519: u8 = 0x01;
/// What the line of a signing key file begins with.
const KEY_LABEL: &str = "jit-audit-key-v1:";

/// Why a note, checkpoint or key cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// Not a name of a log or key.
    #[error("the origin must have 1 to {MAX_ORIGIN} characters without spaces, '+' and control characters")]
    Origin,
    /// Not a signed note.
    #[error("not a signed note: {0}")]
    Note(&'static str),
    /// Not a checkpoint of a log.
    #[error("not a checkpoint: {0}")]
    Checkpoint(&'static str),
    /// Not a key text. What was there is not repeated: it may be a secret.
    #[error("not a key: expected {0}")]
    Key(&'static str),
    /// None of the signatures is by the key that is trusted.
    #[error("the checkpoint is not signed by the key {0}")]
    Unsigned(String),
    /// The signature does not fit the text: the checkpoint was altered.
    #[error("the signature of the key {0} does not fit: the checkpoint was altered")]
    Signature(String),
    /// A checkpoint of another log.
    #[error("the checkpoint belongs to the log {0:?}")]
    OtherLog(String),
}

/// Which log a checkpoint is about; also the name of the key that signs it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Origin(String);

impl Origin {
    /// Checks the text. By convention a schema-less URL or a path such as `jit-broker/prod`.
    ///
    /// # Errors
    /// [`NoteError::Origin`].
    pub fn new(text: impl Into<String>) -> Result<Self, NoteError> {
        let text = text.into();
        let plain = |c: char| !c.is_whitespace() && !c.is_control() && c != '+';
        if (1..=MAX_ORIGIN).contains(&text.len()) && text.chars().all(plain) {
            Ok(Self(text))
        } else {
            Err(NoteError::Origin)
        }
    }

    /// The origin as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What the log was at some size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// Which log.
    pub origin: Origin,
    /// How many records.
    pub size: u64,
    /// The Merkle tree's root over them.
    pub root: Hash,
}

impl Checkpoint {
    /// The text that is signed: three lines.
    #[must_use]
    pub fn body(&self) -> String {
        format!("{}\n{}\n{}\n", self.origin, self.size, STANDARD.encode(self.root.as_bytes()))
    }

    /// Reads the body. Extension lines are refused: this log writes none.
    fn from_body(body: &str) -> Result<Self, NoteError> {
        let body = body.strip_suffix('\n').ok_or(NoteError::Checkpoint("it does not end with a newline"))?;
        let mut lines = body.split('\n');
        let (Some(origin), Some(size), Some(root), None) = (lines.next(), lines.next(), lines.next(), lines.next())
        else {
            return Err(NoteError::Checkpoint("expected the three lines origin, size and root"));
        };
        let decimal =
            !size.is_empty() && size.bytes().all(|b| b.is_ascii_digit()) && (size == "0" || !size.starts_with('0'));
        let size = decimal.then(|| size.parse().ok()).flatten();
        let root = STANDARD.decode(root).ok().and_then(|root| Hash::from_slice(&root));
        Ok(Self {
            origin: Origin::new(origin)?,
            size: size.ok_or(NoteError::Checkpoint("the size is not a decimal number"))?,
            root: root.ok_or(NoteError::Checkpoint("the root is not the base64 of 32 bytes"))?,
        })
    }

    /// Reads a signed note **without checking any signature**: for where the note comes from a
    /// trusted place, or to say what it claims to be. Everything else uses [`VerifierKey::open`].
    ///
    /// # Errors
    /// [`NoteError`] when it is no checkpoint.
    pub fn read_unverified(note: &str) -> Result<Self, NoteError> {
        Self::from_body(split_note(note)?.0)
    }
}

/// Splits a note into its text (with the last newline) and its signature lines.
pub(crate) fn split_note(note: &str) -> Result<(&str, Vec<&str>), NoteError> {
    if note.len() > MAX_NOTE {
        return Err(NoteError::Note("it is too long"));
    }
    if note.chars().any(|c| c.is_control() && c != '\n') {
        return Err(NoteError::Note("it has control characters"));
    }
    let at = note.rfind("\n\n").ok_or(NoteError::Note("the empty line before the signatures is missing"))?;
    let (text, signatures) = (&note[..=at], &note[at + 2..]);
    let signatures = signatures.strip_suffix('\n').ok_or(NoteError::Note("it does not end with a newline"))?;
    let signatures: Vec<&str> = signatures.split('\n').collect();
    if signatures.len() > MAX_SIGNATURES {
        return Err(NoteError::Note("it has too many signatures"));
    }
    Ok((text, signatures))
}

/// One signature line: the key's name, its id, and the signature's bytes.
pub(crate) fn signature_line(line: &str) -> Result<(&str, [u8; 4], Vec<u8>), NoteError> {
    const WRONG: NoteError = NoteError::Note("a signature line is not '— name base64'");
    let (name, encoded) = line.strip_prefix("— ").and_then(|rest| rest.split_once(' ')).ok_or(WRONG)?;
    Origin::new(name).map_err(|_| WRONG)?;
    let bytes = STANDARD.decode(encoded).map_err(|_| WRONG)?;
    let (id, signature) = bytes.split_first_chunk::<4>().ok_or(WRONG)?;
    if signature.is_empty() {
        return Err(WRONG);
    }
    Ok((name, *id, signature.to_vec()))
}

/// The key that signs checkpoints. It is wiped from memory when dropped, and never printed.
pub struct LogKey(SigningKey);

impl fmt::Debug for LogKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LogKey(…)")
    }
}

impl LogKey {
    /// A new key.
    #[must_use]
    pub fn generate() -> Self {
        let mut seed = Zeroizing::new([0_u8; 32]);
        rand::rng().fill_bytes(seed.as_mut_slice());
        Self(SigningKey::from_bytes(&seed))
    }

    /// From the seed of RFC 8032.
    #[must_use]
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(SigningKey::from_bytes(seed))
    }

    /// From a key file's content: one line `jit-audit-key-v1:<base64 of the 32-byte seed>`.
    ///
    /// # Errors
    /// [`NoteError::Key`], which does not repeat the text.
    pub fn from_text(text: &str) -> Result<Self, NoteError> {
        const WRONG: NoteError = NoteError::Key("one line 'jit-audit-key-v1:' and the base64 of 32 bytes");
        let line = text.strip_suffix('\n').unwrap_or(text);
        line.strip_prefix(KEY_LABEL).and_then(Self::from_seed_text).ok_or(WRONG)
    }

    /// The key file's content.
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        Zeroizing::new(format!("{KEY_LABEL}{}\n", self.seed_text().as_str()))
    }

    /// A secret of this broker's own for another purpose, which tells nothing about the key: stable as long as
    /// the key is.
    #[must_use]
    pub fn derive(&self, purpose: &str) -> Zeroizing<[u8; 32]> {
        let mut hash = Sha256::new();
        hash.update(b"jit-broker derived secret v1");
        hash.update(self.0.as_bytes());
        hash.update(purpose.as_bytes());
        Zeroizing::new(hash.finalize().into())
    }

    /// What others need to check this key's signatures under that name.
    #[must_use]
    pub fn verifier(&self, origin: &Origin) -> VerifierKey {
        VerifierKey::new(origin.clone(), self.0.verifying_key())
    }

    /// Signs a checkpoint, under its origin's name.
    #[must_use]
    pub fn sign(&self, checkpoint: &Checkpoint) -> String {
        let body = checkpoint.body();
        format!("{body}\n{}\n", self.signature_of(&checkpoint.origin, &body))
    }

    /// The signature line of a note's text, under a name of the caller's. What the text may be is
    /// the caller's to keep apart: a checkpoint's first line never has a space.
    pub(crate) fn signature_of(&self, name: &Origin, text: &str) -> String {
        let mut bytes = key_id(name, &self.0.verifying_key()).to_vec();
        bytes.extend_from_slice(&self.0.sign(text.as_bytes()).to_bytes());
        format!("— {name} {}", STANDARD.encode(bytes))
    }

    /// The seed, in base64.
    pub(crate) fn seed_text(&self) -> Zeroizing<String> {
        Zeroizing::new(STANDARD.encode(Zeroizing::new(self.0.to_bytes()).as_slice()))
    }

    /// From the seed in base64; none where it is not one.
    pub(crate) fn from_seed_text(encoded: &str) -> Option<Self> {
        let encoded = Some(encoded).filter(|encoded| encoded.len() == 44)?;
        let seed = Zeroizing::new(STANDARD.decode(encoded).ok()?);
        let seed: Zeroizing<[u8; 32]> = Zeroizing::new(seed.as_slice().try_into().ok()?);
        Some(Self::from_seed(&seed))
    }
}

/// SHA-256 over name, newline, algorithm and key, cut to four bytes: it tells keys of one name
/// apart, no more.
fn key_id(name: &Origin, key: &VerifyingKey) -> [u8; 4] {
    let digest = Sha256::new()
        .chain_update(name.as_str())
        .chain_update([b'\n', ED25519])
        .chain_update(key.as_bytes())
        .finalize();
    [digest[0], digest[1], digest[2], digest[3]]
}

/// The public half, with its name: `name+<key id, hex>+<base64>`, as C2SP tools write it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifierKey {
    name: Origin,
    key: VerifyingKey,
    id: [u8; 4],
}

impl VerifierKey {
    fn new(name: Origin, key: VerifyingKey) -> Self {
        Self { id: key_id(&name, &key), name, key }
    }

    /// The key's name, which is the log's origin.
    #[must_use]
    pub fn origin(&self) -> &Origin {
        &self.name
    }

    /// The name and the key's id, which tells keys of one name apart.
    #[must_use]
    pub fn label(&self) -> String {
        format!("{}+{}", self.name, hex::encode(self.id))
    }

    /// Whether one of the signature lines is this key's, and right. Those of others are only looked at
    /// for their form.
    ///
    /// # Errors
    /// [`NoteError::Note`] for a line that is none; [`NoteError::Signature`] when one says that it is
    /// this key's and is not of this text.
    pub(crate) fn signed(&self, text: &str, signatures: &[&str]) -> Result<bool, NoteError> {
        let mut signed = false;
        for line in signatures {
            let (name, id, signature) = signature_line(line)?;
            if name != self.name.as_str() || id != self.id {
                continue;
            }
            let wrong = |_| NoteError::Signature(self.name.to_string());
            let signature = Signature::from_slice(&signature).map_err(wrong)?;
            self.key.verify_strict(text.as_bytes(), &signature).map_err(wrong)?;
            signed = true;
        }
        Ok(signed)
    }

    /// Checks that this key signed the note and gives the checkpoint in it. Signatures of others
    /// (witnesses) are not looked at.
    ///
    /// # Errors
    /// [`NoteError`]: no note, not signed by this key, altered, or of another log.
    pub fn open(&self, note: &str) -> Result<Checkpoint, NoteError> {
        let (text, signatures) = split_note(note)?;
        if !self.signed(text, &signatures)? {
            return Err(NoteError::Unsigned(self.to_string()));
        }
        let checkpoint = Checkpoint::from_body(text)?;
        if checkpoint.origin != self.name {
            return Err(NoteError::OtherLog(checkpoint.origin.to_string()));
        }
        Ok(checkpoint)
    }
}

impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = vec![ED25519];
        bytes.extend_from_slice(self.key.as_bytes());
        write!(f, "{}+{}+{}", self.name, hex::encode(self.id), STANDARD.encode(bytes))
    }
}

impl FromStr for VerifierKey {
    type Err = NoteError;

    fn from_str(text: &str) -> Result<Self, NoteError> {
        const WRONG: NoteError = NoteError::Key("a verifier key 'name+<8 hex digits>+<base64>'");
        if text.len() > MAX_ORIGIN + 80 {
            return Err(WRONG);
        }
        let mut parts = text.trim_end_matches('\n').splitn(3, '+');
        let (Some(name), Some(id), Some(encoded)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(WRONG);
        };
        let bytes = STANDARD.decode(encoded).map_err(|_| WRONG)?;
        let Some((&ED25519, key)) = bytes.split_first() else { return Err(WRONG) };
        let key: [u8; 32] = key.try_into().map_err(|_| WRONG)?;
        let key = Self::new(Origin::new(name)?, VerifyingKey::from_bytes(&key).map_err(|_| WRONG)?);
        // The id is of the name and key: it shows a slip of the pen.
        if hex::encode(key.id) == id { Ok(key) } else { Err(WRONG) }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    /// The example of the Go project's `golang.org/x/mod/sumdb/note`, made by its own code.
    const GO_VERIFIER: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
    const GO_SEED: &str = "AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz";
    const GO_NOTE: &str = "If you think cryptography is the answer to your problem,\n\
        then you don't know what your problem is.\n\n\
        — PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";

    fn example() -> Checkpoint {
        Checkpoint { origin: Origin::new("jit-broker/test").unwrap(), size: 42, root: Hash::of_leaf(b"root") }
    }

    #[test]
    fn keys_and_signatures_are_those_of_go() {
        let seed = STANDARD.decode(GO_SEED).unwrap();
        let key = LogKey::from_seed(seed[1..].try_into().unwrap());
        let name = Origin::new("PeterNeumann").unwrap();
        let verifier = key.verifier(&name);
        assert_eq!(verifier.to_string(), GO_VERIFIER);
        assert_eq!(GO_VERIFIER.parse::<VerifierKey>(), Ok(verifier.clone()));
        let (text, signatures) = split_note(GO_NOTE).unwrap();
        let signature = key.0.sign(text.as_bytes());
        let (line_name, id, bytes) = signature_line(signatures[0]).unwrap();
        assert_eq!((line_name, id), ("PeterNeumann", verifier.id));
        assert_eq!(bytes, signature.to_bytes());
        // The signature holds, and what it signs is no checkpoint.
        assert!(matches!(verifier.open(GO_NOTE), Err(NoteError::Checkpoint(_))));
        let bent = GO_NOTE.replace("answer", "Answer");
        assert!(matches!(verifier.open(&bent), Err(NoteError::Signature(_))));
    }

    #[test]
    fn signs_what_it_opens() {
        let key = LogKey::generate();
        let verifier = key.verifier(&example().origin);
        let note = key.sign(&example());
        assert_eq!(verifier.open(&note), Ok(example()));
        assert_eq!(Checkpoint::read_unverified(&note), Ok(example()));
        assert!(note.starts_with("jit-broker/test\n42\n"), "{note}");
    }

    #[test]
    fn a_witness_may_sign_too_and_a_stranger_alone_may_not() {
        let (key, witness) = (LogKey::generate(), LogKey::generate());
        let verifier = key.verifier(&example().origin);
        let (own, other) = (key.sign(&example()), witness.sign(&example()));
        let line = other.lines().last().unwrap();
        assert_eq!(verifier.open(&format!("{own}{line}\n")), Ok(example()));
        assert!(matches!(verifier.open(&other), Err(NoteError::Unsigned(_))));
        // The same name with another key's id does not pass for ours.
        assert!(matches!(witness.verifier(&example().origin).open(&own), Err(NoteError::Unsigned(_))));
    }

    #[test]
    fn another_log_of_the_same_key_is_not_this_one() {
        let key = LogKey::generate();
        let other = Checkpoint { origin: Origin::new("jit-broker/other").unwrap(), ..example() };
        // Signed under our name, but the text is about another log.
        let signature = key.0.sign(other.body().as_bytes());
        let verifier = key.verifier(&example().origin);
        let mut bytes = verifier.id.to_vec();
        bytes.extend_from_slice(&signature.to_bytes());
        let note = format!("{}\n— {} {}\n", other.body(), example().origin, STANDARD.encode(bytes));
        assert_eq!(verifier.open(&note), Err(NoteError::OtherLog("jit-broker/other".into())));
    }

    #[test]
    fn malformed_notes_are_refused() {
        let key = LogKey::generate();
        let verifier = key.verifier(&example().origin);
        let good = key.sign(&example());
        let root = STANDARD.encode(example().root.as_bytes());
        let body = |text: &str| {
            let signature = key.0.sign(text.as_bytes());
            let mut bytes = verifier.id.to_vec();
            bytes.extend_from_slice(&signature.to_bytes());
            format!("{text}\n— jit-broker/test {}\n", STANDARD.encode(bytes))
        };
        let bad = [
            String::new(),
            "\n\n".to_owned(),
            good.trim_end().to_owned(),
            good.replace("\n\n", "\n"),
            good.replace('—', "-"),
            good.replace("42", "4\r2"),
            format!("{good}— x\n"),
            format!("{good}\n"),
            format!("{good}{}", "— a b\n".repeat(MAX_SIGNATURES)),
            format!("{}{good}", "a".repeat(MAX_NOTE)),
            body(&format!("jit-broker/test\n042\n{root}\n")),
            body(&format!("jit-broker/test\n-1\n{root}\n")),
            body(&format!("jit-broker/test\n+1\n{root}\n")),
            body(&format!("jit-broker/test\n99999999999999999999\n{root}\n")),
            body(&format!("jit-broker/test\n\n{root}\n")),
            body("jit-broker/test\n42\nAAAA\n"),
            body(&format!("jit-broker/test\n42\n{root}\nextension\n")),
            body("jit-broker/test\n42\n"),
        ];
        for note in bad {
            assert!(verifier.open(&note).is_err(), "{note:?}");
        }
    }

    #[test]
    fn key_texts_are_strict_and_silent() {
        let key = LogKey::generate();
        let text = key.to_text();
        assert_eq!(LogKey::from_text(&text).unwrap().0.to_bytes(), key.0.to_bytes());
        assert!(!format!("{key:?}").contains(&text[KEY_LABEL.len()..text.len() - 1]));
        for bad in ["", "jit-audit-key-v1:", "jit-audit-key-v1:AAAA", &text[1..], &format!("{}x", text.as_str())] {
            let error = LogKey::from_text(bad).unwrap_err();
            assert!(bad.len() < 30 || !error.to_string().contains(bad), "{error}");
        }
        for bad in [
            "",
            "a+b",
            "a+00000000+AAAA",
            &GO_VERIFIER.replace("c74f20a3", "c74f20a4"),
            &GO_VERIFIER.replace("Peter", "Pet er"),
        ] {
            assert!(bad.parse::<VerifierKey>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_changed_byte_goes_unnoticed(at in 0_usize..47, to in any::<u8>()) {
            let key = LogKey::from_seed(&[7; 32]);
            let note = key.sign(&example());
            let mut bytes = note.clone().into_bytes();
            prop_assume!(bytes[at] != to);
            bytes[at] = to;
            if let Ok(bent) = String::from_utf8(bytes) {
                prop_assert!(key.verifier(&example().origin).open(&bent).is_err(), "{}", bent);
            }
        }

        #[test]
        fn arbitrary_text_never_panics(text in "(.|\n){0,300}") {
            let key = LogKey::from_seed(&[7; 32]);
            prop_assert!(key.verifier(&example().origin).open(&text).is_err());
            prop_assert!(text.parse::<VerifierKey>().is_err());
            prop_assert!(LogKey::from_text(&text).is_err());
        }
    }
}
