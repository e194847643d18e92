//! `[store]` and `[audit]`: what is kept, and where.

use std::path::{Component, PathBuf};

use jit_core::ttl::Ttl;

use jit_core::secret::MAX_FORMER;
use jit_core::space::Marks;
use jit_core::transport::Spoken;
use url::Url;

use super::connection::{server_url_of, transport};
use super::field::Wrong;
use super::secret::SecretRef;
use super::section::Section;
use super::server::week;

/// `[store]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Store {
    /// Which.
    pub kind: StoreKind,
    /// How long a lease is kept after its account is gone, by default `7d`.
    pub keep_revoked: Ttl,
    /// Below how much free disk space something is no longer done.
    pub marks: Marks,
    /// Seals what the store may hold of passwords; rotating roles need it.
    pub sealing_key: Option<SecretRef>,
    /// Keys that were the sealing key before: they only unseal.
    pub former_sealing_keys: Vec<SecretRef>,
}

impl Store {
    /// The password of a store in a database, where it has one.
    #[must_use]
    pub fn password(&self) -> Option<&SecretRef> {
        match &self.kind {
            StoreKind::Sqlite(_) => None,
            StoreKind::Postgres(store) => store.password.as_ref(),
        }
    }

    /// All sealing keys, with their paths in the file.
    pub(super) fn sealing_keys(&self) -> impl Iterator<Item = (String, &SecretRef)> {
        let current = self.sealing_key.iter().map(|key| ("store.sealing_key".to_owned(), key));
        let former = self.former_sealing_keys.iter().enumerate();
        current.chain(former.map(|(index, key)| (format!("store.former_sealing_keys[{index}]"), key)))
    }
}

/// The database of leases and audit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreKind {
    /// A file of this machine: `sqlite:PATH`.
    Sqlite(PathBuf),
    /// A database: `postgres://USER@HOST:PORT,HOST:PORT/DATABASE`.
    Postgres(Box<PostgresStore>),
}

/// A store in a PostgreSQL database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PostgresStore {
    /// One URL for each server, at least one, without a password.
    pub servers: Vec<Url>,
    /// The password of the broker's role. Read at each new connection.
    pub password: Option<SecretRef>,
    /// Certificates (PEM) of the only authorities that the servers' certificates may come from.
    pub ca: Option<PathBuf>,
    /// Why the servers need not be verified although they are on other machines (`plaintext = { because = "…" }`).
    pub plaintext: Option<String>,
}

/// The most servers of one store.
const MAX_SERVERS: usize = 16;
/// The keys that only a database has.
const OF_A_DATABASE: [&str; 3] = ["password", "ca", "plaintext"];

/// What `url` says.
enum Place {
    File(String),
    Servers(Vec<Url>),
}

/// `[audit]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Audit {
    /// Signs the log's checkpoints.
    pub signing_key: SecretRef,
    /// The log's name in its checkpoints (C2SP signed note: no spaces, no `+`), by default `jit-broker`.
    pub origin: String,
    /// Where the records are copied to.
    pub export: Vec<Export>,
    /// Where the oldest records go; none where all stay in the store.
    pub archive: Option<Archive>,
}

/// `audit.archive`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Archive {
    /// The folder of the segments.
    pub path: PathBuf,
    /// How long a record stays in the store, by default `90d`.
    pub keep: Ttl,
}

/// One entry of `audit.export`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Export {
    /// One JSON object a line, appended to a file.
    Jsonl {
        /// The file.
        path: PathBuf,
    },
}

pub(super) fn store(section: &Section<'_>) -> Option<Store> {
    let place = match section.entry("url") {
        None => Some(Place::File("data/broker.db".to_owned())),
        Some(_) => {
            section.field("url", EXPECTED, |value| place(value.as_str().ok_or(Wrong::Kind)?).map_err(Wrong::Value))
        }
    };
    if place.is_none() {
        // What does not parse may still hold a password, in a place where nobody expects it.
        section.reading.mask(section.span_of("url"));
    }
    let kind = kind(section, place);
    let keep_revoked = section.ttl("keep_revoked").unwrap_or_else(week);
    let sealing_key = section.secret("sealing_key");
    let former_sealing_keys = former_sealing_keys(section);
    if section.entry("sealing_key").is_none() && !former_sealing_keys.is_empty() {
        section.error("former_sealing_keys", "`former_sealing_keys` only unseal: `sealing_key` is missing", None);
    }
    let mib = |key: &'static str| section.count(key, 0..=1_000_000_000).map(|mib| u64::from(mib) * 1024 * 1024);
    let marks = Marks { low: mib("low_space_mib"), stop: mib("stop_space_mib"), reserve: mib("reserve_mib") };
    if marks.low.zip(marks.stop).is_some_and(|(low, stop)| low < stop) {
        let message = "`low_space_mib` is below `stop_space_mib`: leases would stop before denials are cut short";
        section.error("low_space_mib", message, None);
    }
    Some(Store { kind: kind?, keep_revoked, marks, sealing_key, former_sealing_keys })
}

fn former_sealing_keys(section: &Section<'_>) -> Vec<SecretRef> {
    const KEY: &str = "former_sealing_keys";
    let Some((_, value)) = section.entry(KEY) else { return Vec::new() };
    let items = value.get_ref().as_array().filter(|items| items.len() <= MAX_FORMER);
    let Some(items) = items else {
        section.reading.mask_all(value);
        let message = format!("`{KEY}` must be a list of at most {MAX_FORMER}, such as [{{ file = \"old.key\" }}]");
        section.error(KEY, message, None);
        return Vec::new();
    };
    items.iter().filter_map(|item| section.secret_at(KEY, item.span(), item)).collect()
}

const EXPECTED: &str = "a store such as \"sqlite:data/broker.db\"";

fn kind(section: &Section<'_>, place: Option<Place>) -> Option<StoreKind> {
    let password = section.entry("password").and_then(|_| section.secret("password"));
    let ca = section.path("ca");
    let plaintext = transport::plaintext(section);
    match place? {
        Place::File(path) => {
            for key in OF_A_DATABASE.into_iter().filter(|key| section.entry(key).is_some()) {
                section.error(key, format!("`{key}` is of a store in a database: `url` names a file"), None);
            }
            Some(StoreKind::Sqlite(section.reading.folder.join(path)))
        }
        Place::Servers(servers) => {
            // One error is enough: what is wrong for one server is mostly wrong for all.
            let _told =
                servers.iter().all(|url| transport::check(section, Spoken::Postgres, url, plaintext.as_deref()));
            Some(StoreKind::Postgres(Box::new(PostgresStore { servers, password, ca, plaintext })))
        }
    }
}

/// Messages quote nothing of the text.
fn place(url: &str) -> Result<Place, String> {
    let rest = ["postgres://", "postgresql://"].iter().find_map(|scheme| url.strip_prefix(scheme));
    match rest {
        Some(rest) => servers(rest).map(Place::Servers),
        None => sqlite_path(url).map(Place::File).map_err(str::to_owned),
    }
}

/// One URL for each host of `USER@HOST:PORT,HOST:PORT/DATABASE`.
fn servers(rest: &str) -> Result<Vec<Url>, String> {
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let (user, hosts) = authority.rsplit_once('@').map_or(("", authority), |(user, hosts)| (user, hosts));
    let hosts: Vec<&str> = hosts.split(',').collect();
    if hosts.len() > MAX_SERVERS {
        return Err(format!("it names more than {MAX_SERVERS} servers"));
    }
    hosts.iter().map(|host| server_url_of(&format!("postgres://{user}@{host}{path}"), "postgres")).collect()
}

fn sqlite_path(url: &str) -> Result<String, &'static str> {
    let path = url.strip_prefix("sqlite:").ok_or("it must begin with \"sqlite:\" or \"postgres://\"")?;
    let path = path.strip_prefix("//").unwrap_or(path);
    if path.is_empty() {
        return Err("the file's path is missing");
    }
    if path.starts_with(":memory:") {
        return Err("leases must outlive the process: name a file");
    }
    if path.chars().any(|c| c.is_control() || c == '?') {
        return Err("it takes a path only, without parameters");
    }
    Ok(path.to_owned())
}

fn archive(section: &Section<'_>) -> Option<Archive> {
    section.demand("path", "archive = { path = \"data/archive\" }");
    let keep = section.ttl("keep").or_else(|| Ttl::from_seconds(90 * 86_400).ok());
    Some(Archive { path: section.path("path")?, keep: keep? })
}

pub(super) fn audit(section: &Section<'_>) -> Option<Audit> {
    section.demand("signing_key", "signing_key = { file = \"data/audit.key\" }");
    let signing_key = section.secret("signing_key");
    let origin = section.parsed("origin", "the log's name such as \"example.com/jit-broker\"", |text| {
        let plain = !text.is_empty()
            && text.len() <= 255
            && !text.chars().any(|c| c.is_whitespace() || c.is_control() || c == '+');
        if plain { Ok(text.to_owned()) } else { Err("1 to 255 bytes without spaces and without '+'") }
    });
    let export = section.sections("export", |entry| {
        entry.demand("kind", "{ kind = \"jsonl\", path = \"data/audit.jsonl\" }");
        entry.demand("path", "{ kind = \"jsonl\", path = \"data/audit.jsonl\" }");
        let kind = entry.choice("kind", &[("jsonl", ())]);
        let path = entry.path("path");
        kind.and(path).map(|path| (path, entry.span.clone()))
    });
    let mut seen: Vec<PathBuf> = Vec::new();
    for (path, span) in export.iter().flatten() {
        // `./a` and `a` are one file.
        let plain: PathBuf = path.components().filter(|part| *part != Component::CurDir).collect();
        if seen.contains(&plain) {
            let message = "two exports to one file would write into each other";
            section.reading.error(span.clone(), message, None);
        }
        seen.push(plain);
    }
    Some(Audit {
        signing_key: signing_key?,
        origin: origin.unwrap_or_else(|| "jit-broker".to_owned()),
        export: export.into_iter().flatten().map(|(path, _)| Export::Jsonl { path }).collect(),
        archive: section.optional_section("archive", archive).flatten(),
    })
}
