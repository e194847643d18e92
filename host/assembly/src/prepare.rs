//! What a broker needs before it touches its store or any server: read, loaded and checked, once and in
//! one way. `serve` and `config check` both come through here, so that the check cannot pass what the
//! start refuses.

use std::sync::Arc;

use anyhow::Context as _;
use jiff::Timestamp;
use jit_identity::{Identity, IdentityError};
use jit_runtime::{CompileWatch, Runtime};
use jit_tlog::checkpoint::{LogKey, Origin};

use crate::certificates::{self, BadPair, Validity};
use crate::compose::{self, Mode};
use crate::sealing_key;
use crate::tls;
use jit_config::{Config, ConfigErrors, Problem, Severity};
use jit_pipeline::sealing::Sealer;

/// All of it, in order.
pub struct Prepared {
    /// For how long the listener's certificate holds.
    pub certificate: Option<Validity>,
    /// The issuers that are trusted.
    pub identity: Identity,
    /// What loads plugins.
    pub runtime: Runtime,
    /// What seals passwords in the store, where there is a key.
    pub sealer: Option<Sealer>,
    /// What signs the audit log, and its name.
    pub log: (LogKey, Origin),
    /// What is likely not meant, or will not hold for long.
    pub warnings: Vec<Problem>,
}

/// Reads and checks everything. `watch` hears of the plugins that are compiled later.
///
/// # Errors
/// With what is wrong, at its line where it has one.
pub fn prepare(config: &Config, mode: Mode, watch: Arc<dyn CompileWatch>) -> anyhow::Result<Prepared> {
    let (warnings, certificate) = files(config, mode)?;
    if let Some(tls) = &config.server.tls {
        tls::server_config(&tls.cert, &tls.key)?;
    }
    let identity = compose::identity(config, mode).map_err(|error| at_issuer(config, error))?;
    let log = compose::log_key(config, mode).map_err(|error| at(config, "audit.signing_key", &error))?;
    let sealer = sealing_key::of_config(&config.store).context("[store] sealing_key");
    let sealer = sealer.map_err(|error| at(config, "store.sealing_key", &error))?;
    let runtime = compose::runtime(config, mode, watch)?;
    Ok(Prepared { certificate, identity, runtime, sealer, log, warnings })
}

/// The files that the configuration names: whether they are there, are what they are to be, and for how
/// long they hold. Gives the warnings, those of the text among them.
///
/// # Errors
/// With every file that is wrong.
pub fn files(config: &Config, mode: Mode) -> Result<(Vec<Problem>, Option<Validity>), ConfigErrors> {
    // `dev` makes what is missing.
    let mut found = if mode.dev { config.warnings.clone() } else { config.check_files()? };
    found.extend(config.rules_that_never_fit());
    let now = Timestamp::now();
    let warn = |path: &str, message: String, found: &mut Vec<Problem>| {
        let mut problem = config.explain(path, message);
        problem.severity = Severity::Warning;
        found.push(problem);
    };
    let mut certificate = None;
    if let Some(tls) = &config.server.tls {
        match certificates::check_pair(&tls.cert, &tls.key) {
            Ok(validity) => {
                if let Some(concern) = validity.concern(now) {
                    warn("server.tls.cert", format!("the certificate {} {concern}", tls.cert.display()), &mut found);
                }
                certificate = Some(validity);
            }
            Err(BadPair::Certificate(error)) => found.push(config.explain("server.tls.cert", error.to_string())),
            Err(BadPair::Key(error)) => found.push(config.explain("server.tls.key", error.to_string())),
        }
    }
    let of_connections = config.connections.iter().map(|(name, one)| (format!("connections.{name}.ca"), &one.ca));
    let of_issuers = config.identity.jwt.iter().enumerate();
    let of_issuers = of_issuers.map(|(index, one)| (format!("identity.jwt[{index}].ca"), &one.ca));
    let of_traces = config.traces.iter().map(|traces| ("traces.ca".to_owned(), &traces.ca));
    for (path, ca) in of_connections.chain(of_issuers).chain(of_traces) {
        let Some(ca) = ca else { continue };
        match certificates::check_authorities(ca) {
            Ok(validity) => {
                if let Some(concern) = validity.concern(now) {
                    warn(&path, format!("the authority in {} {concern}", ca.display()), &mut found);
                }
            }
            Err(error) => found.push(config.explain(&path, error.to_string())),
        }
    }
    if found.iter().any(|problem| problem.severity == Severity::Error) {
        return Err(ConfigErrors::of(found));
    }
    Ok((found, certificate))
}

/// A mistake at its line.
fn at(config: &Config, path: &str, error: &anyhow::Error) -> anyhow::Error {
    ConfigErrors::of(vec![config.explain(path, format!("{error:#}"))]).into()
}

/// What is wrong with an issuer, at its line.
fn at_issuer(config: &Config, error: anyhow::Error) -> anyhow::Error {
    let (name, key) = match error.downcast_ref::<IdentityError>() {
        Some(IdentityError::Field { name, field, .. }) => (name, *field),
        Some(IdentityError::Ca { name, .. }) => (name, "ca"),
        Some(IdentityError::Client { name, .. } | IdentityError::DuplicateName { name }) => (name, "name"),
        _ => return error,
    };
    let Some(index) = config.identity.jwt.iter().position(|issuer| issuer.name == *name) else { return error };
    at(config, &format!("identity.jwt[{index}].{key}"), &error)
}
