//! The request that a policy or a context provider is asked about.
//!
//! Each field is fetched from the host when it is first read, and kept for the rest of the call. The host notes
//! what was read: it stands in the audit record, so read what the decision depends on and no more.

use std::cell::OnceCell;

use crate::bindings::host::jit::plugin::request::Request as HostRequest;

/// A list's pairs of name and value.
pub type Pairs = Vec<(String, String)>;

/// What is asked, by whom, and what is known. The contract is `wit/request.wit`.
#[derive(Debug, Default)]
pub struct Request<'a> {
    /// None in native tests, where every field is filled from the start.
    host: Option<&'a HostRequest>,
    operation: OnceCell<String>,
    time: OnceCell<u64>,
    workload: OnceCell<String>,
    issuer: OnceCell<String>,
    target: OnceCell<String>,
    role: OnceCell<String>,
    ttl_seconds: OnceCell<u64>,
    reason: OnceCell<Option<String>>,
    ticket: OnceCell<Option<String>>,
    caller_address: OnceCell<Option<String>>,
    attributes: List,
    metadata: List,
    facts: List,
    resource: List,
}

impl<'a> Request<'a> {
    /// The request behind a handle of the host.
    pub(crate) fn of(host: &'a HostRequest) -> Self {
        Self { host: Some(host), ..Self::default() }
    }
}

impl Request<'_> {
    /// The host's handle; none in native tests. For fixtures that misuse it.
    #[doc(hidden)]
    pub fn host(&self) -> Option<&HostRequest> {
        self.host
    }

    /// What is to be done: `issue`, `renew`, or what [`Policy::OPERATIONS`](crate::Policy::OPERATIONS) adds.
    pub fn operation(&self) -> &str {
        self.text(&self.operation, HostRequest::operation)
    }

    /// Seconds since the Unix epoch, UTC. A policy has no clock: this is the time.
    pub fn time(&self) -> u64 {
        *self.read(&self.time, HostRequest::time)
    }

    /// The verified workload.
    pub fn workload(&self) -> &str {
        self.text(&self.workload, HostRequest::workload)
    }

    /// The configured name of the issuer that vouches for the workload.
    pub fn issuer(&self) -> &str {
        self.text(&self.issuer, HostRequest::issuer)
    }

    /// The target's name.
    pub fn target(&self) -> &str {
        self.text(&self.target, HostRequest::target)
    }

    /// The role that is asked for.
    pub fn role(&self) -> &str {
        self.text(&self.role, HostRequest::role)
    }

    /// How long the lease shall live, in seconds.
    pub fn ttl_seconds(&self) -> u64 {
        *self.read(&self.ttl_seconds, HostRequest::ttl_seconds)
    }

    /// The caller's reason.
    pub fn reason(&self) -> Option<&str> {
        self.read(&self.reason, HostRequest::reason).as_deref()
    }

    /// The caller's ticket.
    pub fn ticket(&self) -> Option<&str> {
        self.read(&self.ticket, HostRequest::ticket).as_deref()
    }

    /// The caller's IP address as the broker's listener sees it; behind a proxy, the proxy's.
    pub fn caller_address(&self) -> Option<&str> {
        self.read(&self.caller_address, HostRequest::caller_address).as_deref()
    }

    /// An attribute of the identity, as the configuration named it (`k8s_namespace`, `env`, …).
    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.one(name, || self.host?.attribute(name))
    }

    /// All attributes of the identity, sorted by name.
    pub fn attributes(&self) -> &[(String, String)] {
        self.attributes.all(|| self.host.map(HostRequest::attributes))
    }

    /// A value of the caller's own `metadata`: a claim of the caller, not of its identity.
    pub fn metadata(&self, name: &str) -> Option<&str> {
        self.metadata.one(name, || self.host?.metadata(name))
    }

    /// All of the caller's `metadata`, sorted by name.
    pub fn all_metadata(&self) -> &[(String, String)] {
        self.metadata.all(|| self.host.map(HostRequest::all_metadata))
    }

    /// A usage count or a fact of a context provider.
    pub fn fact(&self, name: &str) -> Option<&str> {
        self.facts.one(name, || self.host?.fact(name))
    }

    /// All usage counts and facts, sorted by name.
    pub fn facts(&self) -> &[(String, String)] {
        self.facts.all(|| self.host.map(HostRequest::facts))
    }

    /// A property of what the operation is about: `lease` of a renewal.
    pub fn resource(&self, name: &str) -> Option<&str> {
        self.resource.one(name, || self.host?.resource(name))
    }

    /// All properties of what the operation is about, sorted by name.
    pub fn whole_resource(&self) -> &[(String, String)] {
        self.resource.all(|| self.host.map(HostRequest::whole_resource))
    }

    fn text<'s>(&'s self, kept: &'s OnceCell<String>, fetch: fn(&HostRequest) -> String) -> &'s str {
        self.read::<String>(kept, fetch)
    }

    fn read<'s, T: Default>(&'s self, kept: &'s OnceCell<T>, fetch: fn(&HostRequest) -> T) -> &'s T {
        kept.get_or_init(|| self.host.map(fetch).unwrap_or_default())
    }
}

/// A list of names and values: what has been read of it.
#[derive(Debug, Default)]
struct List {
    whole: OnceCell<Pairs>,
    names: OnceCell<Box<Node>>,
}

/// A name that was read alone, and the one that was read next. A chain, so that what was read can be lent
/// while more is read.
#[derive(Debug)]
struct Node {
    name: String,
    value: Option<String>,
    next: OnceCell<Box<Node>>,
}

impl List {
    fn one(&self, name: &str, fetch: impl FnOnce() -> Option<String>) -> Option<&str> {
        if let Some(whole) = self.whole.get() {
            return whole.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
        }
        let mut place = &self.names;
        while let Some(node) = place.get() {
            if node.name == name {
                return node.value.as_deref();
            }
            place = &node.next;
        }
        let node = Node { name: name.to_owned(), value: fetch(), next: OnceCell::new() };
        place.get_or_init(|| Box::new(node)).value.as_deref()
    }

    fn all(&self, fetch: impl FnOnce() -> Option<Pairs>) -> &[(String, String)] {
        self.whole.get_or_init(|| fetch().unwrap_or_default())
    }

    /// For native tests: the pair, in the place of one of that name.
    fn put(&mut self, name: &str, value: Option<&str>) {
        let mut pairs = self.whole.take().unwrap_or_default();
        pairs.retain(|(key, _)| key != name);
        pairs.extend(value.map(|value| (name.to_owned(), value.to_owned())));
        pairs.sort();
        self.whole = OnceCell::from(pairs);
    }
}

/// For native tests: a request of the test's own making.
impl Request<'static> {
    /// Every field is there, most of them empty.
    pub(crate) fn given() -> Self {
        let list = || List { whole: OnceCell::from(Pairs::new()), names: OnceCell::new() };
        let (attributes, metadata, facts, resource) = (list(), list(), list(), list());
        Self { attributes, metadata, facts, resource, ..Self::default() }
    }

    /// For another operation.
    #[must_use]
    pub fn with_operation(mut self, operation: &str) -> Self {
        self.operation = OnceCell::from(operation.to_owned());
        self
    }

    /// At another time, in seconds since the Unix epoch.
    #[must_use]
    pub fn at(mut self, time: u64) -> Self {
        self.time = OnceCell::from(time);
        self
    }

    /// Of another workload.
    #[must_use]
    pub fn with_workload(mut self, workload: &str) -> Self {
        self.workload = OnceCell::from(workload.to_owned());
        self
    }

    /// Of another issuer.
    #[must_use]
    pub fn with_issuer(mut self, issuer: &str) -> Self {
        self.issuer = OnceCell::from(issuer.to_owned());
        self
    }

    /// For another target.
    #[must_use]
    pub fn with_target(mut self, target: &str) -> Self {
        self.target = OnceCell::from(target.to_owned());
        self
    }

    /// For another role.
    #[must_use]
    pub fn with_role(mut self, role: &str) -> Self {
        self.role = OnceCell::from(role.to_owned());
        self
    }

    /// For another length, in seconds.
    #[must_use]
    pub fn with_ttl(mut self, seconds: u64) -> Self {
        self.ttl_seconds = OnceCell::from(seconds);
        self
    }

    /// With a reason.
    #[must_use]
    pub fn with_reason(mut self, reason: &str) -> Self {
        self.reason = OnceCell::from(Some(reason.to_owned()));
        self
    }

    /// With a ticket.
    #[must_use]
    pub fn with_ticket(mut self, ticket: &str) -> Self {
        self.ticket = OnceCell::from(Some(ticket.to_owned()));
        self
    }

    /// From an IP address.
    #[must_use]
    pub fn with_caller_address(mut self, address: &str) -> Self {
        self.caller_address = OnceCell::from(Some(address.to_owned()));
        self
    }

    /// With one more attribute of the identity, or another value of it.
    #[must_use]
    pub fn with_attribute(mut self, name: &str, value: &str) -> Self {
        self.attributes.put(name, Some(value));
        self
    }

    /// With one more value of the caller's own `metadata`.
    #[must_use]
    pub fn with_metadata(mut self, name: &str, value: &str) -> Self {
        self.metadata.put(name, Some(value));
        self
    }

    /// With one more fact, as a context provider would give it, or another value of it.
    #[must_use]
    pub fn with_fact(mut self, name: &str, value: &str) -> Self {
        self.facts.put(name, Some(value));
        self
    }

    /// Without a fact.
    #[must_use]
    pub fn without_fact(mut self, name: &str) -> Self {
        self.facts.put(name, None);
        self
    }

    /// With one more property of what the operation is about.
    #[must_use]
    pub fn with_resource(mut self, name: &str, value: &str) -> Self {
        self.resource.put(name, Some(value));
        self
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn a_name_is_fetched_once_whatever_is_read_in_between() {
        let fetched = Cell::new(0);
        let fetch = |value: Option<&str>| {
            fetched.set(fetched.get() + 1);
            value.map(str::to_owned)
        };
        let list = List::default();
        let first = list.one("a", || fetch(Some("1")));
        assert_eq!((first, list.one("b", || fetch(None))), (Some("1"), None));
        assert_eq!((list.one("a", || fetch(Some("2"))), list.one("b", || fetch(Some("2")))), (first, None));
        assert_eq!(fetched.get(), 2);
        assert_eq!(list.all(|| Some(vec![("a".into(), "1".into())])).len(), 1);
        assert_eq!(list.one("c", || fetch(Some("3"))), None, "the whole list says that there is none");
        assert_eq!(fetched.get(), 2);
    }

    #[test]
    fn a_test_makes_the_request_that_it_needs() {
        let request = crate::testing::request()
            .with_fact("b", "1")
            .with_fact("a", "2")
            .with_fact("b", "3")
            .with_resource("lease", "lease_01")
            .with_caller_address("192.0.2.7");
        let facts = [("a".to_owned(), "2".to_owned()), ("b".to_owned(), "3".to_owned())];
        assert_eq!((request.facts(), request.fact("b")), (&facts[..], Some("3")));
        assert_eq!((request.resource("lease"), request.caller_address()), (Some("lease_01"), Some("192.0.2.7")));
        assert_eq!((request.reason(), request.whole_resource().len()), (None, 1));
        assert_eq!(request.without_fact("b").fact("b"), None);
    }
}
