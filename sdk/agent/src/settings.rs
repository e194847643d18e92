//! What the command line and the configuration file say together.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jit_client::{Client, CredentialChoice, Length, Request, Rotation, TokenSource};
use jit_contract::Seconds;
use serde::Deserialize;

use crate::cli::{BrokerArgs, CredentialArgs, KeepArgs, TOKEN_FILE};
use crate::error::AgentError;
use crate::format::Format;
use crate::format::template::Template;
use crate::notify::OnRotate;
use crate::output::{Mode, Owner};
use crate::state::{Form, State};

/// The largest configuration file.
const MOST: u64 = 256 * 1024;
/// How long one attempt may take.
const ATTEMPT: Duration = Duration::from_secs(30);

/// The file of `--config`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ConfigFile {
    broker: Option<String>,
    token_file: Option<PathBuf>,
    token_env: Option<String>,
    token_command: Option<Vec<String>>,
    spiffe_socket: Option<PathBuf>,
    audience: Option<String>,
    ca_file: Option<PathBuf>,
    #[serde(default)]
    allow_plaintext: bool,
    credential: Option<CredentialChoice>,
    health: Option<SocketAddr>,
    interval: Option<Seconds>,
    #[serde(default)]
    pub(crate) revoke_on_exit: bool,
    #[serde(default)]
    credentials: Vec<CredentialSection>,
}

/// One `[[credentials]]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CredentialSection {
    target: String,
    role: Option<String>,
    ttl: Option<Length>,
    reason: Option<String>,
    ticket: Option<String>,
    #[serde(default)]
    metadata: BTreeMap<String, String>,
    out: Option<PathBuf>,
    format: Option<Format>,
    prefix: Option<String>,
    template: Option<PathBuf>,
    mode: Option<Mode>,
    owner: Option<Owner>,
    #[serde(default)]
    on_rotate: Vec<OnRotate>,
    #[serde(default)]
    new_account: bool,
}

/// One credential that is kept.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) request: Request,
    pub(crate) rotation: Rotation,
    pub(crate) out: Option<PathBuf>,
    pub(crate) form: Form,
    pub(crate) template: Option<Template>,
    pub(crate) on_rotate: Vec<OnRotate>,
}

impl Entry {
    /// Its name in logs.
    pub(crate) fn target(&self) -> &str {
        &self.request.target
    }
}

impl ConfigFile {
    /// Reads it; nothing is in it where none is named.
    pub(crate) fn read(path: Option<&Path>) -> Result<Self, AgentError> {
        use std::io::Read as _;
        let Some(path) = path else { return Ok(Self::default()) };
        let wrong = |why: String| AgentError::Config(format!("the configuration {}: {why}", path.display()));
        let file = std::fs::File::open(path).map_err(|error| wrong(error.to_string()))?;
        let mut text = String::new();
        file.take(MOST + 1).read_to_string(&mut text).map_err(|error| wrong(error.to_string()))?;
        if text.len() as u64 > MOST {
            return Err(wrong(format!("it is longer than {MOST} bytes")));
        }
        toml::from_str(&text).map_err(|error| wrong(error.to_string()))
    }

    /// Where to serve health.
    pub(crate) fn health(&self, args: &KeepArgs) -> Option<SocketAddr> {
        args.health.or(self.health)
    }

    /// How often to renew at least.
    pub(crate) fn interval(&self, args: &KeepArgs) -> Option<Duration> {
        args.interval.or(self.interval.map(Seconds::duration))
    }

    /// The client of the broker.
    pub(crate) fn client(&self, args: &BrokerArgs, deadline: Option<Duration>) -> Result<Client, AgentError> {
        let broker = args.broker.clone().or_else(|| self.broker.clone()).ok_or_else(|| {
            AgentError::Config("where is the broker? Set JIT_BROKER_URL, or give --broker https://HOST:PORT".to_owned())
        })?;
        let mut builder = Client::builder(broker)
            .token(self.token(args))
            .allow_plaintext(args.allow_plaintext || self.allow_plaintext)
            .credential(args.credential.or(self.credential).unwrap_or_default())
            .timeout(deadline.unwrap_or(ATTEMPT).min(ATTEMPT));
        if let Some(ca) = args.ca_file.as_ref().or(self.ca_file.as_ref()) {
            builder = builder.ca_file(ca);
        }
        builder.build().map_err(|error| AgentError::Config(error.chain()))
    }

    /// The command line's first, then the file's, then JIT_TOKEN, then the projected one.
    fn token(&self, args: &BrokerArgs) -> TokenSource {
        let audience = args.audience.as_ref().or(self.audience.as_ref());
        let audience = audience.map_or("jit-broker", String::as_str);
        let BrokerArgs { token_file, token_env, token_command, spiffe_socket, .. } = args;
        if let Some(path) = token_file {
            TokenSource::file(path)
        } else if let Some(name) = token_env {
            TokenSource::env(name)
        } else if let Some(command) = token_command {
            TokenSource::command(command.split_whitespace())
        } else if let Some(socket) = spiffe_socket {
            TokenSource::spiffe(socket, audience)
        } else if let Some(path) = &self.token_file {
            TokenSource::file(path)
        } else if let Some(name) = &self.token_env {
            TokenSource::env(name)
        } else if let Some(argv) = &self.token_command {
            TokenSource::command(argv)
        } else if let Some(socket) = &self.spiffe_socket {
            TokenSource::spiffe(socket, audience)
        } else if std::env::var_os("JIT_TOKEN").is_some() {
            TokenSource::env("JIT_TOKEN")
        } else {
            TokenSource::file(TOKEN_FILE)
        }
    }

    /// The credentials of the file, or the one of the command line. `adopt`: what the command line leaves out
    /// comes from the state beside `--out`.
    pub(crate) fn entries(
        &self,
        args: &CredentialArgs,
        on_rotate: &[OnRotate],
        adopt: bool,
    ) -> Result<Vec<Entry>, AgentError> {
        let entries = if self.credentials.is_empty() {
            vec![single(args, on_rotate, adopt)?]
        } else if args.target.is_some() || args.out.is_some() {
            return Err(AgentError::Config(
                "the configuration file has [[credentials]]: leave out --target and --out (JIT_TARGET, JIT_OUT)".into(),
            ));
        } else {
            self.credentials.iter().map(|section| section.entry(on_rotate)).collect::<Result<Vec<_>, _>>()?
        };
        for (index, entry) in entries.iter().enumerate() {
            let same = |other: &&Entry| entry.out.is_some() && other.out == entry.out;
            if let Some(out) = entries[..index].iter().find(same).and_then(|other| other.out.as_ref()) {
                return Err(AgentError::Config(format!("two credentials are to be written to {}", out.display())));
            }
        }
        Ok(entries)
    }
}

impl CredentialSection {
    fn entry(&self, on_rotate: &[OnRotate]) -> Result<Entry, AgentError> {
        let request = Request {
            target: self.target.clone(),
            role: self.role.clone(),
            ttl: self.ttl.clone(),
            reason: self.reason.clone(),
            ticket: self.ticket.clone(),
            metadata: self.metadata.clone(),
            credential: None,
        };
        let form = Form {
            format: format(self.format, self.template.as_deref(), self.out.as_deref()),
            prefix: String::new(),
            mode: self.mode.unwrap_or_default(),
            owner: self.owner,
            template: self.template.clone(),
        };
        let form = Form { prefix: prefix(self.prefix.as_deref(), form.format), ..form };
        let on_rotate = on_rotate.iter().chain(&self.on_rotate).cloned().collect();
        entry(request, self.new_account, self.out.clone(), form, on_rotate)
    }
}

fn single(args: &CredentialArgs, on_rotate: &[OnRotate], adopt: bool) -> Result<Entry, AgentError> {
    let out = args.out.clone();
    let state = match &out {
        Some(out) if adopt => State::load(out)?,
        _ => None,
    };
    let target = match (&args.target, &state) {
        (Some(target), _) => target.clone(),
        (None, Some(state)) => state.request.target.clone(),
        (None, None) => return Err(no_target(out.as_deref(), adopt)),
    };
    // Another target than the state's has nothing to do with it.
    let state = state.filter(|state| state.request.target == target);
    let before = state.as_ref().map(|state| &state.request);
    fn given<T: Clone>(given: &Option<T>, before: Option<&Option<T>>) -> Option<T> {
        given.clone().or_else(|| before.cloned().flatten())
    }
    let request = Request {
        role: given(&args.role, before.map(|request| &request.role)),
        ttl: given(&args.ttl, before.map(|request| &request.ttl)),
        reason: given(&args.reason, before.map(|request| &request.reason)),
        ticket: given(&args.ticket, before.map(|request| &request.ticket)),
        metadata: before.map(|request| request.metadata.clone()).unwrap_or_default(),
        credential: None,
        target,
    };
    let left = state.map(|state| state.form);
    if let Some(untold) = left.as_ref().and_then(|form| untold(form, args)) {
        return Err(AgentError::Config(format!(
            "the file was written with {untold}, which is never taken from the state file: give the same to `renew`, or \
             remove the state file"
        )));
    }
    let format = match (&left, args.format, &args.template) {
        (Some(form), None, None) => form.format,
        _ => format(args.format, args.template.as_deref(), out.as_deref()),
    };
    let form = Form {
        format,
        prefix: match (&left, &args.prefix) {
            (Some(form), None) => form.prefix.clone(),
            (_, given) => prefix(given.as_deref(), format),
        },
        mode: args.mode.unwrap_or_default(),
        owner: args.owner,
        template: args.template.clone().filter(|_| format == Format::Template),
    };
    entry(request, args.new_account, out, form, on_rotate.to_vec())
}

/// What `fetch` was told of the file and `renew` was not. It decides what is read and who may read, so that it comes from
/// whoever starts the agent.
fn untold(left: &Form, args: &CredentialArgs) -> Option<String> {
    match left {
        Form { template: Some(template), .. } if args.template.is_none() && args.format.is_none() => {
            Some(format!("--template {}", template.display()))
        }
        Form { mode, .. } if *mode != Mode::default() && args.mode.is_none() => {
            Some(format!("--mode {}", String::from(*mode)))
        }
        Form { owner: Some(owner), .. } if args.owner.is_none() => Some(format!("--owner {}", String::from(*owner))),
        _ => None,
    }
}

fn no_target(out: Option<&Path>, adopt: bool) -> AgentError {
    AgentError::Config(match out {
        Some(out) if adopt => format!(
            "there is no state beside {} to take over ({}): run `jit-agent fetch --target TARGET --out {}` first, \
             or give --target",
            out.display(),
            State::path(out).display(),
            out.display()
        ),
        None if adopt => "which credential? Give --out of what `fetch` has left, or --target, or --config".to_owned(),
        _ => "which credential? Give --target, or --config with [[credentials]]".to_owned(),
    })
}

fn entry(
    request: Request,
    new_account: bool,
    out: Option<PathBuf>,
    form: Form,
    on_rotate: Vec<OnRotate>,
) -> Result<Entry, AgentError> {
    // `Path::file_name` is none for "/" and "x/..".
    if let Some(out) = out.as_ref().filter(|out| out.file_name().is_none()) {
        return Err(AgentError::Config(format!("{} names no file", out.display())));
    }
    let name = form.prefix.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'.');
    if !name || form.prefix.len() > 64 || form.prefix.starts_with(|first: char| first.is_ascii_digit()) {
        return Err(AgentError::Config(format!(
            "the prefix {:?}: names are of letters, digits and _, and begin with no digit",
            form.prefix
        )));
    }
    if form.format.is_env() && form.prefix.contains('.') {
        return Err(AgentError::Config(format!("the prefix {:?}: no name of an environment has a dot", form.prefix)));
    }
    let template = form.template.as_deref().map(Template::read).transpose()?;
    if form.format == Format::Template && template.is_none() {
        return Err(AgentError::Config("format template needs a template file (--template FILE)".to_owned()));
    }
    let rotation = if new_account { Rotation::NewAccount } else { Rotation::RenewLease };
    Ok(Entry { request, rotation, out, form, template, on_rotate })
}

/// What is said, or what the file's name says.
fn format(given: Option<Format>, template: Option<&Path>, out: Option<&Path>) -> Format {
    if let Some(format) = given {
        return format;
    }
    if template.is_some() {
        return Format::Template;
    }
    let name = out.and_then(Path::file_name).unwrap_or_default().to_string_lossy();
    match name.rsplit_once('.').map(|(_, end)| end) {
        Some("json") => Format::Json,
        Some("properties") => Format::Properties,
        Some("cnf") => Format::MyCnf,
        Some("pgpass") => Format::Pgpass,
        Some("uri") => Format::Uri,
        _ => Format::Env,
    }
}

fn prefix(given: Option<&str>, format: Format) -> String {
    given.map_or_else(|| if format == Format::Properties { String::new() } else { "DB_".to_owned() }, str::to_owned)
}

#[cfg(test)]
#[path = "settings_tests.rs"]
mod tests;
