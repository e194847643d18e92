//! What `caching_sha2_password` and `mysql_native_password` store of a password, so that one is set without being
//! sent.

use aws_lc_rs::digest::{self, Digest};
use rand::RngExt as _;
use secrecy::{ExposeSecret as _, SecretString};
use zeroize::{Zeroize as _, Zeroizing};

/// Rounds of the hash, in thousands: what MySQL takes at least (`$A$005$`). Each login that its
/// cache does not know costs the server as much; a random password needs no stretching.
pub(crate) const THOUSAND_ROUNDS: usize = 5;

/// Bytes of salt, as MySQL itself uses.
pub(crate) const SALT: usize = 20;

/// The alphabet of crypt(3), in its order: for digests, and for salts that need no escaping.
pub(crate) const ALPHABET: &[u8; 64] = b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// `*` and SHA1(SHA1(password)) in hexadecimal: what `mysql_native_password` stores.
#[must_use]
pub fn native(password: &SecretString) -> Zeroizing<String> {
    let algorithm = &digest::SHA1_FOR_LEGACY_USE_ONLY;
    let once = digest::digest(algorithm, password.expose_secret().as_bytes());
    let twice = digest::digest(algorithm, once.as_ref());
    Zeroizing::new(format!("*{}", hex::encode_upper(twice.as_ref())))
}

/// `$A$005$`, a new salt and the digest: what `caching_sha2_password` stores. Takes a millisecond or two.
#[must_use]
pub fn caching_sha2(password: &SecretString) -> Zeroizing<String> {
    caching_sha2_of(password, THOUSAND_ROUNDS)
}

/// The same with that many thousand rounds.
pub(crate) fn caching_sha2_of(password: &SecretString, thousand_rounds: usize) -> Zeroizing<String> {
    let mut salt = [0_u8; SALT];
    let mut rng = rand::rng();
    for byte in &mut salt {
        *byte = ALPHABET[rng.random_range(0..ALPHABET.len())];
    }
    caching_sha2_with(password.expose_secret(), &salt, thousand_rounds)
}

pub(crate) fn caching_sha2_with(password: &str, salt: &[u8; SALT], thousand_rounds: usize) -> Zeroizing<String> {
    let mut out = Zeroizing::new(String::with_capacity(8 + SALT + 43));
    out.push_str(&format!("$A${thousand_rounds:03X}$"));
    out.extend(salt.iter().map(|&byte| char::from(byte)));
    crypt(&mut out, password.as_bytes(), salt, thousand_rounds * 1_000);
    out
}

/// SHA-256-crypt as in <https://www.akkadia.org/drepper/SHA-crypt.txt>, but for MySQL's longer
/// salt. Appends the digest's 43 characters.
fn crypt(out: &mut String, password: &[u8], salt: &[u8], rounds: usize) {
    let alternate = hash(&[password, salt, password]);
    let mut first = digest::Context::new(&digest::SHA256);
    first.update(password);
    first.update(salt);
    let mut left = password.len();
    while left > 0 {
        let taken = left.min(32);
        first.update(&alternate.as_ref()[..taken]);
        left -= taken;
    }
    let mut bits = password.len();
    while bits > 0 {
        first.update(if bits & 1 == 1 { alternate.as_ref() } else { password });
        bits >>= 1;
    }
    let mut last = first.finish();

    let repeated = |count: usize, text: &[u8], length: usize| {
        let mut context = digest::Context::new(&digest::SHA256);
        for _ in 0..count {
            context.update(text);
        }
        let sum = context.finish();
        Zeroizing::new(sum.as_ref().iter().copied().cycle().take(length).collect::<Vec<u8>>())
    };
    let from_password = repeated(password.len(), password, password.len());
    let from_salt = repeated(16 + usize::from(last.as_ref()[0]), salt, salt.len());

    let mut message = Zeroizing::new(Vec::with_capacity(64 + 2 * password.len() + salt.len()));
    for round in 0..rounds {
        message.zeroize();
        let odd = round % 2 == 1;
        message.extend_from_slice(if odd { &from_password } else { last.as_ref() });
        if round % 3 != 0 {
            message.extend_from_slice(&from_salt);
        }
        if round % 7 != 0 {
            message.extend_from_slice(&from_password);
        }
        message.extend_from_slice(if odd { last.as_ref() } else { &from_password });
        last = digest::digest(&digest::SHA256, &message);
    }
    push_base64(out, last.as_ref());
}

/// Whether a text is a digest in the one form in which [`crypt`] writes it: its last character stands for four bits.
pub(crate) fn is_digest(text: &str) -> bool {
    let place = |byte: u8| ALPHABET.iter().position(|&other| other == byte);
    let bytes = text.as_bytes();
    bytes.len() == 43
        && bytes.iter().all(|&byte| place(byte).is_some())
        && bytes.last().and_then(|&byte| place(byte)).is_some_and(|place| place < 16)
}

fn hash(parts: &[&[u8]]) -> Digest {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in parts {
        context.update(part);
    }
    context.finish()
}

/// The order in which crypt(3) writes a SHA-256 digest: three bytes at a time, and the last two.
fn push_base64(out: &mut String, sum: &[u8]) {
    let mut push = |group: [u8; 3], characters: usize| {
        let mut bits = u32::from(group[0]) << 16 | u32::from(group[1]) << 8 | u32::from(group[2]);
        for _ in 0..characters {
            out.push(char::from(ALPHABET[(bits & 63) as usize]));
            bits >>= 6;
        }
    };
    let (mut a, mut b, mut c) = (0, 10, 20);
    for _ in 0..10 {
        push([sum[a], sum[b], sum[c]], 4);
        (a, b, c) = (c + 1, a + 1, b + 1);
    }
    push([0, sum[31], sum[30]], 3);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    /// As glibc's crypt(3) computes them; its salts are shorter than MySQL's.
    const VECTORS: [(&str, &str, usize, &str); 4] = [
        ("Hello world!", "saltstring", 5_000, "5B8vYYiY.CVt1RlTTf8KbXBH3hsxY/GNooZaBBGWEc5"),
        ("Hello world!", "saltstringsaltst", 10_000, "3xv.VbSHBb41AL9AvLeujZkZRBAwqFMz2.opqey6IcA"),
        (
            "a very much longer text to encrypt.  This one even stretches over morethan one line.",
            "anotherlongsalts",
            1_400,
            "Rx.j8H.h8HjEDGomFU8bDkXm3XIUnzyxf12oP84Bnq1",
        ),
        ("x", "roundstoolow", 1_000, "Jc4xA6.bl9C.Nqoe./MktmYeUpkKvVSABfG6yGhgjM0"),
    ];

    #[test]
    fn the_digest_is_that_of_crypt() {
        for (password, salt, rounds, expected) in VECTORS {
            let mut out = String::new();
            crypt(&mut out, password.as_bytes(), salt.as_bytes(), rounds);
            assert_eq!(out, expected);
        }
    }

    #[test]
    fn what_is_stored_has_the_servers_form() {
        let password = SecretString::from("correct horse");
        let stored = caching_sha2(&password);
        assert!(stored.starts_with("$A$005$") && stored.len() == 70, "{}", *stored);
        assert!(stored.bytes().all(|b| b == b'$' || ALPHABET.contains(&b)));
        assert_ne!(*stored, *caching_sha2(&password));
        // MySQL manual, PASSWORD('password').
        assert_eq!(*native(&SecretString::from("password")), "*2470C0C06DEE42FD1618BB99005ADCA2EC9D1E19");
    }
}
