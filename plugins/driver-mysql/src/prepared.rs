//! Prepared XA transactions that no session holds any more.
//!
//! `XA PREPARE` asks for no privilege, and what is prepared outlives session and account, with its locks. Neither
//! server says whose it was once the session is gone, and on MySQL it is detached before that (8.0.29 and later). So
//! it cannot be shown to be an account's, and the driver rolls back nothing: it may be another application's, whose
//! transaction manager will commit it. It says that they are there, at each removal and at each check of a target.

use jit_plugin::{Sql, log};

use crate::statements;

/// What a person does about them.
const REMEDY: &str = "prepared transactions that no session holds keep their locks, and the server does not say whose \
                      they are; list them with XA RECOVER, and end with XA ROLLBACK those that no transaction manager \
                      will commit";

/// Says how many there are and since when, beside the account or target that was looked at. A look that fails holds
/// up nothing.
pub(crate) fn warn(sql: &mut dyn Sql, about: (&str, &str)) {
    let Ok(answer) = sql.query(None, &statements::PREPARED.with([]), 1) else { return };
    let Some([Some(count), since]) = answer.rows.first().map(Vec::as_slice) else { return };
    if count != "0" {
        let since = since.as_deref().unwrap_or_default();
        log::warn(REMEDY, &[about, ("transactions", count), ("oldest_since", since)]);
    }
}
