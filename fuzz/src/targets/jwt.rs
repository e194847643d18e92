//! Tokens before anything about them was verified.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jit_identity::read_preview;

use super::Target;

/// Tokens of anybody.
pub(super) const PREVIEW: Target = Target {
    name: "jwt_preview",
    about: "a token that is not understood is refused, and never with more of its text than a log may hold",
    tokens: &[
        ".",
        "{\"alg\":\"RS256\"}",
        "\"alg\":\"none\"",
        "\"kid\":\"k\"",
        "\"crit\":null",
        "\"typ\":\"at+jwt\"",
        "\"iss\":\"https://i\"",
        "\"aud\":[\"a\"]",
        "\"exp\":1e400",
        "\"exp\":-1",
        "\"alg\":\"RS256\",\"alg\":\"ES256\"",
        "{",
        "}",
        "[[[[[[[[",
    ],
    run: |input| {
        let text = input.text();
        let _ = read_preview(text.as_bytes());
        // The parts are base64url, which changed inputs hardly ever are: so these are encoded first.
        let [header, claims] = input.parts();
        let token = format!("{}.{}.c2ln", URL_SAFE_NO_PAD.encode(&header), URL_SAFE_NO_PAD.encode(&claims));
        match read_preview(token.as_bytes()) {
            Ok(preview) => {
                // Numbers beyond a double elsewhere in the JSON are no matter to the code under test.
                if let Ok(read) = serde_json::from_str::<serde_json::Value>(&claims) {
                    assert_eq!(read["iss"], preview.issuer.as_str(), "another issuer than the claims name");
                }
                if let Ok(read) = serde_json::from_str::<serde_json::Value>(&header) {
                    assert_ne!(read["alg"], "none", "an unsigned token");
                    assert!(read.get("crit").is_none(), "a token with an extension that nobody understood");
                }
            }
            Err(reason) => {
                let reason = reason.to_string();
                assert!(reason.len() < 1024, "{} bytes of reason", reason.len());
            }
        }
    },
};
