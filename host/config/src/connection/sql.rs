//! `kind = "postgres"` and `kind = "mysql"`.

use url::Url;

use super::Protocol;
use crate::section::Section;

pub(super) fn postgres(section: &Section<'_>) -> Option<Protocol> {
    Some(Protocol::Postgres { password: section.secret("password") })
}

pub(super) fn mysql(section: &Section<'_>) -> Option<Protocol> {
    Some(Protocol::MySql { password: section.secret("password") })
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
