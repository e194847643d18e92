//! THREE-OUTCOMES: a backend call is done, refused, or unknown. Unknown is a state of the lease,
//! not an error string.

/// What became of a call to a backend.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Outcome<T> {
    /// It took effect.
    Done(T),
    /// It did not take effect, for this reason.
    Refused(Refusal),
    /// It may or may not have taken effect: a lost reply, a deadline, a trap in mid-call. The text
    /// is for operators.
    Unknown(String),
}

/// Why a call certainly did not take effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// The backend said no; its words without secrets, fit for the caller.
    Target(String),
    /// There is no such account.
    NotFound,
    /// The name is taken.
    Conflict(String),
    /// Not now; the same call may work later.
    Unavailable {
        /// For operators and the caller: what stands in the way.
        reason: String,
        /// The backend answered in this call: the trouble is this account's, and others may go.
        /// Otherwise it is away, and all its calls would fail alike.
        answered: bool,
        /// What the driver advised, in milliseconds.
        after_ms: Option<u64>,
    },
    /// These things hold the account in place.
    Dependents(Vec<String>),
    /// The target's configuration is wrong: a line for each mistake, which begins with the path below the
    /// target that it is about, where there is one.
    Configuration(String),
    /// The plugin broke its contract or a limit before it had called the backend.
    Plugin(String),
    /// The target does not take the verifier that the caller sent: why, fit for the caller.
    Verifier(String),
}

impl Refusal {
    /// The reason in words, for logs and audit records.
    #[must_use]
    pub fn reason(&self) -> String {
        match self {
            Self::Target(text) | Self::Verifier(text) => text.clone(),
            Self::NotFound => "the account does not exist".to_owned(),
            Self::Conflict(text) => format!("the name is taken: {text}"),
            Self::Unavailable { reason, answered: true, .. } => format!("not now: {reason}"),
            Self::Unavailable { reason, .. } => format!("unavailable: {reason}"),
            Self::Dependents(list) => format!("held in place by {}", list.join(", ")),
            Self::Configuration(text) => format!("configuration: {}", text.replace('\n', "; ")),
            Self::Plugin(text) => format!("plugin: {text}"),
        }
    }
}

impl<T> Outcome<T> {
    /// Changes what a done call gave.
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Outcome<U> {
        match self {
            Self::Done(value) => Outcome::Done(change(value)),
            Self::Refused(refusal) => Outcome::Refused(refusal),
            Self::Unknown(reason) => Outcome::Unknown(reason),
        }
    }
}
