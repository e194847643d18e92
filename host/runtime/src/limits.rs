//! What one call of a plugin may use.

use std::time::Duration;

/// Limits of one call. Every call gets a fresh instance and starts from zero.
///
/// A limit that is reached ends the call with a [`crate::Fault`] that names the plugin and the
/// limit; the broker and other calls are unharmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Guest time of a policy or context call: CPU time of the thread that runs it, so that a busy
    /// machine does not make a policy fail. Checked every [`crate::EPOCH_TICK`].
    pub policy_time: Duration,
    /// Guest time of a driver call: CPU time, waiting for the backend not counted (that is bounded
    /// by [`crate::DriverScope::deadline`]).
    pub driver_time: Duration,
    /// Linear memory, all memories of the instance together, in bytes.
    pub memory_bytes: usize,
    /// Table elements, all tables of the instance together.
    pub table_elements: usize,
    /// Calls to the host, whatever the function.
    pub host_calls: u32,
    /// Bytes that cross between guest and host in host calls, both directions together; also the
    /// most that one answer of the plugin may hold.
    pub host_bytes: usize,
    /// Host-owned resources (secrets) alive at once.
    pub resources: usize,
    /// Log lines; one further line says that the rest was cut.
    pub log_lines: u32,
    /// Bytes of one log line, fields included, before escaping.
    pub log_line_bytes: usize,
    /// Rows that one query gives, whatever the plugin asks for.
    pub rows: u32,
    /// Columns of a row.
    pub columns: usize,
    /// Statements of one batch.
    pub batch: usize,
    /// Bytes of a text that a plugin gives as a reason or message; longer ones are cut.
    pub reason_bytes: usize,
    /// Entries of a list of labels, properties or facts.
    pub pairs: usize,
    /// Bytes of a name in such a list.
    pub pair_name_bytes: usize,
    /// Bytes of a value in such a list.
    pub pair_value_bytes: usize,
    /// Account names on one page of `list-accounts`.
    pub page: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            policy_time: Duration::from_millis(50),
            driver_time: Duration::from_millis(500),
            memory_bytes: 64 << 20,
            table_elements: 50_000,
            host_calls: 1_000,
            host_bytes: 4 << 20,
            resources: 64,
            log_lines: 100,
            log_line_bytes: 4 << 10,
            rows: 1_000,
            columns: 64,
            batch: 64,
            reason_bytes: 1 << 10,
            pairs: 32,
            pair_name_bytes: 64,
            pair_value_bytes: 1 << 10,
            page: 1_000,
        }
    }
}
