//! Operators, who administer the broker.

use jit_core::event::AuditEvent;

/// Who sits at the other end of the admin socket, as the system says (`SO_PEERCRED`): whoever may open it is an
/// operator, and the record says which.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Operator {
    /// The user of the process that opened the socket.
    pub uid: u32,
    /// The process.
    pub pid: Option<i32>,
}

impl Operator {
    /// Writes it into the record of what the operator asked for.
    #[must_use]
    pub fn sign(self, event: AuditEvent) -> AuditEvent {
        let event = event.with("operator_uid", self.uid);
        match self.pid {
            Some(pid) => event.with("operator_pid", pid),
            None => event,
        }
    }
}
