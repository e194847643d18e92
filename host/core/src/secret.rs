//! Generated passwords.

use rand::Rng as _;
use secrecy::SecretString;
use zeroize::Zeroize as _;

/// Characters of a generated password: no quotes, nothing that a URI, shell or connection string
/// would need to escape.
const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// Characters in a generated password.
pub const PASSWORD_LENGTH: usize = 32;

/// A new password of 190 random bits (log2 62 × 32): far above the 128 that make stretching
/// pointless.
#[must_use]
pub fn generate_password() -> SecretString {
    let mut rng = rand::rng();
    let mut password = String::with_capacity(PASSWORD_LENGTH);
    let mut buffer = [0_u8; 64];
    while password.len() < PASSWORD_LENGTH {
        rng.fill_bytes(&mut buffer);
        for byte in buffer {
            // 248 = 4 × 62: above it the remainder would favour the first characters.
            if byte < 248 && password.len() < PASSWORD_LENGTH {
                password.push(char::from(ALPHABET[usize::from(byte % 62)]));
            }
        }
    }
    buffer.zeroize();
    SecretString::from(password)
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::ExposeSecret as _;

    #[test]
    fn passwords_are_long_plain_and_different() {
        let (a, b) = (generate_password(), generate_password());
        assert_ne!(a.expose_secret(), b.expose_secret());
        assert_eq!(a.expose_secret().len(), PASSWORD_LENGTH);
        assert!(a.expose_secret().bytes().all(|c| c.is_ascii_alphanumeric()));
        assert!(!format!("{a:?}").contains(a.expose_secret()));
    }
}
