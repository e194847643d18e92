//! Which verifiers a driver places: what a server stores of a password that the caller made.

use serde::{Deserialize, Serialize};

/// The name of the property of a driver's description that lists what it places.
pub const VERIFIERS: &str = "verifiers";
/// The most kinds that a driver lists.
const MOST: usize = 8;
/// What may follow a kind.
const WORDS: &str = "write when:KEY=VALUE, unless:KEY=VALUE, iterations:KEY or never-empty, the last two once";
/// The longest list, in bytes.
const LONGEST: usize = 1_024;

crate::words! {
    /// What a server stores of a password. The words are those of the API and of a driver's description.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
    pub enum VerifierKind {
        /// PostgreSQL's SCRAM-SHA-256 verifier.
        ScramSha256 = "scram_sha_256",
        /// What MySQL's `caching_sha2_password` stores.
        CachingSha2 = "caching_sha2",
        /// `{SSHA}` of directories: SHA-1 with a salt.
        Ssha = "ssha",
        /// `{SSHA512}` of directories: SHA-512 with a salt.
        Ssha512 = "ssha512",
    }
}

/// A kind of verifier that a driver places in one target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlacedVerifier {
    /// The kind.
    pub kind: VerifierKind,
    /// The iterations that the driver asks for, where the target's configuration says so.
    pub iterations: Option<u32>,
    /// The server itself lets nobody in with an empty password, also not where the verifier is that of one.
    pub never_empty: bool,
}

/// One kind that a driver places, and for which configurations of a target.
///
/// In the property [`VERIFIERS`], kinds are separated by `;`, and what belongs to a kind by blanks:
/// `when:KEY=VALUE` (the target's `config` has that key with that value), `unless:KEY=VALUE` (it has not),
/// `iterations:KEY` (that key has how many iterations the driver asks for), and `never-empty` (the server itself lets
/// nobody in with an empty password, so that the host need not check the verifier for it).
///
/// ```
/// use jit_contract::{VerifierKind, VerifierRule};
///
/// let rules = VerifierRule::parse_all("ssha when:flavour=openldap unless:password=plain").unwrap();
/// let config = |key: &str| (key == "flavour").then(|| "openldap".to_owned());
/// assert_eq!(rules[0].applies(config).unwrap().kind, VerifierKind::Ssha);
/// assert_eq!(rules[0].applies(|_| None), None);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifierRule {
    kind: VerifierKind,
    /// Key and value, and whether it must have that value.
    conditions: Vec<(String, String, bool)>,
    iterations: Option<String>,
    never_empty: bool,
}

impl VerifierRule {
    /// Reads the property.
    ///
    /// # Errors
    /// What is wrong with it, in words for the driver's author.
    pub fn parse_all(text: &str) -> Result<Vec<Self>, String> {
        if text.len() > LONGEST {
            return Err(format!("`{VERIFIERS}` has more than {LONGEST} bytes"));
        }
        let mut rules: Vec<Self> = Vec::new();
        for part in text.split(';') {
            let rule = Self::parse(part)?;
            if rules.iter().any(|other| other.kind == rule.kind) {
                return Err(format!("`{VERIFIERS}` has {} twice", rule.kind));
            }
            rules.push(rule);
        }
        if rules.len() > MOST {
            return Err(format!("`{VERIFIERS}` has more than {MOST} kinds"));
        }
        Ok(rules)
    }

    fn parse(text: &str) -> Result<Self, String> {
        let mut words = text.split_whitespace();
        let word = words.next().ok_or_else(|| format!("`{VERIFIERS}` has an empty place"))?;
        let known = || VerifierKind::ALL.map(VerifierKind::as_str).join(", ");
        let kind = VerifierKind::from_word(word)
            .ok_or_else(|| format!("`{VERIFIERS}` names an unknown kind; the known ones are {}", known()))?;
        let mut rule = Self { kind, conditions: Vec::new(), iterations: None, never_empty: false };
        for word in words {
            let condition = |rest: &str| {
                let (key, value) = rest.split_once('=')?;
                (!key.is_empty() && !value.is_empty()).then(|| (key.to_owned(), value.to_owned()))
            };
            match word.split_once(':') {
                Some(("when", rest)) if condition(rest).is_some() => {
                    rule.conditions.extend(condition(rest).map(|(key, value)| (key, value, true)));
                }
                Some(("unless", rest)) if condition(rest).is_some() => {
                    rule.conditions.extend(condition(rest).map(|(key, value)| (key, value, false)));
                }
                Some(("iterations", key)) if !key.is_empty() && rule.iterations.is_none() => {
                    rule.iterations = Some(key.to_owned());
                }
                None if word == "never-empty" && !rule.never_empty => rule.never_empty = true,
                _ => return Err(format!("`{VERIFIERS}`: {WORDS}")),
            }
        }
        Ok(rule)
    }

    /// What the driver places in a target; none where it does not place this kind there. `config` returns the text of
    /// a key's value in the target's configuration.
    pub fn applies(&self, config: impl Fn(&str) -> Option<String>) -> Option<PlacedVerifier> {
        let holds = |(key, value, must): &(String, String, bool)| (config(key).as_ref() == Some(value)) == *must;
        if !self.conditions.iter().all(holds) {
            return None;
        }
        let iterations = self.iterations.as_deref().and_then(&config).and_then(|text| text.parse().ok());
        Some(PlacedVerifier { kind: self.kind, iterations, never_empty: self.never_empty })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_applies_to_the_configurations_that_it_names() {
        let rules = VerifierRule::parse_all(
            "scram_sha_256 iterations:scram_iterations never-empty; caching_sha2 when:server=mysql; \
             ssha unless:password=plain",
        );
        let rules = rules.unwrap();
        let one = |key: &'static str, value: &'static str| move |asked: &str| (asked == key).then(|| value.to_owned());
        let placed = |kind, iterations| Some(PlacedVerifier { kind, iterations, never_empty: false });
        let scram = |iterations| Some(PlacedVerifier { never_empty: true, ..placed(rules[0].kind, iterations)? });
        assert_eq!(rules[0].kind, VerifierKind::ScramSha256);
        assert_eq!(rules[0].applies(|_| None), scram(None));
        assert_eq!(rules[0].applies(one("scram_iterations", "9000")), scram(Some(9_000)));
        assert_eq!(rules[1].applies(one("server", "mysql")), placed(VerifierKind::CachingSha2, None));
        assert_eq!(rules[1].applies(one("server", "mariadb")), None);
        assert_eq!(rules[1].applies(|_| None), None);
        assert_eq!(rules[2].applies(|_| None), placed(VerifierKind::Ssha, None));
        assert_eq!(rules[2].applies(one("password", "plain")), None);
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for text in [
            "",
            "ssha;",
            "ssha; ssha",
            "md5",
            "ssha when:",
            "ssha when:a",
            "ssha when:a=",
            "ssha iterations:",
            "ssha iterations:a iterations:b",
            "ssha if:a=b",
            "ssha a",
            "ssha never-empty never-empty",
            "ssha never-empty:always",
        ] {
            assert!(VerifierRule::parse_all(text).is_err(), "{text:?}");
        }
        assert!(VerifierRule::parse_all(&"x".repeat(LONGEST + 1)).is_err());
    }
}
