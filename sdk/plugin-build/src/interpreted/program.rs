//! The programs of the machine that building needs: there, new enough, or how to get them.

use std::{path::Path, process::Command, time::Duration};

use crate::{Error, process::Run};

/// How long a program may take to tell its version.
const ASK_DEADLINE: Duration = Duration::from_secs(60);

/// What is asked of a program.
pub(super) struct Wanted {
    /// Its name in PATH.
    pub(super) program: &'static str,
    /// The oldest major and minor version that will do.
    pub(super) minimum: (u32, u32),
    /// The command that gets it.
    pub(super) fix: &'static str,
}

impl Wanted {
    /// Asks the program for its version (`--version`).
    ///
    /// # Errors
    /// [`Error::Program`] with the command that helps.
    pub(super) fn find(&self) -> Result<(), Error> {
        let refuse = |reason: String| Error::Program { program: self.program, reason, fix: self.fix };
        let asked = Run::new(format!("`{} --version`", self.program), ASK_DEADLINE)
            .output(Command::new(self.program).arg("--version"));
        let said = match asked {
            Ok(said) => said.stdout,
            Err(Error::Start { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                return Err(refuse("is not installed".to_owned()));
            }
            Err(error) => return Err(error),
        };
        let (major, minor) = self.minimum;
        match version(&said) {
            Some(version) if version >= self.minimum => Ok(()),
            Some((is_major, is_minor)) => {
                Err(refuse(format!("is version {is_major}.{is_minor}, and {major}.{minor} is needed")))
            }
            None => Err(refuse(format!("did not tell its version but {:?}", said.trim()))),
        }
    }
}

/// `Python 3.11.2`, `v20.11.0`, `10.2.4` → major and minor.
fn version(said: &str) -> Option<(u32, u32)> {
    let number = said.split(|c: char| !c.is_ascii_digit() && c != '.').find(|word| word.contains('.'))?;
    let mut parts = number.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// A command without what would let this machine's own packages or settings into the build.
pub(super) fn isolated(program: &str, scratch: &Path) -> Command {
    let mut command = Command::new(program);
    for variable in ["PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "NODE_OPTIONS", "NODE_PATH", "RUST_BACKTRACE"] {
        command.env_remove(variable);
    }
    command.env("PYTHONDONTWRITEBYTECODE", "1").env("TMPDIR", scratch);
    command
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        assert_eq!(version("Python 3.11.2\n"), Some((3, 11)));
        assert_eq!(version("v20.11.0\n"), Some((20, 11)));
        assert_eq!(version("10.2.4"), Some((10, 2)));
        assert_eq!(version("unknown"), None);
    }

    #[test]
    fn what_is_missing_or_too_old_is_told_with_the_command_that_helps() {
        let missing = Wanted { program: "jit-no-such-program", minimum: (1, 0), fix: "apt-get install it" };
        let told = missing.find().unwrap_err().to_string();
        assert_eq!(told, "jit-no-such-program is not installed: apt-get install it");
        let old = Wanted { program: "sh", minimum: (1, 0), fix: "" };
        assert!(old.find().is_err());
        let cargo = Wanted { program: "cargo", minimum: (999, 0), fix: "wait" };
        assert!(cargo.find().unwrap_err().to_string().contains("and 999.0 is needed: wait"));
    }
}
