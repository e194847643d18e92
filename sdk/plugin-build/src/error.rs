//! What can go wrong on the way from source to component.

use std::path::PathBuf;

use crate::check::CheckReport;

/// One way to a guest compiler that was tried, and why it did not lead there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// The way: `rustup`, `distribution`, `debian`.
    pub way: &'static str,
    /// Why not, with the fix where there is one.
    pub reason: String,
}

/// A failure of this crate. Its text is written for the person who ran the command.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No way led to a compiler for guests.
    #[error("no compiler for {target} was found:{}\nrun `rustup target add {target}`", list(attempts), target = crate::GUEST_TARGET)]
    NoToolchain {
        /// All ways that were tried, in order.
        attempts: Vec<Attempt>,
    },
    /// A program could not be started.
    #[error("{program} could not be started")]
    Start {
        /// The program's name.
        program: String,
        /// The system's error.
        source: std::io::Error,
    },
    /// A program that building needs is not there, or too old.
    #[error("{program} {reason}: {fix}")]
    Program {
        /// The program.
        program: &'static str,
        /// What is wrong with it.
        reason: String,
        /// The command that helps.
        fix: &'static str,
    },
    /// A program ended with a failure.
    #[error("{what} failed ({status})\n{tail}")]
    Failed {
        /// What was being done.
        what: String,
        /// The exit status.
        status: String,
        /// The last lines of its output.
        tail: String,
    },
    /// A program took longer than it may.
    #[error("{what} was given up after {seconds} s\n{tail}")]
    Deadline {
        /// What was being done.
        what: String,
        /// How long it was waited for.
        seconds: u64,
        /// The last lines of its output.
        tail: String,
    },
    /// A file or folder could not be read or written.
    #[error("cannot {doing} {}", path.display())]
    Io {
        /// `read`, `write`, …
        doing: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// A package that was asked for is not there or is no plugin.
    #[error("package `{package}`: {reason}")]
    Package {
        /// The package's name or folder.
        package: String,
        /// What is wrong and what to do.
        reason: String,
    },
    /// No such project can be written.
    #[error(
        "{kind} cannot be written in {language}: policies, context providers and drivers of HTTP backends can. Write it with --lang rust"
    )]
    NoTemplate {
        /// The kind, with its article.
        kind: String,
        /// The language.
        language: String,
    },
    /// A core module could not be made into a component.
    #[error("plugin `{plugin}` cannot be made into a component: {reason}")]
    Encode {
        /// The plugin's name.
        plugin: String,
        /// What is wrong and what to do.
        reason: String,
    },
    /// The plugin was built, and a broker would refuse it.
    #[error("plugin `{plugin}` would be refused:\n{report}")]
    Rejected {
        /// The plugin's name.
        plugin: String,
        /// All that is wrong.
        report: Box<CheckReport>,
    },
    /// Somebody answered in a form that was not understood.
    #[error("{what} answered what was not understood: {detail}")]
    Answer {
        /// Who.
        what: String,
        /// What was odd.
        detail: String,
    },
}

impl Error {
    /// For `map_err`: an I/O error with what was done to which path.
    pub(crate) fn io(doing: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { doing, path, source }
    }
}

fn list(attempts: &[Attempt]) -> String {
    attempts.iter().map(|attempt| format!("\n  - {}: {}", attempt.way, attempt.reason.trim_end())).collect()
}
