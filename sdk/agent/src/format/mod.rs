//! What is written of a credential, in forms that programs read.
//!
//! A file changes exactly when the account changes: what a renewal moves (the lease's end) is not in
//! it, but in the state beside it. Every form says how values with special characters are quoted; a value that
//! a form has no way to hold is an error, never something else than the value.

mod env;
mod java;
mod mycnf;
mod pgpass;
pub(crate) mod template;

use clap::ValueEnum;
use jit_client::Credential;
use secrecy::ExposeSecret as _;
use secrecy::zeroize::Zeroizing;
use serde::{Deserialize, Serialize};

use crate::error::AgentError;
use env::Dialect;
use template::Template;

/// Forms of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[clap(rename_all = "lower")]
pub(crate) enum Format {
    /// NAME=value lines that a shell, systemd, and dotenv of Node.js and Python read alike; names begin with the
    /// prefix. What one of them would read differently is refused.
    Env,
    /// NAME=value lines for a shell alone.
    #[serde(rename = "env-sh")]
    #[clap(name = "env-sh")]
    EnvSh,
    /// NAME=value lines for EnvironmentFile= of systemd; a shell reads them too.
    #[serde(rename = "env-systemd")]
    #[clap(name = "env-systemd")]
    EnvSystemd,
    /// NAME=value lines for dotenv of Node.js and python-dotenv.
    Dotenv,
    /// NAME=value lines for --env-file of docker, where nothing is quoted.
    #[serde(rename = "docker-env")]
    #[clap(name = "docker-env")]
    DockerEnv,
    /// Lines as in env with the names that libpq knows: PGUSER, PGPASSWORD, PGHOST, PGPORT, PGDATABASE.
    Pgenv,
    /// One JSON object.
    Json,
    /// Java properties.
    Properties,
    /// A line of libpq's password file; the account's name is in the state file or a `uri` beside it.
    Pgpass,
    /// The connection URI alone, without a line end.
    Uri,
    /// A [client] section for MySQL's and MariaDB's programs.
    #[serde(rename = "my.cnf")]
    #[clap(name = "my.cnf")]
    MyCnf,
    /// Whatever the template says.
    Template,
}

impl Format {
    /// Whether it is `NAME=value` lines with a prefix before the names.
    pub(crate) const fn is_env(self) -> bool {
        matches!(self, Self::Env | Self::EnvSh | Self::EnvSystemd | Self::Dotenv | Self::DockerEnv)
    }
}

/// The fields of a credential, by the names that templates and JSON use.
pub(crate) struct Fields {
    fields: Vec<(&'static str, Zeroizing<String>)>,
}

/// All field names. Those of a connection are empty where the target has none.
pub(crate) const NAMES: [&str; 11] = [
    "username",
    "password",
    "host",
    "port",
    "database",
    "uri",
    "target",
    "role",
    "lease_id",
    "issued_at",
    "max_expires_at",
];

impl Fields {
    pub(crate) fn of(credential: &Credential) -> Self {
        let connection = credential.connection.as_ref();
        let lease = &credential.lease;
        let value = |name: &str| match name {
            "username" => credential.username.clone(),
            "password" => credential.password.expose_secret().to_owned(),
            "host" => connection.map(|to| to.host.clone()).unwrap_or_default(),
            "port" => connection.map(|to| to.port.to_string()).unwrap_or_default(),
            "database" => connection.and_then(|to| to.database.clone()).unwrap_or_default(),
            "uri" => connection.map(|to| to.uri.expose_secret().to_owned()).unwrap_or_default(),
            "target" => lease.target.clone(),
            "role" => lease.role.clone(),
            "lease_id" => lease.lease_id.clone(),
            "issued_at" => lease.term.issued_at.to_string(),
            _ => lease.term.max_expires_at.to_string(),
        };
        Self { fields: NAMES.map(|name| (name, Zeroizing::new(value(name)))).into() }
    }

    pub(crate) fn get(&self, name: &str) -> &str {
        self.fields.iter().find(|(field, _)| *field == name).map_or("", |(_, value)| value.as_str())
    }

    fn all(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.fields.iter().map(|(name, value)| (*name, value.as_str()))
    }

    /// Names and values for an environment. What the target has not is left out.
    pub(crate) fn variables(&self, format: Format, prefix: &str) -> Vec<(String, Zeroizing<String>)> {
        let names: &[(&str, &str)] = match format {
            Format::Pgenv => &[
                ("PGUSER", "username"),
                ("PGPASSWORD", "password"),
                ("PGHOST", "host"),
                ("PGPORT", "port"),
                ("PGDATABASE", "database"),
            ],
            _ => &[
                ("USERNAME", "username"),
                ("PASSWORD", "password"),
                ("HOST", "host"),
                ("PORT", "port"),
                ("NAME", "database"),
                ("URL", "uri"),
            ],
        };
        let prefix = if format == Format::Pgenv { "" } else { prefix };
        let present = names.iter().map(|(name, field)| (format!("{prefix}{name}"), self.get(field)));
        present
            .filter(|(_, value)| !value.is_empty())
            .map(|(name, value)| (name, Zeroizing::new(value.to_owned())))
            .collect()
    }
}

/// The bytes of a file.
pub(crate) fn render(
    format: Format,
    prefix: &str,
    template: Option<&Template>,
    fields: &Fields,
) -> Result<Zeroizing<Vec<u8>>, AgentError> {
    let text = match format {
        Format::Env | Format::Pgenv => env::file(Dialect::All, &fields.variables(format, prefix))?,
        Format::EnvSh => env::file(Dialect::Shell, &fields.variables(format, prefix))?,
        Format::EnvSystemd => env::file(Dialect::Systemd, &fields.variables(format, prefix))?,
        Format::Dotenv => env::file(Dialect::Dotenv, &fields.variables(format, prefix))?,
        Format::DockerEnv => env::file(Dialect::Docker, &fields.variables(format, prefix))?,
        Format::Json => json(fields),
        Format::Properties => java::file(prefix, fields),
        Format::Pgpass => pgpass::line(fields)?,
        Format::Uri => uri(fields)?,
        Format::MyCnf => mycnf::file(fields)?,
        Format::Template => match template {
            Some(template) => template.fill(fields)?,
            None => return Err(AgentError::Config("format template needs a template file (--template FILE)".into())),
        },
    };
    Ok(Zeroizing::new(text.as_bytes().to_vec()))
}

fn json(fields: &Fields) -> Zeroizing<String> {
    let mut object = serde_json::Map::new();
    for (name, value) in fields.all().filter(|(_, value)| !value.is_empty()) {
        let value = match value.parse::<u16>() {
            Ok(port) if name == "port" => port.into(),
            _ => value.into(),
        };
        object.insert(name.to_owned(), value);
    }
    // An empty file in place of a credential would be read as one without fields.
    let text = serde_json::to_string_pretty(&object).expect("a map of strings and numbers has a form in JSON");
    Zeroizing::new(text + "\n")
}

fn uri(fields: &Fields) -> Result<Zeroizing<String>, AgentError> {
    match fields.get("uri") {
        "" => Err(unfit("uri", "the target has no connection to name")),
        uri => Ok(Zeroizing::new(uri.to_owned())),
    }
}

/// A value that the form cannot hold.
fn unfit(format: &'static str, reason: impl Into<String>) -> AgentError {
    AgentError::Format { format, reason: reason.into() }
}

#[cfg(test)]
mod judges;
#[cfg(test)]
pub(crate) mod tests;
