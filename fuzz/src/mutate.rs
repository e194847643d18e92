//! Changes inputs: bytes, runs of bytes, tokens of the target's format, pieces of other inputs.

use rand::rngs::StdRng;
use rand::{Rng as _, RngExt as _};

use crate::input::SEPARATOR;

/// The longest input that is made, in bytes.
pub const MAX_INPUT: usize = 4096;
/// The most changes of one input.
const MAX_CHANGES: u32 = 6;
/// The longest run of bytes that is removed, repeated or taken from another input.
const MAX_RUN: usize = 64;
/// Texts that many formats treat specially.
const COMMON: [&str; 20] = [
    SEPARATOR,
    "\0",
    "\\",
    "\"",
    "'",
    "`",
    "\n",
    "\r\n",
    "\u{2028}",
    "\u{feff}",
    "é",
    "🙂",
    "\u{200b}",
    "%00",
    "0",
    "-1",
    "18446744073709551616",
    "{}",
    "   ",
    "*",
];

/// Makes a changed copy of one of the inputs.
///
/// `inputs` must not be empty.
#[must_use]
pub fn changed(inputs: &[Vec<u8>], tokens: &[&str], random: &mut StdRng) -> Vec<u8> {
    let mut bytes = inputs[random.random_range(0..inputs.len())].clone();
    for _ in 0..random.random_range(1..=MAX_CHANGES) {
        change(&mut bytes, inputs, tokens, random);
    }
    bytes.truncate(MAX_INPUT);
    bytes
}

fn change(bytes: &mut Vec<u8>, inputs: &[Vec<u8>], tokens: &[&str], random: &mut StdRng) {
    let at = random.random_range(0..=bytes.len());
    match random.random_range(0..9_u32) {
        0 if at < bytes.len() => bytes[at] ^= 1 << random.random_range(0..8_u32),
        1 if at < bytes.len() => bytes[at] = (random.next_u32() & 0xff) as u8,
        2 => {
            let end = bytes.len().min(at + random.random_range(1..=MAX_RUN));
            bytes.drain(at..end);
        }
        3 => {
            let end = bytes.len().min(at + random.random_range(1..=MAX_RUN));
            let run = bytes[at..end].to_vec();
            let to = random.random_range(0..=bytes.len());
            insert(bytes, to, &run);
        }
        4 => {
            let other = &inputs[random.random_range(0..inputs.len())];
            let from = random.random_range(0..=other.len());
            let end = other.len().min(from + random.random_range(1..=MAX_RUN));
            insert(bytes, at, &other[from..end]);
        }
        5 => bytes.truncate(at),
        6 => insert(bytes, at, &[random.random_range(0x20..0x7f_u8)]),
        7 => insert(bytes, at, COMMON[random.random_range(0..COMMON.len())].as_bytes()),
        _ if !tokens.is_empty() => insert(bytes, at, tokens[random.random_range(0..tokens.len())].as_bytes()),
        _ => insert(bytes, at, &[0]),
    }
}

fn insert(bytes: &mut Vec<u8>, at: usize, what: &[u8]) {
    if bytes.len() + what.len() <= MAX_INPUT {
        bytes.splice(at..at, what.iter().copied());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng as _;

    #[test]
    fn one_seed_makes_the_same_inputs_again_and_another_makes_others() {
        let inputs = [b"SELECT 'a'".to_vec(), b"x".to_vec()];
        let make = |seed| -> Vec<Vec<u8>> {
            let mut random = StdRng::seed_from_u64(seed);
            (0..200).map(|_| changed(&inputs, &["--"], &mut random)).collect()
        };
        assert_eq!(make(1), make(1));
        assert_ne!(make(1), make(2));
        assert!(make(1).iter().any(|made| made.windows(2).any(|pair| pair == b"--")), "tokens are used");
    }

    #[test]
    fn no_input_is_longer_than_the_limit() {
        let inputs = [vec![b'a'; MAX_INPUT]];
        let mut random = StdRng::seed_from_u64(3);
        assert!((0..500).all(|_| changed(&inputs, &["token"], &mut random).len() <= MAX_INPUT));
    }
}
