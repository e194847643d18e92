//! What a server's error number means for the host (MySQL manual, "Server Error Message Reference").
//! The host gives the number as the code: the SQLSTATE is `HY000` for most.

use jit_plugin::{Error, ServerError, SqlError};

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

/// Nothing was done, and it may be done later: lost races and locks that were not free (1205, 1213),
/// too many connections (1040, 1203, 1226) or broken ones (1129), no room (1021, 1114) or memory (1037,
/// 1038, 1041, 1135), a server that is a replica or closed for writing for the moment (1836, 3032), too
/// many transactions at once (1637).
const PASSING: [&str; 15] = [
    "1205", "1213", "1040", "1129", "1203", "1226", "1021", "1114", "1037", "1038", "1041", "1135", "1836", "1637",
    "3032",
];

/// `ER_OPTION_PREVENTS_STATEMENT`: of a server that is read-only that passes, of others
/// (`strict_password_validation`, `skip_grant_tables`) it does not.
const OPTION_PREVENTS: &str = "1290";

/// `ER_NOT_VALID_PASSWORD`: the server's own rules for passwords.
const NOT_VALID_PASSWORD: &str = "1819";

/// Whether the same statement may succeed later.
pub(crate) fn is_passing(error: &ServerError) -> bool {
    let read_only = || error.message.contains("read-only") || error.message.contains("read_only");
    PASSING.contains(&error.code.as_str()) || error.code == OPTION_PREVENTS && read_only()
}

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
        Error::Refused(format!(
            "{text}: the broker's account lacks a privilege; docs/drivers/mysql.md lists what it needs"
        ))
    } else if is_passing(server) {
        Error::retryable(text)
    } else if server.code == NOT_VALID_PASSWORD {
        Error::Refused(format!(
            "{text}: the broker's passwords have upper and lower case, digits and a hyphen; relax what \
             `validate_password` asks beyond that, see docs/drivers/mysql.md"
        ))
    } else if server.code == OPTION_PREVENTS {
        Error::Refused(format!(
            "{text}: the server must accept password hashes from the broker; see docs/drivers/mysql.md"
        ))
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
            ("1129", "retryable"),
            ("1836", "retryable"),
            ("1021", "retryable"),
            ("1114", "retryable"),
        ] {
            assert_eq!(kind(code), expected, "{code}");
        }
        assert_eq!(of_existing(refused("1396")), Error::NotFound);
        for (option, passes) in
            [("--read-only", true), ("--super-read-only", true), ("--strict-password-validation", false)]
        {
            let message = format!("The server is running with the {option} option so it cannot execute this statement");
            let error = of_change(SqlError::Refused(ServerError { code: "1290".into(), message }));
            assert_eq!(matches!(error, Error::Retryable(_)), passes, "{option}: {error:?}");
        }
    }

    #[test]
    fn a_read_is_never_in_doubt() {
        let lost = || SqlError::Unknown("lost".into());
        assert!(matches!(of_read(lost()), Error::Retryable(_)));
        assert!(matches!(of_change(lost()), Error::OutcomeUnknown(_)));
    }
}
