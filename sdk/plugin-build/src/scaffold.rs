//! `plugin new`: writes a project that builds, with its tests, from a template of `sdk/`.
//!
//! The templates are real projects, built and tested in this source tree; a new one is a copy with another
//! name. The SDK is written into the project beside the plugin (Rust: `vendor/jit-plugin`, Python:
//! `jit_plugin`, JavaScript: `jit-plugin`), since it is in no registry and must fit the broker's contract.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{Error, Kind, Language, cache::create_folder, embedded, host_contract, project::check_name};

/// Where the Rust SDK stands in a new project: below it as in this source tree, since it reads `../../wit`.
const VENDORED: &str = "vendor/jit-plugin";
/// What the conformance kit has to know of a driver's backend.
const FIXTURE: &str = "fixture.toml";
/// The crates that the Rust SDK consists of.
const SDK_CRATES: [&str; 2] = ["sdk/contract", "sdk/plugin"];
/// How a template's manifest refers to the SDK of this source tree.
const SDK_IN_TREE: &str = "path = \"../..\"";

/// What is to be written.
#[derive(Debug, Clone)]
pub struct NewPlugin {
    /// The plugin's name: lower-case words with hyphens.
    pub name: String,
    /// What it becomes.
    pub kind: Kind,
    /// What it is written in.
    pub language: Language,
    /// Another SDK than the one in this binary: a source tree of jit-broker. Rust only.
    pub sdk: Option<PathBuf>,
}

/// A project that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Created {
    /// Its folder.
    pub folder: PathBuf,
    /// Its own files, without those of the SDK, in order.
    pub files: Vec<String>,
    /// The command that runs its unit tests.
    pub unit_tests: &'static str,
    /// The component that `plugin build` will make, from the project's folder.
    pub component: String,
}

/// A template of `sdk/`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Template {
    /// Its folder in the source tree.
    pub folder: &'static str,
    /// The name that it has there, in lower-case words with hyphens.
    pub name: &'static str,
}

impl Template {
    /// The one for this kind in this language.
    ///
    /// # Errors
    /// When there is none, with what there is.
    pub fn of(kind: Kind, language: Language) -> Result<Self, Error> {
        let (folder, name) = match (language, kind) {
            (Language::Rust, Kind::Policy) => ("sdk/plugin/template/policy", "my-rule"),
            (Language::Rust, Kind::Context) => ("sdk/plugin/template/context", "my-facts"),
            (Language::Rust, Kind::SqlDriver) => ("sdk/plugin/template/sql-driver", "my-sql-driver"),
            (Language::Rust, Kind::HttpDriver) => ("sdk/plugin/template/http-driver", "my-http-driver"),
            (Language::Rust, Kind::LdapDriver) => ("sdk/plugin/template/ldap-driver", "my-ldap-driver"),
            (Language::Rust, Kind::BareDriver) => ("sdk/plugin/template/bare-driver", "my-bare-driver"),
            (Language::Python, Kind::Policy) => ("sdk/python/template/policy", "my-rule"),
            (Language::Python, Kind::Context) => ("sdk/python/template/context", "my-facts"),
            (Language::Python, Kind::HttpDriver) => ("sdk/python/template/http-driver", "my-http-driver"),
            (Language::JavaScript, Kind::Policy) => ("sdk/js/template/policy", "my-rule"),
            (Language::JavaScript, Kind::Context) => ("sdk/js/template/context", "my-facts"),
            (Language::JavaScript, Kind::HttpDriver) => ("sdk/js/template/http-driver", "my-http-driver"),
            (Language::Python | Language::JavaScript, kind) => {
                return Err(Error::NoTemplate { kind: kind.with_article(), language: language.to_string() });
            }
        };
        Ok(Self { folder, name })
    }
}

/// Writes a new project into `folder`, which must not be there or be empty.
///
/// # Errors
/// [`Error::Package`] when the name or the folder cannot be used; [`Error::Io`].
pub fn create(plugin: &NewPlugin, folder: &Path) -> Result<Created, Error> {
    let refuse = |reason: String| Error::Package { package: plugin.name.clone(), reason };
    check_name(&plugin.name).map_err(&refuse)?;
    let template = Template::of(plugin.kind, plugin.language)?;
    if plugin.sdk.is_some() && plugin.language != Language::Rust {
        return Err(refuse(format!("--sdk is for Rust: a project in {} holds its SDK", plugin.language)));
    }
    must_be_free(folder).map_err(&refuse)?;
    create_folder(folder)?;

    let mut files = Vec::new();
    for (path, text) in embedded::below(template.folder) {
        let path = renamed(path, template.name, &plugin.name);
        let mut text = renamed(text, template.name, &plugin.name);
        if path == "Cargo.toml" {
            text = stand_alone(&text, plugin.sdk.as_deref())?;
        }
        write(folder, &path, &text)?;
        files.push(path);
    }
    match plugin.language {
        Language::Python => copy("sdk/python/jit_plugin", folder, "jit_plugin")?,
        Language::JavaScript => copy("sdk/js/jit-plugin", folder, "jit-plugin")?,
        Language::Rust if plugin.sdk.is_none() => {
            for part in SDK_CRATES {
                copy(&format!("{part}/src"), folder, &format!("{VENDORED}/{part}/src"))?;
                let manifest = format!("{part}/Cargo.toml");
                write(folder, &format!("{VENDORED}/{manifest}"), embedded::file(&manifest))?;
            }
            copy("wit", folder, &format!("{VENDORED}/wit"))?;
            write(folder, &format!("{VENDORED}/Cargo.toml"), &sdk_workspace()?)?;
            write(folder, &format!("{VENDORED}/README.md"), &sdk_readme())?;
        }
        Language::Rust => {}
    }
    if plugin.language == Language::Rust {
        write(folder, "Cargo.lock", embedded::GUEST_LOCK)?;
    } else if plugin.kind == Kind::HttpDriver {
        // What the kit has to know of a server is the same in each language.
        write(folder, FIXTURE, embedded::file(&format!("sdk/plugin/template/http-driver/{FIXTURE}")))?;
        files.push(FIXTURE.to_owned());
    }
    files.sort();
    let (unit_tests, component) = match plugin.language {
        Language::Rust => ("cargo test", plugin.name.as_str()),
        Language::Python => ("python3 -m unittest", plugin.name.as_str()),
        Language::JavaScript => ("node --test", plugin.name.as_str()),
    };
    let component = format!("target/plugins/{component}.wasm");
    Ok(Created { folder: folder.to_owned(), files, unit_tests, component })
}

fn must_be_free(folder: &Path) -> Result<(), String> {
    match fs::read_dir(folder).map(|mut entries| entries.next().is_none()) {
        Ok(true) => Ok(()),
        Ok(false) => Err(format!("{} is there and not empty: nothing is overwritten", folder.display())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(format!("{}: {error}", folder.display())),
    }
}

/// The text with the template's name, in each of its spellings, replaced by the plugin's.
fn renamed(text: &str, from: &str, to: &str) -> String {
    text.replace(from, to)
        .replace(&from.replace('-', "_"), &to.replace('-', "_"))
        .replace(&camel_case(from), &camel_case(to))
}

/// `my-rule` → `MyRule`.
fn camel_case(name: &str) -> String {
    let capital = |word: &str| {
        let mut letters = word.chars();
        letters.next().map_or_else(String::new, |first| first.to_ascii_uppercase().to_string() + letters.as_str())
    };
    name.split('-').map(capital).collect()
}

/// A template's manifest as that of a package of its own, with the SDK where it is.
fn stand_alone(manifest: &str, sdk: Option<&Path>) -> Result<String, Error> {
    let path = match sdk {
        None => format!("{VENDORED}/sdk/plugin"),
        Some(tree) => {
            let crate_folder = tree.join("sdk/plugin");
            let found = fs::canonicalize(&crate_folder).map_err(Error::io("find the SDK in", &crate_folder))?;
            found.display().to_string()
        }
    };
    let path = toml::Value::String(path);
    let exclude = sdk.map_or("exclude = [\"vendor\"]\n", |_| "");
    Ok(manifest.replace(SDK_IN_TREE, &format!("path = {path}"))
        + "\n# A workspace of its own, wherever the folder lies.\n[workspace]\n"
        + exclude)
}

/// The workspace that the SDK inherits its versions from: this source tree's, as far as the SDK needs it.
fn sdk_workspace() -> Result<String, Error> {
    let answer = |error: String| Error::Answer { what: "the embedded Cargo.toml".to_owned(), detail: error };
    let read = |text: &str| text.parse::<toml::Table>().map_err(|error| answer(error.to_string()));
    let crates = SDK_CRATES.map(|part| read(embedded::file(&format!("{part}/Cargo.toml"))));
    let crates = crates.into_iter().collect::<Result<Vec<_>, _>>()?;
    let mut root = read(embedded::file("Cargo.toml"))?;
    let needs = |name: &str| {
        crates.iter().any(|manifest| {
            ["dependencies", "dev-dependencies"]
                .iter()
                .any(|section| manifest.get(*section).is_some_and(|table| table.get(name).is_some()))
        })
    };
    let workspace = root
        .get_mut("workspace")
        .and_then(toml::Value::as_table_mut)
        .ok_or_else(|| answer("it has no [workspace]".to_owned()))?;
    workspace.retain(|key, _| matches!(key, "resolver" | "package" | "dependencies" | "lints"));
    workspace.insert("members".to_owned(), toml::Value::Array(SDK_CRATES.map(Into::into).into()));
    if let Some(dependencies) = workspace.get_mut("dependencies").and_then(toml::Value::as_table_mut) {
        dependencies.retain(|name, _| needs(name));
    }
    root.retain(|key, _| key == "workspace");
    toml::to_string(&root).map_err(|error| answer(error.to_string()))
}

fn sdk_readme() -> String {
    format!(
        "# The SDK for jit-broker plugins in Rust\n\n\
         As the broker {} has it, for contract {}. It is in no registry: `jit-broker plugin new` wrote it here, \
         so that this project builds anywhere, and so that it fits the broker.\n\n\
         With a new version of the broker, write a new project with `jit-broker plugin new` and put its \
         `{VENDORED}/` in the place of this one. To use a checkout of the broker's source tree \
         instead, give `plugin new --sdk TREE`, or change the path of `jit-plugin` in Cargo.toml to its `sdk/plugin`.\n",
        env!("CARGO_PKG_VERSION"),
        host_contract()
    )
}

fn copy(from: &str, folder: &Path, to: &str) -> Result<(), Error> {
    for (path, text) in embedded::below(from) {
        write(folder, &format!("{to}/{path}"), text)?;
    }
    Ok(())
}

fn write(folder: &Path, path: &str, text: &str) -> Result<(), Error> {
    let path = folder.join(path);
    if let Some(parent) = path.parent() {
        create_folder(parent)?;
    }
    fs::write(&path, text).map_err(Error::io("write", &path))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const KINDS: [Kind; 6] =
        [Kind::Policy, Kind::Context, Kind::SqlDriver, Kind::HttpDriver, Kind::LdapDriver, Kind::BareDriver];

    fn new(kind: Kind, language: Language) -> NewPlugin {
        NewPlugin { name: "office-hours".to_owned(), kind, language, sdk: None }
    }

    #[test]
    fn every_kind_has_a_template_with_a_readme_and_tests() {
        let all = KINDS.map(|kind| (kind, Language::Rust)).into_iter();
        let interpreted = [Kind::Policy, Kind::Context, Kind::HttpDriver].into_iter();
        let interpreted = interpreted.flat_map(|kind| [(kind, Language::Python), (kind, Language::JavaScript)]);
        for (kind, language) in all.chain(interpreted) {
            let folder = tempfile::tempdir().unwrap();
            let created = create(&new(kind, language), folder.path()).unwrap();
            assert!(created.files.iter().any(|file| file == "README.md"), "{kind} in {language}");
            assert!(created.files.iter().any(|file| file == ".gitignore"), "{kind} in {language}");
            assert!(created.files.len() >= 4, "{kind} in {language}: {:?}", created.files);
            let for_the_kit = matches!(kind, Kind::SqlDriver | Kind::HttpDriver | Kind::LdapDriver);
            assert_eq!(created.files.iter().any(|file| file == FIXTURE), for_the_kit, "{kind} in {language}");
            assert_eq!(crate::language(folder.path()).unwrap(), language);
            for file in &created.files {
                let text = fs::read_to_string(folder.path().join(file)).unwrap();
                let template = Template::of(kind, language).unwrap();
                for old in [template.name.to_owned(), camel_case(template.name), template.name.replace('-', "_")] {
                    assert!(!text.contains(&old), "{old} in {file}");
                }
                assert!(!text.contains("../.."), "{file}");
            }
        }
    }

    #[test]
    fn nothing_is_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("mine"), "x").unwrap();
        let error = create(&new(Kind::Policy, Language::Python), folder.path()).unwrap_err();
        assert!(error.to_string().contains("nothing is overwritten"), "{error}");
        let file = folder.path().join("mine");
        assert!(create(&new(Kind::Policy, Language::Python), &file).is_err());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_there_is_not_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let error = create(&new(Kind::SqlDriver, Language::Python), folder.path()).unwrap_err();
        assert!(error.to_string().contains("--lang rust"), "{error}");
        let bad = NewPlugin { name: "../up".to_owned(), ..new(Kind::Policy, Language::Rust) };
        assert!(create(&bad, folder.path()).is_err());
        let sdk = NewPlugin { sdk: Some("/nowhere".into()), ..new(Kind::Policy, Language::Rust) };
        assert!(create(&sdk, folder.path()).unwrap_err().to_string().contains("SDK"));
    }

    #[test]
    fn the_vendored_sdk_has_a_workspace_with_its_versions() {
        let workspace: toml::Table = sdk_workspace().unwrap().parse().unwrap();
        let workspace = workspace["workspace"].as_table().unwrap();
        assert!(workspace["dependencies"].get("wit-bindgen").is_some());
        assert_eq!(workspace["dependencies"]["jit-contract"]["path"].as_str(), Some("sdk/contract"));
        assert!(workspace["dependencies"].get("wasmtime").is_none());
        assert!(workspace["package"].get("edition").is_some() && workspace["lints"].get("rust").is_some());
    }

    #[test]
    fn names_change_in_every_spelling() {
        assert_eq!(
            renamed("my-rule my_rule MyRule", "my-rule", "office-hours"),
            "office-hours office_hours OfficeHours"
        );
    }
}
