//! What a plugin imports, beside what it is granted.

use jit_contract::{Capability, PluginKind};

use crate::check::Problem;
use crate::contract::{Contract, Kind, own_interface};

impl Kind {
    /// What a broker knows plugins of this kind as: drivers are one kind there, whatever they import.
    #[must_use]
    pub const fn known_as(self) -> PluginKind {
        match self {
            Self::Policy => PluginKind::Policy,
            Self::Context => PluginKind::Context,
            Self::SqlDriver | Self::HttpDriver | Self::LdapDriver | Self::BareDriver => PluginKind::Driver,
        }
    }

    /// What plugins of this kind may be granted at most.
    #[must_use]
    pub const fn capabilities(self) -> &'static [Capability] {
        self.known_as().capabilities()
    }
}

/// What is wrong with these grants for this plugin, as a broker would find at load: each import that is not
/// granted, and each grant that its kind cannot have.
#[must_use]
pub fn granted(contract: &Contract, grants: &[String]) -> Vec<Problem> {
    let has = |grants: &[String], interface: &str| grants.iter().any(|grant| grant == interface);
    let imports = contract.imports.iter().filter_map(|name| {
        let (interface, _) = own_interface(name)?;
        (Capability::from_word(interface).is_some() && !has(grants, interface)).then(|| {
            Problem::new(
                format!("it imports `{name}`, which is not granted"),
                format!("add \"{interface}\" to `grants` of its [plugins.NAME], or do without it"),
            )
        })
    });
    let kind = contract.kind;
    let beyond = grants.iter().filter_map(|grant| {
        let kind = kind.filter(|kind| !words(*kind).any(|word| word == grant))?;
        Some(Problem::new(
            format!("it is {}, which cannot be granted \"{grant}\"", kind.with_article()),
            format!(
                "take \"{grant}\" out of `grants`; there is for it: {}",
                words(kind).collect::<Vec<_>>().join(", ")
            ),
        ))
    });
    imports.chain(beyond).collect()
}

fn words(kind: Kind) -> impl Iterator<Item = &'static str> {
    kind.capabilities().iter().map(|capability| capability.as_str())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::contract::tests::{component, dummy_of_the_contract};

    fn problems(world: &str, grants: &[&str]) -> Vec<String> {
        let contract = Contract::read(&component(&dummy_of_the_contract(world))).unwrap();
        let grants: Vec<String> = grants.iter().map(|grant| (*grant).to_owned()).collect();
        granted(&contract, &grants).iter().map(Problem::in_a_line).collect()
    }

    #[test]
    fn every_import_that_is_not_granted_is_named_with_its_fix() {
        assert!(problems("http-driver", &["log", "secrets", "session", "http"]).is_empty());
        let told = problems("http-driver", &["log", "session"]);
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(
            told.iter().any(|line| line.contains("`jit:plugin/http@0.2.0`") && line.contains("add \"http\"")),
            "{told:?}"
        );
        assert!(told.iter().all(|line| !line.contains('\n')), "{told:?}");
        // Nothing granted: all that it imports but interfaces that have types alone.
        let told = problems("sql-driver", &[]);
        assert!(
            told.iter()
                .all(|line| ["log", "secrets", "sql"].iter().any(|name| line.contains(&format!("add \"{name}\""))))
        );
        assert_eq!(told.len(), 3, "{told:?}");
    }

    #[test]
    fn a_grant_that_the_kind_cannot_have_is_named() {
        let [told] = &problems("policy-plugin", &["log", "sql"])[..] else { panic!("one problem") };
        assert!(told.contains("cannot be granted \"sql\""), "{told}");
    }
}
