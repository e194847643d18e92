//! Random passwords.

use rand::Rng as _;
use secrecy::SecretString;
use zeroize::Zeroize as _;

/// Characters of a generated password: no quotes, nothing that a URI, shell or connection string
/// would need to escape.
const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// Characters in a generated password.
pub const PASSWORD_LENGTH: usize = 32;

/// Where a password has its one special character, so that it passes the rules that servers usually
/// have. It needs no quoting in a URI, a shell or a connection string, and stands at neither end.
const SPECIAL: (usize, u8) = (16, b'-');

/// Candidates until one has every kind of character: about 1 in 280 has no digit.
const CANDIDATES: usize = 64;

/// A new password of 184 random bits (log2 62 × 31): far above the 128 that make stretching
/// pointless. It has lower case, upper case, digits and a hyphen: servers refuse what has fewer kinds
/// (Active Directory's complexity rule, MySQL's `validate_password`).
#[must_use]
pub fn generate_password() -> SecretString {
    let mut password = random_text();
    for _ in 1..CANDIDATES {
        if has_every_kind(&password) {
            break;
        }
        password.zeroize();
        password = random_text();
    }
    SecretString::from(password)
}

fn has_every_kind(text: &str) -> bool {
    let has = |kind: fn(&u8) -> bool| text.as_bytes().iter().any(kind);
    has(u8::is_ascii_lowercase) && has(u8::is_ascii_uppercase) && has(u8::is_ascii_digit)
}

fn random_text() -> String {
    let mut rng = rand::rng();
    let mut text = String::with_capacity(PASSWORD_LENGTH);
    let mut buffer = [0_u8; 64];
    while text.len() < PASSWORD_LENGTH {
        rng.fill_bytes(&mut buffer);
        for byte in buffer {
            // 248 = 4 × 62: above it the remainder would favour the first characters.
            if text.len() == SPECIAL.0 {
                text.push(char::from(SPECIAL.1));
            }
            if byte < 248 && text.len() < PASSWORD_LENGTH {
                text.push(char::from(ALPHABET[usize::from(byte % 62)]));
            }
        }
    }
    buffer.zeroize();
    text
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
        let special: Vec<_> = a.expose_secret().bytes().filter(|c| !c.is_ascii_alphanumeric()).collect();
        assert_eq!(special, b"-");
        assert_eq!(a.expose_secret().as_bytes()[SPECIAL.0], b'-');
        assert!(!format!("{a:?}").contains(a.expose_secret()));
    }

    #[test]
    fn every_password_has_every_kind_of_character() {
        // One in 280 would not, left to chance.
        for _ in 0..5_000 {
            assert!(has_every_kind(generate_password().expose_secret()));
        }
        assert!(!has_every_kind("abcXYZ") && !has_every_kind("abc123") && !has_every_kind("ABC123"));
    }
}
