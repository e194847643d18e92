//! `kind = "postgres"` and `kind = "mysql"`.

use url::Url;

use super::Protocol;
use crate::config::section::Section;

pub(super) fn postgres(section: &Section<'_>, url: Option<&Url>) -> Option<Protocol> {
    let password = section.secret("password");
    one_place_for_tls(section, url);
    Some(Protocol::Postgres { password })
}

pub(super) fn mysql(section: &Section<'_>, url: Option<&Url>) -> Option<Protocol> {
    let password = section.secret("password");
    one_place_for_tls(section, url);
    Some(Protocol::MySql { password })
}

/// `ca` means the strictest check; a URL that says something else of TLS would contradict it.
fn one_place_for_tls(section: &Section<'_>, url: Option<&Url>) {
    let says_tls = |key: &str| {
        let key = key.to_ascii_lowercase().replace('-', "");
        key == "sslmode" || key == "sslrootcert" || key == "sslca"
    };
    if section.entry("ca").is_some() && url.is_some_and(|url| url.query_pairs().any(|(key, _)| says_tls(&key))) {
        let help = "take sslmode and the like out of the URL: with `ca` the server's name and certificate are checked";
        section.error("ca", "`ca` and the URL's parameters both say how TLS is done", Some(help.to_owned()));
    }
}

pub(super) fn postgres_url(url: &Url) -> Result<(), &'static str> {
    if !matches!(url.scheme(), "postgres" | "postgresql") {
        return Err("it must begin with postgres://");
    }
    if url.username().is_empty() {
        return Err("the broker's own user is missing, as in user@host");
    }
    if url.path().trim_start_matches('/').is_empty() {
        return Err("the database is missing, as in host:5432/inventory");
    }
    Ok(())
}

/// A MySQL server's accounts belong to no database, so the URL needs to name none.
pub(super) fn mysql_url(url: &Url) -> Result<(), &'static str> {
    if url.scheme() != "mysql" {
        return Err("it must begin with mysql:// (also for MariaDB)");
    }
    if url.username().is_empty() {
        return Err("the broker's own user is missing, as in user@host");
    }
    Ok(())
}
