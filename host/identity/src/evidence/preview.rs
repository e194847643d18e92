//! A JWT before anything was verified: what is needed to choose the issuer, the algorithm's
//! validation and the key, and to refuse cheaply. Nothing here may reach a `Verified`.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::algorithm::SigningAlgorithm;
use crate::rejected::{Quoted, Rejected};

/// The longest `kid`, in bytes.
const MAX_KID: usize = 256;

/// The parts of a header that matter. Everything that names keys by itself (`jwk`, `jku`, `x5u`,
/// `x5c`) is ignored. A member that is there twice is an error of the parser.
#[derive(Deserialize)]
struct Header {
    alg: String,
    #[serde(default)]
    kid: Option<String>,
    #[serde(default)]
    typ: Option<String>,
    #[serde(default, deserialize_with = "present")]
    crit: bool,
}

/// Present is present, whatever its value: `"crit": null` too.
fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    IgnoredAny::deserialize(deserializer).map(|_| true)
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audiences {
    One(String),
    Many(Vec<String>),
}

#[derive(Deserialize)]
struct Claims {
    iss: Option<String>,
    aud: Option<Audiences>,
    exp: Option<f64>,
}

/// What an unverified token says of itself.
#[derive(Debug, Clone, PartialEq)]
pub struct Preview {
    /// The header's `alg`.
    pub algorithm: SigningAlgorithm,
    /// The header's `kid`, at most 256 bytes.
    pub kid: Option<String>,
    /// `iss`.
    pub issuer: String,
    /// `aud`, which may be one or many.
    pub audiences: Vec<String>,
    /// `exp`, in seconds since 1970.
    pub expires: f64,
}

/// Reads header and claims of a compact JWT: any bytes, without a look at the signature. It does not
/// panic, and its work is linear in their number; [`Unverified`](super::Unverified) bounds that.
///
/// # Errors
/// [`Rejected`], when it is not a JWT that anybody could verify.
pub fn read_preview(token: &[u8]) -> Result<Preview, Rejected> {
    let mut parts = token.split(|&byte| byte == b'.');
    let (Some(header), Some(claims)) = (parts.next(), parts.next()) else {
        return Err(Rejected::not_a_jwt("not three base64url parts"));
    };
    let header: Header = json(header).ok_or(Rejected::not_a_jwt("header is not JSON"))?;
    if header.crit {
        return Err(Rejected::CriticalExtension);
    }
    if let Some(typ) = &header.typ
        && !accepted_type(typ)
    {
        return Err(Rejected::Type(Quoted::new(typ)));
    }
    let algorithm =
        SigningAlgorithm::from_header(&header.alg).ok_or_else(|| Rejected::Algorithm(Quoted::new(&header.alg)))?;
    if header.kid.as_ref().is_some_and(|kid| kid.len() > MAX_KID) {
        return Err(Rejected::not_a_jwt("kid is too long"));
    }

    let claims: Claims =
        json(claims).ok_or(Rejected::not_a_jwt("claims are not a JSON object with iss, aud and exp of their types"))?;
    let missing = |claim: &str| Rejected::MissingClaim(claim.to_owned());
    Ok(Preview {
        algorithm,
        kid: header.kid,
        issuer: claims.iss.ok_or_else(|| missing("iss"))?,
        audiences: match claims.aud.ok_or_else(|| missing("aud"))? {
            Audiences::One(audience) => vec![audience],
            Audiences::Many(audiences) => audiences,
        },
        expires: claims.exp.ok_or_else(|| missing("exp"))?,
    })
}

/// `JWT` (RFC 7519), `at+jwt` (RFC 9068) and `JOSE` (allowed for SPIFFE JWT-SVIDs). Others are for
/// other uses, such as logout tokens or DPoP proofs, and must not pass for an identity.
fn accepted_type(typ: &str) -> bool {
    let lower = typ.to_ascii_lowercase();
    let short = lower.strip_prefix("application/").unwrap_or(&lower);
    matches!(short, "jwt" | "at+jwt" | "jose")
}

fn json<T: serde::de::DeserializeOwned>(part: &[u8]) -> Option<T> {
    let bytes = URL_SAFE_NO_PAD.decode(part).ok()?;
    serde_json::from_slice(&bytes).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn token(header: &str, claims: &str) -> String {
        format!("{}.{}.sig", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims))
    }

    #[test]
    fn a_token_says_who_made_it_for_whom_until_when() {
        let header = json!({"alg": "ES256", "kid": "k1", "typ": "JWT"}).to_string();
        let claims = json!({"iss": "https://issuer.example", "aud": "one", "exp": 7.5}).to_string();
        let preview = read_preview(token(&header, &claims).as_bytes());
        let expected = Preview {
            algorithm: SigningAlgorithm::Es256,
            kid: Some("k1".to_owned()),
            issuer: "https://issuer.example".to_owned(),
            audiences: vec!["one".to_owned()],
            expires: 7.5,
        };
        assert_eq!(preview, Ok(expected));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = read_preview(&bytes);
        }

        #[test]
        fn no_header_or_claims_panic(header in any::<String>(), claims in any::<String>()) {
            let _ = read_preview(token(&header, &claims).as_bytes());
            let alg = json!({"alg": "ES256", "kid": header}).to_string();
            let iss = json!({"iss": claims, "aud": [claims], "exp": 1}).to_string();
            if let Ok(preview) = read_preview(token(&alg, &iss).as_bytes()) {
                prop_assert_eq!(preview.kid, Some(header));
                prop_assert_eq!((&preview.issuer, preview.audiences.len()), (&claims, 1));
            }
        }
    }
}
