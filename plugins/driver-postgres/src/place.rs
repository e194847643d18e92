//! Where the accounts are: the cluster, by its own identity.

use jit_plugin::{Error, Sql, SqlError};

use crate::failure::{self, INSUFFICIENT_PRIVILEGE};
use crate::statements;

/// The cluster's system identifier. Nothing where the server keeps it to itself: the host then goes by the
/// connection's host and port.
pub(crate) fn place(sql: &mut dyn Sql) -> Result<Vec<(String, String)>, Error> {
    let rows = match sql.query(None, &statements::PLACE.with([]), 1) {
        Ok(answer) => answer.rows,
        Err(error) if is_kept_secret(&error) => return Ok(Vec::new()),
        Err(error) => return Err(failure::of_read(error)),
    };
    match rows.into_iter().next().and_then(|row| row.into_iter().next().flatten()) {
        Some(identifier) => Ok(vec![("server".to_owned(), identifier)]),
        None => Err(Error::Other("the server did not return its system identifier".into())),
    }
}

fn is_kept_secret(error: &SqlError) -> bool {
    error.code() == Some(INSUFFICIENT_PRIVILEGE)
}
