//! A login that only a program of the fixture's knows. It gets the account's name where its arguments say
//! `{name}`, and the password on its standard input: 0 is yes, 1 is no, and anything else says neither.

use std::process::Stdio;

use anyhow::{Context as _, Result, bail};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

/// An account that was let in.
pub struct Session {
    username: String,
    password: SecretString,
}

pub(super) async fn log_in(words: &[String], username: &str, password: &SecretString) -> Result<Option<Session>> {
    let session = Session { username: username.to_owned(), password: password.clone() };
    Ok(session.act(words).await?.is_none().then_some(session))
}

impl Session {
    /// None when the command says yes, else what it says.
    pub(super) async fn act(&self, words: &[String]) -> Result<Option<String>> {
        let (program, arguments) = words.split_first().context("a command has at least one word")?;
        let arguments = arguments.iter().map(|word| word.replace("{name}", &self.username));
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
        let mut child = command.spawn().with_context(|| format!("{program} cannot be started"))?;
        if let Some(mut input) = child.stdin.take() {
            // A command that does not read it has decided without it.
            let _ = input.write_all(self.password.expose_secret().as_bytes()).await;
            let _ = input.shutdown().await;
        }
        let status = child.wait().await.with_context(|| format!("{program} cannot be waited for"))?;
        match status.code() {
            Some(0) => Ok(None),
            Some(1) => Ok(Some("the command says no".to_owned())),
            _ => bail!("{program} ended with {status}: 0 is yes, 1 is no, and this is neither"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn tried(script: &str, password: &str) -> Result<bool> {
        let words = ["sh", "-c", script, "sh", "{name}"].map(str::to_owned);
        Ok(log_in(&words, "v-account", &SecretString::from(password)).await?.is_some())
    }

    #[tokio::test]
    async fn a_command_gets_the_name_and_the_password_and_says_yes_or_no() {
        let script = "read -r password; test \"$1/$password\" = v-account/right";
        assert!(tried(script, "right\n").await.unwrap());
        assert!(!tried(script, "wrong\n").await.unwrap());
        assert!(tried("exit 2", "right").await.is_err(), "neither yes nor no");
        assert!(tried("kill -9 $$", "right").await.is_err());
    }
}
