//! Operations on the connection's directory: data that the host escapes and sends.

use crate::bindings::host::jit::plugin::ldap as contract;
use crate::driver::{Handle, Secret};
use crate::error::Error;
use crate::sql::Encoding;

pub use contract::{ChangeKind, Entries, Entry, LdapError, Name, ResultError, Scope};

/// A value of an attribute.
#[derive(Clone, Debug)]
pub enum Value<'a> {
    /// As it is.
    Text(&'a str),
    /// A distinguished name.
    Name(&'a Name),
    /// Seconds since the Unix epoch, as GeneralizedTime in UTC.
    GeneralizedTime(u64),
    /// Seconds since the Unix epoch, as Active Directory's FILETIME.
    FileTime(u64),
    /// A secret, placed by the host.
    Secret(Secret<'a>, Encoding),
}

/// One change of an entry.
#[derive(Clone, Debug)]
pub struct Change<'a> {
    /// Add, delete or replace values.
    pub kind: ChangeKind,
    /// The attribute.
    pub attribute: &'a str,
    /// The values.
    pub values: Vec<Value<'a>>,
}

/// One condition of a filter; all of a search's hold.
#[derive(Clone, Debug)]
pub enum Condition<'a> {
    /// The attribute has the value.
    Equals(&'a str, Value<'a>),
    /// A value begins so.
    StartsWith(&'a str, &'a str),
    /// The attribute is there.
    Present(&'a str),
    /// A value is that or greater, where the attribute has an ordering.
    AtLeast(&'a str, Value<'a>),
}

/// A search.
#[derive(Clone, Debug)]
pub struct Query<'a> {
    /// Where; an empty name with [`Scope::Base`] is the root DSE.
    pub base: &'a Name,
    /// How deep.
    pub scope: Scope,
    /// At least one condition.
    pub filter: Vec<Condition<'a>>,
    /// The attributes that are wanted, by name.
    pub attributes: &'a [&'a str],
    /// At most so many entries.
    pub max_entries: u32,
}

/// The connection's directory.
pub trait Ldap {
    /// Adds an entry.
    ///
    /// # Errors
    /// See [`LdapError`].
    fn add(&mut self, name: &Name, attributes: &[(&str, Vec<Value<'_>>)]) -> Result<(), LdapError>;

    /// Changes an entry, all or nothing.
    ///
    /// # Errors
    /// See [`LdapError`].
    fn modify(&mut self, name: &Name, changes: &[Change<'_>]) -> Result<(), LdapError>;

    /// Removes an entry.
    ///
    /// # Errors
    /// See [`LdapError`].
    fn delete(&mut self, name: &Name) -> Result<(), LdapError>;

    /// Searches.
    ///
    /// # Errors
    /// See [`LdapError`].
    fn search(&mut self, query: &Query<'_>) -> Result<Entries, LdapError>;

    /// Sets the time that a dynamic entry has left (RFC 2589), in seconds; gives what was set.
    ///
    /// # Errors
    /// See [`LdapError`].
    fn refresh(&mut self, name: &Name, seconds: u32) -> Result<u32, LdapError>;

    /// Whether a simple bind with that name and password succeeds now.
    ///
    /// # Errors
    /// When the server did not say.
    fn authenticate(&mut self, name: &Name, password: Secret<'_>) -> Result<bool, LdapError>;
}

/// The host's connection.
#[derive(Debug, Default)]
pub struct HostLdap(());

impl Ldap for HostLdap {
    fn add(&mut self, name: &Name, attributes: &[(&str, Vec<Value<'_>>)]) -> Result<(), LdapError> {
        let attributes = attributes.iter().map(|(name, values)| attribute(name, values));
        contract::add(name, &attributes.collect::<Result<Vec<_>, _>>()?)
    }

    fn modify(&mut self, name: &Name, changes: &[Change<'_>]) -> Result<(), LdapError> {
        let changes = changes.iter().map(|change| {
            Ok(contract::Change { kind: change.kind, attribute: attribute(change.attribute, &change.values)? })
        });
        contract::modify(name, &changes.collect::<Result<Vec<_>, LdapError>>()?)
    }

    fn delete(&mut self, name: &Name) -> Result<(), LdapError> {
        contract::delete(name)
    }

    fn search(&mut self, query: &Query<'_>) -> Result<Entries, LdapError> {
        let filter = query.filter.iter().map(condition).collect::<Result<_, _>>()?;
        contract::search(&contract::Query {
            base: query.base.clone(),
            scope: query.scope,
            filter,
            attributes: query.attributes.iter().map(|name| (*name).to_owned()).collect(),
            max_entries: query.max_entries,
        })
    }

    fn refresh(&mut self, name: &Name, seconds: u32) -> Result<u32, LdapError> {
        contract::refresh(name, seconds)
    }

    fn authenticate(&mut self, name: &Name, password: Secret<'_>) -> Result<bool, LdapError> {
        contract::authenticate(name, handle(password)?)
    }
}

impl LdapError {
    /// The server's result code, where it said no.
    pub fn code(&self) -> Option<u32> {
        match self {
            Self::Refused(error) => Some(error.code),
            _ => None,
        }
    }

    /// The failure of a search or of a tried login: without an answer, nothing was done.
    pub fn of_read(self) -> Error {
        match self {
            Self::Unknown(reason) => Error::retryable(reason),
            other => other.into(),
        }
    }
}

impl Name {
    /// An entry below a base of the configuration; the value is escaped by the host.
    pub fn below(base: &str, attribute: &str, value: &str) -> Self {
        Self { rdns: vec![(attribute.to_owned(), value.to_owned())], base: base.to_owned() }
    }

    /// A name of the configuration, or one that the directory gave.
    pub fn of(text: &str) -> Self {
        Self { rdns: Vec::new(), base: text.to_owned() }
    }
}

impl Entry {
    /// An attribute's values, whatever the case of its name; empty when it is not there.
    pub fn values(&self, attribute: &str) -> &[String] {
        let found = self.attributes.iter().find(|(name, _)| name.eq_ignore_ascii_case(attribute));
        found.map_or(&[], |(_, values)| values)
    }

    /// An attribute's first value.
    pub fn value(&self, attribute: &str) -> Option<&str> {
        self.values(attribute).first().map(String::as_str)
    }
}

/// What every directory driver means by it; a driver that knows a result code better looks at it
/// first.
impl From<LdapError> for Error {
    fn from(error: LdapError) -> Self {
        match error {
            LdapError::Refused(said) => Self::Refused(format!("{} (LDAP result {})", said.message, said.code)),
            LdapError::Unavailable(reason) => Self::retryable(reason),
            LdapError::Unknown(reason) => Self::OutcomeUnknown(reason),
            LdapError::Denied(reason) => Self::Other(reason),
        }
    }
}

fn attribute<'a>(name: &str, values: &[Value<'a>]) -> Result<contract::Attribute<'a>, LdapError> {
    Ok(contract::Attribute { name: name.to_owned(), values: values.iter().map(value).collect::<Result<_, _>>()? })
}

fn value<'a>(value: &Value<'a>) -> Result<contract::Value<'a>, LdapError> {
    Ok(match value {
        Value::Text(text) => contract::Value::Text((*text).to_owned()),
        Value::Name(name) => contract::Value::Name((*name).clone()),
        Value::GeneralizedTime(seconds) => contract::Value::GeneralizedTime(*seconds),
        Value::FileTime(seconds) => contract::Value::FileTime(*seconds),
        Value::Secret(secret, encoding) => contract::Value::Secret((handle(*secret)?, *encoding)),
    })
}

fn condition<'a>(condition: &Condition<'a>) -> Result<contract::Condition<'a>, LdapError> {
    let owned = |text: &str| text.to_owned();
    Ok(match condition {
        Condition::Equals(name, wanted) => contract::Condition::Equals((owned(name), value(wanted)?)),
        Condition::StartsWith(name, prefix) => contract::Condition::StartsWith((owned(name), owned(prefix))),
        Condition::Present(name) => contract::Condition::Present(owned(name)),
        Condition::AtLeast(name, wanted) => contract::Condition::AtLeast((owned(name), value(wanted)?)),
    })
}

fn handle(secret: Secret<'_>) -> Result<&crate::bindings::host::jit::plugin::secrets::Secret, LdapError> {
    match secret.0 {
        Handle::Host(handle) => Ok(handle),
        Handle::Test(_) => Err(LdapError::Denied("a test's secret is not the host's".into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_search_without_an_answer_has_done_nothing() {
        let unknown = || LdapError::Unknown("connection lost".into());
        assert_eq!(unknown().of_read(), Error::retryable("connection lost"));
        assert_eq!(Error::from(unknown()), Error::OutcomeUnknown("connection lost".into()));
    }

    #[test]
    fn an_entrys_attributes_are_found_in_any_case() {
        let entry = Entry { name: "cn=a".into(), attributes: vec![("memberOf".into(), vec!["cn=g".into()])] };
        assert_eq!(entry.value("MEMBEROF"), Some("cn=g"));
        assert_eq!(entry.value("cn"), None);
    }

    #[test]
    fn a_tests_secret_cannot_reach_the_host() {
        let placed = Value::Secret(Secret(Handle::Test("canary")), Encoding::Plain);
        assert!(matches!(value(&placed), Err(LdapError::Denied(_))));
    }
}
