//! `kind = "ldap"`.

use url::Url;

use super::{Kind, PASSWORD_OF_ITS_OWN, Protocol, Spoken};
use crate::section::Section;

pub(super) const LDAP: Kind = Kind {
    word: "ldap",
    capability: "ldap",
    spoken: Spoken::Ldap,
    example: "ldaps://directory.example.com",
    instead_of_password: PASSWORD_OF_ITS_OWN,
    keys: &["bind_dn", "operation_timeout"],
    check_url: url,
    read: ldap,
};

fn ldap(section: &Section<'_>) -> Option<Protocol> {
    section.demand("bind_dn", "bind_dn = \"cn=jit-broker,ou=services,dc=example,dc=com\"");
    let bind_dn = section.parsed("bind_dn", "the distinguished name of the broker's own account", |text| {
        let named = text.contains('=') && text.len() <= 1_024 && !text.chars().any(char::is_control);
        if named { Ok(text.to_owned()) } else { Err("as in \"cn=jit-broker,ou=services,dc=example,dc=com\"") }
    });
    section.demand("password", "password = { file = \"secrets/directory\" }");
    let password = section.secret("password");
    let operation_timeout = section.wait("operation_timeout", 10, 1..=300);
    Some(Protocol::Ldap { bind_dn: bind_dn?, password: password?, operation_timeout })
}

fn url(url: &Url) -> Result<(), &'static str> {
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
