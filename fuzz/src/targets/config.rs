//! The configuration file.

use jit_config::Config;

use super::Target;

/// What stands where a secret must never be shown.
const NEEDLE: &str = "needle-7f3a9c";

/// Configurations with mistakes and with secrets in them.
pub(super) const TOML: Target = Target {
    name: "config",
    about: "a configuration is read or explained, and the explanation never shows what may be a secret",
    tokens: &[
        "[server]",
        "[store]",
        "[targets.db]",
        "[connections.db]",
        "[identity.issuers.k8s]",
        "[plugins.p]",
        "url = ",
        "password = ",
        "kind = \"postgres\"",
        "\"\"\"",
        "'''",
        "[[",
        "]]",
        "{",
        "}",
        "=",
        "#",
        "1h30m",
        "\"needle-7f3a9c\"",
        "postgres://u:needle-7f3a9c@h/d",
        "listen = ",
        "ttl = ",
        "\\u0041",
        "inf",
        "0x1F",
        "1979-05-27T07:32:00Z",
    ],
    run: |input| {
        let [text, key] = input.parts();
        if text.len() > jit_config::MAX_FILE {
            return;
        }
        let _ = Config::parse(&text, "broker.toml");
        // A secret after a key that says so, in a file with whatever mistakes.
        let key = if key.contains("password") { "db_password" } else { "client_secret" };
        let text = format!("{}\n{key} = \"{NEEDLE}\"\n", text.replace(NEEDLE, "x"));
        if let Err(errors) = Config::parse(&text, "broker.toml") {
            let shown = errors.render(false);
            assert!(!shown.contains(NEEDLE), "the explanation shows a secret:\n{shown}");
        }
    },
};
