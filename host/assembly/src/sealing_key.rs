//! The sealing key: where it is read, and how it is made. The key's file is refused when anybody but its owner may
//! read it.

use std::io;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jit_config::{SecretError, SecretRef};
use jit_files::private::{self, KeyFileError, KeyKind};
use jit_pipeline::sealing::Sealer;
use secrecy::SecretString;
use secrecy::zeroize::Zeroizing;

/// Bytes of a key.
const KEY: usize = 32;

/// The key that seals passwords.
const SEALING: KeyKind = KeyKind { name: "sealing key", made_by: "store key" };

/// Why there is no key to seal with.
#[derive(Debug, thiserror::Error)]
pub enum SealingKeyError {
    /// Its file cannot be used.
    #[error(transparent)]
    File(#[from] KeyFileError),
    /// It cannot be had from where the configuration says.
    #[error("the sealing key")]
    Secret(#[from] SecretError),
    /// It is not a key.
    #[error("{0} is not a sealing key: it must be 32 bytes as base64 text, as `jit-broker store key` writes it")]
    Content(String),
}

/// The sealer of a configuration: none where it names no key. Waits for the disk.
///
/// # Errors
/// [`SealingKeyError`], without any of a key.
pub fn of_config(store: &jit_config::Store) -> Result<Option<Sealer>, SealingKeyError> {
    store.sealing_key.as_ref().map(|key| load(key, &store.former_sealing_keys)).transpose()
}

/// The sealer of the keys at these places. Waits for the disk.
///
/// # Errors
/// [`SealingKeyError`], without any of a key.
pub fn load(current: &SecretRef, former: &[SecretRef]) -> Result<Sealer, SealingKeyError> {
    let texts = former.iter().map(read).collect::<Result<Vec<_>, _>>()?;
    Sealer::from_texts(&read(current)?, &texts).map_err(|index| {
        let place = if index == 0 { Some(current) } else { former.get(index - 1) };
        SealingKeyError::Content(place.map_or_else(String::new, ToString::to_string))
    })
}

fn read(place: &SecretRef) -> Result<SecretString, SealingKeyError> {
    match place {
        SecretRef::File(path) => read_private(path),
        SecretRef::Env(_) => Ok(place.resolve()?),
    }
}

fn read_private(path: &Path) -> Result<SecretString, SealingKeyError> {
    private::read(path, SEALING).map_err(|error| match error {
        no_text if no_text.is(io::ErrorKind::InvalidData) => SealingKeyError::Content(path.display().to_string()),
        other => other.into(),
    })
}

/// Makes a key and its file (0600), and its folder where there is none. It never replaces one.
///
/// # Errors
/// [`SealingKeyError::File`], also when there is one already.
pub fn generate(path: &Path) -> Result<(), SealingKeyError> {
    use rand::Rng as _;
    let mut key = Zeroizing::new([0_u8; KEY]);
    rand::rng().fill_bytes(key.as_mut_slice());
    let mut text = Zeroizing::new(STANDARD.encode(key.as_slice()));
    text.push('\n');
    Ok(private::write_key(path, SEALING, &text)?)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use jit_pipeline::sealing::Label;

    const LABEL: Label<'static> = Label { purpose: "rotation", names: &["shop", "app_user"], number: 3 };

    #[test]
    fn a_key_is_made_once_and_only_for_its_owner() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sealing.key");
        let place = SecretRef::File(path.clone());
        let missing = load(&place, &[]).unwrap_err();
        assert!(missing.to_string().contains("jit-broker store key"), "{missing}");
        generate(&path).unwrap();
        let sealed = load(&place, &[]).unwrap().seal(LABEL, &SecretString::from("correct-horse")).unwrap();
        assert!(generate(&path).is_err(), "it is not replaced");
        assert!(load(&place, &[]).unwrap().unseal(LABEL, &sealed).is_ok());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        for mode in [0o640, 0o604, 0o620] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            assert!(matches!(load(&place, &[]), Err(SealingKeyError::File(KeyFileError::Exposed { .. }))), "{mode:o}");
        }
    }

    #[test]
    fn what_is_no_key_is_refused_and_not_repeated() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sealing.key");
        let long = STANDARD.encode([1; 33]);
        let short = STANDARD.encode([1; 31]);
        for content in ["", "hunter2hunter2", &long, &short, &"x".repeat(10_000)] {
            std::fs::write(&path, content).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
            let error = load(&SecretRef::File(path.clone()), &[]).unwrap_err();
            assert!(matches!(error, SealingKeyError::Content(_)), "{error:?}");
            assert!(!format!("{error:?}{error}").contains("hunter2"));
        }
        assert!(matches!(
            load(&SecretRef::File(folder.path().to_owned()), &[]),
            Err(SealingKeyError::File(KeyFileError::File { .. }))
        ));
    }
}
