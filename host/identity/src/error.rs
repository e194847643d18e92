//! What is wrong with the configuration of identity.

use std::path::PathBuf;

use crate::method::MAX_METHODS;

/// What is wrong with the identity configuration. The text says what to write instead.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// Too many entries.
    #[error("more than {MAX_METHODS} issuers")]
    TooManyMethods,
    /// Two entries of one name.
    #[error("identity `{name}`: the name is used twice; principals carry it, so give each entry its own")]
    DuplicateName {
        /// The name.
        name: String,
    },
    /// A field's value cannot be used.
    #[error("identity.jwt `{name}`: `{field}` {problem}")]
    Field {
        /// The entry's name.
        name: String,
        /// The field.
        field: &'static str,
        /// What is wrong and what to write instead.
        problem: String,
    },
    /// The CA file cannot be read, or has no certificate.
    #[error("identity.jwt `{name}`: cannot use the certificates in {}: {problem}", path.display())]
    Ca {
        /// The entry's name.
        name: String,
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// The HTTP client cannot be made, for example because the system has no certificates.
    #[error("identity.jwt `{name}`: cannot prepare the HTTPS client (no system certificates? set `ca`)")]
    Client {
        /// The entry's name.
        name: String,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// A mistake of the program: `main` installs the provider before anything else.
    #[error("no TLS crypto provider is installed in this process")]
    NoTlsProvider,
}
