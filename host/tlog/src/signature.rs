//! Signatures of plugins: who vouches for the bytes of a component.
//!
//! A signature stands in a text file of its own, in the same C2SP `signed-note` form as the audit
//! log's checkpoints:
//!
//! ```text
//! jit-broker plugin v1                 what is said, so that it cannot be taken for anything else
//! sha256 2c26b46b…                     of which bytes
//!
//! — security-team x08go…=              key name, then base64 of key id (4 bytes) and signature
//! — security-team-2027 9fQ1a…=         more may follow: keys are changed by signing with both
//! ```
//!
//! Trusted with: who holds a trusted key can have any component loaded. The text says nothing of a
//! plugin's name or version: an older component that was signed stays signed (pin its digest where
//! that matters).

use std::fmt;

use zeroize::Zeroizing;

use crate::checkpoint::{LogKey, MAX_NOTE, MAX_SIGNATURES, NoteError, Origin, VerifierKey};
use crate::checkpoint::{signature_line, split_note};

/// The longest signature file, in bytes.
pub const MAX_SIGNATURE_FILE: usize = MAX_NOTE;

/// The first line of what is signed. It has spaces, so it is no log's origin, and no checkpoint can
/// be taken for a plugin's signature or the other way round.
const STATEMENT: &str = "jit-broker plugin v1";
/// What the line of a signing key's file begins with.
const KEY_LABEL: &str = "jit-plugin-key-v1:";

/// Why nobody who is trusted vouches for a component. Each says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// Not a signature file.
    #[error("is not a plugin's signature ({0}): sign the component again with `jit-broker plugin sign`")]
    Format(NoteError),
    /// A signed note about something else.
    #[error("is signed, but not as a plugin's signature: sign the component again with `jit-broker plugin sign`")]
    Statement,
    /// None of the signatures is by a key that is trusted.
    #[error(
        "is signed by {signers}, and none of these keys is trusted: sign with one that is, or add theirs to \
         trusted_keys of [plugins] if you know whose it is"
    )]
    Stranger {
        /// The keys' names and ids, as the file has them.
        signers: String,
    },
    /// A signature that a trusted key is said to have made, and has not.
    #[error(
        "has a signature by {0} that does not verify: the file was altered; do not use the component before you know why"
    )]
    Altered(String),
    /// The signature is good, and is of other bytes.
    #[error(
        "vouches for the digest {signed}, but the component has {actual}: it was altered or rebuilt; if you did \
         that, sign it again"
    )]
    OtherBytes {
        /// What was signed.
        signed: String,
        /// What is there.
        actual: String,
    },
}

/// Who signed which bytes, not yet verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignatureFile {
    sha256: String,
    lines: Vec<String>,
}

impl SignatureFile {
    /// Nobody has signed yet. `sha256` is the component's digest in lower-case hexadecimal.
    ///
    /// # Errors
    /// [`SignatureError::Statement`] when it is no such digest.
    pub fn new(sha256: &str) -> Result<Self, SignatureError> {
        let plain = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        if sha256.len() != 64 || !sha256.bytes().all(plain) {
            return Err(SignatureError::Statement);
        }
        Ok(Self { sha256: sha256.to_owned(), lines: Vec::new() })
    }

    /// Reads the file's content. Verifies nothing.
    ///
    /// # Errors
    /// [`SignatureError::Format`] or [`SignatureError::Statement`].
    pub fn parse(text: &str) -> Result<Self, SignatureError> {
        let (body, lines) = split_note(text).map_err(SignatureError::Format)?;
        for line in &lines {
            signature_line(line).map_err(SignatureError::Format)?;
        }
        let digest = body.strip_prefix(STATEMENT).and_then(|rest| rest.strip_prefix("\nsha256 "));
        let digest = digest.and_then(|rest| rest.strip_suffix('\n')).ok_or(SignatureError::Statement)?;
        Ok(Self { lines: lines.into_iter().map(str::to_owned).collect(), ..Self::new(digest)? })
    }

    /// The digest that is vouched for.
    #[must_use]
    pub fn sha256(&self) -> &str {
        &self.sha256
    }

    /// Whose signatures these are said to be: names and ids of keys.
    #[must_use]
    pub fn signers(&self) -> Vec<String> {
        let label =
            |line: &String| signature_line(line).ok().map(|(name, id, _)| format!("{name}+{}", hex::encode(id)));
        self.lines.iter().filter_map(label).collect()
    }

    /// Adds a signature; one of the same key before is replaced.
    ///
    /// # Errors
    /// [`SignatureError::Format`] when there is no room for another.
    pub fn sign(&mut self, key: &PluginKey) -> Result<(), SignatureError> {
        let line = key.key.signature_of(&key.name, &self.statement());
        let own = key.verifier().label();
        let others = self.lines.iter().zip(self.signers()).filter(|(_, signer)| *signer != own);
        let mut lines: Vec<String> = others.map(|(line, _)| line.clone()).collect();
        if lines.len() >= MAX_SIGNATURES {
            return Err(SignatureError::Format(NoteError::Note("it has too many signatures")));
        }
        lines.push(line);
        self.lines = lines;
        Ok(())
    }

    /// Checks that a trusted key vouches for these bytes, and gives the labels of all trusted keys
    /// that do, in the order of `trusted`.
    ///
    /// # Errors
    /// [`SignatureError`].
    pub fn verify(&self, sha256: &str, trusted: &[VerifierKey]) -> Result<Vec<String>, SignatureError> {
        let statement = self.statement();
        let lines: Vec<&str> = self.lines.iter().map(String::as_str).collect();
        let mut vouchers = Vec::new();
        for key in trusted {
            match key.signed(&statement, &lines) {
                Ok(true) => vouchers.push(key.label()),
                Ok(false) => {}
                Err(NoteError::Signature(_)) => return Err(SignatureError::Altered(key.label())),
                Err(error) => return Err(SignatureError::Format(error)),
            }
        }
        if vouchers.is_empty() {
            return Err(SignatureError::Stranger { signers: self.signers().join(", ") });
        }
        if self.sha256 != sha256 {
            return Err(SignatureError::OtherBytes { signed: self.sha256.clone(), actual: sha256.to_owned() });
        }
        Ok(vouchers)
    }

    /// What is signed.
    fn statement(&self) -> String {
        format!("{STATEMENT}\nsha256 {}\n", self.sha256)
    }
}

/// The file's content.
impl fmt::Display for SignatureFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.statement())?;
        self.lines.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

/// A key that signs plugins, with its name. It is wiped from memory when dropped, and never printed.
pub struct PluginKey {
    name: Origin,
    key: LogKey,
}

impl fmt::Debug for PluginKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PluginKey({}, …)", self.name)
    }
}

impl PluginKey {
    /// A new key of that name.
    #[must_use]
    pub fn generate(name: Origin) -> Self {
        Self { name, key: LogKey::generate() }
    }

    /// From a key file's content: one line `jit-plugin-key-v1:<name>:<base64 of the 32-byte seed>`.
    /// The key of an audit log is none: each has its own purpose.
    ///
    /// # Errors
    /// [`NoteError::Key`], which does not repeat the text.
    pub fn from_text(text: &str) -> Result<Self, NoteError> {
        const WRONG: NoteError =
            NoteError::Key("one line 'jit-plugin-key-v1:', the key's name, ':' and the base64 of 32 bytes");
        let line = text.strip_suffix('\n').unwrap_or(text);
        let (name, seed) = line.strip_prefix(KEY_LABEL).and_then(|rest| rest.rsplit_once(':')).ok_or(WRONG)?;
        let name = Origin::new(name).map_err(|_| WRONG)?;
        Ok(Self { name, key: LogKey::from_seed_text(seed).ok_or(WRONG)? })
    }

    /// The key file's content.
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        Zeroizing::new(format!("{KEY_LABEL}{}:{}\n", self.name, self.key.seed_text().as_str()))
    }

    /// Whether a text is, or begins like, such a key: where only the public half may stand, it must
    /// not be shown.
    #[must_use]
    pub fn looks_like_one(text: &str) -> bool {
        text.trim_start().starts_with("jit-plugin-key")
    }

    /// What others need to check this key's signatures.
    #[must_use]
    pub fn verifier(&self) -> VerifierKey {
        self.key.verifier(&self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::Checkpoint;
    use crate::merkle::Hash;
    use proptest::prelude::*;

    const DIGEST: &str = "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae";
    const OTHER: &str = "fcde2b2edba56bf408601fb721fe9b5c338d10ee429ea04fae5511b68fbf8fb9";

    fn key(name: &str) -> PluginKey {
        PluginKey::generate(Origin::new(name).unwrap())
    }

    fn signed(keys: &[&PluginKey]) -> SignatureFile {
        let mut file = SignatureFile::new(DIGEST).unwrap();
        keys.iter().for_each(|key| file.sign(key).unwrap());
        SignatureFile::parse(&file.to_string()).unwrap()
    }

    #[test]
    fn a_trusted_key_vouches_for_exactly_these_bytes() {
        let (team, stranger) = (key("security-team"), key("stranger"));
        let file = signed(&[&team]);
        assert_eq!(file.verify(DIGEST, &[team.verifier()]), Ok(vec![team.verifier().label()]));
        let other = file.verify(OTHER, &[team.verifier()]).unwrap_err();
        assert!(matches!(other, SignatureError::OtherBytes { .. }), "{other}");
        for trusted in [vec![], vec![stranger.verifier()]] {
            let error = file.verify(DIGEST, &trusted).unwrap_err();
            assert_eq!(error, SignatureError::Stranger { signers: team.verifier().label() });
        }
        // The same name does not make it the same key.
        let namesake = key("security-team");
        assert!(matches!(file.verify(DIGEST, &[namesake.verifier()]), Err(SignatureError::Stranger { .. })));
        assert!(matches!(
            SignatureFile::new(DIGEST).unwrap().verify(DIGEST, &[]),
            Err(SignatureError::Stranger { .. })
        ));
    }

    #[test]
    fn keys_are_changed_by_signing_with_both() {
        let (old, new) = (key("team"), key("team-2"));
        let both = signed(&[&old, &new]);
        let (old_label, new_label) = (old.verifier().label(), new.verifier().label());
        assert_eq!(both.signers(), [old_label.clone(), new_label.clone()]);
        assert_eq!(both.verify(DIGEST, &[old.verifier()]), Ok(vec![old_label.clone()]));
        assert_eq!(both.verify(DIGEST, &[new.verifier()]), Ok(vec![new_label.clone()]));
        assert_eq!(both.verify(DIGEST, &[new.verifier(), old.verifier()]), Ok(vec![new_label, old_label]));
        // Signing again replaces the key's own signature and no other.
        let mut again = both.clone();
        again.sign(&old).unwrap();
        assert_eq!(again.signers().len(), 2);
        again.verify(DIGEST, &[old.verifier()]).unwrap();
    }

    #[test]
    fn a_signature_for_something_else_does_not_hold() {
        let log = LogKey::from_seed(&[7; 32]);
        let origin = Origin::new("team").unwrap();
        let team = PluginKey { name: origin.clone(), key: LogKey::from_seed(&[7; 32]) };
        let checkpoint = log.sign(&Checkpoint { origin, size: 1, root: Hash::of_leaf(b"x") });
        assert_eq!(SignatureFile::parse(&checkpoint), Err(SignatureError::Statement));
        // The line of a checkpoint, moved under a plugin's digest.
        let line = checkpoint.lines().last().unwrap();
        let moved = SignatureFile::parse(&format!("{STATEMENT}\nsha256 {DIGEST}\n\n{line}\n")).unwrap();
        assert_eq!(moved.verify(DIGEST, &[team.verifier()]), Err(SignatureError::Altered(team.verifier().label())));
        // And the other way round.
        assert!(team.verifier().open(&signed(&[&team]).to_string()).is_err());
    }

    #[test]
    fn what_is_no_signature_is_refused() {
        let good = signed(&[&key("team")]).to_string();
        let line = good.lines().last().unwrap();
        for bad in [
            String::new(),
            "\0asm".to_owned(),
            good.trim_end().to_owned(),
            good.replace("\n\n", "\n"),
            good.replace("v1", "v2"),
            good.replace(DIGEST, &DIGEST[1..]),
            good.replace(DIGEST, &DIGEST.to_uppercase()),
            good.replace(&format!("{DIGEST}\n"), &format!("{DIGEST}\nmore\n")),
            good.replace("sha256 ", "sha256  "),
            good.replace(line, "— team AAAA"),
            good.replace(line, "team"),
            format!("{STATEMENT}\nsha256 {DIGEST}\n\n{}", format!("{line}\n").repeat(MAX_SIGNATURES + 1)),
            format!("{}{good}", "a".repeat(MAX_SIGNATURE_FILE)),
        ] {
            assert!(SignatureFile::parse(&bad).is_err(), "{bad:?}");
        }
        let mut full = SignatureFile::new(DIGEST).unwrap();
        (0..MAX_SIGNATURES).for_each(|number| full.sign(&key(&format!("k{number}"))).unwrap());
        assert!(full.sign(&key("one-more")).is_err());
        SignatureFile::parse(&full.to_string()).unwrap();
    }

    #[test]
    fn key_texts_are_strict_silent_and_not_those_of_a_log() {
        let team = key("example.com/team:prod");
        let text = team.to_text();
        assert_eq!(PluginKey::from_text(&text).unwrap().verifier(), team.verifier());
        let seed = text.trim_end().rsplit_once(':').unwrap().1.to_owned();
        assert!(!format!("{team:?}").contains(&seed));
        let log = LogKey::generate().to_text();
        assert!(LogKey::from_text(&text).is_err());
        for bad in [
            "",
            "jit-plugin-key-v1:",
            "jit-plugin-key-v1:team:AAAA",
            &text[1..],
            log.as_str(),
            &text.replace("team", "a b"),
        ] {
            let error = PluginKey::from_text(bad).unwrap_err();
            assert!(!error.to_string().contains(&seed), "{error}");
        }
    }

    proptest! {
        #[test]
        fn no_changed_byte_goes_unnoticed(at in 0_usize..200, to in any::<u8>()) {
            let team = PluginKey { name: Origin::new("team").unwrap(), key: LogKey::from_seed(&[7; 32]) };
            let mut bytes = signed(&[&team]).to_string().into_bytes();
            let at = at % bytes.len();
            prop_assume!(bytes[at] != to);
            bytes[at] = to;
            if let Ok(bent) = String::from_utf8(bytes) {
                let verified = SignatureFile::parse(&bent).and_then(|file| file.verify(DIGEST, &[team.verifier()]));
                prop_assert!(verified.is_err(), "{}", bent);
            }
        }

        #[test]
        fn arbitrary_text_never_panics(text in "(.|\n){0,300}") {
            prop_assert!(SignatureFile::parse(&text).is_err());
            prop_assert!(PluginKey::from_text(&text).is_err());
        }
    }
}
