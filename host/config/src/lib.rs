//! The configuration: one TOML file, read whole, checked whole, and then passed on as plain data.
//!
//! In scope: the file's syntax, its values, what refers to what, and telling every mistake with its
//! line and what to write instead. Out of scope: whether a plugin likes its own table (the plugin's
//! `validate` says so; [`Config::explain`] finds the line), and whether a server answers.
//!
//! A secret is never in the file, only where it is ([`SecretRef`]). Whoever writes one into it all
//! the same must not find it again in a log: messages never quote a value that may be a secret, and
//! the lines that they show are taken from a starred-out copy (`redact`).
//!
//! Every key that a section's reader asks for is allowed, and no other. To add a key: ask for it in
//! the section's file, add it to `example.toml`, and a row to `tests/mistakes.rs`.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test that cannot go on fails"))]

mod connection;
mod field;
mod files;
mod identity;
mod plugin;
mod problem;
mod reading;
mod redact;
mod reference;
mod rotating;
mod rules;
mod secret;
mod section;
mod server;
mod signing;
mod store;
mod table;
mod target;
#[cfg(test)]
mod tests;
mod traces;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jit_core::account::AccountPrefix;
use jit_core::brake::Bound;
use jit_core::name::TargetName;
use jit_files::signature_path;
use jit_identity::{JwtIssuerConfig, KnownIssuer};
use sha2::{Digest as _, Sha256};
use toml::de::DeTable;

pub use self::connection::{Connection, Protocol};
pub use self::identity::Identity;
pub use self::plugin::{Context, PluginConfig, Policy};
pub use self::problem::{ConfigErrors, Place, Problem, RejectedPlugin, Severity, render};
pub use self::rotating::Rotating;
pub use self::secret::{MAX_SECRET, SecretError, SecretRef};
pub use self::server::{Limits, LogFormat, PluginLimits, Server, Tls};
pub use self::signing::{Signing, TrustedKey};
pub use self::store::{Archive, Audit, Export, PostgresStore, Store, StoreKind};
pub use self::table::PluginTable;
pub use self::target::{Endpoint, Target};
pub use self::traces::Traces;

use self::problem::SourceText;
use self::reading::{Places, Reading};
use self::reference::Declared;
use self::section::Section;

/// A configuration with every section and key, commented.
pub const EXAMPLE: &str = include_str!("example.toml");

/// The largest file, in bytes.
pub const MAX_FILE: usize = 1024 * 1024;

/// Everything that the broker is told. Without mistakes, as far as the text alone shows.
#[derive(Debug, Clone)]
pub struct Config {
    /// `[server]`.
    pub server: Server,
    /// `account_prefix` of `[server]`: how account names begin, by default `v-`.
    pub account_prefix: AccountPrefix,
    /// `[store]`.
    pub store: Store,
    /// `[audit]`.
    pub audit: Audit,
    /// `[[identity.jwt]]`.
    pub identity: Identity,
    /// `[plugins.NAME]`.
    pub plugins: BTreeMap<String, PluginConfig>,
    /// `require_signature` and `trusted_keys` of `[plugins]`.
    pub signing: Signing,
    /// `[runtime]`.
    pub plugin_limits: PluginLimits,
    /// `[connections.NAME]`.
    pub connections: BTreeMap<String, Connection>,
    /// `[policies.NAME]`.
    pub policies: BTreeMap<String, Policy>,
    /// `[contexts.NAME]`.
    pub contexts: BTreeMap<String, Context>,
    /// `[targets.NAME]`.
    pub targets: BTreeMap<TargetName, Target>,
    /// `[limits]`.
    pub limits: Limits,
    /// `interval` of `[reconcile]`, `1s` to `7d`, by default one hour.
    pub reconcile_interval: Duration,
    /// `most_ghosts` and `most_ghosts_percent` of `[reconcile]`, by default 20 and 10.
    pub reconcile_bound: Bound,
    /// `format` of `[log]`.
    pub log_format: LogFormat,
    /// `[traces]`, if it is there.
    pub traces: Option<Traces>,
    /// What is likely not meant, though it can be used.
    pub warnings: Vec<Problem>,
    places: Arc<Places>,
    source: Arc<SourceText>,
    shared_sha256: [u8; 32],
}

/// Sections that belong to one broker of a store, not to all of them.
const OF_ONE_BROKER: [&str; 3] = ["server", "store", "audit"];

/// The digest of a text but for [`OF_ONE_BROKER`] and for issuers on this machine, as `jit-broker dev` adds one. Comments
/// and the order of keys are nothing of it.
fn shared_sha256(text: &str) -> [u8; 32] {
    let mut table: toml::Table = toml::from_str(text).unwrap_or_default();
    table.retain(|section, _| !OF_ONE_BROKER.contains(&section));
    let issuers = table.get_mut("identity").and_then(|identity| identity.get_mut("jwt"));
    if let Some(issuers) = issuers.and_then(toml::Value::as_array_mut) {
        issuers.retain(|issuer| !issuer.get("issuer").and_then(toml::Value::as_str).is_some_and(is_of_this_machine));
    }
    Sha256::digest(table.to_string()).into()
}

fn is_of_this_machine(url: &str) -> bool {
    url::Url::parse(url).is_ok_and(|url| match url.host() {
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        Some(url::Host::Domain(name)) => name == "localhost",
        None => false,
    })
}

impl Config {
    /// Reads and checks a file. Does not look at the files that it names: see
    /// [`Config::check_files`]. Waits for the disk.
    ///
    /// # Errors
    /// [`ConfigErrors`] with every mistake that was found.
    pub fn load(path: &Path) -> Result<Self, ConfigErrors> {
        let (text, file) = read_text(path)?;
        Self::parse(&text, &file)
    }

    /// Checks a text; `file` is its path, for messages and because relative paths begin at its folder.
    ///
    /// # Errors
    /// [`ConfigErrors`] with every mistake that was found. When the text is not TOML, only the
    /// mistakes against TOML.
    pub fn parse(text: &str, file: &str) -> Result<Self, ConfigErrors> {
        let document = document(text, file, |reading, table| Section::root(reading, table, read))?;
        let shared = shared_sha256(text);
        Ok(document.read.into_config(document.problems, document.places, document.source, shared))
    }

    /// The digest of what it says but for `[server]`, `[store]` and `[audit]`: the same in all brokers of a store.
    #[must_use]
    pub fn shared_sha256(&self) -> [u8; 32] {
        self.shared_sha256
    }

    /// The file that this was read from, as it was named.
    #[must_use]
    pub fn file(&self) -> &Path {
        Path::new(&self.source.name)
    }

    /// What is known of each issuer without asking it.
    #[must_use]
    pub fn known_issuers(&self) -> Vec<KnownIssuer> {
        let known = |issuer: &JwtIssuerConfig| KnownIssuer {
            name: issuer.name.clone(),
            attributes: issuer.attributes.keys().cloned().collect(),
        };
        self.identity.jwt.iter().map(known).collect()
    }

    /// The files whose content decides what is served: this one, the plugins, who vouches for them, the
    /// listener's certificate and key, and what connections were opened with.
    #[must_use]
    pub fn served_files(&self) -> BTreeSet<PathBuf> {
        let plugins = self.plugins.values().map(|plugin| plugin.path.clone());
        let mut files: BTreeSet<PathBuf> = plugins.collect();
        if self.signing.required {
            files.extend(self.plugins.values().map(|plugin| signature_path(&plugin.path)));
            files.extend(self.signing.files().cloned());
        }
        files.extend(self.server.tls.iter().flat_map(|tls| [tls.cert.clone(), tls.key.clone()]));
        for connection in self.connections.values() {
            files.extend(connection.ca.clone());
            if let Some(SecretRef::File(password)) = connection.protocol.password() {
                files.insert(password.clone());
            }
        }
        files.insert(self.file().to_owned());
        files
    }

    /// A problem at a dotted path of this file (`policies.allow-listed.config.rules[0]`), or at
    /// the nearest part of the path that is there: for what a plugin's `validate` says. An error
    /// unless the caller changes that. `message` is shown as it is.
    #[must_use]
    pub fn explain(&self, path: &str, message: impl Into<String>) -> Problem {
        explain(&self.places, &self.source, path, message.into())
    }
}

/// A text of TOML that has been read, and what is needed to speak about it.
struct Document<T> {
    read: T,
    /// Its warnings.
    problems: Vec<Problem>,
    places: Places,
    source: Arc<SourceText>,
}

/// Reads a text by `read`, which gives none only after it has told a mistake.
fn document<T>(
    text: &str,
    file: &str,
    read: impl for<'a> FnOnce(&'a Reading, &'a DeTable<'a>) -> Option<T>,
) -> Result<Document<T>, ConfigErrors> {
    if text.len() > MAX_FILE {
        return Err(too_large(file));
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let folder = Path::new(file).parent().unwrap_or(Path::new("")).to_owned();
    let reading = Reading::new(folder);
    let (table, syntax) = DeTable::parse_recoverable(text);
    let mut places = Places::new();
    // Also of a text that is not quite TOML: what could be read tells where secrets are.
    reading.survey(table.get_ref(), "", &mut places);
    let value = if syntax.is_empty() {
        read(&reading, table.get_ref())
    } else {
        // The first: what follows it is most often told only because of it.
        if let Some(error) = syntax.first() {
            let span = error.span().unwrap_or(0..0);
            not_toml(&reading, text, span, error.message());
        }
        None
    };
    let Reading { findings, masks, .. } = reading;
    let source = SourceText::new(file, redact::showable(text, &masks.into_inner()));
    let mut findings = findings.into_inner();
    let refused = findings.iter().any(|finding| finding.severity == Severity::Error);
    let more = findings.len().saturating_sub(problem::MAX_PROBLEMS);
    if more > 0 {
        findings.sort_by_key(|finding| (finding.severity == Severity::Warning, finding.span.start));
        findings.truncate(problem::MAX_PROBLEMS);
    }
    findings.sort_by_key(|finding| finding.span.start);
    let problems: Vec<_> = findings
        .into_iter()
        .map(|finding| Problem {
            severity: finding.severity,
            place: Some(source.place(finding.span)),
            message: finding.message,
            help: finding.help,
            source: Arc::clone(&source),
        })
        .collect();
    if refused {
        return Err(ConfigErrors::new(problems, more));
    }
    // Nothing is missing without a mistake that says so; if that were wrong, it is told too.
    let read = value.ok_or_else(|| refuse(file, "cannot be used".to_owned(), None))?;
    Ok(Document { read, problems, places, source })
}

/// How a plugin's message begins that is about a key and not about its value.
const ABOUT_KEY: &str = "unknown ";

/// A problem at a dotted path, or at the nearest part of it that is there.
fn explain(places: &Places, source: &Arc<SourceText>, path: &str, message: String) -> Problem {
    let mut at = path;
    let place = loop {
        if let Some(spot) = places.get(at) {
            let key = spot.key.as_ref().filter(|_| at == path && message.starts_with(ABOUT_KEY));
            break Some(source.place(key.unwrap_or(&spot.own).clone()));
        }
        match at.rfind(['.', '[']) {
            Some(end) => at = &at[..end],
            None => break None,
        }
    };
    Problem { severity: Severity::Error, place, message, help: None, source: Arc::clone(source) }
}

/// Reads a file's text and gives its name for messages.
fn read_text(path: &Path) -> Result<(String, String), ConfigErrors> {
    let file = path.display().to_string();
    let bytes = read_file(path).map_err(|(message, help)| refuse(&file, message, help))?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = good.iter().filter(|byte| **byte == b'\n').count() + 1;
        let message = format!("line {line} has a byte that is not UTF-8 text");
        refuse(&file, message, Some("save the file as UTF-8".to_owned()))
    })?;
    Ok((text, file))
}

/// What the sections gave.
struct Parts {
    server: Server,
    account_prefix: AccountPrefix,
    store: Store,
    audit: Audit,
    identity: Identity,
    plugins: BTreeMap<String, PluginConfig>,
    signing: Signing,
    plugin_limits: PluginLimits,
    connections: BTreeMap<String, Connection>,
    policies: BTreeMap<String, Policy>,
    contexts: BTreeMap<String, Context>,
    targets: BTreeMap<TargetName, Target>,
    limits: Limits,
    reconcile_interval: Duration,
    reconcile_bound: Bound,
    log_format: LogFormat,
    traces: Option<Traces>,
}

impl Parts {
    fn into_config(
        self,
        warnings: Vec<Problem>,
        places: Places,
        source: Arc<SourceText>,
        shared_sha256: [u8; 32],
    ) -> Config {
        Config {
            server: self.server,
            account_prefix: self.account_prefix,
            store: self.store,
            audit: self.audit,
            identity: self.identity,
            plugins: self.plugins,
            signing: self.signing,
            plugin_limits: self.plugin_limits,
            connections: self.connections,
            policies: self.policies,
            contexts: self.contexts,
            targets: self.targets,
            limits: self.limits,
            reconcile_interval: self.reconcile_interval,
            reconcile_bound: self.reconcile_bound,
            log_format: self.log_format,
            traces: self.traces,
            warnings,
            places: Arc::new(places),
            source,
            shared_sha256,
        }
    }
}

/// Reads every section before any that failed ends it.
fn read(root: &Section<'_>) -> Option<Parts> {
    let server = root.section("server", |section| (server::server(section), server::account_prefix(section)));
    let store = root.section("store", store::store);
    let audit = root.section("audit", store::audit);
    let identity = root.section("identity", identity::identity);
    let limits = root.section("limits", server::limits);
    let log_format = root.section("log", server::log);
    let traces = root.optional_section("traces", traces::traces);
    let reconcile = root.section("reconcile", server::reconcile);
    let plugin_limits = root.section("runtime", server::runtime);

    let plugin_names = Declared::new(root, "plugins", "plugin").without(signing::RESERVED);
    let connection_names = Declared::new(root, "connections", "connection");
    let policy_names = Declared::new(root, "policies", "policy");
    let context_names = Declared::new(root, "contexts", "context provider");
    let signing = root.beside("plugins", signing::signing);
    let plugins = root.named_beside("plugins", signing::RESERVED, plugin::plugin);
    let connections = root.named("connections", |_, section| connection::connection(section));
    let policies = root.named("policies", |_, section| plugin::policy(section, &plugin_names));
    let contexts =
        root.named("contexts", |name, section| plugin::context(name, section, &plugin_names, &connection_names));
    let known = target::Known {
        plugins: &plugin_names,
        connections: &connection_names,
        policies: &policy_names,
        contexts: &context_names,
        read_policies: &policies,
    };
    let targets = root.named("targets", |name, section| target::target(name, section, &known));
    if root.names("targets").is_empty() {
        root.reading.warn(root.span_of("targets"), "no target: there is nothing that could be asked for", None);
    }
    if store.as_ref().is_some_and(|store| store.as_ref().is_some_and(|store| store.sealing_key.is_none())) {
        rotating::refuse_without_key(root, &targets);
    }
    // Beside mistakes this would only repeat them: what is misspelt is not used either.
    for declared in [&plugin_names, &connection_names, &policy_names, &context_names] {
        declared.warn_unused(root);
    }
    let (server, account_prefix) = server?;
    let server = server?;
    for (name, target) in &targets {
        if target.timeout >= server.request_timeout {
            let at = root.names("targets").into_iter().find(|(other, _)| other == name).map(|(_, span)| span);
            let message = format!(
                "the target's `timeout` ({}s) is not shorter than the server's `request_timeout` ({}s): slow calls are cut off",
                target.timeout.as_secs(),
                server.request_timeout.as_secs()
            );
            root.reading.warn(at.unwrap_or(0..0), message, None);
        }
    }
    Some(Parts {
        server,
        account_prefix: account_prefix.unwrap_or_default(),
        store: store??,
        audit: audit??,
        identity: identity?,
        plugins,
        signing: signing?,
        plugin_limits: plugin_limits?,
        connections,
        policies,
        contexts,
        targets: targets.into_iter().filter_map(|(name, target)| Some((TargetName::new(name).ok()?, target))).collect(),
        limits: limits?,
        reconcile_interval: reconcile?.0,
        reconcile_bound: reconcile?.1,
        log_format: log_format?,
        // One that is there and wrong has been told.
        traces: traces.flatten(),
    })
}

fn refuse(file: &str, message: String, help: Option<String>) -> ConfigErrors {
    ConfigErrors::new(vec![Problem::of_file(file, message, help)], 0)
}

fn too_large(file: &str) -> ConfigErrors {
    refuse(file, format!("has more than {MAX_FILE} bytes: that is not a configuration"), None)
}

fn read_file(path: &Path) -> Result<Vec<u8>, (String, Option<String>)> {
    let failed = |error: std::io::Error| {
        if error.kind() == std::io::ErrorKind::NotFound {
            let help = "make one with `jit-broker config example > broker.toml`, or name another with --config FILE";
            return ("there is no such file".to_owned(), Some(help.to_owned()));
        }
        (format!("cannot be read: {error}"), None)
    };
    let found = std::fs::metadata(path).map_err(failed)?;
    if found.is_dir() {
        return Err(("is a folder: name the file in it".to_owned(), None));
    }
    if !found.is_file() {
        // Opening a pipe waits for its writer, a device may never end.
        return Err(("is not a regular file".to_owned(), None));
    }
    let mut bytes = Vec::new();
    let cap = u64::try_from(MAX_FILE).unwrap_or(u64::MAX);
    std::fs::File::open(path).and_then(|file| file.take(cap + 1).read_to_end(&mut bytes)).map_err(failed)?;
    if bytes.len() > MAX_FILE {
        return Err((format!("has more than {MAX_FILE} bytes: that is not a configuration"), None));
    }
    Ok(bytes)
}

/// Tells where the text stops being TOML. Nothing after it was looked at.
fn not_toml(reading: &Reading, text: &str, span: Range<usize>, message: &str) {
    if message.contains("duplicate key") {
        let again = text.get(span.clone()).unwrap_or_default().trim();
        let first = text.get(..span.start).and_then(|before| {
            let is_it = |line: &&str| {
                let line = line.trim_start();
                let key = line.trim_matches(['[', ']']).split('=').next().unwrap_or_default().trim();
                !again.is_empty() && (key == again || key.ends_with(&format!(".{again}")))
            };
            before.lines().collect::<Vec<_>>().iter().rposition(is_it).map(|index| index + 1)
        });
        let first = first.map_or_else(String::new, |line| format!(", first on line {line}"));
        let message = format!("not TOML: duplicate key: `{}` is there twice{first}", section::shown(again));
        reading.error(span, message, Some("nothing after it was read".to_owned()));
        return;
    }
    if let Some(open) = unclosed(text, span.start) {
        let what = if text[open..].starts_with('[') {
            "this list is not closed: a ]"
        } else {
            "this table is not closed: a }"
        };
        reading.error(
            open..open + 1,
            format!("not TOML: {what} is missing"),
            Some("nothing after it was read".to_owned()),
        );
        return;
    }
    reading.error(span.clone(), format!("not TOML: {message}"), syntax_help(text, span.start));
}

/// Where a bracket was opened, in a value before `at`, that is not closed before the next key or table begins.
fn unclosed(text: &str, at: usize) -> Option<usize> {
    let mut open: Vec<(usize, u8)> = Vec::new();
    let mut quote: Option<u8> = None;
    let (mut in_value, mut comment) = (false, false);
    let bytes = text.as_bytes();
    for (index, byte) in bytes.iter().copied().enumerate().take(at) {
        if comment {
            comment = byte != b'\n';
        } else if let Some(mark) = quote {
            // A text of one line; longer ones (\"\"\") only make this look away.
            if byte == mark && !(mark == b'"' && index > 0 && bytes[index - 1] == b'\\') || byte == b'\n' {
                quote = None;
            }
        } else {
            match byte {
                b'#' => comment = true,
                b'"' | b'\'' => quote = Some(byte),
                b'=' if open.is_empty() => in_value = true,
                b'[' | b'{' if in_value => open.push((index, byte)),
                b']' | b'}' if in_value => drop(open.pop()),
                _ => {}
            }
        }
        if byte == b'\n' && open.is_empty() {
            in_value = false;
        }
    }
    // The innermost one is where the writing went on without it.
    open.last().map(|(index, _)| *index)
}

/// The commonest slip against TOML is a text without quotes.
fn syntax_help(text: &str, at: usize) -> Option<String> {
    let start = text.get(..at)?.rfind('\n').map_or(0, |line| line + 1);
    let line = text[start..].lines().next()?;
    let (_, value) = line.split_once('=')?;
    let bare = value.trim().chars().next().is_some_and(|c| c.is_alphanumeric() || matches!(c, '/' | '.' | '_'));
    bare.then(|| "texts, durations and paths stand in quotes: key = \"value\"".to_owned())
}
