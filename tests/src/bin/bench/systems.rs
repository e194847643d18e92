//! What is measured side by side.

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum System {
    /// The database with a plain client.
    Ceiling,
    /// The same, with verifiers of one iteration.
    CeilingLight,
    /// The broker on the same database, which makes the password.
    Broker,
    /// The broker on the same database; the caller makes the password and sends a verifier.
    Verifier,
    /// The broker on the same database, which makes a password with a verifier of one iteration.
    BrokerLight,
    /// OpenBao on the same database.
    #[value(name = "openbao")]
    OpenBao,
    /// The broker with a driver that does nothing.
    Noop,
    /// The same of an earlier broker.
    Before,
}

impl System {
    /// All, in the order in which they are measured.
    pub(crate) const ALL: [Self; 8] = [
        Self::Ceiling,
        Self::Broker,
        Self::OpenBao,
        Self::Verifier,
        Self::CeilingLight,
        Self::BrokerLight,
        Self::Before,
        Self::Noop,
    ];

    /// As the tables call it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ceiling => "the database alone",
            Self::CeilingLight => "the database alone, 1 iteration",
            Self::Broker => "jit-broker",
            Self::Verifier => "jit-broker, verifier by the caller",
            Self::BrokerLight => "jit-broker, 1 iteration",
            Self::OpenBao => "OpenBao",
            Self::Noop => "jit-broker, driver that does nothing",
            Self::Before => "the earlier jit-broker, driver that does nothing",
        }
    }

    /// As the JSON has it.
    pub(crate) fn key(self) -> &'static str {
        match self {
            Self::Ceiling => "database_alone",
            Self::CeilingLight => "database_alone_1_iteration",
            Self::Broker => "jit_broker",
            Self::Verifier => "jit_broker_verifier_by_the_caller",
            Self::BrokerLight => "jit_broker_1_iteration",
            Self::OpenBao => "openbao",
            Self::Noop => "jit_broker_noop_driver",
            Self::Before => "earlier_jit_broker_noop_driver",
        }
    }

    /// Whether each request makes an account in the database.
    pub(crate) fn makes_accounts(self) -> bool {
        !matches!(self, Self::Noop | Self::Before)
    }
}
