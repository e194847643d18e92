//! `plugin new`.

use std::path::PathBuf;

use clap::ValueEnum;
use jit_plugin_build::{Kind, Language, NewPlugin, create};

use super::Stop;

pub(super) const EXAMPLES: &str = "\
Examples:
  jit-broker plugin new policy my-rule --lang python
  jit-broker plugin new policy my-rule --lang js
  jit-broker plugin new policy my-rule                       # in Rust
  jit-broker plugin new driver my-backend --world http       # or with --lang python, --lang js
  jit-broker plugin new context my-facts                     # or with --lang python, --lang js

The project stands alone: it holds the SDK of this broker's version. docs/plugins.md shows what comes next.";

#[derive(clap::Args)]
pub(super) struct NewArgs {
    /// The kind of plugin.
    #[arg(value_enum)]
    kind: NewKind,
    /// Its name: lower-case words with hyphens, such as my-rule.
    name: String,
    /// The language. Drivers for SQL and for directories are in Rust; everything else can be in any of them.
    #[arg(long, value_enum, default_value_t = Lang::Rust)]
    lang: Lang,
    /// What a driver may ask of the host.
    #[arg(long, value_enum, default_value_t = World::Sql)]
    world: World,
    /// The project's folder; by default a new folder with its name. Nothing is overwritten.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// A checkout of jit-broker's source tree to take the Rust SDK from, instead of the SDK in this binary.
    #[arg(long, value_name = "TREE")]
    sdk: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum NewKind {
    /// Decides who may have what.
    Policy,
    /// Gathers facts for policies.
    Context,
    /// Makes and removes accounts in a backend.
    Driver,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Lang {
    /// Compiled; every kind of plugin.
    Rust,
    /// Policies, context providers and drivers of HTTP backends, with CPython inside.
    Python,
    /// The same, with SpiderMonkey inside.
    Js,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum World {
    /// Listed statements on an SQL connection.
    Sql,
    /// Requests to an HTTP API.
    Http,
    /// Operations on a directory.
    Ldap,
    /// Nothing but the log.
    Bare,
}

impl NewArgs {
    fn kind(&self) -> Kind {
        match (self.kind, self.world) {
            (NewKind::Policy, _) => Kind::Policy,
            (NewKind::Context, _) => Kind::Context,
            (NewKind::Driver, World::Sql) => Kind::SqlDriver,
            (NewKind::Driver, World::Http) => Kind::HttpDriver,
            (NewKind::Driver, World::Ldap) => Kind::LdapDriver,
            (NewKind::Driver, World::Bare) => Kind::BareDriver,
        }
    }
}

pub(super) fn run(args: &NewArgs) -> Result<(), Stop> {
    let language = match args.lang {
        Lang::Rust => Language::Rust,
        Lang::Python => Language::Python,
        Lang::Js => Language::JavaScript,
    };
    let plugin = NewPlugin { name: args.name.clone(), kind: args.kind(), language, sdk: args.sdk.clone() };
    let folder = args.dir.clone().unwrap_or_else(|| PathBuf::from(&args.name));
    let created = create(&plugin, &folder)?;
    println!("{}: {} in {language}", created.folder.display(), plugin.kind.with_article());
    for file in &created.files {
        println!("  {file}");
    }
    let component = &created.component;
    println!("\nNext:\n  cd {}", created.folder.display());
    println!("  {}", created.unit_tests);
    println!("  jit-broker plugin build .");
    println!("  jit-broker plugin check {component}");
    match plugin.kind {
        Kind::Policy => println!("  jit-broker plugin test --policy {component} --cases cases.toml"),
        Kind::Context | Kind::BareDriver => {}
        _ => println!("  jit-broker plugin test --driver {component} --fixture fixture.toml"),
    }
    if matches!(plugin.kind, Kind::SqlDriver | Kind::LdapDriver | Kind::HttpDriver) {
        println!(
            "fixture.toml has to name your test server first; README.md says how, and how a broker loads the driver."
        );
    } else {
        println!("README.md says how a broker loads it.");
    }
    Ok(())
}
