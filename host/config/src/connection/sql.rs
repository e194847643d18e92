//! `kind = "postgres"` and `kind = "mysql"`.

use url::Url;

use super::{Kind, PASSWORD_OF_ITS_OWN, Protocol, Spoken};
use crate::section::Section;

pub(super) const POSTGRES: Kind = Kind {
    word: "postgres",
    capability: "sql",
    spoken: Spoken::Postgres,
    example: "postgres://jit_broker@127.0.0.1:5432/inventory",
    instead_of_password: PASSWORD_OF_ITS_OWN,
    keys: &[],
    check_url: postgres_url,
    read: postgres,
};

pub(super) const MYSQL: Kind = Kind {
    word: "mysql",
    capability: "sql",
    spoken: Spoken::MySql,
    example: "mysql://jit_broker@127.0.0.1:3306/inventory",
    instead_of_password: PASSWORD_OF_ITS_OWN,
    keys: &[],
    check_url: mysql_url,
    read: mysql,
};

fn postgres(section: &Section<'_>) -> Option<Protocol> {
    Some(Protocol::Postgres { password: section.secret("password") })
}

fn mysql(section: &Section<'_>) -> Option<Protocol> {
    Some(Protocol::MySql { password: section.secret("password") })
}

fn postgres_url(url: &Url) -> Result<(), &'static str> {
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
fn mysql_url(url: &Url) -> Result<(), &'static str> {
    if url.scheme() != "mysql" {
        return Err("it must begin with mysql:// (also for MariaDB)");
    }
    if url.username().is_empty() {
        return Err("the broker's own user is missing, as in user@host");
    }
    Ok(())
}
