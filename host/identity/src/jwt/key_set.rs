//! An issuer's public keys, and which of them may verify a token.

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::alphabet::URL_SAFE;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use jsonwebtoken::DecodingKey;
use serde::Deserialize;
use serde_json::Value;

use crate::algorithm::SigningAlgorithm;

/// The most keys of one set that can verify a token.
pub(super) const MAX_KEYS: usize = 256;
/// The most keys that are published in one set, those for encryption and of unknown kinds included.
pub(super) const MAX_PUBLISHED: usize = 4_096;
/// The most keys that are tried for one token, when several have its `kid`.
const MAX_CANDIDATES: usize = 4;
/// RSA moduli that are accepted, in bits. Shorter ones can be factored; longer ones are a way to
/// make verification slow.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// The most zero bytes that a coordinate may begin with.
const MOST_ZEROS: usize = 4;

/// A JWK as published. Members that are not listed are ignored.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct Jwk {
    kty: String,
    #[serde(default)]
    kid: Option<String>,
    #[serde(default)]
    alg: Option<String>,
    #[serde(default, rename = "use")]
    usage: Option<String>,
    #[serde(default)]
    key_ops: Option<Vec<String>>,
    #[serde(default)]
    crv: Option<String>,
    #[serde(default)]
    n: Option<String>,
    #[serde(default)]
    e: Option<String>,
    #[serde(default)]
    x: Option<String>,
    #[serde(default)]
    y: Option<String>,
}

/// What a key can verify, by its type: RFC 8725 asks that algorithm and key agree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Rsa,
    P256,
    P384,
    Ed25519,
}

impl Kind {
    fn verifies(self, algorithm: SigningAlgorithm) -> bool {
        use SigningAlgorithm as A;
        match self {
            Kind::Rsa => {
                matches!(algorithm, A::Rs256 | A::Rs384 | A::Rs512 | A::Ps256 | A::Ps384 | A::Ps512)
            }
            Kind::P256 => algorithm == A::Es256,
            Kind::P384 => algorithm == A::Es384,
            Kind::Ed25519 => algorithm == A::EdDsa,
        }
    }
}

/// Why a published key is not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
enum Unusable {
    #[error("not a JWK")]
    NotAKey,
    #[error("not for signatures")]
    Usage,
    #[error("type, curve or algorithm is not supported")]
    Unsupported,
    #[error("RSA modulus is not of 2048 to 8192 bits")]
    RsaSize,
    #[error("coordinates are not of the curve's size")]
    Coordinates,
}

struct Key {
    jwk: Jwk,
    kind: Kind,
    /// The one algorithm that the key is for, where the issuer says so.
    only: Option<SigningAlgorithm>,
    verifier: DecodingKey,
}

impl Key {
    fn read(value: &Value) -> Result<Self, Unusable> {
        let jwk = Jwk::deserialize(value).map_err(|_| Unusable::NotAKey)?;
        let signs = jwk.usage.as_deref().is_none_or(|usage| usage == "sig")
            && jwk.key_ops.as_ref().is_none_or(|ops| ops.iter().any(|op| op == "verify"));
        if !signs {
            return Err(Unusable::Usage);
        }
        let only = match jwk.alg.as_deref() {
            None => None,
            Some(name) => Some(SigningAlgorithm::from_header(name).ok_or(Unusable::Unsupported)?),
        };
        let bytes = |text: &Option<String>| decode(text.as_deref().ok_or(Unusable::NotAKey)?);
        let (kind, verifier) = match (jwk.kty.as_str(), jwk.crv.as_deref()) {
            ("RSA", _) => {
                let modulus = bytes(&jwk.n)?;
                let modulus = significant(&modulus);
                let unused = modulus.first().map_or(0, |first| first.leading_zeros() as usize);
                if !RSA_BITS.contains(&(modulus.len() * 8 - unused)) {
                    return Err(Unusable::RsaSize);
                }
                (Kind::Rsa, DecodingKey::from_rsa_raw_components(modulus, significant(&bytes(&jwk.e)?)))
            }
            ("EC", Some(curve @ ("P-256" | "P-384"))) => {
                let (kind, size) = if curve == "P-256" { (Kind::P256, 32) } else { (Kind::P384, 48) };
                let coordinate = |text| padded(&bytes(text)?, size).ok_or(Unusable::Coordinates);
                let (x, y) = (coordinate(&jwk.x)?, coordinate(&jwk.y)?);
                // An uncompressed point (SEC 1); whether it is on the curve is checked on use.
                let point: Vec<u8> = [&[4_u8][..], &x, &y].concat();
                (kind, DecodingKey::from_ec_der(&point))
            }
            ("OKP", Some("Ed25519")) => {
                let x = bytes(&jwk.x)?;
                if x.len() != 32 {
                    return Err(Unusable::Coordinates);
                }
                (Kind::Ed25519, DecodingKey::from_ed_der(&x))
            }
            _ => return Err(Unusable::Unsupported),
        };
        if only.is_some_and(|algorithm| !kind.verifies(algorithm)) {
            return Err(Unusable::Unsupported);
        }
        Ok(Self { jwk, kind, only, verifier })
    }

    fn fits(&self, algorithm: SigningAlgorithm) -> bool {
        self.kind.verifies(algorithm) && self.only.is_none_or(|only| only == algorithm)
    }
}

/// The bytes of a member. Its right form is base64url without padding (RFC 7518 section 2); issuers also
/// write base64 with `+` and `/`, with padding, and in lines.
fn decode(text: &str) -> Result<Vec<u8>, Unusable> {
    let plain = text.chars().filter(|char| !char.is_ascii_whitespace()).map(|char| match char {
        '+' => '-',
        '/' => '_',
        other => other,
    });
    let plain: String = plain.collect();
    LENIENT.decode(plain.trim_end_matches('=')).map_err(|_| Unusable::NotAKey)
}

/// base64url that does not mind what the unused bits of the last character are.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_padding_mode(DecodePaddingMode::RequireNone)
        .with_decode_allow_trailing_bits(true),
);

/// A big-endian number without leading zeros: libraries of signed integers put one before a number whose
/// first bit is set.
fn significant(number: &[u8]) -> &[u8] {
    &number[number.iter().take_while(|&&byte| byte == 0).count()..]
}

/// A big-endian number in exactly that many bytes, where it fits.
fn padded(number: &[u8], size: usize) -> Option<Vec<u8>> {
    let number = significant(number);
    let zeros = size.checked_sub(number.len())?;
    // More zeros than that no coordinate begins with by chance: it is of another curve.
    (zeros <= MOST_ZEROS).then(|| [vec![0; zeros].as_slice(), number].concat())
}

/// Why a document is not a key set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum KeySetError {
    #[error("the key set is not JSON with a list `keys`")]
    Syntax,
    #[error("the key set has more than {MAX_PUBLISHED} keys")]
    TooMany,
    #[error("the key set has more than {MAX_KEYS} keys that can verify a token")]
    TooManyUsable,
}

/// The usable keys of a published set. A set without any is a set: an issuer may withdraw all.
#[derive(Default)]
pub(super) struct KeyList(Vec<Key>);

impl KeyList {
    /// Reads a JWKS document. Keys that cannot be used are left out and do not count; a document that is
    /// not one, or has too many keys, is refused whole.
    pub(super) fn read(document: &[u8]) -> Result<Self, KeySetError> {
        #[derive(Deserialize)]
        struct Document {
            keys: Vec<Value>,
        }
        let document: Document = serde_json::from_slice(document).map_err(|_| KeySetError::Syntax)?;
        if document.keys.len() > MAX_PUBLISHED {
            return Err(KeySetError::TooMany);
        }
        let mut keys = Vec::new();
        for value in &document.keys {
            match Key::read(value) {
                Ok(_) if keys.len() == MAX_KEYS => return Err(KeySetError::TooManyUsable),
                Ok(key) => keys.push(key),
                Err(reason) => tracing::debug!(%reason, "a published key is not used"),
            }
        }
        Ok(Self(keys))
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

/// What a set has for a token.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Match {
    /// A key, or several of one `kid`.
    Found,
    /// None.
    NotFound,
    /// The token has no `kid`, and several keys fit its algorithm.
    Ambiguous,
}

/// A key set as it was at a time.
pub(super) struct KeySet {
    keys: KeyList,
    generation: u64,
    fetched: Instant,
}

impl KeySet {
    pub(super) fn first(keys: KeyList, fetched: Instant) -> Self {
        Self { keys, generation: 1, fetched }
    }

    /// The set after this one: of the same generation when the keys are the same.
    pub(super) fn followed_by(&self, keys: KeyList, fetched: Instant) -> Self {
        let same = self.keys.0.iter().map(|k| &k.jwk).eq(keys.0.iter().map(|k| &k.jwk));
        Self { keys, generation: self.generation + u64::from(!same), fetched }
    }

    /// Changes with the keys.
    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    /// How many keys can verify a token.
    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }

    /// How long ago the issuer published this set.
    pub(super) fn age(&self) -> Duration {
        self.fetched.elapsed()
    }

    /// The keys that may verify a token of this algorithm and `kid`, at most [`MAX_CANDIDATES`].
    pub(super) fn candidates(
        &self,
        algorithm: SigningAlgorithm,
        kid: Option<&str>,
    ) -> impl Iterator<Item = &DecodingKey> {
        self.fitting(algorithm, kid).take(MAX_CANDIDATES).map(|key| &key.verifier)
    }

    pub(super) fn matches(&self, algorithm: SigningAlgorithm, kid: Option<&str>) -> Match {
        match (self.fitting(algorithm, kid).take(2).count(), kid) {
            (0, _) => Match::NotFound,
            (2, None) => Match::Ambiguous,
            _ => Match::Found,
        }
    }

    fn fitting(&self, algorithm: SigningAlgorithm, kid: Option<&str>) -> impl Iterator<Item = &Key> {
        self.keys.0.iter().filter(move |key| key.fits(algorithm) && (kid.is_none() || key.jwk.kid.as_deref() == kid))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test stops where it fails

    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use serde_json::json;

    use super::*;

    fn unusable(jwk: Value) -> Option<Unusable> {
        Key::read(&jwk).err()
    }

    fn modulus(bits: usize) -> String {
        let mut bytes = vec![0xff; bits.div_ceil(8)];
        bytes[0] >>= (8 - bits % 8) % 8;
        URL_SAFE_NO_PAD.encode(bytes)
    }

    #[test]
    fn rsa_keys_have_a_size() {
        for (bits, answer) in [
            (1024, Some(Unusable::RsaSize)),
            (2047, Some(Unusable::RsaSize)),
            (2048, None),
            (8192, None),
            (8193, Some(Unusable::RsaSize)),
        ] {
            let key = json!({"kty": "RSA", "n": modulus(bits), "e": "AQAB"});
            assert_eq!(unusable(key), answer, "{bits}");
        }
        assert_eq!(unusable(json!({"kty": "RSA", "n": "", "e": "AQAB"})), Some(Unusable::RsaSize));
        // Leading zero bytes are not size.
        let padded = URL_SAFE_NO_PAD.encode([vec![0; 200], vec![0xff; 128]].concat());
        let key = json!({"kty": "RSA", "n": padded, "e": "AQAB"});
        assert_eq!(unusable(key), Some(Unusable::RsaSize));
    }

    #[test]
    fn only_public_signature_keys_of_a_known_kind_are_used() {
        let n = modulus(2048);
        let point = URL_SAFE_NO_PAD.encode([7; 32]);
        for (key, answer) in [
            (json!({"kty": "RSA", "n": n, "e": "AQAB", "use": "enc"}), Unusable::Usage),
            (json!({"kty": "RSA", "n": n, "e": "AQAB", "key_ops": ["encrypt"]}), Unusable::Usage),
            (json!({"kty": "RSA", "n": n, "e": "AQAB", "alg": "ES256"}), Unusable::Unsupported),
            (json!({"kty": "RSA", "n": n, "e": "AQAB", "alg": "HS256"}), Unusable::Unsupported),
            (json!({"kty": "RSA", "n": "%%%", "e": "AQAB"}), Unusable::NotAKey),
            (json!({"kty": "RSA", "n": n}), Unusable::NotAKey),
            (json!({"kty": "oct", "k": "c2VjcmV0"}), Unusable::Unsupported),
            (json!({"kty": "EC", "crv": "P-521", "x": point, "y": point}), Unusable::Unsupported),
            (json!({"kty": "EC", "crv": "P-384", "x": point, "y": point}), Unusable::Coordinates),
            (json!({"kty": "OKP", "crv": "Ed25519", "x": "AA"}), Unusable::Coordinates),
            (json!({"kty": "OKP", "crv": "X25519", "x": point}), Unusable::Unsupported),
            (json!("RSA"), Unusable::NotAKey),
            (json!({"n": n}), Unusable::NotAKey),
        ] {
            assert_eq!(unusable(key.clone()), Some(answer), "{key}");
        }
        for key in [
            json!({"kty": "RSA", "n": n, "e": "AQAB", "use": "sig", "alg": "PS256", "x5t": "?"}),
            json!({"kty": "EC", "crv": "P-256", "x": point, "y": point, "key_ops": ["verify"]}),
            json!({"kty": "OKP", "crv": "Ed25519", "x": point, "alg": "EdDSA"}),
        ] {
            assert_eq!(unusable(key.clone()), None, "{key}");
        }
    }

    #[test]
    fn a_key_verifies_its_own_algorithms_only() {
        let key = Key::read(&json!({"kty": "RSA", "n": modulus(2048), "e": "AQAB"})).unwrap();
        assert!(key.fits(SigningAlgorithm::Rs256) && key.fits(SigningAlgorithm::Ps512));
        assert!(!key.fits(SigningAlgorithm::Es256) && !key.fits(SigningAlgorithm::EdDsa));
        let pinned = json!({"kty": "RSA", "n": modulus(2048), "e": "AQAB", "alg": "RS256"});
        let key = Key::read(&pinned).unwrap();
        assert!(key.fits(SigningAlgorithm::Rs256) && !key.fits(SigningAlgorithm::Rs384));
    }

    #[test]
    fn generations_change_with_the_keys_only() {
        let list = |n: usize| {
            let keys: Vec<_> =
                (0..n).map(|i| json!({"kty": "RSA", "n": modulus(2048), "e": "AQAB", "kid": i.to_string()})).collect();
            KeyList::read(json!({"keys": keys}).to_string().as_bytes())
        };
        let now = Instant::now();
        let first = KeySet::first(list(2).unwrap(), now);
        let same = first.followed_by(list(2).unwrap(), now);
        let fewer = same.followed_by(list(1).unwrap(), now);
        let none = fewer.followed_by(list(0).unwrap(), now);
        assert_eq!(first.generation(), same.generation());
        assert!(same.generation() < fewer.generation() && fewer.generation() < none.generation());
        assert_eq!(list(MAX_KEYS).unwrap().len(), MAX_KEYS);
        assert_eq!(list(MAX_KEYS + 1).err(), Some(KeySetError::TooManyUsable));
    }

    #[test]
    fn keys_that_verify_nothing_do_not_count() {
        let key = |usage: &str, n: usize| json!({"kty": "RSA", "n": modulus(2048), "e": "AQAB", "kid": n.to_string(), "use": usage});
        let read = |for_encryption: usize, for_signatures: usize| {
            let encryption = (0..for_encryption).map(|n| key("enc", n));
            let keys: Vec<_> = encryption.chain((0..for_signatures).map(|n| key("sig", n))).collect();
            KeyList::read(json!({"keys": keys}).to_string().as_bytes()).map(|list| list.len())
        };
        assert_eq!(read(64, 1), Ok(1));
        assert_eq!(read(MAX_KEYS, MAX_KEYS), Ok(MAX_KEYS));
        assert_eq!(read(MAX_PUBLISHED, 1), Err(KeySetError::TooMany));
    }

    #[test]
    fn one_number_has_many_spellings() {
        use base64::engine::general_purpose::STANDARD;
        let number: Vec<u8> = (0..=255_u8).rev().collect();
        let signed = [&[0][..], &number].concat();
        let exponent = [0, 0, 1, 0, 1];
        let lines = STANDARD
            .encode(&number)
            .as_bytes()
            .chunks(64)
            .map(|line| String::from_utf8_lossy(line).into_owned())
            .collect::<Vec<_>>()
            .join("\r\n");
        for n in [
            URL_SAFE_NO_PAD.encode(&number),
            URL_SAFE_NO_PAD.encode(&signed),
            STANDARD.encode(&number),
            STANDARD.encode(&signed),
            lines,
        ] {
            for e in ["AQAB".to_owned(), URL_SAFE_NO_PAD.encode(exponent), STANDARD.encode([1, 0, 1])] {
                assert_eq!(unusable(json!({"kty": "RSA", "n": n, "e": e})), None, "{n} {e}");
            }
        }
        // A coordinate whose first byte is zero, in as many bytes as it needs and in one more than it has.
        let (full, short) = ([9; 32], [9; 31]);
        let coordinate = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let signed = [&[0][..], &full].concat();
        for (x, y, answer) in [
            (coordinate(&full), coordinate(&short), None),
            (coordinate(&signed), STANDARD.encode(full), None),
            (coordinate(&[9; 33]), coordinate(&full), Some(Unusable::Coordinates)),
            (coordinate(&[9; 16]), coordinate(&full), Some(Unusable::Coordinates)),
            (String::new(), coordinate(&full), Some(Unusable::Coordinates)),
        ] {
            assert_eq!(unusable(json!({"kty": "EC", "crv": "P-256", "x": x, "y": y})), answer, "{x} {y}");
        }
    }
}
