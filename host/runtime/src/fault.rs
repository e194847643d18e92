//! What can go wrong in a call of a plugin that is the plugin's own doing.

use std::sync::Arc;

/// A plugin broke its contract or a limit. It says which plugin and what, in words fit for an
/// operator; it holds nothing that a plugin could use to forge log lines (texts are escaped).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("plugin {plugin} {kind}")]
pub struct Fault {
    /// The plugin's name in the configuration.
    pub plugin: Arc<str>,
    /// What it did.
    pub kind: FaultKind,
}

/// What a plugin did.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FaultKind {
    /// It trapped: a panic, an access outside of its memory, a stack overflow.
    #[error("trapped: {message}")]
    Trap {
        /// The trap in wasmtime's words.
        message: String,
    },
    /// It used up its guest time.
    #[error("exceeded {limit_ms} ms of guest time")]
    Deadline {
        /// The limit, in milliseconds.
        limit_ms: u64,
    },
    /// The whole call, host calls included, took too long.
    #[error("did not finish within {limit_ms} ms, its calls to the backend included")]
    CallDeadline {
        /// The call's deadline, in milliseconds.
        limit_ms: u64,
    },
    /// It wanted more memory.
    #[error("exceeded {limit} bytes of memory")]
    Memory {
        /// The limit, in bytes, all memories together.
        limit: usize,
    },
    /// It wanted more table elements.
    #[error("exceeded {limit} table elements")]
    Table {
        /// The limit, all tables together.
        limit: usize,
    },
    /// It called the host too often.
    #[error("exceeded {limit} calls to the host")]
    HostCalls {
        /// The limit.
        limit: u32,
    },
    /// It moved too much data between itself and the host, or answered with too much.
    #[error("exceeded {limit} bytes of data to or from the host")]
    HostBytes {
        /// The limit, in bytes.
        limit: usize,
    },
    /// It holds too many handles of the host.
    #[error("exceeded {limit} handles")]
    Resources {
        /// The limit.
        limit: usize,
    },
    /// It asked the host for something while it was prepared: a copy of the prepared instance would not have it.
    #[error(
        "asked the host for something in `prepare`, where only `log` may be called: an instance is prepared once and \
         copied for each call, so ask in the call itself"
    )]
    AskedInPrepare,
    /// Its answer does not hold water (UNTRUSTED-ANSWER).
    #[error("returned an answer that cannot be used: {0}")]
    Answer(String),
    /// It answered with an error of its own.
    #[error("failed: {0}")]
    Failed(String),
    /// The host has no room for another call now. Not the plugin's doing.
    #[error("was not called: too many plugin calls at once")]
    Overloaded,
}

/// One mistake in a plugin's configuration, escaped and cut.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{}{message}", path, if path.is_empty() { "" } else { ": " })]
pub struct ConfigProblem {
    /// A dotted path below the plugin's own configuration; empty for the whole.
    pub path: String,
    /// What is wrong and what to write instead.
    pub message: String,
}

/// Why a plugin does not accept its configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigFault {
    /// The plugin says what to mend. Never empty.
    #[error("{}", join(.0))]
    Invalid(Vec<ConfigProblem>),
    /// The plugin could not tell.
    #[error(transparent)]
    Fault(#[from] Fault),
}

/// One line for each problem: none has a line break in it.
pub(crate) fn lines(problems: &[ConfigProblem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// All problems in one line.
pub(crate) fn join(problems: &[ConfigProblem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}
