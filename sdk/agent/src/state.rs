//! What an agent leaves for the next one, beside the file: which lease, asked for how, written how.
//!
//! It holds no secret: the file beside it does. It is read only where nobody but the agent's own user can have
//! written it; and even then the template, the owner and the permissions of a file are never taken from it: they are
//! on the command line, or they are the defaults.
//! It is written twice for a new account, before the
//! file (`settled: false`) and after it: an agent that finds it unsettled does not know whose
//! secret the file holds, and makes a new account.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use jit_client::{Lease, Request};
use serde::{Deserialize, Serialize};

use crate::error::AgentError;
use crate::format::Format;
use crate::output::{Draft, Mode, Owner};
use crate::place::Folder;

/// The most that is read.
const MOST: u64 = 64 * 1024;

/// The state of one file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct State {
    /// The format of this file.
    version: u32,
    /// Whether the file holds this lease's secret.
    pub(crate) settled: bool,
    /// What was asked for.
    pub(crate) request: Request,
    /// How the file is written.
    pub(crate) form: Form,
    /// The lease.
    pub(crate) lease: Lease,
}

/// How a file is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Form {
    pub(crate) format: Format,
    pub(crate) prefix: String,
    pub(crate) mode: Mode,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) owner: Option<Owner>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) template: Option<PathBuf>,
}

impl State {
    pub(crate) fn new(request: Request, form: Form, lease: Lease) -> Self {
        Self { version: 1, settled: false, request, form, lease }
    }

    /// Where the state of a file is: `db.env` has `.db.env.jit-agent.json`.
    pub(crate) fn path(out: &Path) -> PathBuf {
        let name = out.file_name().unwrap_or_default().to_string_lossy();
        out.with_file_name(format!(".{name}.jit-agent.json"))
    }

    /// The state of a file; none when there is none, or when somebody else may have written it.
    pub(crate) fn load(out: &Path) -> Result<Option<Self>, AgentError> {
        let path = Self::path(out);
        let wrong = |why: String| {
            AgentError::Config(format!("the state file {}: {why}. Remove it and fetch again", path.display()))
        };
        let opened = Folder::of(&path).and_then(|folder| folder.own(path.file_name().unwrap_or_default()));
        let file = match opened {
            Ok(Ok(file)) => file,
            Ok(Err(foreign)) => {
                tracing::warn!("the state file {} is ignored: {foreign}", path.display());
                return Ok(None);
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(wrong(error.to_string())),
        };
        let mut text = String::new();
        file.take(MOST).read_to_string(&mut text).map_err(|error| wrong(error.to_string()))?;
        let state: Self = serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
        if state.version != 1 {
            return Err(wrong(format!("version {} is not known to this agent", state.version)));
        }
        if state.request.target != state.lease.target {
            return Err(wrong("the target that was asked for is not its lease's".to_owned()));
        }
        Ok(Some(state))
    }

    /// Writes it, for the agent's user alone.
    pub(crate) fn save(&self, out: &Path) -> Result<(), AgentError> {
        let path = Self::path(out);
        let text = serde_json::to_string_pretty(self)
            .map_err(|error| AgentError::Output { path: path.clone(), reason: error.to_string() })?;
        Draft::open(&path, Mode::default(), None)?.commit(text.as_bytes())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
pub(crate) mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::format::tests::credential;

    fn state() -> State {
        let form = Form { format: Format::MyCnf, prefix: "DB_".into(), mode: Mode(0o640), owner: None, template: None };
        State::new(Request::new("inventory_db").ttl("1h"), form, credential("v-app", "geheim").lease)
    }

    #[test]
    fn what_is_left_is_found_and_holds_no_secret() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("db.env");
        assert_eq!(State::load(&out).unwrap(), None);
        state().save(&out).unwrap();
        assert_eq!(State::load(&out).unwrap().unwrap(), state());
        let path = folder.path().join(".db.env.jit-agent.json");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(!std::fs::read_to_string(path).unwrap().contains("geheim"));
    }

    #[test]
    fn what_others_may_have_written_is_no_state() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("db.env");
        let path = State::path(&out);
        state().save(&out).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).unwrap();
        assert_eq!(State::load(&out).unwrap(), None);
        let elsewhere = folder.path().join("elsewhere");
        state().save(&out).unwrap();
        std::fs::rename(&path, &elsewhere).unwrap();
        std::os::unix::fs::symlink(&elsewhere, &path).unwrap();
        assert_eq!(State::load(&out).unwrap(), None);
        std::fs::remove_file(&path).unwrap();
        // Would be waited for, if it were opened as a file.
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::from_raw_mode(0o600)).unwrap();
        assert_eq!(State::load(&out).unwrap(), None);
        // The next one that is written takes its place.
        state().save(&out).unwrap();
        assert_eq!(State::load(&out).unwrap(), Some(state()));
    }

    #[test]
    fn a_state_of_another_target_than_its_leases_is_not_believed() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("db.env");
        State { request: Request::new("vault_db"), ..state() }.save(&out).unwrap();
        let told = State::load(&out).unwrap_err().to_string();
        assert!(told.contains("not its lease's"), "{told}");
    }

    #[test]
    fn what_cannot_be_read_is_told_with_the_way_out() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("db.env");
        for content in [
            "",
            "{",
            "{\"version\": 1}",
            &serde_json::to_string(&state()).unwrap().replace("\"version\":1", "\"version\":2"),
        ] {
            std::fs::write(State::path(&out), content).unwrap();
            std::fs::set_permissions(State::path(&out), std::fs::Permissions::from_mode(0o600)).unwrap();
            let told = State::load(&out).unwrap_err().to_string();
            assert!(told.contains("Remove it and fetch again"), "{told}");
        }
    }
}
