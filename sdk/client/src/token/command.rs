//! A token that a program prints.

use std::ffi::OsString;
use std::process::Stdio;
use std::time::Duration;

use secrecy::SecretString;
use secrecy::zeroize::Zeroizing;
use tokio::io::AsyncReadExt as _;
use tokio::process::Command;

use super::{MOST_TOKEN, TokenError, checked};
use crate::children::Waited;

/// Runs it to its end, its output bounded. What it says on stderr goes where ours goes.
pub(super) async fn token(argv: &[OsString], deadline: Duration) -> Result<SecretString, TokenError> {
    let [program, arguments @ ..] = argv else {
        return Err(TokenError::Command { program: String::new(), reason: "it is empty".to_owned() });
    };
    let shown = program.to_string_lossy().into_owned();
    let failed = |reason: String| TokenError::Command { program: shown.clone(), reason };
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| failed(format!("cannot be started: {error}")))?;
    let _waited = Waited::of(child.id());
    let stdout = child.stdout.take().ok_or_else(|| failed("it has no output".to_owned()))?;
    let whole = async {
        let mut bytes = Zeroizing::new(Vec::new());
        let mut bounded = stdout.take(MOST_TOKEN as u64 + 1);
        bounded.read_to_end(&mut bytes).await.map_err(|error| failed(error.to_string()))?;
        if bytes.len() > MOST_TOKEN {
            return Err(failed("it prints more than 16 KiB".to_owned()));
        }
        let status = child.wait().await.map_err(|error| failed(error.to_string()))?;
        Ok((bytes, status))
    };
    let (bytes, status) = tokio::time::timeout(deadline, whole)
        .await
        .map_err(|_| failed(format!("it was not done after {} s", deadline.as_secs())))??;
    if !status.success() {
        return Err(failed(format!("it ended with {status}")));
    }
    let text = std::str::from_utf8(&bytes).map_err(|_| failed("it prints something that is no text".to_owned()))?;
    checked(text, &format!("the output of {shown}"))
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;

    use super::*;

    async fn sh(script: &str, deadline: u64) -> Result<String, String> {
        let argv = ["sh", "-c", script].map(OsString::from);
        let token = token(&argv, Duration::from_secs(deadline)).await;
        token.map(|token| token.expose_secret().to_owned()).map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn what_it_prints_is_the_token() {
        assert_eq!(sh("echo a.b.c", 60).await, Ok("a.b.c".to_owned()));
    }

    #[tokio::test]
    async fn what_it_does_wrong_is_told() {
        for (script, told) in [
            ("echo half; exit 3", "exit status: 3"),
            ("true", "empty"),
            ("yes", "more than 16 KiB"),
            ("printf '\\377'", "no text"),
        ] {
            let error = sh(script, 60).await.err().unwrap_or_default();
            assert!(error.contains(told), "{script}: {error}");
            assert!(!error.contains("half"), "the output is not shown: {error}");
        }
        assert!(sh("sleep 600", 0).await.err().unwrap_or_default().contains("not done"));
        let missing = token(&["/no/such/program".into()], Duration::from_secs(9)).await;
        assert!(missing.err().map(|error| error.to_string()).unwrap_or_default().contains("cannot be started"));
    }
}
