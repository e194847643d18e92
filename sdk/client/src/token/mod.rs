//! Where the workload's token comes from. It is got anew for each request: platforms rotate tokens.
//!
//! Whatever the source, a token is at most 16 KiB of visible ASCII; whitespace around it is taken off.

mod command;
#[cfg(feature = "spiffe")]
pub mod spiffe;

use std::ffi::OsString;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret as _, SecretString};

/// The longest token that is taken.
pub const MOST_TOKEN: usize = 16 * 1024;
/// How long a command may take by default.
const COMMAND_DEADLINE: Duration = Duration::from_secs(10);

/// Where tokens come from.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum TokenSource {
    /// A file, read each time: a projected service-account token, for example.
    File(PathBuf),
    /// An environment variable, read each time.
    Env(String),
    /// What a program prints; started anew each time, without a shell.
    Command {
        /// The program and its arguments.
        argv: Vec<OsString>,
        /// How long it may take. Then it is killed.
        deadline: Duration,
    },
    /// A JWT-SVID from the SPIFFE Workload API.
    #[cfg(feature = "spiffe")]
    Spiffe {
        /// The agent's socket.
        socket: PathBuf,
        /// Whom the token is for, as the broker's configuration says.
        audience: String,
    },
}

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// The file cannot be read.
    #[error("cannot read the token file {}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The environment variable is not there.
    #[error("the environment variable {0} is not set")]
    NoVariable(String),
    /// The command did not give one.
    #[error("the token command {program}: {reason}")]
    Command {
        /// Its program.
        program: String,
        /// What it did instead.
        reason: String,
    },
    /// The Workload API did not give one.
    #[error("the SPIFFE Workload API at {}: {reason}", socket.display())]
    Spiffe {
        /// Its socket.
        socket: PathBuf,
        /// What it did instead.
        reason: String,
    },
    /// What came cannot be a token.
    #[error("{from} holds no token: {reason}")]
    Unusable {
        /// Where it came from.
        from: String,
        /// What is wrong.
        reason: &'static str,
    },
}

impl TokenError {
    /// Whether trying again soon, with nobody changing anything, may help.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Command { .. } | Self::Spiffe { .. })
    }
}

impl TokenSource {
    /// A file.
    #[must_use]
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self::File(path.into())
    }

    /// An environment variable.
    #[must_use]
    pub fn env(name: impl Into<String>) -> Self {
        Self::Env(name.into())
    }

    /// A program with its arguments, and ten seconds for it.
    #[must_use]
    pub fn command<A: Into<OsString>>(argv: impl IntoIterator<Item = A>) -> Self {
        Self::Command { argv: argv.into_iter().map(Into::into).collect(), deadline: COMMAND_DEADLINE }
    }

    /// The SPIFFE Workload API.
    #[cfg(feature = "spiffe")]
    #[must_use]
    pub fn spiffe(socket: impl Into<PathBuf>, audience: impl Into<String>) -> Self {
        Self::Spiffe { socket: socket.into(), audience: audience.into() }
    }

    /// A token, got now.
    ///
    /// # Errors
    /// [`TokenError`]; none of them holds what was read.
    pub async fn token(&self) -> Result<SecretString, TokenError> {
        match self {
            Self::File(path) => from_file(path),
            Self::Env(name) => {
                let value = std::env::var(name).map_err(|_| TokenError::NoVariable(name.clone()))?;
                checked(&Zeroizing::new(value), &format!("the environment variable {name}"))
            }
            Self::Command { argv, deadline } => command::token(argv, *deadline).await,
            #[cfg(feature = "spiffe")]
            Self::Spiffe { socket, audience } => spiffe::token(socket, audience).await,
        }
    }
}

/// Reads on this thread: such files are in memory, and small.
fn from_file(path: &Path) -> Result<SecretString, TokenError> {
    let failed = |source| TokenError::File { path: path.to_owned(), source };
    let file = std::fs::File::open(path).map_err(failed)?;
    let mut text = Zeroizing::new(String::new());
    // One byte more than may be there tells that there is too much.
    file.take(MOST_TOKEN as u64 + 1).read_to_string(&mut text).map_err(failed)?;
    checked(&text, &format!("the token file {}", path.display()))
}

/// A token is visible ASCII, as it goes into a header.
fn checked(text: &str, from: &str) -> Result<SecretString, TokenError> {
    let unusable = |reason| Err(TokenError::Unusable { from: from.to_owned(), reason });
    if text.len() > MOST_TOKEN {
        return unusable("it is longer than 16 KiB");
    }
    let token = text.trim();
    if token.is_empty() {
        return unusable("it is empty");
    }
    if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return unusable("a token is one word of ASCII");
    }
    Ok(SecretString::from(token))
}

/// For the `Authorization` header.
pub(crate) fn bearer(token: &SecretString) -> Result<reqwest::header::HeaderValue, TokenError> {
    let text = Zeroizing::new(format!("Bearer {}", token.expose_secret()));
    let mut value = reqwest::header::HeaderValue::from_str(&text)
        .map_err(|_| TokenError::Unusable { from: "the token source".to_owned(), reason: "it is no header" })?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    async fn from(source: &TokenSource) -> Result<String, String> {
        source.token().await.map(|token| token.expose_secret().to_owned()).map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn a_file_is_read_each_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let source = TokenSource::file(&path);
        assert!(from(&source).await.unwrap_err().contains("cannot read the token file"));
        for token in ["first.a.b", "second.c.d"] {
            std::fs::write(&path, format!("  {token}\n")).unwrap();
            assert_eq!(from(&source).await.unwrap(), token);
        }
        for (content, reason) in [("", "empty"), (" \n", "empty"), ("two words", "one word"), ("é", "one word")] {
            std::fs::write(&path, content).unwrap();
            assert!(from(&source).await.unwrap_err().contains(reason), "{content:?}");
        }
        std::fs::write(&path, "x".repeat(MOST_TOKEN)).unwrap();
        assert_eq!(from(&source).await.unwrap().len(), MOST_TOKEN);
        std::fs::write(&path, "x".repeat(MOST_TOKEN + 1)).unwrap();
        assert!(from(&source).await.unwrap_err().contains("longer than 16 KiB"));
    }

    #[tokio::test]
    async fn a_file_without_an_end_has_a_bound() {
        assert!(from(&TokenSource::file("/dev/zero")).await.unwrap_err().contains("longer"));
    }

    #[tokio::test]
    async fn a_variable_that_is_not_there_is_named() {
        let told = from(&TokenSource::env("JIT_TEST_NO_SUCH_TOKEN")).await.unwrap_err();
        assert_eq!(told, "the environment variable JIT_TEST_NO_SUCH_TOKEN is not set");
        // One that every test process has.
        assert!(from(&TokenSource::env("PATH")).await.unwrap().contains("/bin"));
    }

    #[test]
    fn headers_do_not_show_tokens() {
        let value = bearer(&SecretString::from("abc.def.ghi")).unwrap();
        assert!(!format!("{value:?}").contains("abc"));
    }
}
