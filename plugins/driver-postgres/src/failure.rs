//! What a SQLSTATE means for the host (PostgreSQL manual, appendix A).

use jit_plugin::{Error, SqlError};

/// `undefined_object`
pub(crate) const UNDEFINED_OBJECT: &str = "42704";
/// `dependent_objects_still_exist`
pub(crate) const DEPENDENT_OBJECTS: &str = "2BP01";

/// `lock_not_available`: the wait for a lock was as long as it may be.
pub(crate) const LOCK_NOT_AVAILABLE: &str = "55P03";
/// `query_canceled`
pub(crate) const QUERY_CANCELED: &str = "57014";
/// `out_of_memory`: of the table of locks, mostly.
pub(crate) const OUT_OF_MEMORY: &str = "53200";
/// `syntax_error`: of our statements only on a server that is too old for one.
pub(crate) const SYNTAX_ERROR: &str = "42601";
/// `insufficient_privilege`
pub(crate) const INSUFFICIENT_PRIVILEGE: &str = "42501";

/// `duplicate_object`, and `unique_violation` when two create the same role at once.
const EXISTS: [&str; 2] = ["42710", "23505"];

/// The failure of a statement that changes something.
pub(crate) fn of_change(error: SqlError) -> Error {
    let SqlError::Refused(server) = error else {
        return error.into();
    };
    let code = server.code.as_str();
    let text = || format!("{} (SQLSTATE {code})", server.message);
    if EXISTS.contains(&code) {
        Error::Conflict(text())
    } else if code == INSUFFICIENT_PRIVILEGE {
        let hint = "the broker's role lacks a privilege; docs/drivers/postgres.md lists what it needs";
        Error::Refused(format!("{}: {hint}", text()))
    } else if is_passing(code) {
        Error::retryable(text())
    } else if code.starts_with("57") {
        // Operator intervention: a cancel or a shutdown can be noticed after the commit.
        Error::OutcomeUnknown(text())
    } else {
        Error::Refused(text())
    }
}

/// The failure of a statement of a removal. What holds up this one account, a lock say, is not told as
/// a server that is away: the others' removals go on.
pub(crate) fn of_removal(error: SqlError) -> Error {
    let own = match error.code() {
        Some(code) => {
            ["40", "55"].iter().any(|class| code.starts_with(class)) || ["XX000", OUT_OF_MEMORY].contains(&code)
        }
        None => false,
    };
    match of_change(error) {
        Error::Retryable(retry) if own => not_yet(retry.reason),
        other => other,
    }
}

/// The account cannot go yet; what was done of its removal stays.
pub(crate) fn not_yet(reason: impl Into<String>) -> Error {
    Error::OutcomeUnknown(reason.into())
}

/// The failure of a statement that only reads: whatever passes can be tried again.
pub(crate) fn of_read(error: SqlError) -> Error {
    match of_change(error) {
        Error::OutcomeUnknown(reason) => Error::retryable(reason),
        other => other,
    }
}

/// Nothing was done, and it may be done later: lost races (40, 55, and XX000 "tuple concurrently
/// updated"), no room (53), a server that is starting (57P03) or is a standby for the moment (25006).
fn is_passing(code: &str) -> bool {
    ["40", "53", "55"].iter().any(|class| code.starts_with(class)) || ["57P03", "25006", "XX000"].contains(&code)
}

#[cfg(test)]
mod tests {
    use super::*;
    use jit_plugin::ServerError;

    fn refused(code: &str) -> SqlError {
        SqlError::Refused(ServerError { code: code.into(), message: "m".into() })
    }

    #[test]
    fn each_sqlstate_tells_the_host_what_to_do() {
        let kind = |code| match of_change(refused(code)) {
            Error::Conflict(_) => "conflict",
            Error::Refused(_) => "refused",
            Error::Retryable(_) => "retryable",
            Error::OutcomeUnknown(_) => "unknown",
            _ => "else",
        };
        for (code, expected) in [
            ("42710", "conflict"),
            ("23505", "conflict"),
            ("42501", "refused"),
            ("42704", "refused"),
            ("42601", "refused"),
            ("53300", "retryable"),
            ("40001", "retryable"),
            ("55P03", "retryable"),
            ("25006", "retryable"),
            ("57P03", "retryable"),
            ("XX000", "retryable"),
            ("57P01", "unknown"),
            ("57014", "unknown"),
        ] {
            assert_eq!(kind(code), expected, "{code}");
        }
    }

    #[test]
    fn what_holds_up_one_account_is_no_outage() {
        for code in ["55P03", "40P01", "XX000", "53200"] {
            assert!(matches!(of_removal(refused(code)), Error::OutcomeUnknown(_)), "{code}");
        }
        for code in ["53300", "57P03"] {
            assert!(matches!(of_removal(refused(code)), Error::Retryable(_)), "{code}");
        }
    }

    #[test]
    fn a_read_is_never_in_doubt() {
        for error in [refused("57P01"), SqlError::Unknown("lost".into())] {
            assert!(matches!(of_read(error), Error::Retryable(_)));
        }
    }
}
