//! What the suite, the demo, the bench and the storm share: a world with a real PostgreSQL set up with least
//! privilege, a broker process with its embedded issuer, and the questions that tests ask them.
//!
//! In scope: starting, asking, stopping. Out of scope: what is expected; that is in `suite/`.
//!
//! `cargo xtask test` starts the servers, builds the binaries and says where they are:
//! `JIT_TEST_POSTGRES` (a superuser's URL; accounts and databases of each world are its own),
//! `JIT_TEST_BROKER` and `JIT_TEST_BROKER_FAILPOINTS` (the binaries), `JIT_TEST_PLUGINS` (the folder
//! with the components), `JIT_TEST_AGENT` and `JIT_TEST_EXAMPLE_RUST` (more binaries). What other
//! languages and the checks of deploy/ run on is in variables that `xtask/src/ingredients.rs` sets,
//! and what could not be had in `JIT_TEST_LEFT_OUT`. Of the other servers, each on loopback and with a
//! certificate for the host in its URL, signed by an authority of its own (`…_CA`, a file):
//!
//! | variable | what |
//! |---|---|
//! | `JIT_TEST_MYSQL`, `…_CA` | MySQL: a superuser's URL |
//! | `JIT_TEST_MARIADB`, `…_CA` | MariaDB: a superuser's URL |
//! | `JIT_TEST_LDAP`, `JIT_TEST_LDAPS`, `JIT_TEST_LDAP_CA` | OpenLDAP: for StartTLS, and with TLS from the start |
//! | `JIT_TEST_LDAP_ADMIN`, `…_ADMIN_PASSWORD` | its administrator's name |
//! | `JIT_TEST_LDAP_BROKER`, `…_BROKER_PASSWORD` | the broker's account, limited as the driver's set-up says |
//! | `JIT_TEST_AD`, `JIT_TEST_AD_…` | Active Directory (Samba), with the same endings: `ldaps://` on an address of its own |
//! | `JIT_TEST_OPENBAO`, `…_CA`, `…_TOKEN`, `…_BINARY` | OpenBao, unsealed: its URL, root token and command line |
//! | `JIT_TEST_POSTGRES_LDAP_BIN` | the programs of a PostgreSQL that can ask a directory for passwords |
//!
//! `cargo xtask servers` starts the same ones and prints these variables for a shell.

pub mod agent;
pub mod backend;
pub mod broker;
pub mod conjur;
pub mod contract;
pub mod database;
pub mod gate;
pub mod http;
pub mod ingredients;
pub mod invariants;
pub mod issuer;
pub mod kit;
pub mod mysql_world;
pub mod page;
pub mod relay;
pub mod servers;
pub mod setup;
pub mod store_database;
pub mod storm;
pub mod wire;
pub mod world;

pub use agent::{AgentProcess, Agents};
pub use broker::BrokerProcess;
pub use conjur::Conjur;
pub use contract::Description;
pub use database::Database;
pub use gate::Gate;
pub use http::{Client, Reply};
pub use issuer::{Issuer, Key};
pub use relay::{Relay, Way};
pub use store_database::StoreDatabase;
pub use wire::Wire;
pub use world::{Settings, World};

/// What `cargo xtask test` says about the surroundings.
///
/// # Panics
/// When it is not set: then this was not started by `cargo xtask test`.
#[must_use]
pub fn surroundings(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run this with `cargo xtask test`"))
}

/// Lets this process have as many files open as it may: a thousand clients have a thousand connections.
pub fn many_open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let wanted = maximum.unwrap_or(65_536).min(65_536);
    if current.is_some_and(|current| current < wanted) {
        // Where it is not allowed, the test says what it lacks.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum });
    }
}

/// A short random name, unique to a world.
#[must_use]
pub fn random_name() -> String {
    use rand::Rng as _;
    let mut bytes = [0_u8; 6];
    rand::rng().fill_bytes(&mut bytes);
    bytes.iter().map(|byte| char::from(b'a' + byte % 26)).collect()
}
