//! Salted digests, as directories store them in `userPassword`.

use aws_lc_rs::digest::{Algorithm, Context, SHA1_FOR_LEGACY_USE_ONLY, SHA512};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rand::Rng as _;
use secrecy::{ExposeSecret as _, SecretString};
use zeroize::Zeroizing;

/// Bytes of salt.
const SALT: usize = 16;

/// The scheme before the digest.
pub(crate) const SSHA: &str = "{SSHA}";
/// The scheme before the digest.
pub(crate) const SSHA512: &str = "{SSHA512}";

/// `{SSHA}` with a new random salt, as OpenLDAP and others verify it. Its digest is broken for collisions, which
/// nobody gains from here: the password is random and longer than what a hash can be searched for.
#[must_use]
pub fn ssha(password: &SecretString) -> Zeroizing<String> {
    with_salt(SSHA, &SHA1_FOR_LEGACY_USE_ONLY, password.expose_secret(), &new_salt())
}

/// `{SSHA512}` with a new random salt. OpenLDAP verifies it with its module `pw-sha2`.
#[must_use]
pub fn ssha512(password: &SecretString) -> Zeroizing<String> {
    with_salt(SSHA512, &SHA512, password.expose_secret(), &new_salt())
}

fn new_salt() -> [u8; SALT] {
    let mut salt = [0; SALT];
    rand::rng().fill_bytes(&mut salt);
    salt
}

/// Scheme, and digest and salt together.
pub(crate) fn with_salt(scheme: &str, algorithm: &'static Algorithm, password: &str, salt: &[u8]) -> Zeroizing<String> {
    let mut context = Context::new(algorithm);
    context.update(password.as_bytes());
    context.update(salt);
    let mut stored = Zeroizing::new(context.finish().as_ref().to_vec());
    stored.extend_from_slice(salt);
    Zeroizing::new(format!("{scheme}{}", STANDARD.encode(&*stored)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digest_and_salt_stand_together() {
        let stored = with_salt(SSHA, &SHA1_FOR_LEGACY_USE_ONLY, "secret", b"saltsalt");
        let decoded = STANDARD.decode(stored.strip_prefix(SSHA).unwrap()).unwrap();
        // sha1sum of "secretsaltsalt".
        assert_eq!(hex::encode(&decoded[..20]), "d46f74e272e44e41968ca36742e07f8695970bf8");
        assert_eq!(&decoded[20..], b"saltsalt");
        let password = SecretString::from("secret");
        assert_ne!(*ssha(&password), *ssha(&password));
        let decoded = STANDARD.decode(ssha512(&password).strip_prefix(SSHA512).unwrap()).unwrap();
        assert_eq!(decoded.len(), 64 + SALT);
    }
}
