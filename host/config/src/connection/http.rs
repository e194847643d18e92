//! `kind = "http"`.

use std::net::IpAddr;

use url::Url;

use super::{Kind, Protocol, Spoken};
use crate::section::{Section, shown};

/// The most addresses that are excepted.
const MOST_ADDRESSES: usize = 64;

pub(super) const HTTP: Kind = Kind {
    word: "http",
    capability: "http",
    spoken: Spoken::Http,
    example: "https://vault.example.com:8200",
    instead_of_password: "it must not have a user or password in it: write secrets = { name = { file = \"…\" } }",
    keys: &["addresses", "request_timeout"],
    check_url: url,
    read: http,
};

fn http(section: &Section<'_>) -> Option<Protocol> {
    let secrets = section.secrets("secrets");
    let addresses = addresses(section);
    let request_timeout = section.wait("request_timeout", 10, 1..=300);
    Some(Protocol::Http { secrets: secrets?, addresses: addresses?, request_timeout })
}

fn addresses(section: &Section<'_>) -> Option<Vec<IpAddr>> {
    if section.entry("addresses").is_none() {
        return Some(Vec::new());
    }
    let words = section.texts("addresses", "a list of IP addresses such as [\"169.254.1.1\"]")?;
    if words.len() > MOST_ADDRESSES {
        let message = format!("`addresses` has {} entries, at most {MOST_ADDRESSES} are taken", words.len());
        section.error("addresses", message, None);
        return None;
    }
    let mut addresses = Vec::new();
    for word in &words {
        match word.parse::<IpAddr>() {
            Ok(address) => addresses.push(address),
            Err(_) => {
                let help = "a name would let its owner choose the address: write the address itself";
                let message = format!("`{}` is not an IP address", shown(word));
                section.error("addresses", message, Some(help.to_owned()));
                return None;
            }
        }
    }
    Some(addresses)
}

fn url(url: &Url) -> Result<(), &'static str> {
    match url.scheme() {
        "https" | "http" => {}
        _ => return Err("it must begin with https://"),
    }
    if !url.username().is_empty() {
        return Err("it must not have a user or password in it: write secrets = { name = { file = \"…\" } }");
    }
    if url.query().is_some() {
        return Err("it must end with its path: parameters are the driver's to add");
    }
    Ok(())
}
