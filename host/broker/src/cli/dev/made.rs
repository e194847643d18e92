//! The configuration that `dev` writes: from its flags, and what happens to it at the next start.
//!
//! A file that is still as it was made follows the flags of the next start. One that somebody edited is theirs: a flag
//! that says something else than the file is refused, with the line. A start that fails leaves the file as it was.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use jit_config::{Config, ConfigErrors};
use toml::{Table, Value};

use super::{DevArgs, quoted};

/// Where the broker listens unless it is said.
const LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 8700);
/// Where the embedded issuer listens unless it is said.
pub(super) const ISSUER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 8701);
/// Where the file has the embedded issuer's address: a comment, since the broker's configuration has no such key.
const ISSUER_LINE: &str = "# The embedded issuer: ";
/// Where `cargo xtask plugins` puts what it builds.
const PLUGINS: &str = "target/plugins";
const DRIVER: &str = "driver-postgres.wasm";
const POLICY: &str = "policy-allow-list.wasm";

/// What the file is made from.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Choices {
    listen: SocketAddr,
    issuer: SocketAddr,
    /// Absolute, as the password's file.
    plugins: PathBuf,
    database: String,
    password_file: Option<PathBuf>,
    /// The first is the default; the others in order.
    roles: Vec<String>,
    owner: Option<String>,
}

/// The file that `dev` serves, in its folder.
#[derive(Debug)]
pub(super) struct Made {
    path: PathBuf,
    /// What was there before this start.
    before: Option<String>,
    /// What this start serves.
    now: String,
    kept: bool,
}

impl Made {
    /// Finds out what to serve, and writes nothing yet.
    ///
    /// # Errors
    /// When a flag is missing or cannot be used, or an edited file says something else than a flag.
    pub(super) fn plan(args: &DevArgs) -> anyhow::Result<Self> {
        if args.database.as_ref().is_some_and(|url| url.password().is_some()) {
            bail!("put the password into a file and name it with --password-file: it must not stand in a command");
        }
        let path = args.data.join("broker.toml");
        let before = match std::fs::read_to_string(&path) {
            Ok(text) => Some(text),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
        };
        let Some(text) = before else {
            let choices = Choices::of_flags(args)?;
            choices.plugins_are_there()?;
            return Ok(Self { path, before: None, now: choices.text(), kept: false });
        };
        match Choices::read(&text).filter(|choices| choices.text() == text) {
            Some(kept) => {
                let choices = kept.clone().with(args)?;
                if choices == kept {
                    eprintln!("using {}", path.display());
                } else {
                    choices.plugins_are_there()?;
                    eprintln!("writing {} again, for these flags", path.display());
                }
                Ok(Self { path, now: choices.text(), before: Some(text), kept: false })
            }
            None => {
                contradictions(args, &path, &text)?;
                eprintln!("using {} as you edited it", path.display());
                Ok(Self { path, now: text.clone(), before: Some(text), kept: false })
            }
        }
    }

    /// Writes it, for as long as [`Self::keep`] or the end of this value.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(super) fn write(&self) -> anyhow::Result<&Path> {
        if self.before.as_deref() != Some(&self.now) {
            if let Some(folder) = self.path.parent() {
                std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
            }
            replace(&self.path, &self.now)?;
        }
        Ok(&self.path)
    }

    /// Where its embedded issuer listens, where it says so.
    pub(super) fn issuer(&self) -> Option<SocketAddr> {
        issuer_in(&self.now)
    }

    /// Whether this start serves another configuration than the one that was there, and it is not kept yet.
    pub(super) fn is_new(&self) -> bool {
        !self.kept && self.before.as_deref() != Some(&self.now)
    }

    /// It works: the file stays.
    pub(super) fn keep(&mut self) {
        self.kept = true;
    }

    /// Whether it has a password for the database.
    pub(super) fn has_password(&self) -> bool {
        let table: Option<Table> = self.now.parse().ok();
        table.is_none_or(|table| at(&table, &["connections", "database", "password"]).is_some())
    }
}

impl Drop for Made {
    /// What did not serve must not decide what the next start does.
    fn drop(&mut self) {
        if !self.is_new() {
            return;
        }
        let undone = match &self.before {
            Some(before) => replace(&self.path, before),
            None => match std::fs::remove_file(&self.path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
                _ => Ok(()),
            },
        };
        if let Err(error) = undone {
            eprintln!("jit-broker: {} is of this start, which failed: {error:#}", self.path.display());
        }
    }
}

/// Writes beside and renames: a reader sees one of the two, whole.
fn replace(path: &Path, text: &str) -> anyhow::Result<()> {
    let beside = path.with_extension("toml.new");
    std::fs::write(&beside, text)
        .and_then(|()| std::fs::rename(&beside, path))
        .with_context(|| format!("cannot write {}", path.display()))
}

impl Choices {
    /// For the first start.
    fn of_flags(args: &DevArgs) -> anyhow::Result<Self> {
        let needed = "the first start needs --database and --role, or your own configuration with --config";
        let database = args.database.as_ref().context(needed)?;
        if args.roles.is_empty() {
            bail!(needed);
        }
        let choices = Self {
            listen: LISTEN,
            issuer: ISSUER,
            plugins: default_plugins()?,
            database: database.to_string(),
            password_file: None,
            roles: Vec::new(),
            owner: None,
        };
        choices.with(args)
    }

    /// With what the flags say; the rest stays.
    fn with(mut self, args: &DevArgs) -> anyhow::Result<Self> {
        if let Some(listen) = args.listen {
            self.listen = listen;
        }
        if let Some(issuer) = args.issuer {
            self.issuer = issuer;
        }
        if let Some(plugins) = &args.plugins {
            self.plugins = std::path::absolute(plugins)?;
        }
        if let Some(database) = &args.database {
            self.database = database.to_string();
        }
        if let Some(file) = &args.password_file {
            self.password_file = Some(std::path::absolute(file)?);
        }
        if let Some((first, more)) = args.roles.split_first() {
            let more: BTreeSet<&String> = more.iter().filter(|role| *role != first).collect();
            self.roles = std::iter::once(first).chain(more).cloned().collect();
        }
        if let Some(owner) = &args.owner {
            self.owner = Some(owner.clone());
        }
        Ok(self)
    }

    fn plugins_are_there(&self) -> anyhow::Result<()> {
        for plugin in [DRIVER, POLICY] {
            if !self.plugins.join(plugin).is_file() {
                bail!(
                    "there is no {plugin} in {}: name the folder that has it with --plugins, or build it in the source \
                     tree with `cargo xtask plugins driver-postgres policy-allow-list`",
                    self.plugins.display()
                );
            }
        }
        Ok(())
    }

    /// What a file was made from; none of one that `dev` did not make.
    fn read(text: &str) -> Option<Self> {
        let table: Table = text.parse().ok()?;
        let issuer = issuer_in(text).unwrap_or(ISSUER);
        let text = |path: &[&str]| at(&table, path).and_then(Value::as_str).map(str::to_owned);
        let default = text(&["targets", "inventory", "default_role"])?;
        let roles = at(&table, &["targets", "inventory", "roles"])?.as_table()?;
        let others: BTreeSet<String> = roles.keys().filter(|role| **role != default).cloned().collect();
        Some(Self {
            listen: text(&["server", "listen"])?.parse().ok()?,
            issuer,
            plugins: Path::new(&text(&["plugins", "postgres", "path"])?).parent()?.to_owned(),
            database: text(&["connections", "database", "url"])?,
            password_file: text(&["connections", "database", "password", "file"]).map(PathBuf::from),
            roles: std::iter::once(default).chain(others).collect(),
            owner: text(&["targets", "inventory", "config", "reassign_owned_to"]),
        })
    }

    /// The file's text: the same choices are the same text.
    fn text(&self) -> String {
        let in_plugins = |name: &str| quoted(&self.plugins.join(name).display().to_string());
        let password = self.password_file.as_ref().map_or_else(String::new, |file| {
            format!("password = {{ file = {} }}\n", quoted(&file.display().to_string()))
        });
        let owner = self
            .owner
            .as_ref()
            .map_or_else(String::new, |owner| format!("config = {{ reassign_owned_to = {} }}\n", quoted(owner)));
        let mut text = format!(
            r#"# Made by `jit-broker dev`. While it is as it was made, it follows the flags of `dev`; once you edit it, it is yours.
{ISSUER_LINE}{issuer}
[server]
listen = "{listen}"
admin_socket = "admin.sock"

[store]
url = "sqlite:broker.db"

[audit]
signing_key = {{ file = "audit.key" }}
export = [{{ kind = "jsonl", path = "audit.jsonl" }}]

[plugins.postgres]
path = {driver}

[plugins.allow-list]
path = {policy}

[connections.database]
kind = "postgres"
url = {url}
{password}
[policies.allow]
plugin = "allow-list"
config = {{ rules = [{{ workload = "*", target = "inventory", roles = ["*"] }}] }}

[targets.inventory]
driver = "postgres"
connection = "database"
policies = ["allow"]
default_ttl = "1h"
max_ttl = "8h"
default_role = {role}
{owner}"#,
            listen = self.listen,
            issuer = self.issuer,
            driver = in_plugins(DRIVER),
            policy = in_plugins(POLICY),
            url = quoted(&self.database),
            role = quoted(self.roles.first().map_or("", String::as_str)),
        );
        for role in &self.roles {
            let _ = write!(text, "[targets.inventory.roles.{}]\ngrants = [{}]\n", quoted(role), quoted(role));
        }
        text
    }
}

/// The folder with the plugins: that of the source tree, else the one beside the program's own, as `cargo xtask dist`
/// lays them out.
fn default_plugins() -> anyhow::Result<PathBuf> {
    let built = std::path::absolute(PLUGINS)?;
    let program = std::env::current_exe().ok().and_then(|program| program.canonicalize().ok());
    let shipped = program.and_then(|program| Some(program.parent()?.parent()?.join("plugins")));
    Ok(shipped.filter(|shipped| !built.join(DRIVER).is_file() && shipped.join(DRIVER).is_file()).unwrap_or(built))
}

/// The embedded issuer's address, of a file's text.
fn issuer_in(text: &str) -> Option<SocketAddr> {
    text.lines().find_map(|line| line.strip_prefix(ISSUER_LINE))?.trim().parse().ok()
}

fn at<'a>(table: &'a Table, path: &[&str]) -> Option<&'a Value> {
    let (last, way) = path.split_last()?;
    let table = way.iter().try_fold(table, |table, key| table.get(*key)?.as_table())?;
    table.get(*last)
}

/// Holds the flags against a file that somebody edited.
///
/// # Errors
/// With each flag that says something else, at its line in the file.
fn contradictions(args: &DevArgs, path: &Path, text: &str) -> anyhow::Result<()> {
    // Says what is wrong with a file that cannot be read.
    let config = super::with_issuer(text, path, "http://127.0.0.1:8701", args)?;
    let Ok(table) = text.parse::<Table>() else { return Ok(()) };
    let folder = std::path::absolute(path)?.parent().unwrap_or(Path::new("")).to_owned();
    let said = |keys: &[&str]| at(&table, keys).and_then(Value::as_str);
    let mut found = Found { config: &config, problems: Vec::new() };
    if let Some(listen) = args.listen {
        let same = said(&["server", "listen"]).is_some_and(|there| there.parse() == Ok(listen));
        found.compare(same, &format!("--listen {listen}"), "server.listen");
    }
    if let Some(database) = &args.database {
        let same = said(&["connections", "database", "url"]) == Some(database.as_str());
        found.compare(same, "--database", "connections.database.url");
    }
    if let Some(file) = &args.password_file {
        let there = said(&["connections", "database", "password", "file"]).map(|there| folder.join(there));
        let same = there == Some(std::path::absolute(file)?);
        found.compare(same, &format!("--password-file {}", file.display()), "connections.database.password");
    }
    if let Some(plugins) = &args.plugins {
        let there = said(&["plugins", "postgres", "path"]).map(|there| folder.join(there));
        let same = there == Some(std::path::absolute(plugins)?.join(DRIVER));
        found.compare(same, &format!("--plugins {}", plugins.display()), "plugins.postgres.path");
    }
    for role in &args.roles {
        let same = at(&table, &["targets", "inventory", "roles", role]).is_some();
        found.compare(same, &format!("--role {role}"), "targets.inventory.roles");
    }
    if let Some(owner) = &args.owner {
        let same = said(&["targets", "inventory", "config", "reassign_owned_to"]) == Some(owner);
        found.compare(same, &format!("--owner {owner}"), "targets.inventory.config");
    }
    if found.problems.is_empty() { Ok(()) } else { Err(ConfigErrors::of(found.problems).into()) }
}

/// The flags that say something else.
struct Found<'a> {
    config: &'a Config,
    problems: Vec<jit_config::Problem>,
}

impl Found<'_> {
    fn compare(&mut self, same: bool, flag: &str, path: &str) {
        if !same {
            self.problems.push(self.config.explain(
                path,
                format!(
                    "you edited this file, and it says something else than `{flag}`: leave the flag out, change the \
                     file, or remove the file so that `dev` makes it again"
                ),
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: DevArgs,
    }

    fn args(folder: &Path, more: &[&str]) -> DevArgs {
        let data = folder.join("data").display().to_string();
        let plugins = folder.display().to_string();
        let mut line = vec!["dev", "--data", &data, "--plugins", &plugins];
        line.extend(more);
        Line::parse_from(line).args
    }

    const FIRST: [&str; 8] = ["--database", "postgres://b@127.0.0.1/x", "--role", "b", "--role", "z", "--role", "a"];

    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for plugin in [DRIVER, POLICY] {
            std::fs::write(folder.path().join(plugin), "").unwrap();
        }
        folder
    }

    fn started(args: &DevArgs) -> String {
        let mut made = Made::plan(args).unwrap();
        let text = std::fs::read_to_string(made.write().unwrap()).unwrap();
        made.keep();
        text
    }

    #[test]
    fn a_start_that_fails_leaves_nothing_that_decides_the_next() {
        let folder = folder();
        let first = args(folder.path(), &FIRST);
        let made = Made::plan(&first).unwrap();
        let path = made.write().unwrap().to_owned();
        assert!(path.exists());
        drop(made);
        assert!(!path.exists());

        // The same of a file that served.
        let text = started(&first);
        let other = args(folder.path(), &["--listen", "127.0.0.1:9"]);
        let made = Made::plan(&other).unwrap();
        assert_ne!(std::fs::read_to_string(made.write().unwrap()).unwrap(), text);
        drop(made);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
    }

    #[test]
    fn the_next_start_takes_other_flags_and_keeps_what_is_not_said() {
        let folder = folder();
        let text = started(&args(folder.path(), &FIRST));
        assert!(text.contains("default_role = \"b\"") && text.contains("\"127.0.0.1:8700\""), "{text}");
        assert_eq!(started(&args(folder.path(), &[])), text, "nothing is said, nothing changes");
        let more = ["--listen", "127.0.0.1:9", "--password-file", "/p", "--owner", "o"];
        let changed = started(&args(folder.path(), &more));
        for part in ["\"127.0.0.1:9\"", "{ file = \"/p\" }", "reassign_owned_to = \"o\"", "roles.\"z\"", "@127.0.0.1/x"]
        {
            assert!(changed.contains(part), "{part}: {changed}");
        }
        assert_eq!(issuer_in(&changed), Some(ISSUER));
        let moved = started(&args(folder.path(), &["--issuer", "127.0.0.1:10"]));
        assert_eq!(issuer_in(&moved), Some("127.0.0.1:10".parse().unwrap()));
        assert_eq!(started(&args(folder.path(), &[])), moved, "it is remembered too");
        let roles = started(&args(folder.path(), &["--role", "only"]));
        assert!(roles.contains("roles.\"only\"") && !roles.contains("roles.\"z\""), "{roles}");
        assert!(roles.contains("\"127.0.0.1:9\""), "{roles}");
    }

    #[test]
    fn an_edited_file_is_kept_and_a_flag_that_contradicts_it_is_refused_at_its_line() {
        let folder = folder();
        let text = started(&args(folder.path(), &FIRST));
        let path = folder.path().join("data/broker.toml");
        let edited = text.replace("default_ttl = \"1h\"", "default_ttl = \"2h\"");
        std::fs::write(&path, &edited).unwrap();
        assert_eq!(started(&args(folder.path(), &[])), edited);
        assert_eq!(started(&args(folder.path(), &FIRST)), edited, "they say what the file says");
        let flags = ["--listen", "127.0.0.1:9", "--role", "new", "--password-file", "/p"];
        let refused = Made::plan(&args(folder.path(), &flags)).unwrap_err();
        let told = refused.downcast_ref::<ConfigErrors>().unwrap().render(false);
        let line = |part: &str| edited.lines().position(|line| line.contains(part)).unwrap() + 1;
        let listen = format!("broker.toml:{}:", line("listen ="));
        assert!(told.contains(&listen) && told.contains("--listen 127.0.0.1:9"), "{told}");
        assert!(told.contains("--role new") && told.contains("--password-file /p"), "{told}");
        assert!(told.contains("3 mistakes"), "{told}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), edited);
    }

    #[test]
    fn what_the_first_start_needs_is_said() {
        let folder = folder();
        let said = |more: &[&str]| format!("{:#}", Made::plan(&args(folder.path(), more)).unwrap_err());
        assert!(said(&[]).contains("--database and --role"));
        assert!(said(&["--database", "postgres://b:secret@h/x", "--role", "r"]).contains("--password-file"));
        std::fs::remove_file(folder.path().join(POLICY)).unwrap();
        assert!(said(&FIRST).contains("cargo xtask plugins"));
        assert!(!folder.path().join("data").exists());
    }
}
