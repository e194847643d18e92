//! What an operator writes for a target and for a role of it.

use jit_plugin::ConfigProblem;
use serde::Deserialize;

use crate::MAX_NAME_LENGTH;

/// More grants than this are a role that should exist in the database.
const MAX_GRANTS: usize = 64;

/// `[targets.T.config]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TargetConfig {
    /// The role that gets what an account owns when it is removed. Without one, an account that
    /// owns something is disabled but stays until somebody has seen to its things.
    pub reassign_owned_to: Option<String>,
    /// Iterations of the SCRAM-SHA-256 verifier. 4096 is what clients expect at least (pgjdbc
    /// refuses fewer) and costs the server some 8 ms of CPU for each account; the broker's
    /// passwords are random, so that 1 is no weaker where all clients take it.
    #[serde(default = "default_iterations")]
    pub scram_iterations: u32,
    /// Always true: a session that is left alone goes on without end. The key is read because
    /// earlier versions had a choice.
    #[serde(default = "default_terminate")]
    pub terminate_sessions: bool,
}

fn default_iterations() -> u32 {
    4096
}

fn default_terminate() -> bool {
    true
}

/// Some few accounts must not take all connections of a server, whose usual number is 100.
fn default_connection_limit() -> u16 {
    16
}

/// `[targets.T.roles.R]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoleConfig {
    /// Roles of the database that an account becomes a member of.
    pub grants: Vec<String>,
    /// Whether an account may become one of its roles (`SET ROLE`). What it makes as such a role is not
    /// its own: it stays, code included. Before PostgreSQL 16 every account may.
    #[serde(default)]
    pub set_role: bool,
    /// How many sessions an account may have at a time.
    #[serde(default = "default_connection_limit")]
    pub connection_limit: u16,
}

impl TargetConfig {
    /// What the types do not say.
    pub(crate) fn problems(&self) -> Vec<ConfigProblem> {
        let mut problems = Vec::new();
        if !(1..=1_000_000).contains(&self.scram_iterations) {
            let message = "must be from 1 to 1000000: leave it out for 4096";
            problems.push(ConfigProblem::new("scram_iterations", message));
        }
        if !self.terminate_sessions {
            let message = "must be true, or left out: a session that is not ended outlives its lease";
            problems.push(ConfigProblem::new("terminate_sessions", message));
        }
        if let Some(message) = self.reassign_owned_to.as_deref().and_then(wrong_name) {
            problems.push(ConfigProblem::new("reassign_owned_to", message));
        }
        problems
    }
}

impl RoleConfig {
    /// What the types do not say.
    pub(crate) fn problems(&self) -> Vec<ConfigProblem> {
        let mut problems = Vec::new();
        if self.grants.is_empty() {
            let message =
                "is empty: name the roles of the database that an account gets, such as `[\"app_read_only\"]`";
            problems.push(ConfigProblem::new("grants", message));
        }
        if self.grants.len() > MAX_GRANTS {
            let message = format!("has more than {MAX_GRANTS} roles: make one role in the database that has them all");
            problems.push(ConfigProblem::new("grants", message));
        }
        for (index, grant) in self.grants.iter().enumerate() {
            if let Some(message) = wrong_name(grant) {
                problems.push(ConfigProblem::new(format!("grants[{index}]"), message));
            }
        }
        if self.connection_limit == 0 {
            let message = "must be 1 or more: leave it out for 16";
            problems.push(ConfigProblem::new("connection_limit", message));
        }
        problems
    }
}

fn wrong_name(name: &str) -> Option<String> {
    let fits = (1..=MAX_NAME_LENGTH).contains(&name.len()) && !name.contains('\0');
    (!fits).then(|| format!("must be a role's name of 1 to {MAX_NAME_LENGTH} bytes"))
}
