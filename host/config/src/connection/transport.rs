//! How the way to the server is protected: the one rule of `jit_runtime`, told at its line.

use jit_core::transport::{Part, Spoken, Unprotected, is_here, security};
use url::Url;

use crate::section::{Section, shown};
use jit_core::spelling;

/// `plaintext = { because = "…" }`: the reason. None where it is not there, or is wrong, which is then told.
pub(crate) fn plaintext(section: &Section<'_>) -> Option<String> {
    let (_, value) = section.entry("plaintext")?;
    if !value.get_ref().is_table() {
        let message = "`plaintext` must say why the server need not be verified";
        let help = "write plaintext = { because = \"…\" }, or leave it out";
        section.error("plaintext", message, Some(help.to_owned()));
        return None;
    }
    section.section("plaintext", |table| {
        table.demand("because", "because = \"both ends are in one pod\"");
        table.text("because", "the reason in quotes")
    })?
}

/// Tells what does not obey the rule. An operator's way round it is a warning. Whether there was nothing to tell.
pub(crate) fn check(section: &Section<'_>, spoken: Spoken, url: &Url, because: Option<&str>) -> bool {
    let there = |key: &'static str| section.entry(key).is_some();
    // `ca` means the strictest check; a URL that says something else of TLS would contradict it.
    let says_tls = |key: &str| matches!(key, "sslmode" | "ssl-mode" | "sslrootcert" | "ssl-ca");
    if there("ca") && url.query_pairs().any(|(key, _)| says_tls(&key)) {
        let help = "take sslmode and the like out of the URL: with `ca` the server's name and certificate are checked";
        section.error("ca", "`ca` and the URL's parameters both say how TLS is done", Some(help.to_owned()));
        return false;
    }
    let Err(Unprotected { part, reason, instead, misspelt }) = security(spoken, url, there("plaintext"), there("ca"))
    else {
        if because.is_some() && !is_here(spoken, url) {
            let message =
                "the server is on another machine and is not verified: whoever answers in its place gets the passwords";
            section.reading.warn(section.span_of("plaintext"), message, None);
            return false;
        }
        return true;
    };
    let key = match part {
        Part::Url => "url",
        Part::Plaintext => "plaintext",
        Part::Ca => "ca",
    };
    let message = match misspelt {
        None => reason,
        Some((word, known)) => match spelling::nearest(&word, known.iter().copied()) {
            Some(near) => format!("{reason} (`{}`): did you mean `{near}`?", shown(&word)),
            // It may be anything, also a secret.
            None => reason,
        },
    };
    section.error(key, message, Some(instead));
    false
}
