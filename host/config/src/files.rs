//! Whether the files that the configuration names are there and kept well. Apart from the
//! parsing, because it depends on the machine: `config check` and `serve` ask, a test of a text does not.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::Config;
use super::problem::{ConfigErrors, Problem, Severity};
use super::secret::SecretRef;
use super::store::StoreKind;

impl Config {
    /// Looks at every file that the configuration names; reads none. Gives the warnings: those of
    /// the text ([`Config::warnings`]) and those about files.
    ///
    /// # Errors
    /// [`ConfigErrors`] when the broker could not start with these files, or must not.
    pub fn check_files(&self) -> Result<Vec<Problem>, ConfigErrors> {
        let mut check = Check { config: self, found: self.warnings.clone() };
        // Not a mistake of the text: `dev` adds an issuer, and commands that only read need none.
        if self.identity.jwt.is_empty() {
            let mut problem = self.explain("identity.jwt", "no identity: nobody could prove who they are");
            problem.help = Some(
                "write, for example:\n[[identity.jwt]]\nname = \"cluster-prod\"\n\
                 issuer = \"https://kubernetes.default.svc\"\naudiences = [\"jit-broker\"]\n\
                 workload = \"{kubernetes.io.namespace}/{kubernetes.io.serviceaccount.name}\""
                    .to_owned(),
            );
            check.found.push(problem);
        }
        for (name, plugin) in &self.plugins {
            check.there(
                &format!("plugins.{name}.path"),
                &plugin.path,
                Some("build it with `jit-broker plugin build`, or correct the path"),
            );
        }
        if let Some(tls) = &self.server.tls {
            check.there("server.tls.cert", &tls.cert, None);
            if check.there("server.tls.key", &tls.key, None) {
                check.private("server.tls.key", &tls.key, Severity::Warning);
            }
        }
        for (index, issuer) in self.identity.jwt.iter().enumerate() {
            if let Some(ca) = &issuer.ca {
                check.there(&format!("identity.jwt[{index}].ca"), ca, None);
            }
        }
        for (name, connection) in &self.connections {
            if let Some(password) = connection.protocol.password() {
                check.secret(&format!("connections.{name}.password"), password, Severity::Warning);
            }
            for (secret, place) in connection.protocol.secrets() {
                check.secret(&format!("connections.{name}.secrets.{secret}"), place, Severity::Warning);
            }
            if let Some(ca) = &connection.ca {
                check.there(&format!("connections.{name}.ca"), ca, None);
            }
        }
        if let Some(traces) = &self.traces {
            for (header, place) in &traces.headers {
                check.secret(&format!("traces.headers.{header}"), place, Severity::Warning);
            }
            if let Some(ca) = &traces.ca {
                check.there("traces.ca", ca, None);
            }
        }
        if let Some(password) = self.store.password() {
            check.secret("store.password", password, Severity::Warning);
        }
        if let StoreKind::Postgres(store) = &self.store.kind
            && let Some(ca) = &store.ca
        {
            check.there("store.ca", ca, None);
        }
        // With a copy of the store it opens every current password.
        for (at, key) in self.store.sealing_keys() {
            check.secret(&at, key, Severity::Error);
        }
        // Whoever reads the signing key can rewrite the log: that is not a matter of taste.
        let known = check.found.len();
        check.secret("audit.signing_key", &self.audit.signing_key, Severity::Error);
        if let (SecretRef::File(path), Some(problem)) = (&self.audit.signing_key, check.found.get_mut(known))
            && !path.exists()
        {
            problem.help = Some(format!("make it with `jit-broker audit key {}`", path.display()));
        }
        let Check { found, .. } = check;
        if found.iter().any(|problem| problem.severity == Severity::Error) {
            Err(ConfigErrors::new(found, 0))
        } else {
            Ok(found)
        }
    }
}

struct Check<'a> {
    config: &'a Config,
    found: Vec<Problem>,
}

impl Check<'_> {
    fn find(&mut self, severity: Severity, at: &str, message: String, help: Option<String>) {
        let mut problem = self.config.explain(at, message);
        problem.severity = severity;
        problem.help = help;
        self.found.push(problem);
    }

    /// Whether a regular file is there.
    fn there(&mut self, at: &str, path: &Path, help: Option<&str>) -> bool {
        let mut help = help.map(str::to_owned);
        let wrong = match std::fs::metadata(path) {
            Ok(found) if found.is_file() => return true,
            Ok(_) => format!("{} is not a regular file", path.display()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let key = at.rsplit('.').next().unwrap_or(at);
                help.get_or_insert_with(|| format!("relative paths begin in {}", self.folder()));
                format!("the file of `{key}` is missing: {} is not there", path.display())
            }
            Err(error) => format!("{} cannot be read: {error}", path.display()),
        };
        self.find(Severity::Error, at, wrong, help);
        false
    }

    /// The configuration's folder, whole where the system says it.
    fn folder(&self) -> String {
        let file = self.config.explain("", "");
        let folder = match Path::new(file.file()).parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        std::fs::canonicalize(folder).unwrap_or_else(|_| folder.to_owned()).display().to_string()
    }

    /// Whether others may read it.
    fn private(&mut self, at: &str, path: &Path, severity: Severity) {
        let Ok(found) = std::fs::metadata(path) else {
            return;
        };
        let mode = found.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            let message = format!("{} can be read or changed by other users (mode {mode:04o})", path.display());
            let help = format!("chmod 600 '{}' (a Kubernetes secret volume: defaultMode: 0400)", path.display());
            self.find(severity, at, message, Some(help));
        }
    }

    /// `exposed` is how much it counts when others may read it.
    fn secret(&mut self, at: &str, secret: &SecretRef, exposed: Severity) {
        match secret {
            SecretRef::Env(name) if std::env::var_os(name).is_none() => {
                // The check may run elsewhere than the broker will.
                self.find(Severity::Warning, at, format!("the environment variable {name} is not set here"), None);
            }
            SecretRef::Env(_) => {}
            SecretRef::File(path) => {
                if self.there(at, path, None) {
                    self.private(at, path, exposed);
                }
            }
        }
    }
}
