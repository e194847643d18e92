//! What servers store of a password, as callers send it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jit_core::lease::VerifierKind;
use jit_core::secret::{Verifier, most_iterations};
use secrecy::{ExposeSecret as _, SecretString};

use super::Target;

/// Verifiers of anybody.
pub(super) const PARSE: Target = Target {
    name: "verifier",
    about: "a verifier is of one kind and in its one form, is placed as it was sent, and is never shown",
    tokens: &[
        "SCRAM-SHA-256$",
        "4096:",
        "04096:",
        "+4096:",
        "1000001:",
        "$",
        ":",
        "=",
        "==",
        "W22ZaJ0SNY7soEsUEjb6gQ==",
        "WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=",
        "$A$005$",
        "$A$00a$",
        "$A$010$",
        "24412430303524",
        "{SSHA}",
        "{SSHA512}",
        "{ssha}",
        "0x",
        "27",
        "5c",
        "'",
        "\\",
        "\n",
    ],
    run: |input| {
        holds(&input.text());
        // A changed input is hardly ever good hexadecimal or base64: so it is encoded first, in each way in which a
        // kind wants it.
        holds(&hex::encode(input.bytes()));
        for scheme in ["{SSHA}", "{SSHA512}"] {
            holds(&format!("{scheme}{}", STANDARD.encode(input.bytes())));
        }
    },
};

fn holds(text: &str) {
    let sent = SecretString::from(text);
    let mut kinds = 0;
    for kind in VerifierKind::ALL {
        let verifier = match Verifier::parse(kind, &sent) {
            Ok(verifier) => verifier,
            Err(rule) => {
                let said = rule.to_string();
                assert!(said.len() < 1024 && (text.len() < 24 || !said.contains(text)), "{said}");
                continue;
            }
        };
        kinds += 1;
        is_in_its_one_form(&verifier, text);
        let again = Verifier::parse(kind, &verifier.text());
        let again = again.unwrap_or_else(|rule| panic!("{kind} does not read what it writes: {rule}"));
        assert_eq!(again.stored().expose_secret(), verifier.stored().expose_secret());
        assert_eq!(again.digest(), verifier.digest());
        let shown = format!("{verifier:?} {}", verifier.digest());
        assert!(!shown.contains(verifier.stored().expose_secret()), "{shown}");
        let too_many = verifier.iterations() > most_iterations(kind) && most_iterations(kind) > 0;
        assert!(!too_many || verifier.check_iterations(0).is_err(), "{} iterations", verifier.iterations());
    }
    assert!(kinds <= 1, "it is of {kinds} kinds");
}

/// Two texts of one verifier would be two digests: it could be used for two leases. And what is placed has no character
/// that ends a quoted text.
fn is_in_its_one_form(verifier: &Verifier, sent: &str) {
    let stored = verifier.stored().expose_secret();
    assert!(stored.bytes().all(|byte| matches!(byte, b'!'..=b'~') && !b"'\"\\`".contains(&byte)), "{stored:?}");
    match verifier.kind() {
        VerifierKind::CachingSha2 => {
            assert_eq!(stored.len(), 70, "{stored}");
            assert!(stored.starts_with(&format!("$A${:03X}$", verifier.iterations() / 1_000)), "{stored}");
            assert_eq!(hex::encode(stored), sent.to_ascii_lowercase());
        }
        VerifierKind::ScramSha256 => {
            assert_eq!(stored, sent);
            let (head, keys) = stored.rsplit_once('$').unwrap_or_default();
            assert!(head.starts_with(&format!("SCRAM-SHA-256${}:", verifier.iterations())), "{head}");
            assert_eq!(keys.len(), 44 + 1 + 44, "two keys of 32 bytes: {keys}");
        }
        VerifierKind::Ssha | VerifierKind::Ssha512 => assert_eq!(stored, sent),
    }
}
