//! What an error of MySQL or MariaDB says about the statement. Their SQLSTATE is `HY000` for most,
//! so that the number is what counts (MySQL manual, "Server Error Message Reference").

use sqlx::error::DatabaseError;
use sqlx::mysql::MySqlDatabaseError;
use zeroize::Zeroizing;

use super::super::{MESSAGE, withheld};
use crate::bindings::sql::ServerError;
use crate::text::escape;

/// Access denied: not with that name and password, from here.
pub(crate) const ACCESS_DENIED: [u16; 2] = [1045, 1698];

/// Unknown thread id: nothing to end.
pub(crate) const NO_SUCH_THREAD: u16 = 1094;

/// The server was interrupted, or says so of the connection: whether the statement took effect
/// before is open.
///
/// 1053 shutdown, 1080 forced close, 1152 aborted, 1158–1161 network, 1180 error during COMMIT,
/// 1181 error during ROLLBACK, 1184 aborted, 1317 interrupted, 1927 killed (MariaDB), 1969
/// `max_statement_time` (MariaDB), 3024 `max_execution_time`, 3168 server not available, 4031 idle
/// for too long.
const OPEN: [u16; 15] = [1053, 1080, 1152, 1158, 1159, 1160, 1161, 1180, 1181, 1184, 1317, 1927, 1969, 3024, 3168];
const IDLE: u16 = 4031;

/// The server's own no to one statement. `None` when the error leaves open whether it took effect.
pub(crate) fn definite(error: &MySqlDatabaseError, placed: &[Zeroizing<String>]) -> Option<ServerError> {
    if is_open(error.number()) {
        return None;
    }
    Some(ServerError {
        code: error.number().to_string(),
        message: withheld(error.message(), placed).unwrap_or_else(|| escape(error.message(), MESSAGE)),
    })
}

fn is_open(number: u16) -> bool {
    // 2000 and up to 2999 are a client's own errors.
    OPEN.contains(&number) || number == IDLE || (2_000..3_000).contains(&number)
}

/// Deadlock: the statement was taken back. A lock that was not free for the whole wait (1205) is none:
/// it may be held for hours, and only its driver knows what to do meanwhile.
pub(crate) fn is_lost_race(error: &ServerError) -> bool {
    error.code == "1213"
}

/// The number of a server's error.
pub(crate) fn number(error: &sqlx::Error) -> Option<u16> {
    number_of(error.as_database_error()?)
}

/// None when it is another server's.
pub(crate) fn number_of(error: &(dyn DatabaseError + 'static)) -> Option<u16> {
    error.try_downcast_ref::<MySqlDatabaseError>().map(MySqlDatabaseError::number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interrupted_statement_may_have_taken_effect() {
        for open in [1053, 1158, 1180, 1317, 1927, 1969, 2013, 3024, 4031] {
            assert!(is_open(open), "{open}");
        }
        for definite in [1044, 1064, 1142, 1205, 1213, 1227, 1290, 1396, 1836, 3523, 4006] {
            assert!(!is_open(definite), "{definite}");
        }
    }

    #[test]
    fn only_what_the_server_took_back_is_tried_again() {
        let error = |code: &str| ServerError { code: code.to_owned(), message: String::new() };
        assert!(is_lost_race(&error("1213")) && !is_lost_race(&error("1205")));
        assert!(!is_lost_race(&error("1396")) && !is_lost_race(&error("40001")));
    }
}
