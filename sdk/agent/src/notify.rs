//! Who is told of a new account, and how.

use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::process::Stdio;
use std::str::FromStr;
use std::time::Duration;

use jit_client::children::Waited;
use rustix::fs::{Mode, OFlags, open};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

/// How long a command may take before it is killed.
const COMMAND_DEADLINE: Duration = Duration::from_secs(30);

/// What is done when the account has changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) enum OnRotate {
    /// A signal.
    Signal { signal: Name, to: Whom },
    /// A command for `sh -c`.
    Command(String),
    /// `exec` only: the command is ended and started again.
    Restart,
}

/// Who gets a signal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Whom {
    /// The command that `exec` runs.
    Child,
    /// The process whose number a file holds.
    PidFile(PathBuf),
    /// All processes of a name, of those that can be seen: containers of a pod with a shared process namespace.
    Process(String),
}

/// A signal's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Name(&'static str, Signal);

const SIGNALS: [Name; 6] = [
    Name("HUP", Signal::HUP),
    Name("USR1", Signal::USR1),
    Name("USR2", Signal::USR2),
    Name("TERM", Signal::TERM),
    Name("INT", Signal::INT),
    Name("QUIT", Signal::QUIT),
];

impl FromStr for OnRotate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "restart" {
            return Ok(Self::Restart);
        }
        if let Some(command) = text.strip_prefix("exec:").map(str::trim) {
            return if command.is_empty() {
                Err("exec: needs a command".into())
            } else {
                Ok(Self::Command(command.into()))
            };
        }
        let Some(rest) = text.strip_prefix("signal:") else {
            return Err(format!(
                "{text:?}: write signal:HUP (exec), signal:HUP:pidfile=FILE, signal:HUP:process=NAME, exec:COMMAND or restart"
            ));
        };
        let (name, whom) = rest.split_once(':').unwrap_or((rest, ""));
        let name = name.strip_prefix("SIG").unwrap_or(name);
        let signal = SIGNALS
            .into_iter()
            .find(|signal| signal.0 == name)
            .ok_or_else(|| format!("no signal {name:?}; there are {}", SIGNALS.map(|signal| signal.0).join(", ")))?;
        let to = match whom.split_once('=') {
            _ if whom.is_empty() => Whom::Child,
            Some(("pidfile", path)) if !path.is_empty() => Whom::PidFile(path.into()),
            // The kernel keeps so many bytes of a name.
            Some(("process", name)) if !name.is_empty() && name.len() <= 15 => Whom::Process(name.into()),
            Some(("process", _)) => return Err("process= takes the 1 to 15 bytes of /proc/PID/comm".into()),
            _ => return Err(format!("{whom:?}: write pidfile=FILE or process=NAME")),
        };
        Ok(Self::Signal { signal, to })
    }
}

impl TryFrom<String> for OnRotate {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<OnRotate> for String {
    fn from(on: OnRotate) -> Self {
        match on {
            OnRotate::Restart => "restart".to_owned(),
            OnRotate::Command(command) => format!("exec:{command}"),
            OnRotate::Signal { signal: Name(name, _), to } => match to {
                Whom::Child => format!("signal:{name}"),
                Whom::PidFile(path) => format!("signal:{name}:pidfile={}", path.display()),
                Whom::Process(process) => format!("signal:{name}:process={process}"),
            },
        }
    }
}

impl OnRotate {
    /// Whether it is about the command that `exec` runs.
    pub(crate) fn needs_child(&self) -> bool {
        matches!(self, Self::Restart | Self::Signal { to: Whom::Child, .. })
    }

    /// The signal for `exec`'s command, if that is what is wanted.
    pub(crate) fn signal_for_child(&self) -> Option<Signal> {
        match self {
            Self::Signal { signal, to: Whom::Child } => Some(signal.1),
            _ => None,
        }
    }

    /// Tells whoever is not `exec`'s command. What goes wrong is logged: the credential is good all the same.
    pub(crate) async fn tell(&self, target: &str, out: Option<&std::path::Path>) {
        let told = match self {
            Self::Command(command) => run(command, target, out).await,
            Self::Signal { signal, to: Whom::PidFile(path) } => {
                pid_of(path).and_then(|pid| kill_process(pid, signal.1).map_err(|error| error.to_string()))
            }
            Self::Signal { signal, to: Whom::Process(name) } => signal_all(name, signal.1),
            Self::Restart | Self::Signal { to: Whom::Child, .. } => return,
        };
        let what = String::from(self.clone());
        match told {
            Ok(()) => tracing::info!(target, "told of the new account by {what}"),
            Err(error) => tracing::error!(target, error, "nobody was told of the new account by {what}"),
        }
    }
}

async fn run(command: &str, target: &str, out: Option<&std::path::Path>) -> Result<(), String> {
    let mut child = tokio::process::Command::new("sh");
    child.args(["-c", command]).env("JIT_TARGET", target).env_remove("JIT_TOKEN");
    if let Some(out) = out {
        child.env("JIT_OUT", out);
    }
    // Its output goes with our log: stdout may be somebody's data.
    child.stdin(Stdio::null()).stdout(std::io::stderr()).kill_on_drop(true);
    let mut child = child.spawn().map_err(|error| format!("sh cannot be started: {error}"))?;
    let _waited = Waited::of(child.id());
    match tokio::time::timeout(COMMAND_DEADLINE, child.wait()).await {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => Err(format!("it ended with {status}")),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("it was not done after {} s, and was killed", COMMAND_DEADLINE.as_secs())),
    }
}

fn pid_of(path: &std::path::Path) -> Result<Pid, String> {
    use std::io::Read as _;
    let wrong = |why: &str| format!("{}: {why}", path.display());
    // Without waiting: the file may be the application's, who may have put a pipe there.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = open(path, flags, Mode::empty()).map_err(|error| wrong(&error.to_string()))?;
    let file = std::fs::File::from(file);
    let about = file.metadata().map_err(|error| wrong(&error.to_string()))?;
    if !about.is_file() {
        return Err(wrong("it is no regular file"));
    }
    let mut text = String::new();
    file.take(64).read_to_string(&mut text).map_err(|error| wrong(&error.to_string()))?;
    let number: i32 = text.trim().parse().map_err(|_| wrong("it holds no process number"))?;
    // Zero and below are groups of processes, one is the system's first.
    if number <= 1 {
        return Err(wrong("it holds no process number"));
    }
    may_name(&about, number).map_err(|why| wrong(&why))?;
    Pid::from_raw(number).ok_or_else(|| wrong("it holds no process number"))
}

/// Whoever may write the file must not have processes of others signalled by an agent that has more rights.
fn may_name(file: &std::fs::Metadata, number: i32) -> Result<(), String> {
    let (writer, ours) = (file.uid(), rustix::process::geteuid().as_raw());
    if writer == 0 || writer == ours {
        return Ok(());
    }
    match std::fs::metadata(format!("/proc/{number}")) {
        Ok(process) if process.uid() != writer => {
            Err(format!("it belongs to user {writer}, and process {number} does not"))
        }
        _ => Ok(()),
    }
}

fn signal_all(name: &str, signal: Signal) -> Result<(), String> {
    let mut reached = 0;
    let mut refused = None;
    for entry in std::fs::read_dir("/proc").map_err(|error| error.to_string())?.flatten() {
        let Some(number) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        let comm = std::fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        let Some(pid) = Pid::from_raw(number).filter(|_| comm.trim_end() == name) else { continue };
        match kill_process(pid, signal) {
            Ok(()) => reached += 1,
            Err(error) => refused = Some(error),
        }
    }
    match refused {
        Some(error) if reached == 0 => Err(format!("process {name}: {error}")),
        _ if reached == 0 => Err(format!("no process {name} can be seen")),
        _ => Ok(()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn each_way_is_written_as_it_is_read() {
        for text in [
            "signal:HUP",
            "signal:USR1:pidfile=/run/app.pid",
            "signal:TERM:process=pgbouncer",
            "exec:systemctl reload app",
            "restart",
        ] {
            assert_eq!(String::from(text.parse::<OnRotate>().unwrap()), text);
        }
        assert_eq!("signal:SIGHUP".parse::<OnRotate>().unwrap(), "signal:HUP".parse().unwrap());
    }

    #[test]
    fn mistakes_are_told() {
        for (text, told) in [
            ("HUP", "write signal:HUP"),
            ("signal:KILL", "no signal \"KILL\"; there are HUP"),
            ("signal:HUP:pid=3", "pidfile=FILE or process=NAME"),
            ("signal:HUP:pidfile=", "pidfile=FILE"),
            ("signal:HUP:process=a-name-that-is-too-long", "15 bytes"),
            ("exec: ", "needs a command"),
        ] {
            let error = text.parse::<OnRotate>().unwrap_err();
            assert!(error.contains(told), "{text}: {error}");
        }
    }

    #[test]
    fn a_pid_file_never_names_a_group_or_the_first_process() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pid");
        for content in ["0", "-1", "1", "", "x", "99999999999"] {
            std::fs::write(&path, content).unwrap();
            assert!(pid_of(&path).unwrap_err().contains("no process number"), "{content}");
        }
        std::fs::write(&path, "4711\n").unwrap();
        assert_eq!(pid_of(&path).unwrap().as_raw_nonzero().get(), 4711);
        std::fs::remove_file(&path).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, Mode::from_raw_mode(0o600)).unwrap();
        assert!(pid_of(&path).unwrap_err().contains("no regular file"), "and it is not waited for");
    }

    #[test]
    fn a_strangers_pid_file_names_only_processes_of_theirs() {
        if !crate::place::tests::may_give_away("a stranger's pid file") {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pid");
        std::fs::write(&path, std::process::id().to_string()).unwrap();
        assert!(pid_of(&path).is_ok());
        std::os::unix::fs::chown(&path, Some(64_321), None).unwrap();
        assert!(pid_of(&path).unwrap_err().contains("belongs to user 64321"));
    }

    #[tokio::test]
    async fn a_command_knows_what_it_is_about() {
        let folder = tempfile::tempdir().unwrap();
        let told = folder.path().join("told");
        let out = folder.path().join("db.env");
        run(&format!("echo \"$JIT_TARGET $JIT_OUT\" >{}", told.display()), "inventory_db", Some(&out)).await.unwrap();
        assert_eq!(std::fs::read_to_string(told).unwrap(), format!("inventory_db {}\n", out.display()));
        assert!(run("exit 7", "t", None).await.unwrap_err().contains("exit status: 7"));
        assert!(signal_all("no-such-name", Signal::HUP).unwrap_err().contains("no process no-such-name"));
    }
}
