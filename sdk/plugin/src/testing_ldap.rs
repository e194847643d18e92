//! A directory that a test scripts.

use crate::driver::{Handle, Secret};
use crate::ldap::{
    Change, ChangeKind, Condition, Entries, Entry, Ldap, LdapError, Name, Query, ResultError, Scope, Value,
};
use crate::sql::Encoding;
use crate::testing::encoding_words;

/// What a [`FakeLdap`] was asked for, everything shown as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// `add`, `modify`, `delete`, `search`, `refresh` or `authenticate`.
    pub verb: &'static str,
    /// The entry's name, or where a search begins (`uid=a,ou=jit`), not escaped.
    pub name: String,
    /// One line for each attribute (`uid: a | b`), change (`replace userPassword: secret:pw:plain`) or
    /// condition (`member = uid=a,ou=jit`) and for what is asked for (`give uid`, `scope one`, `ttl 60`).
    pub lines: Vec<String>,
}

impl Operation {
    /// Whether a line begins like that.
    pub fn has(&self, start: &str) -> bool {
        self.lines.iter().any(|line| line.starts_with(start))
    }
}

/// An entry as an answer: its name, and its attributes with their values.
pub fn entry(name: &str, attributes: &[(&str, &[&str])]) -> Entry {
    let owned = |values: &[&str]| values.iter().map(|value| (*value).to_owned()).collect();
    Entry {
        name: name.to_owned(),
        attributes: attributes.iter().map(|(name, values)| ((*name).to_owned(), owned(values))).collect(),
    }
}

/// The server's no.
pub fn refused(code: u32) -> LdapError {
    LdapError::Refused(ResultError { code, message: format!("code {code}") })
}

type Answer<'f> = Box<dyn FnMut(&Operation) -> Result<Vec<Entry>, LdapError> + 'f>;

/// A directory that a test scripts: it notes every operation and asks the test for the answer, which
/// is entries for a search; for a login, any entry means yes. Like the host, it refuses a search for
/// everything, or for passwords.
pub struct FakeLdap<'f> {
    /// What was asked for, in order.
    pub operations: Vec<Operation>,
    answer: Answer<'f>,
}

impl std::fmt::Debug for FakeLdap<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FakeLdap").field("operations", &self.operations).finish_non_exhaustive()
    }
}

impl<'f> FakeLdap<'f> {
    /// A directory that answers like that.
    pub fn new(answer: impl FnMut(&Operation) -> Result<Vec<Entry>, LdapError> + 'f) -> Self {
        Self { operations: Vec::new(), answer: Box::new(answer) }
    }

    /// The verbs that were asked for, with their entries' names, in order.
    pub fn steps(&self) -> Vec<String> {
        self.operations.iter().map(|operation| format!("{} {}", operation.verb, operation.name)).collect()
    }

    fn note(&mut self, verb: &'static str, name: &Name, lines: Vec<String>) -> Result<Vec<Entry>, LdapError> {
        let operation = Operation { verb, name: shown_name(name), lines };
        self.operations.push(operation.clone());
        (self.answer)(&operation)
    }
}

impl Ldap for FakeLdap<'_> {
    fn add(&mut self, name: &Name, attributes: &[(&str, Vec<Value<'_>>)]) -> Result<(), LdapError> {
        if attributes.iter().any(|(_, values)| values.is_empty()) {
            return Err(LdapError::Denied("an attribute has no value".to_owned()));
        }
        let lines = attributes.iter().map(|(name, values)| format!("{name}: {}", shown_values(values)));
        self.note("add", name, lines.collect()).map(drop)
    }

    fn modify(&mut self, name: &Name, changes: &[Change<'_>]) -> Result<(), LdapError> {
        if changes.is_empty() {
            return Err(LdapError::Denied("no change".to_owned()));
        }
        let lines = changes.iter().map(|change| {
            let kind = match change.kind {
                ChangeKind::Add => "add",
                ChangeKind::Delete => "delete",
                ChangeKind::Replace => "replace",
            };
            format!("{kind} {}: {}", change.attribute, shown_values(&change.values))
        });
        self.note("modify", name, lines.collect()).map(drop)
    }

    fn delete(&mut self, name: &Name) -> Result<(), LdapError> {
        self.note("delete", name, Vec::new()).map(drop)
    }

    fn search(&mut self, query: &Query<'_>) -> Result<Entries, LdapError> {
        let hidden =
            |name: &&str| name.starts_with(['*', '+']) || name.to_ascii_lowercase().starts_with("userpassword");
        if query.filter.is_empty() || query.attributes.is_empty() || query.attributes.iter().any(hidden) {
            return Err(LdapError::Denied("a search names its conditions and its attributes".to_owned()));
        }
        let mut lines: Vec<String> = query.filter.iter().map(shown_condition).collect();
        let scope = match query.scope {
            Scope::Base => "base",
            Scope::One => "one",
            Scope::Subtree => "subtree",
        };
        lines.push(format!("scope {scope}"));
        lines.extend(query.attributes.iter().map(|name| format!("give {name}")));
        let mut entries = self.note("search", query.base, lines)?;
        let most = usize::try_from(query.max_entries).unwrap_or(usize::MAX);
        let truncated = entries.len() > most;
        entries.truncate(most);
        Ok(Entries { entries, truncated })
    }

    fn refresh(&mut self, name: &Name, seconds: u32) -> Result<u32, LdapError> {
        self.note("refresh", name, vec![format!("ttl {seconds}")]).map(|_| seconds)
    }

    fn authenticate(&mut self, name: &Name, password: Secret<'_>) -> Result<bool, LdapError> {
        let line = shown_value(&Value::Secret(password, Encoding::Plain));
        self.note("authenticate", name, vec![line]).map(|entries| !entries.is_empty())
    }
}

fn shown_name(name: &Name) -> String {
    let parts = name.rdns.iter().map(|(attribute, value)| format!("{attribute}={value}"));
    parts.chain((!name.base.is_empty()).then(|| name.base.clone())).collect::<Vec<_>>().join(",")
}

fn shown_values(values: &[Value<'_>]) -> String {
    values.iter().map(shown_value).collect::<Vec<_>>().join(" | ")
}

fn shown_value(value: &Value<'_>) -> String {
    match value {
        Value::Text(text) => (*text).to_owned(),
        Value::Name(name) => shown_name(name),
        Value::GeneralizedTime(seconds) => format!("time:{seconds}"),
        Value::FileTime(seconds) => format!("filetime:{seconds}"),
        Value::Secret(Secret(handle), encoding) => {
            let name = match handle {
                Handle::Test(name) => name,
                Handle::Host(_) => "host",
            };
            format!("secret:{name}:{}", encoding_words(encoding))
        }
    }
}

fn shown_condition(condition: &Condition<'_>) -> String {
    match condition {
        Condition::Equals(name, value) => format!("{name} = {}", shown_value(value)),
        Condition::StartsWith(name, start) => format!("{name} = {start}*"),
        Condition::Present(name) => format!("{name} = *"),
        Condition::AtLeast(name, value) => format!("{name} >= {}", shown_value(value)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_refuses_what_the_host_refuses() {
        let mut ldap = FakeLdap::new(|_| Ok(vec![]));
        let name = Name { rdns: vec![("cn".into(), "a".into())], base: "dc=b".into() };
        let mut search = |filter, attributes: &[&str]| {
            ldap.search(&Query { base: &name, scope: Scope::Base, filter, attributes, max_entries: 1 })
        };
        let present = || vec![Condition::Present("cn")];
        assert!(search(present(), &["cn"]).is_ok());
        for attributes in [&["*"][..], &["cn", "+"], &["userPassword;x"], &[]] {
            assert!(matches!(search(present(), attributes), Err(LdapError::Denied(_))), "{attributes:?}");
        }
        assert!(search(vec![], &["cn"]).is_err());
        assert_eq!(ldap.operations.len(), 1);
        assert!(ldap.operations[0].has("scope base"));
        assert_eq!(ldap.steps(), ["search cn=a,dc=b"]);
    }
}
