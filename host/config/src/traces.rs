//! `[traces]`: where spans are sent.

use std::collections::BTreeMap;
use std::path::PathBuf;

use jit_core::transport::Spoken;
use url::Url;

use super::connection::{server_url_of, transport};
use super::field::Wrong;
use super::secret::SecretRef;
use super::section::Section;

/// What to write.
const EXAMPLE: &str = "https://collector.example.com:4318/v1/traces";

/// `[traces]`: a collector that takes OTLP over HTTP.
#[derive(Debug, Clone, PartialEq)]
pub struct Traces {
    /// Where spans are sent, the path included.
    pub url: Url,
    /// The authorities that vouch for it, instead of the system's.
    pub ca: Option<PathBuf>,
    /// Why the collector need not be verified although it is on another machine.
    pub plaintext: Option<String>,
    /// Headers of each request, by their names: what the collector wants to know senders by.
    pub headers: BTreeMap<String, SecretRef>,
    /// How many of a hundred traces are kept, by default all.
    pub percent: f64,
}

pub(super) fn traces(section: &Section<'_>) -> Option<Traces> {
    section.demand("url", &format!("url = \"{EXAMPLE}\""));
    let url = section.field("url", &format!("a URL such as \"{EXAMPLE}\""), |value| {
        let text = value.as_str().ok_or(Wrong::Kind)?;
        server_url_of(text, "http").map_err(Wrong::Value)
    });
    if url.is_none() {
        // What does not parse may still hold a password, in a place where nobody expects it.
        section.reading.mask(section.span_of("url"));
    }
    let ca = section.path("ca");
    let plaintext = transport::plaintext(section);
    if let Some(url) = &url {
        transport::check(section, Spoken::Http, url, plaintext.as_deref());
    }
    let headers = section.secrets("headers");
    let percent = section.percent("percent");
    Some(Traces { url: url?, ca, plaintext, headers: headers?, percent: percent.unwrap_or(100.0) })
}
