//! A plugin's source folder: its language, its name, and what it is to become.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    str::FromStr,
};

use serde::Deserialize;

use crate::{Error, Kind};

/// The largest manifest that is read, in bytes.
const MAX_MANIFEST: u64 = 1 << 20;
/// The longest name of a plugin.
const MAX_NAME: usize = 63;

/// What a plugin is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    /// Every kind of plugin, compiled.
    Rust,
    /// Policies, context providers and drivers of HTTP backends, with CPython inside the component.
    Python,
    /// The same, with SpiderMonkey inside the component.
    JavaScript,
}

impl Language {
    /// Its word on the command line.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Rust => "rust",
            Self::Python => "python",
            Self::JavaScript => "js",
        }
    }
}

impl fmt::Display for Language {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rust => "Rust",
            Self::Python => "Python",
            Self::JavaScript => "JavaScript",
        })
    }
}

/// A plugin in Python or JavaScript, as its manifest describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Project {
    /// Its folder.
    pub(crate) folder: PathBuf,
    /// The plugin's name: that of the component's file.
    pub(crate) name: String,
    /// Its version.
    pub(crate) version: String,
    /// What it becomes.
    pub(crate) kind: Kind,
    /// The world that it is built for. A component with an interpreter imports all of its world, whether or not its
    /// sources use it: a context provider that asks no server has a smaller one.
    pub(crate) world: &'static str,
    /// The module that holds it: `rule` in Python, `rule.js` in JavaScript.
    pub(crate) module: String,
}

/// What a folder's plugin is written in, told by its manifest: `Cargo.toml`, a `pyproject.toml` with
/// `[tool.jit-plugin]`, or a `package.json` with `"jitPlugin"`.
///
/// # Errors
/// [`Error::Package`] when there is none of them, or more than one.
pub fn language(folder: &Path) -> Result<Language, Error> {
    let mut found = Vec::new();
    if folder.join("Cargo.toml").is_file() {
        found.push(Language::Rust);
    }
    if read(&folder.join("pyproject.toml"))?.is_some_and(|text| text.contains("[tool.jit-plugin]")) {
        found.push(Language::Python);
    }
    if read(&folder.join("package.json"))?.is_some_and(|text| text.contains("\"jitPlugin\"")) {
        found.push(Language::JavaScript);
    }
    let refuse = |reason: String| Error::Package { package: folder.display().to_string(), reason };
    match found[..] {
        [language] => Ok(language),
        [] => Err(refuse(
            "no plugin's manifest is in this folder: a Cargo.toml, a pyproject.toml with [tool.jit-plugin] or a \
             package.json with \"jitPlugin\". `jit-broker plugin new` writes one"
                .to_owned(),
        )),
        [first, second, ..] => Err(refuse(format!("it is a plugin in {first} and one in {second}: keep them apart"))),
    }
}

impl Project {
    /// Reads the manifest of a plugin in an interpreted language.
    pub(crate) fn read(folder: &Path, language: Language) -> Result<Self, Error> {
        let (file, key) = match language {
            Language::JavaScript => ("package.json", "jitPlugin"),
            _ => ("pyproject.toml", "[tool.jit-plugin]"),
        };
        let path = folder.join(file);
        let refuse = |reason: String| Error::Package { package: path.display().to_string(), reason };
        let text = read(&path)?.ok_or_else(|| refuse("it is missing".to_owned()))?;
        let (name, version, about) = match language {
            Language::JavaScript => {
                let package: PackageJson = serde_json::from_str(&text).map_err(|error| refuse(error.to_string()))?;
                (package.name, package.version, package.jit_plugin)
            }
            _ => {
                let project: PyProject = toml::from_str(&text).map_err(|error| refuse(error.to_string()))?;
                (project.project.name, project.project.version, project.tool.jit_plugin)
            }
        };
        check_name(&name).map_err(&refuse)?;
        if version.is_empty() || version.len() > 64 || !version.chars().all(|c| c.is_ascii_graphic()) {
            return Err(refuse(format!("its version {version:?} is none")));
        }
        let (kind, world) = kind_and_world(&about, language).map_err(|wrong| refuse(format!("{key}: {wrong}")))?;
        check_module(&about.module, language).map_err(&refuse)?;
        Ok(Self { folder: folder.to_owned(), name, version, kind, world, module: about.module })
    }
}

/// What a manifest's `kind` and `world` mean.
fn kind_and_world(about: &About, language: Language) -> Result<(Kind, &'static str), String> {
    match (about.kind.as_str(), about.world.as_deref()) {
        // Whether it wants something counted is what its `windows` returns.
        ("policy", None) => Ok((Kind::Policy, "usage-policy-plugin")),
        ("policy", Some(_)) => Err("a policy has no `world`: it asks no server".to_owned()),
        ("context", None) => Ok((Kind::Context, "bare-context")),
        ("context", Some("http")) => Ok((Kind::Context, Kind::Context.world())),
        ("context", Some(other)) => Err(format!("world = {other:?}: a context provider has \"http\" or none")),
        ("driver", Some("http")) => Ok((Kind::HttpDriver, Kind::HttpDriver.world())),
        ("driver", _) => Err(format!(
            "a driver in {language} is one for an HTTP backend: write world = \"http\"; drivers for SQL and directories \
             are written in Rust"
        )),
        (other, _) => Err(format!("kind = {other:?} is none of \"policy\", \"context\" and \"driver\"")),
    }
}

/// What is wrong with a plugin's name, if something is: it becomes a file's, a crate's and a key of the
/// configuration.
///
/// # Errors
/// What to write instead.
pub fn check_name(name: &str) -> Result<(), String> {
    let word =
        |word: &str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    let starts = name.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase());
    if name.len() > MAX_NAME || !starts || !name.split('-').all(word) {
        return Err(format!(
            "{name:?} cannot be a plugin's name: write lower-case words of letters and digits with `-` between them, \
             at most {MAX_NAME} characters, such as my-rule"
        ));
    }
    if TAKEN.contains(&name) {
        return Err(format!("`{name}` is a word of its own in Rust: call it {name}-rule, say"));
    }
    Ok(())
}

/// Names that cargo or the compiler refuses for a package, or that hide a crate which plugins use.
const TAKEN: [&str; 49] = [
    "abstract",
    "alloc",
    "as",
    "async",
    "await",
    "become",
    "box",
    "break",
    "const",
    "continue",
    "core",
    "crate",
    "do",
    "dyn",
    "else",
    "enum",
    "extern",
    "false",
    "final",
    "fn",
    "for",
    "gen",
    "if",
    "impl",
    "in",
    "jit-plugin",
    "let",
    "loop",
    "macro",
    "match",
    "mod",
    "move",
    "mut",
    "pub",
    "ref",
    "return",
    "self",
    "serde",
    "serde-json",
    "static",
    "std",
    "struct",
    "super",
    "test",
    "trait",
    "true",
    "type",
    "use",
    "where",
];

fn check_module(module: &str, language: Language) -> Result<(), String> {
    let (stem, example) = match language {
        Language::JavaScript => {
            (module.strip_suffix(".mjs").or_else(|| module.strip_suffix(".js")), "a file such as \"rule.js\"")
        }
        _ => (Some(module), "a module's name such as \"rule\""),
    };
    let separator = if language == Language::JavaScript { '/' } else { '.' };
    let word = |word: &str| {
        let first = word.bytes().next();
        first.is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_')
            && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
    };
    match stem {
        Some(stem) if stem.len() <= 200 && stem.split(separator).all(word) => Ok(()),
        _ => Err(format!("module = {module:?}: write {example}, in this folder")),
    }
}

fn read(path: &Path) -> Result<Option<String>, Error> {
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_file() && metadata.len() <= MAX_MANIFEST => {
            fs::read_to_string(path).map(Some).map_err(Error::io("read", path))
        }
        Ok(metadata) if metadata.is_file() => Err(Error::Package {
            package: path.display().to_string(),
            reason: format!("it has more than {MAX_MANIFEST} bytes"),
        }),
        _ => Ok(None),
    }
}

#[derive(Deserialize)]
struct PyProject {
    project: Named,
    tool: Tool,
}

#[derive(Deserialize)]
struct Named {
    name: String,
    version: String,
}

#[derive(Deserialize)]
struct Tool {
    #[serde(rename = "jit-plugin")]
    jit_plugin: About,
}

#[derive(Deserialize)]
struct PackageJson {
    name: String,
    version: String,
    #[serde(rename = "jitPlugin")]
    jit_plugin: About,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct About {
    kind: String,
    world: Option<String>,
    module: String,
}

impl FromStr for Language {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        [Self::Rust, Self::Python, Self::JavaScript]
            .into_iter()
            .find(|language| language.word() == word)
            .ok_or_else(|| format!("`{word}` is none of rust, python, js"))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn names_are_words_with_hyphens() {
        for good in ["my-rule", "a", "r2-d2", "business-hours"] {
            assert_eq!(check_name(good), Ok(()), "{good}");
        }
        let long = "a".repeat(64);
        for bad in ["", "-a", "a-", "a--b", "A", "1a", "a_b", "a.b", "../a", "ä", "a b", "a\n", "std", "self", &long] {
            assert!(check_name(bad).is_err(), "{bad:?}");
        }
        assert!(TAKEN.is_sorted());
    }

    #[test]
    fn the_language_is_told_by_the_manifest() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        assert!(language(folder.path()).unwrap_err().to_string().contains("plugin new"));
        write("pyproject.toml", "[project]\nname = 'x'\n");
        write("package.json", "{}");
        assert!(language(folder.path()).is_err());
        write("package.json", r#"{"name": "x", "jitPlugin": {}}"#);
        assert_eq!(language(folder.path()).unwrap(), Language::JavaScript);
        write("Cargo.toml", "");
        assert!(language(folder.path()).unwrap_err().to_string().contains("keep them apart"));
    }

    #[test]
    fn a_manifest_says_what_to_mend() {
        let folder = tempfile::tempdir().unwrap();
        let python = |text: &str| {
            fs::write(folder.path().join("pyproject.toml"), text).unwrap();
            Project::read(folder.path(), Language::Python)
        };
        let whole = |name: &str, kind: &str, module: &str| {
            format!(
                "[project]\nname = {name:?}\nversion = \"1.2\"\n[tool.jit-plugin]\nkind = {kind:?}\nmodule = {module:?}\n"
            )
        };
        let project = python(&whole("my-rule", "policy", "rules.mine")).unwrap();
        assert_eq!((project.name.as_str(), project.module.as_str()), ("my-rule", "rules.mine"));
        for (name, kind, module, told) in [
            ("My Rule", "policy", "rule", "cannot be a plugin's name"),
            ("my-rule", "driver", "rule", "world = \"http\""),
            ("my-rule", "proxy", "rule", "is none of"),
            ("my-rule", "policy", "../rule", "module"),
            ("my-rule", "policy", "rule; import os", "module"),
            ("my-rule", "policy", "", "module"),
        ] {
            let error = python(&whole(name, kind, module)).unwrap_err().to_string();
            assert!(error.contains(told), "{error}");
        }
        assert!(python("[project]\nname = \"x\"\n").is_err());
        let worlds = [
            ("policy", "", Ok((Kind::Policy, "usage-policy-plugin"))),
            ("policy", "http", Err("a policy has no `world`")),
            ("context", "", Ok((Kind::Context, "bare-context"))),
            ("context", "http", Ok((Kind::Context, "context-plugin"))),
            ("context", "sql", Err("\"http\" or none")),
            ("driver", "http", Ok((Kind::HttpDriver, "http-driver"))),
            ("driver", "ldap", Err("written in Rust")),
        ];
        for (kind, world, expected) in worlds {
            let more = if world.is_empty() { String::new() } else { format!("world = {world:?}\n") };
            let project = python(&(whole("mine", kind, "mine") + &more));
            match (project, expected) {
                (Ok(project), Ok(expected)) => assert_eq!((project.kind, project.world), expected),
                (Err(error), Err(told)) => assert!(error.to_string().contains(told), "{error}"),
                (project, _) => panic!("{kind} {world}: {project:?}"),
            }
        }
        assert!(check_module("rule.js", Language::JavaScript).is_ok());
        assert!(check_module("src/rule.mjs", Language::JavaScript).is_ok());
        for bad in ["rule", "../rule.js", "/rule.js", "a//b.js", "rule.js'"] {
            assert!(check_module(bad, Language::JavaScript).is_err(), "{bad}");
        }
    }
}
