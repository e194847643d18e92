//! Types of credentials: what a request may ask for, and what a target offers.

use std::fmt;

use jit_contract::VerifierKind;
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize, Serializer};

jit_contract::words! {
    /// The type of a credential: the word in `type`.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
    pub enum CredentialType {
        /// The broker makes a password and hands it out.
        Password = "password",
        /// The caller makes a password and sends only what the target stores of it.
        Verifier = "verifier",
    }
}

/// What a request asks for: a `password`, or a `verifier` of exactly one kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct CredentialRequest {
    /// `password` or `verifier`.
    #[serde(rename = "type")]
    #[cfg_attr(feature = "openapi", schema(value_type = String, example = "verifier"))]
    pub kind: CredentialType,
    /// PostgreSQL: `SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>`, salt and keys in base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = Password, max_length = 512))]
    pub scram_sha_256: Option<VerifierText>,
    /// MySQL: the 70 bytes `$A$005$<salt of 20 bytes><digest of 43 characters>` in hexadecimal, without `0x`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = Password, max_length = 512))]
    pub caching_sha2: Option<VerifierText>,
    /// Directories: `{SSHA}` and base64 of digest and salt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = Password, max_length = 512))]
    pub ssha: Option<VerifierText>,
    /// Directories: `{SSHA512}` and base64 of digest and salt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = Password, max_length = 512))]
    pub ssha512: Option<VerifierText>,
}

impl CredentialRequest {
    /// A password that the broker makes.
    #[must_use]
    pub fn password() -> Self {
        Self { kind: CredentialType::Password, scram_sha_256: None, caching_sha2: None, ssha: None, ssha512: None }
    }

    /// A verifier of a password that the caller made.
    #[must_use]
    pub fn verifier(kind: VerifierKind, text: SecretString) -> Self {
        let mut request = Self { kind: CredentialType::Verifier, ..Self::password() };
        let place = match kind {
            VerifierKind::ScramSha256 => &mut request.scram_sha_256,
            VerifierKind::CachingSha2 => &mut request.caching_sha2,
            VerifierKind::Ssha => &mut request.ssha,
            VerifierKind::Ssha512 => &mut request.ssha512,
        };
        *place = Some(VerifierText(text));
        request
    }

    /// The verifiers that it has, each with its kind.
    pub fn verifiers(&self) -> impl Iterator<Item = (VerifierKind, &VerifierText)> {
        let all = [
            (VerifierKind::ScramSha256, &self.scram_sha_256),
            (VerifierKind::CachingSha2, &self.caching_sha2),
            (VerifierKind::Ssha, &self.ssha),
            (VerifierKind::Ssha512, &self.ssha512),
        ];
        all.into_iter().filter_map(|(kind, text)| Some((kind, text.as_ref()?)))
    }
}

/// A verifier as it is sent. It can be attacked offline, so it is a secret.
#[derive(Clone, Deserialize)]
pub struct VerifierText(pub SecretString);

impl fmt::Debug for VerifierText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("VerifierText([REDACTED])")
    }
}

impl PartialEq for VerifierText {
    fn eq(&self, other: &Self) -> bool {
        self.0.expose_secret() == other.0.expose_secret()
    }
}

impl Eq for VerifierText {}

impl Serialize for VerifierText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.expose_secret())
    }
}

/// What a reply says where the caller made the password.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MadeByCaller {
    /// The account's name.
    pub username: String,
    /// Which kind of verifier the caller sent.
    pub verifier: VerifierKind,
}

/// What a caller may ask a target for, in one of its roles.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TargetView {
    /// The target.
    #[cfg_attr(feature = "openapi", schema(example = "inventory_db"))]
    pub target: String,
    /// The role.
    #[cfg_attr(feature = "openapi", schema(example = "app_read_only"))]
    pub role: String,
    /// The types of credentials that the policies grant this caller now, in the broker's order of preference.
    pub credentials: Vec<OfferedCredential>,
    /// The length of a lease of a request that names none, in seconds.
    pub default_ttl_seconds: u32,
    /// The longest that a lease lives with its renewals, in seconds.
    pub max_ttl_seconds: u32,
}

/// A page of what a caller may ask for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TargetPage {
    /// An entry for each target and role of which the caller may have a credential now, by name.
    pub targets: Vec<TargetView>,
    /// With it as `cursor`, the next page; null after the last one.
    pub next_cursor: Option<String>,
}

/// A type of credential that a target offers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct OfferedCredential {
    /// `password` or `verifier`. There will be further types.
    #[serde(rename = "type")]
    #[cfg_attr(feature = "openapi", schema(example = "verifier"))]
    pub kind: String,
    /// With `verifier`: which kind, by the name of its field in a request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(example = "scram_sha_256"))]
    pub verifier: Option<String>,
    /// With a verifier that has iterations: the least.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(example = 4096))]
    pub least_iterations: Option<u32>,
    /// With a verifier that has iterations: the most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(example = 1_000_000))]
    pub most_iterations: Option<u32>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_names_one_kind_and_shows_no_verifier() {
        for kind in VerifierKind::ALL {
            let request = CredentialRequest::verifier(kind, SecretString::from("geheim"));
            let text = serde_json::to_string(&request).unwrap();
            assert_eq!(text, format!(r#"{{"type":"verifier","{kind}":"geheim"}}"#));
            assert_eq!(serde_json::from_str::<CredentialRequest>(&text).unwrap(), request);
            assert_eq!(request.verifiers().map(|(kind, _)| kind).collect::<Vec<_>>(), [kind]);
            assert!(!format!("{request:?}").contains("geheim"), "{request:?}");
        }
        assert_eq!(serde_json::to_string(&CredentialRequest::password()).unwrap(), r#"{"type":"password"}"#);
        for wrong in [r#"{"type":"x509"}"#, r#"{"type":"verifier","md5":"x"}"#, r#"{"scram_sha_256":"x"}"#] {
            assert!(serde_json::from_str::<CredentialRequest>(wrong).is_err(), "{wrong}");
        }
    }
}
