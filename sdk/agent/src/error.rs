//! What ends the agent, and with which exit code.

use std::path::PathBuf;
use std::process::ExitCode;

/// Why the agent cannot do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AgentError {
    /// A setting is wrong.
    #[error("{0}")]
    Config(String),
    /// The broker, or the way to it.
    #[error("{target}: {}", error.chain())]
    Broker { target: String, error: Box<jit_client::Error> },
    /// A file cannot be written.
    #[error("cannot write {}: {reason}", path.display())]
    Output { path: PathBuf, reason: String },
    /// A credential that the format has no way to write.
    #[error("the credential cannot be written as {format}: {reason}")]
    Format { format: &'static str, reason: String },
    /// A signal, before there was anything to give back.
    #[error("ended by a signal before there was a credential")]
    Ended,
    /// The command cannot be started.
    #[error("cannot run {program}: {source}")]
    Command { program: String, source: std::io::Error },
}

/// For `--help`.
pub(crate) const EXIT_CODES: &str = "\
Exit codes:
  0    done, or ended as asked
  2    the command line is wrong
  3    a setting is wrong: the configuration, the token, the state file
  4    the broker refuses: denied, unknown target, a bad request
  5    the broker does not answer in time
  6    a file cannot be written
  143  ended by a signal before there was a credential
  exec: the command's own code; 128 and its number for a signal; 126 and 127 where it cannot be run";

impl AgentError {
    pub(crate) fn broker(target: &str, error: jit_client::Error) -> Self {
        Self::Broker { target: target.to_owned(), error: Box::new(error) }
    }

    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.code())
    }

    fn code(&self) -> u8 {
        use jit_client::Error;
        match self {
            Self::Config(_) | Self::Format { .. } => 3,
            Self::Broker { error, .. } => match &**error {
                Error::Config(_) | Error::Token(_) => 3,
                Error::Refused(_) => 4,
                Error::GaveUp { last, .. } if matches!(**last, Error::Token(_)) => 3,
                _ => 5,
            },
            Self::Output { .. } => 6,
            Self::Ended => 143,
            Self::Command { source, .. } if source.kind() == std::io::ErrorKind::NotFound => 127,
            Self::Command { .. } => 126,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_tell_what_to_look_at() {
        use jit_client::Error;
        let unreachable = || Error::Unreachable { broker: "b".into(), reason: "r".into() };
        let broker = |error| AgentError::broker("t", error).code();
        assert_eq!(broker(unreachable()), 5);
        let gave_up = Error::GaveUp { attempts: 3, after: std::time::Duration::ZERO, last: Box::new(unreachable()) };
        assert_eq!(broker(gave_up), 5);
        assert_eq!(broker(jit_client::TokenError::NoVariable("X".into()).into()), 3);
        assert_eq!(AgentError::Output { path: "x".into(), reason: "full".into() }.code(), 6);
        let command =
            |kind: std::io::ErrorKind| AgentError::Command { program: "x".into(), source: kind.into() }.code();
        assert_eq!(command(std::io::ErrorKind::NotFound), 127);
        assert_eq!(command(std::io::ErrorKind::PermissionDenied), 126);
    }
}
