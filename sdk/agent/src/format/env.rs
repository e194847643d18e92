//! `NAME=value` lines, in the dialects of those who read them.
//!
//! The readers agree on plain values, and on little else: what one takes for a quote, an escape or the name of a
//! variable is text for the next. So there is a dialect for each reader, and `env`, which writes only what all of them
//! but docker read alike. What a dialect has no way to write is refused, with the sign that it cannot hold.
//!
//! `format/judges.rs` holds each dialect against the readers themselves.

use secrecy::zeroize::Zeroizing;

use super::unfit;
use crate::error::AgentError;

/// Who reads a file of `NAME=value` lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    /// A shell, `EnvironmentFile=` of systemd, and dotenv libraries: what all of them read alike.
    All,
    /// `.` of a POSIX shell.
    Shell,
    /// `EnvironmentFile=` of systemd, 239 and later.
    Systemd,
    /// `dotenv` of Node.js and python-dotenv.
    Dotenv,
    /// `--env-file` of docker.
    Docker,
}

impl Dialect {
    const fn name(self) -> &'static str {
        match self {
            Self::All => "env",
            Self::Shell => "env-sh",
            Self::Systemd => "env-systemd",
            Self::Dotenv => "dotenv",
            Self::Docker => "docker-env",
        }
    }

    fn written(self, value: &str) -> Result<Zeroizing<String>, String> {
        if value.contains('\0') {
            return Err("a zero byte, which no environment can hold".to_owned());
        }
        match self {
            Self::Shell if is_plain(value) => Ok(Zeroizing::new(value.to_owned())),
            Self::Shell => Ok(quoted(value)),
            Self::All => all(value),
            Self::Systemd => systemd(value),
            Self::Dotenv => dotenv(value),
            Self::Docker => docker(value),
        }
    }
}

pub(super) fn file(
    dialect: Dialect,
    variables: &[(String, Zeroizing<String>)],
) -> Result<Zeroizing<String>, AgentError> {
    let mut text = Zeroizing::new(String::with_capacity(4_096));
    for (name, value) in variables {
        let written = dialect
            .written(value)
            .map_err(|sign| unfit(dialect.name(), format!("{name} has {sign}{}", another(dialect))))?;
        text.push_str(name);
        text.push('=');
        text.push_str(&written);
        text.push('\n');
    }
    Ok(text)
}

/// What to do instead.
const fn another(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::All => ". Choose the form of the one who reads it: env-sh, env-systemd, dotenv, docker-env; or json",
        Dialect::Shell => "",
        Dialect::Systemd | Dialect::Dotenv | Dialect::Docker => ". Choose another form, such as json or uri",
    }
}

/// Values of these characters only stand as they are, for everybody.
fn is_plain(value: &str) -> bool {
    !value.is_empty()
        && value.bytes().all(|byte| {
            byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b'/' | b':' | b'@' | b'%' | b'+' | b',')
        })
}

/// In single quotes, where nothing is special to a shell but the quote itself.
pub(super) fn quoted(value: &str) -> Zeroizing<String> {
    Zeroizing::new(format!("'{}'", value.replace('\'', r"'\''")))
}

fn all(value: &str) -> Result<Zeroizing<String>, String> {
    if is_plain(value) {
        return Ok(Zeroizing::new(value.to_owned()));
    }
    valid_for_systemd(value)?;
    if value.contains("${") {
        return Err("${, which python-dotenv takes for the name of a variable".to_owned());
    }
    if !value.contains('\'') {
        return dotenv_single(value);
    }
    match value.chars().find(|sign| matches!(sign, '"' | '\\' | '$' | '`')) {
        Some(sign) => Err(format!("' and {sign}, which the readers of this form take differently")),
        None => Ok(Zeroizing::new(format!("\"{value}\""))),
    }
}

/// systemd leaves a variable out, with a line in its log, that has other control characters or no valid text.
fn valid_for_systemd(value: &str) -> Result<(), String> {
    for sign in value.chars() {
        let noncharacter = matches!(sign, '\u{fdd0}'..='\u{fdef}') || u32::from(sign) & 0xfffe == 0xfffe;
        if (sign.is_ascii_control() && !matches!(sign, '\t' | '\n')) || noncharacter {
            return Err(format!("the control character U+{:04X}, with which systemd leaves it out", u32::from(sign)));
        }
    }
    Ok(())
}

fn systemd(value: &str) -> Result<Zeroizing<String>, String> {
    valid_for_systemd(value)?;
    if is_plain(value) {
        return Ok(Zeroizing::new(value.to_owned()));
    }
    if !value.contains('\'') {
        return Ok(Zeroizing::new(format!("'{value}'")));
    }
    let mut text = Zeroizing::new(String::with_capacity(value.len() * 2 + 2));
    text.push('"');
    for sign in value.chars() {
        if matches!(sign, '"' | '\\' | '$' | '`') {
            text.push('\\');
        }
        text.push(sign);
    }
    text.push('"');
    Ok(text)
}

fn dotenv(value: &str) -> Result<Zeroizing<String>, String> {
    if is_plain(value) {
        return Ok(Zeroizing::new(value.to_owned()));
    }
    if value.contains('\r') {
        return Err("a carriage return, which dotenv reads as a line feed".to_owned());
    }
    if value.contains("${") {
        return Err("${, which python-dotenv takes for the name of a variable".to_owned());
    }
    if !value.contains('\'')
        && let Ok(single) = dotenv_single(value)
    {
        return Ok(single);
    }
    if !value.contains(['"', '\\']) {
        return Ok(Zeroizing::new(format!("\"{value}\"")));
    }
    // Without quotes nothing is an escape, but blanks at the ends, comments and lines are lost.
    let blank = |sign: char| sign.is_whitespace() || sign.is_control() || sign == '\u{feff}';
    let first_is_quote = value.starts_with(['\'', '"', '`']);
    if first_is_quote || value.contains('#') || value.chars().any(|sign| sign.is_control()) {
        return Err("quotes or backslashes together with #, a line feed or a quote at its start".to_owned());
    }
    if value.starts_with(blank) || value.ends_with(blank) {
        return Err("quotes or backslashes together with a blank at an end".to_owned());
    }
    Ok(Zeroizing::new(value.to_owned()))
}

/// In single quotes, where python-dotenv knows `\\` and `\'`, and Node.js takes a quote behind a backslash for text.
fn dotenv_single(value: &str) -> Result<Zeroizing<String>, String> {
    if value.contains(r"\\") || value.ends_with('\\') {
        return Err(r"\\ or a \ at its end, which the readers of this form take differently".to_owned());
    }
    Ok(Zeroizing::new(format!("'{value}'")))
}

/// The rest of the line as it is: there is no quoting.
fn docker(value: &str) -> Result<Zeroizing<String>, String> {
    if value.contains(['\n', '\r']) {
        return Err("a line break, for which docker has no way to write".to_owned());
    }
    if value.len() > MOST_DOCKER {
        return Err(format!("more than {MOST_DOCKER} bytes, which docker does not read in one line"));
    }
    Ok(Zeroizing::new(value.to_owned()))
}

/// docker reads lines of at most 64 KiB.
const MOST_DOCKER: usize = 60_000;
