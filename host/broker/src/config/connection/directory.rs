//! `kind = "ldap"`.

use url::Url;

use super::{Protocol, is_loopback};
use crate::config::section::Section;

pub(super) fn ldap(section: &Section<'_>, url: Option<&Url>) -> Option<Protocol> {
    section.demand("bind_dn", "bind_dn = \"cn=jit-broker,ou=services,dc=example,dc=com\"");
    let bind_dn = section.parsed("bind_dn", "the distinguished name of the broker's own account", |text| {
        let named = text.contains('=') && text.len() <= 1_024 && !text.chars().any(char::is_control);
        if named { Ok(text.to_owned()) } else { Err("as in \"cn=jit-broker,ou=services,dc=example,dc=com\"") }
    });
    section.demand("password", "password = { file = \"secrets/directory\" }");
    let password = section.secret("password");
    let plaintext = section.flag("plaintext").unwrap_or(false);
    let operation_timeout = section.wait("operation_timeout", 10, 1..=300);
    if let Some(url) = url.filter(|_| plaintext) {
        if url.scheme() == "ldaps" {
            section.error("plaintext", "`plaintext` contradicts ldaps://, which is encrypted", None);
        } else if !is_loopback(url) {
            let help = "without it, ldap:// is encrypted by StartTLS";
            let message =
                "`plaintext` is for a server on this machine only: passwords would cross the network in clear";
            section.error("plaintext", message, Some(help.to_owned()));
        } else if section.entry("ca").is_some() {
            section.error("ca", "`ca` has no meaning with `plaintext`: there is no certificate", None);
        }
    }
    Some(Protocol::Ldap { bind_dn: bind_dn?, password: password?, plaintext, operation_timeout })
}

pub(super) fn url(url: &Url) -> Result<(), &'static str> {
    if !matches!(url.scheme(), "ldap" | "ldaps") {
        return Err("it must begin with ldaps:// (or ldap://, with StartTLS)");
    }
    if !url.username().is_empty() {
        return Err("it must not have a user in it: write bind_dn = \"cn=…\" on a line of its own");
    }
    if !url.path().trim_matches('/').is_empty() || url.query().is_some() {
        return Err("it must end with host and port: where entries are made is the target's own configuration");
    }
    Ok(())
}
