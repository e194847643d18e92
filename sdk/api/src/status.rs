//! The admin socket: what a running broker says of itself (`jit-broker status`).

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// What a background task is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TaskState {
    /// Its next pass is to come.
    Waiting,
    /// A pass is at work.
    Running,
    /// A pass has been at work for longer than its deadline. It is not ended: that may be unsafe.
    Stuck,
    /// It has ended although the broker serves. Only a restart brings it back.
    Ended,
}

impl TaskState {
    /// Its word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Stuck => "stuck",
            Self::Ended => "ended",
        }
    }
}

/// How a pass of a background task ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TaskResult {
    /// It did what it is for.
    Ok,
    /// It could not, or not all of it.
    Failed,
    /// The code panicked.
    Panicked,
}

impl TaskResult {
    /// Its word, also in metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failed => "failed",
            Self::Panicked => "panicked",
        }
    }
}

/// A background task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskRow {
    /// Its name.
    pub name: String,
    /// What it is doing.
    pub state: TaskState,
    /// When the pass that is at work began.
    pub running_since: Option<Timestamp>,
    /// How the last pass ended. Absent before the first has ended.
    pub last_result: Option<TaskResult>,
    /// When the last pass ended.
    pub last_ended: Option<Timestamp>,
    /// How long it took, in milliseconds.
    pub last_took_ms: Option<u64>,
    /// What the last good pass did, counted.
    #[serde(default)]
    pub did: BTreeMap<String, u64>,
    /// Why the last pass failed. Absent when it did not.
    pub error: Option<String>,
    /// When a pass last succeeded.
    pub last_success: Option<Timestamp>,
    /// When the next pass begins at the latest. Absent while one runs, and for a task that only waits to be woken.
    pub next_run: Option<Timestamp>,
    /// Passes that ended, by their result, since the broker started.
    pub runs: BTreeMap<TaskResult, u64>,
    /// How many passes in a row did not succeed.
    pub failures_in_a_row: u32,
    /// Pieces of work that its passes began and that go on beside them, such as the removals of one target.
    #[serde(default)]
    pub beside: u64,
    /// When the oldest of these began.
    pub beside_since: Option<Timestamp>,
    /// Pieces of such work whose code panicked and that have not succeeded since. At most 20.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub beside_panicked: Vec<String>,
}

/// The store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreStatus {
    /// Which kind: `sqlite` or `postgres`.
    pub kind: String,
    /// Whether it answers.
    pub answers: bool,
    /// How many records the audit log has.
    pub records: u64,
    /// Since when it exists.
    pub since: Timestamp,
    /// The disk's room: `ample`, `low` (denials are recorded briefly) or `stop` (nothing new is handed out).
    pub room: String,
}

/// A broker that serves from a store which may have several.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BrokerRow {
    /// Its process and machine.
    pub name: String,
    /// Since when it serves, by the store's clock.
    pub since: Timestamp,
    /// The digest of its configuration: [`ConfigStatus::shared_sha256`]. Absent until it has shown it.
    pub config: Option<String>,
    /// Whether it is the broker that answers.
    pub this: bool,
}

/// The configuration that serves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigStatus {
    /// Where it was read from. Absent in a broker without a configuration file.
    pub path: Option<String>,
    /// When what serves was loaded.
    pub loaded_at: Timestamp,
    /// What made the broker read it: `start`, `file`, `signal` or `admin`.
    pub trigger: String,
    /// The SHA-256 of the file then.
    pub sha256: Option<String>,
    /// The SHA-256 of what all brokers of a store should have alike: what the file says but for `[server]`, `[audit]`,
    /// `[store]` and issuers on this machine, and the plugins' bytes. Absent in a broker without a configuration file.
    pub shared_sha256: Option<String>,
    /// Why what the file says now is refused. Absent when it serves.
    pub refused: Option<String>,
}

/// The leases of a target.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetStatus {
    /// The target.
    pub target: String,
    /// Whether the configuration still has it.
    pub configured: bool,
    /// Leases that an application can use.
    pub active: u64,
    /// Leases whose account is being made.
    pub pending: u64,
    /// Leases whose account is being removed.
    pub revoking: u64,
    /// Leases of which nobody knows whether there is an account. It is being removed.
    pub doubtful: u64,
    /// Removals that should be over by now.
    pub overdue: u64,
    /// For how long the oldest of them has been due, in seconds.
    pub oldest_overdue_seconds: u64,
    /// Since when nobody answers there, or the broker's login is refused. Absent when the target is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub away_since: Option<Timestamp>,
    /// Why the last call did not reach it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub away_because: Option<String>,
}

impl TargetStatus {
    /// Removals that have begun and are not done.
    #[must_use]
    pub fn waiting(&self) -> u64 {
        self.revoking + self.doubtful
    }
}

/// What is wrong, in words, with what it is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alarm {
    /// What it is about: `task removal`, `target inventory_db`, `store`, `clock`, `config`.
    pub about: String,
    /// What is wrong.
    pub what: String,
}

/// A running broker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BrokerStatus {
    /// What is wrong, the worst first. Empty when all is well.
    pub alarms: Vec<Alarm>,
    /// The broker's version.
    pub version: String,
    /// Since when it serves.
    pub up_since: Timestamp,
    /// What its clock shows.
    pub now: Timestamp,
    /// The configuration.
    pub config: ConfigStatus,
    /// The store.
    pub store: StoreStatus,
    /// The brokers that serve from the store, where it may have several: this one is among them.
    pub brokers: Vec<BrokerRow>,
    /// By how many seconds the wall clock jumped, while leases do not go by it.
    pub clock_jumped_seconds: Option<i64>,
    /// Accounts that are held for an operator to decide (BRAKE), as the last reconciliation of each target found.
    pub held_accounts: u64,
    /// Its targets.
    pub targets: Vec<TargetStatus>,
    /// Its background tasks.
    pub tasks: Vec<TaskRow>,
}
