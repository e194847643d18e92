//! What a server's error number means for the host (MySQL manual, "Server Error Message Reference").
//! The host gives the number as the code: the SQLSTATE is `HY000` for most.

use jit_plugin::{Error, SqlError};

/// `ER_CANNOT_USER`: of CREATE USER that the account exists, of ALTER USER that it does not.
pub(crate) const CANNOT_USER: &str = "1396";
/// `ER_NO_SUCH_THREAD`
pub(crate) const NO_SUCH_SESSION: &str = "1094";
/// `ER_CANNOT_USER_REFERENCED_AS_DEFINER`
pub(crate) const IS_DEFINER: &str = "4006";

/// Access denied to the statement: to its database, table, column, routine or as a whole.
const DENIED: [&str; 8] = ["1044", "1045", "1142", "1143", "1227", "1370", "1410", "1698"];

/// Unknown table of `information_schema`: an older server.
pub(crate) const UNKNOWN_TABLE: [&str; 2] = ["1109", "1146"];

/// Nothing was done, and it may be done later: lost races (1205, 1213), too many connections (1040,
/// 1203, 1226), no room (1021, 1114) or memory (1037, 1038, 1041, 1135), a server that is a replica
/// or closed for writing for the moment (1290, 1836, 3032), too many transactions at once (1637).
const PASSING: [&str; 15] = [
    "1205", "1213", "1040", "1203", "1226", "1021", "1114", "1037", "1038", "1041", "1135", "1290", "1836", "1637",
    "3032",
];

/// Whether the broker's account lacks a privilege.
pub(crate) fn is_denied(error: &SqlError) -> bool {
    error.code().is_some_and(|code| DENIED.contains(&code))
}

/// The failure of a statement that changes something.
pub(crate) fn of_change(error: SqlError) -> Error {
    let SqlError::Refused(server) = &error else {
        return error.into();
    };
    let text = format!("{} (error {})", server.message, server.code);
    if is_denied(&error) {
        Error::Refused(format!("{text}: the broker's account lacks a privilege, see docs/drivers/mysql.md"))
    } else if PASSING.contains(&server.code.as_str()) {
        Error::retryable(text)
    } else {
        Error::Refused(text)
    }
}

/// The failure of a change of an account: `ALTER USER` of one that is not there.
pub(crate) fn of_existing(error: SqlError) -> Error {
    match error.code() {
        Some(CANNOT_USER) => Error::NotFound,
        _ => of_change(error),
    }
}

/// The failure of a statement that only reads: without an answer, nothing was done.
pub(crate) fn of_read(error: SqlError) -> Error {
    match of_change(error) {
        Error::OutcomeUnknown(reason) => Error::retryable(reason),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jit_plugin::ServerError;

    fn refused(code: &str) -> SqlError {
        SqlError::Refused(ServerError { code: code.into(), message: "m".into() })
    }

    #[test]
    fn each_number_tells_the_host_what_to_do() {
        let kind = |code| match of_change(refused(code)) {
            Error::Refused(text) if text.contains("docs/drivers") => "denied",
            Error::Refused(_) => "refused",
            Error::Retryable(_) => "retryable",
            _ => "else",
        };
        for (code, expected) in [
            ("1044", "denied"),
            ("1227", "denied"),
            ("1064", "refused"),
            ("3523", "refused"),
            ("1205", "retryable"),
            ("1290", "retryable"),
            ("1836", "retryable"),
            ("1021", "retryable"),
            ("1114", "retryable"),
        ] {
            assert_eq!(kind(code), expected, "{code}");
        }
        assert_eq!(of_existing(refused("1396")), Error::NotFound);
    }

    #[test]
    fn a_read_is_never_in_doubt() {
        let lost = || SqlError::Unknown("lost".into());
        assert!(matches!(of_read(lost()), Error::Retryable(_)));
        assert!(matches!(of_change(lost()), Error::OutcomeUnknown(_)));
    }
}
