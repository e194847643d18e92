//! The command line.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use jit_client::{CredentialChoice, Length};
use jit_contract::{DurationError, Seconds};

use crate::error::EXIT_CODES;
use crate::format::Format;
use crate::notify::OnRotate;
use crate::output::{Mode, Owner};

/// Where Kubernetes projects the workload's token by this project's manifests.
pub(crate) const TOKEN_FILE: &str = "/var/run/secrets/tokens/jit-broker";

const EXAMPLES: &str = "\
Examples:
  # An init container and its sidecar: one account for the pod, renewed until it ends.
  jit-agent fetch --target inventory_db --out /creds/db.env
  jit-agent renew --interval 48m --out /creds/db.env

  # A command with the credential in its environment (DB_USERNAME, DB_PASSWORD, DB_HOST, …).
  jit-agent exec --target inventory_db -- ./report.sh
  jit-agent exec --target inventory_db --env pgenv -- psql -c 'SELECT 1'

  # A service that reads its file again on SIGHUP.
  jit-agent renew --target inventory_db --out /creds/db.json --format json \\
      --on-rotate signal:HUP:pidfile=/run/app.pid --health 127.0.0.1:9180

Files belong on a memory-backed volume (emptyDir with medium: Memory, or /run); the agent warns otherwise.";

/// Keeps credentials of jit-broker valid, in a file or in a command's environment.
#[derive(Debug, Parser)]
#[command(name = "jit-agent", version, after_long_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"), after_help = "See --help for examples and exit codes.")]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
    /// What is logged to stderr: error, warn, info or debug. `debug` holds for the agent; name a library to hear it too,
    /// as in `debug,rustls=debug`.
    #[arg(long, env = "JIT_LOG", default_value = "info", global = true)]
    pub(crate) log: crate::log::LogFilter,
    /// Format of the log.
    #[arg(long, env = "JIT_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text, global = true)]
    pub(crate) log_format: LogFormat,
}

/// Forms of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Get a credential, write it and end.
    ///
    /// Tries for at most --patience and then fails. A refusal that no retry can change fails at once. Beside the file
    /// it leaves a state file without secrets, with which `renew` takes the lease over.
    #[command(after_help = EXIT_CODES)]
    Fetch(FetchArgs),
    /// Keep a credential valid until SIGTERM, starting from what `fetch` left.
    ///
    /// At 80 % of the lease's term, or at --interval if that is earlier, the lease is renewed: the account stays and
    /// the file is not touched. If the lease cannot be extended any further, or with --new-account, a new account
    /// replaces it, and --on-rotate notifies whoever needs to know. SIGUSR1 asks for a new account now. With --target
    /// it also gets the first credential if there is no state file.
    #[command(after_help = EXIT_CODES)]
    Renew(RenewArgs),
    /// Run a command with credentials in its environment.
    ///
    /// The agent exits with the command's exit code, passes signals on to it and its process group, and gives the
    /// leases back at its end. Processes that the command leaves running are ended too: with SIGTERM, and with SIGKILL
    /// after --grace. The agent waits for all processes that end below it, so it needs no init as process 1 of a
    /// container. An environment cannot be changed from outside: a command that runs longer than its account can be
    /// extended needs --on-rotate restart, or --out with a signal.
    #[command(after_help = EXIT_CODES)]
    Exec(ExecArgs),
    /// Print completions for a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

/// Where the broker is, and who we are.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Broker")]
pub(crate) struct BrokerArgs {
    /// The broker's URL, such as https://jit-broker.jit-system.svc:8700.
    #[arg(long, env = "JIT_BROKER_URL", value_name = "URL")]
    pub(crate) broker: Option<String>,
    /// The file with the workload's token, read each time [default: /var/run/secrets/tokens/jit-broker].
    #[arg(long, env = "JIT_TOKEN_FILE", value_name = "FILE", group = "source")]
    pub(crate) token_file: Option<PathBuf>,
    /// The environment variable with the token. JIT_TOKEN is used if it is set and no other option names a token.
    #[arg(long, env = "JIT_TOKEN_ENV", value_name = "NAME", group = "source")]
    pub(crate) token_env: Option<String>,
    /// A command that prints the token. It is split at spaces and run each time.
    #[arg(long, env = "JIT_TOKEN_COMMAND", value_name = "COMMAND", group = "source")]
    pub(crate) token_command: Option<String>,
    /// The socket of the SPIFFE Workload API, from which the token comes.
    #[arg(long, env = "JIT_SPIFFE_SOCKET", value_name = "PATH", group = "source")]
    pub(crate) spiffe_socket: Option<PathBuf>,
    /// With --spiffe-socket: the token's audience [default: jit-broker].
    #[arg(long, env = "JIT_AUDIENCE", value_name = "AUDIENCE")]
    pub(crate) audience: Option<String>,
    /// The only authorities for the broker's certificate (PEM); by default the system's.
    #[arg(long, env = "JIT_CA_FILE", value_name = "FILE")]
    pub(crate) ca_file: Option<PathBuf>,
    /// Allow http:// to another machine, because something on this machine does the TLS.
    #[arg(long, env = "JIT_ALLOW_PLAINTEXT")]
    pub(crate) allow_plaintext: bool,
    /// Who makes the password: auto (the agent where the target takes a verifier, else the broker), password (the
    /// broker), verifier (the agent, or there is no credential) [default: auto].
    #[arg(long, env = "JIT_CREDENTIAL", value_name = "TYPE")]
    pub(crate) credential: Option<CredentialChoice>,
    /// A TOML file with these settings, for one or several credentials.
    #[arg(long, env = "JIT_AGENT_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

/// What is asked for, and how it is written.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Credential")]
pub(crate) struct CredentialArgs {
    /// The target, by the broker's name for it.
    #[arg(long, env = "JIT_TARGET")]
    pub(crate) target: Option<String>,
    /// The role; by default the target's default role.
    #[arg(long, env = "JIT_ROLE")]
    pub(crate) role: Option<String>,
    /// The length of a term, such as 30m; by default the target's.
    #[arg(long, env = "JIT_TTL")]
    pub(crate) ttl: Option<Length>,
    /// The reason, for policies and the audit log.
    #[arg(long, env = "JIT_REASON")]
    pub(crate) reason: Option<String>,
    /// A ticket, for policies and the audit log.
    #[arg(long, env = "JIT_TICKET")]
    pub(crate) ticket: Option<String>,
    /// The file.
    #[arg(long, env = "JIT_OUT", value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// Its form [default: by its name: .json, .properties, .cnf, .pgpass, .uri; else env].
    #[arg(long, env = "JIT_FORMAT", value_enum)]
    pub(crate) format: Option<Format>,
    /// The prefix of names, in all env forms, properties and exec [default: DB_; none in properties].
    #[arg(long, env = "JIT_PREFIX")]
    pub(crate) prefix: Option<String>,
    /// A template with {{username}}, {{password | json}} and the like; makes the format template.
    #[arg(long, env = "JIT_TEMPLATE", value_name = "FILE")]
    pub(crate) template: Option<PathBuf>,
    /// The file's permissions [default: 0600].
    #[arg(long, env = "JIT_MODE")]
    pub(crate) mode: Option<Mode>,
    /// The file's owner, as UID, UID:GID or :GID.
    #[arg(long, env = "JIT_OWNER")]
    pub(crate) owner: Option<Owner>,
    /// Get a new account each time instead of renewing the lease, so that no password is older than a term.
    #[arg(long, env = "JIT_NEW_ACCOUNT")]
    pub(crate) new_account: bool,
}

#[derive(Debug, Args)]
pub(crate) struct FetchArgs {
    #[command(flatten)]
    pub(crate) credential: CredentialArgs,
    #[command(flatten)]
    pub(crate) broker: BrokerArgs,
    /// How long to keep trying.
    #[arg(long, env = "JIT_PATIENCE", default_value = "2m", value_parser = duration)]
    pub(crate) patience: Duration,
}

/// What `renew` and `exec` share.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Renewal")]
pub(crate) struct KeepArgs {
    /// Renew at least this often; in any case at 80 % of the lease's term.
    #[arg(long, env = "JIT_INTERVAL", value_parser = duration)]
    pub(crate) interval: Option<Duration>,
    /// What to do after a new account was written: signal:HUP:pidfile=FILE, signal:HUP:process=NAME, exec:COMMAND; with
    /// `exec` also signal:HUP and restart. May be repeated.
    #[arg(long, env = "JIT_ON_ROTATE", value_name = "ACTION", value_delimiter = None)]
    pub(crate) on_rotate: Vec<OnRotate>,
    /// How long giving leases back may take at the end [default: 800ms; exec: 5s].
    #[arg(long, env = "JIT_EXIT_GRACE", value_parser = duration)]
    pub(crate) exit_grace: Option<Duration>,
    /// Serve /livez, /readyz and /metrics at this address, such as 127.0.0.1:9180.
    #[arg(long, env = "JIT_HEALTH", value_name = "ADDRESS")]
    pub(crate) health: Option<SocketAddr>,
}

#[derive(Debug, Args)]
pub(crate) struct RenewArgs {
    #[command(flatten)]
    pub(crate) keep: KeepArgs,
    #[command(flatten)]
    pub(crate) credential: CredentialArgs,
    #[command(flatten)]
    pub(crate) broker: BrokerArgs,
    /// Give the leases back at the end.
    #[arg(long, env = "JIT_REVOKE_ON_EXIT")]
    pub(crate) revoke_on_exit: bool,
    /// How long to try for a first credential.
    #[arg(long, env = "JIT_PATIENCE", default_value = "2m", value_parser = duration)]
    pub(crate) patience: Duration,
}

#[derive(Debug, Args)]
pub(crate) struct ExecArgs {
    #[command(flatten)]
    pub(crate) keep: KeepArgs,
    #[command(flatten)]
    pub(crate) credential: CredentialArgs,
    #[command(flatten)]
    pub(crate) broker: BrokerArgs,
    /// The names in the command's environment: env (with the prefix) or pgenv (libpq's).
    #[arg(long, env = "JIT_ENV", value_enum, default_value_t = Format::Env)]
    pub(crate) env: Format,
    /// How long the command and what it leaves running may take to end after SIGTERM, before they are killed.
    #[arg(long, env = "JIT_GRACE", default_value = "30s", value_parser = duration)]
    pub(crate) grace: Duration,
    /// How long to try for the first credentials.
    #[arg(long, env = "JIT_PATIENCE", default_value = "2m", value_parser = duration)]
    pub(crate) patience: Duration,
    /// The command and its arguments.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub(crate) argv: Vec<OsString>,
}

/// A duration of the contract's grammar: "90s", "48m", "1h30m" or whole seconds.
pub(crate) fn duration(text: &str) -> Result<Duration, DurationError> {
    text.parse::<Seconds>().map(Seconds::duration)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_usual_pod_specification_is_understood() {
        for line in [
            "jit-agent fetch --target inventory_db --out /creds/db.env",
            "jit-agent renew --interval 48m --out /creds/db.env",
            "jit-agent exec --target inventory_db -- psql -c x",
        ] {
            assert!(Cli::try_parse_from(line.split(' ')).is_ok(), "{line}");
        }
        assert_eq!(duration("48m"), Ok(Duration::from_secs(2_880)));
        assert_eq!(duration("1h30m"), Ok(Duration::from_secs(5_400)));
        assert_eq!(duration("48"), Ok(Duration::from_secs(48)));
        for bad in ["", "0s", "-1s", "1.5h", "500ms", "x"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn every_variable_begins_with_jit() {
        for command in Cli::command().get_subcommands() {
            for argument in command.get_arguments() {
                let name = argument.get_env().map(|name| name.to_string_lossy().into_owned());
                assert!(name.as_ref().is_none_or(|name| name.starts_with("JIT_")), "{name:?}");
            }
        }
    }
}
