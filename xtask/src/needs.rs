//! What the suite's modules need, read from the lines that declare them in `tests/suite/main.rs`.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum as _;

use crate::{plugins, servers::Kind};

/// Where the modules are declared.
const DECLARED_IN: &str = "tests/suite/main.rs";

/// What some tests need besides PostgreSQL, the broker and the plugins.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Needs {
    /// Servers, sorted.
    pub servers: Vec<Kind>,
    /// What the examples in other languages and the checks of `deploy/` run on.
    pub ingredients: bool,
    /// What makes plugins of Python and JavaScript.
    pub languages: bool,
}

impl Needs {
    /// What the whole suite needs.
    #[must_use]
    pub fn everything() -> Self {
        Self { servers: Kind::ALL.to_vec(), ingredients: true, languages: true }
    }

    fn add(&mut self, other: &Self) {
        self.servers.extend_from_slice(&other.servers);
        self.servers.sort_unstable();
        self.servers.dedup();
        self.ingredients |= other.ingredients;
        self.languages |= other.languages;
    }
}

/// The needs of each module of the suite.
#[derive(Debug)]
pub struct Modules(BTreeMap<String, Needs>);

impl Modules {
    /// Reads the suite's own list.
    ///
    /// # Errors
    /// When it cannot be read, or a module does not say what it needs.
    pub fn of_the_suite() -> Result<Self> {
        let path = plugins::root().join(DECLARED_IN);
        let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Self::read(&text).with_context(|| path.display().to_string())
    }

    fn read(text: &str) -> Result<Self> {
        let mut modules = BTreeMap::new();
        for line in text.lines().filter_map(|line| line.strip_prefix("mod ")) {
            let (name, rest) = line.split_once(';').with_context(|| format!("`mod {line}` is not a module"))?;
            let words = rest.trim().strip_prefix("// needs:").with_context(|| {
                format!("`mod {name};` does not say what it needs: write `mod {name}; // needs: nothing else`")
            })?;
            let mut needs = Needs::default();
            for word in words.split(',') {
                needs.add(&of_word(word.trim()).with_context(|| format!("`mod {name};`"))?);
            }
            modules.insert(name.to_owned(), needs);
        }
        Ok(Self(modules))
    }

    /// What tests need that these arguments of `cargo test` choose: everything, unless each filter names a module
    /// (`removal::`, `story::a_lease`).
    #[must_use]
    pub fn of_filters(&self, arguments: &[String]) -> Needs {
        let mut needs = Needs::default();
        let mut filters = arguments.iter().filter(|argument| !argument.starts_with('-')).peekable();
        if filters.peek().is_none() {
            return Needs::everything();
        }
        for filter in filters {
            match filter.split_once("::").and_then(|(module, _)| self.0.get(module)) {
                Some(of_module) => needs.add(of_module),
                None => return Needs::everything(),
            }
        }
        needs
    }
}

fn of_word(word: &str) -> Result<Needs> {
    Ok(match word {
        "nothing else" => Needs::default(),
        "all servers" => Needs { servers: Kind::ALL.to_vec(), ..Needs::default() },
        "ingredients" => Needs { ingredients: true, ..Needs::default() },
        "languages" => Needs { languages: true, ..Needs::default() },
        server => match Kind::from_str(server, false) {
            Ok(kind) => Needs { servers: vec![kind], ..Needs::default() },
            Err(_) => bail!("nobody knows how to prepare `{server}`"),
        },
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn asked(arguments: &[&str]) -> Needs {
        let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        Modules::of_the_suite().unwrap().of_filters(&arguments)
    }

    #[test]
    fn every_module_of_the_suite_says_what_it_needs() {
        let modules = Modules::of_the_suite().unwrap();
        let folder = plugins::root().join("tests/suite");
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            assert!(name == "main" || modules.0.contains_key(&name), "{name} is not declared");
        }
    }

    #[test]
    fn a_module_without_needs_or_with_unknown_ones_is_an_error() {
        assert!(Modules::read("mod a;").unwrap_err().to_string().contains("does not say what it needs"));
        assert!(format!("{:#}", Modules::read("mod a; // needs: oracle").unwrap_err()).contains("`oracle`"));
        let read = Modules::read("mod a; // needs: mysql, languages\nuse b;").unwrap();
        assert_eq!(read.0["a"], Needs { servers: vec![Kind::Mysql], ingredients: false, languages: true });
    }

    #[test]
    fn what_only_some_tests_need_is_prepared_for_those() {
        assert_eq!(asked(&["removal::", "story::an_account", "--nocapture"]), Needs::default());
        assert!(asked(&["languages::", "removal::"]).languages && !asked(&["removal::"]).languages);
        assert!(asked(&["examples::each"]).ingredients && !asked(&["languages::"]).ingredients);
        assert_eq!(asked(&["rotating::", "removal::"]).servers, [Kind::Mysql]);
        assert_eq!(asked(&["removal::", "servers::"]).servers, Kind::ALL);
    }

    #[test]
    fn a_filter_without_a_module_may_mean_any_test() {
        for arguments in [&[][..], &["--nocapture"], &["removal"], &["removal::", "lang"]] {
            assert_eq!(asked(arguments), Needs::everything(), "{arguments:?}");
        }
    }
}
