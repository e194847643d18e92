//! Operators, who administer the broker.

use serde::Serialize;

/// Who sits at the other end of the admin socket, as the system says (`SO_PEERCRED`): whoever may open it is an
/// operator, and the record says which.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Operator {
    /// The user of the process that opened the socket.
    #[serde(rename = "operator_uid")]
    pub uid: u32,
    /// The process.
    #[serde(rename = "operator_pid", skip_serializing_if = "Option::is_none")]
    pub pid: Option<i32>,
}
