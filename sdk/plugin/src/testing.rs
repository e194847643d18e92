//! For native unit tests: plugins are plain Rust, and need neither Wasm nor a server to be tried.

use crate::bindings::host::jit::plugin::secrets::{BcryptPrefix, Digest, Notation, SaltPlace};
use crate::driver::{Account, Handle, OwnedSecret, Role, Secret, Target};
use crate::policy::{Policy, Verdict};
use crate::request::Request;
use crate::sql::{Encoding, Param, Rows, Sql, SqlError, Statement, places};
use crate::usage::Scope;

pub use crate::testing_ldap::{FakeLdap, Operation, entry, refused};

pub use crate::testing_http::{FakeHttp, Reply, Sent};

/// A request of workload `payment-service` for role `app_read_only` of `inventory_db`, for an hour.
pub fn request() -> Request<'static> {
    Request::given()
        .with_operation("issue")
        .at(1_800_000_000)
        .with_workload("payment-service")
        .with_issuer("https://issuer.test")
        .with_target("inventory_db")
        .with_role("app_read_only")
        .with_ttl(3600)
}

impl Request<'static> {
    /// With the host's count of requests in a window of so many seconds.
    #[must_use]
    pub fn with_requests(self, scope: Scope, window: u64, count: u64) -> Self {
        self.with_fact(&scope.requests_fact(window), &count.to_string())
    }

    /// With the host's count of live leases.
    #[must_use]
    pub fn with_leases(self, scope: Scope, count: u64) -> Self {
        self.with_fact(&scope.leases_fact(), &count.to_string())
    }
}

/// Asks a policy as the host does: an operation that it does not know ([`Policy::OPERATIONS`]) is denied.
pub fn decide<P: Policy>(config: &P::Config, request: &Request) -> Verdict {
    crate::policy::decide::<P>(config, request)
}

/// A stand-in for the host's handle; `name` is how [`FakeSql`] shows it.
pub fn secret(name: &str) -> Secret<'_> {
    Secret(Handle::Test(name))
}

/// A stand-in for a secret that the host gave out.
pub fn owned_secret(name: &str) -> OwnedSecret {
    OwnedSecret::of_test(name)
}

/// A target called `inventory_db`.
pub fn target<C>(config: C) -> Target<C> {
    Target { name: "inventory_db".into(), config }
}

/// A role called `app_read_only`.
pub fn role<C>(config: C) -> Role<C> {
    Role { name: "app_read_only".into(), config }
}

/// An account of that name, expiring at `expires_at`, asked for an hour before.
pub fn account(name: &str, expires_at: u64) -> Account {
    Account {
        name: name.into(),
        lease_id: "lease_01".into(),
        workload: "payment-service".into(),
        expires_at,
        external_id: None,
        now: expires_at.saturating_sub(3600),
    }
}

/// What a [`FakeSql`] was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// The database, where it was not the connection's own.
    pub database: Option<String>,
    /// The SQL text.
    pub template: &'static str,
    /// The parameters, each shown as its kind and value (`ident:app`, `secret:pw:scram-sha-256/4096`).
    pub params: Vec<String>,
}

type Answer<'f> = Box<dyn FnMut(&Run) -> Result<Vec<Vec<Option<String>>>, SqlError> + 'f>;

/// A server that a test scripts: it notes every statement and asks the test for the answer. Like
/// the host, it refuses a template that is not listed, a wrong number of parameters and an empty
/// list; like PostgreSQL, it stops a batch at the first failure.
pub struct FakeSql<'f> {
    /// What was run, in order.
    pub runs: Vec<Run>,
    listed: &'static [&'static str],
    answer: Answer<'f>,
}

impl std::fmt::Debug for FakeSql<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FakeSql").field("runs", &self.runs).finish_non_exhaustive()
    }
}

impl<'f> FakeSql<'f> {
    /// A server for a driver that lists these templates.
    pub fn new(
        listed: &'static [&'static str],
        answer: impl FnMut(&Run) -> Result<Vec<Vec<Option<String>>>, SqlError> + 'f,
    ) -> Self {
        Self { runs: Vec::new(), listed, answer: Box::new(answer) }
    }

    /// The templates that were run, in order.
    pub fn templates(&self) -> Vec<&'static str> {
        self.runs.iter().map(|run| run.template).collect()
    }

    fn run(&mut self, database: Option<&str>, statement: &Statement<'_>) -> Result<Vec<Vec<Option<String>>>, SqlError> {
        let template = statement.template();
        if !self.listed.contains(&template) {
            return Err(SqlError::Denied(format!("not listed: {template}")));
        }
        let empty = statement.params().iter().any(|param| matches!(param, Param::Idents([]) | Param::Literals([])));
        if empty || places(template) != statement.params().len() {
            return Err(SqlError::Denied(format!("parameters: {template}")));
        }
        let run = Run {
            database: database.map(str::to_owned),
            template,
            params: statement.params().iter().map(shown).collect(),
        };
        self.runs.push(run.clone());
        (self.answer)(&run)
    }
}

impl Sql for FakeSql<'_> {
    fn execute(&mut self, database: Option<&str>, batch: &[Statement<'_>]) -> Result<(), SqlError> {
        for statement in batch {
            self.run(database, statement)?;
        }
        Ok(())
    }

    fn query(&mut self, database: Option<&str>, statement: &Statement<'_>, max_rows: u32) -> Result<Rows, SqlError> {
        let mut rows = self.run(database, statement)?;
        let max = usize::try_from(max_rows).unwrap_or(usize::MAX);
        let truncated = rows.len() > max;
        rows.truncate(max);
        Ok(Rows { rows, truncated })
    }

    /// Noted as the template `authenticate`; any row that the test answers with means yes.
    fn authenticate(&mut self, user: &str, password: Secret<'_>) -> Result<bool, SqlError> {
        let params = vec![format!("user:{user}"), shown(&Param::Secret(password, Encoding::Plain))];
        let run = Run { database: None, template: "authenticate", params };
        self.runs.push(run.clone());
        Ok(!(self.answer)(&run)?.is_empty())
    }
}

fn shown(param: &Param<'_>) -> String {
    match param {
        Param::Ident(name) => format!("ident:{name}"),
        Param::Idents(names) => format!("idents:{}", names.join(",")),
        Param::Literal(text) => format!("literal:{text}"),
        Param::Literals(texts) => format!("literals:{}", texts.join(",")),
        Param::Number(number) => format!("number:{number}"),
        Param::Timestamp(seconds) => format!("timestamp:{seconds}"),
        Param::Secret(Secret(handle), encoding) => {
            let name = match handle {
                Handle::Test(name) => name,
                Handle::Host(_) => "host",
            };
            format!("secret:{name}:{}", encoding_words(encoding))
        }
    }
}

/// An encoding as the fakes show it: `salted-sha256/before/4/base64`.
pub(crate) fn encoding_words(encoding: &Encoding) -> String {
    let digest = |digest: &Digest| match digest {
        Digest::Sha1 => "sha1",
        Digest::Sha256 => "sha256",
        Digest::Sha384 => "sha384",
        Digest::Sha512 => "sha512",
    };
    let notation = |notation: &Notation| match notation {
        Notation::Hex => "hex",
        Notation::Base64 => "base64",
        Notation::Base64url => "base64url",
    };
    match encoding {
        Encoding::Plain => "plain".to_owned(),
        Encoding::ScramSha256(iterations) => format!("scram-sha-256/{iterations}"),
        Encoding::Utf16leQuoted => "utf16le-quoted".to_owned(),
        Encoding::CachingSha2 => "caching-sha2".to_owned(),
        Encoding::MysqlNative => "mysql-native".to_owned(),
        Encoding::SaltedSha1 => "salted-sha1".to_owned(),
        Encoding::Written(form) => notation(form).to_owned(),
        Encoding::Digest((function, form)) => format!("{}/{}", digest(function), notation(form)),
        Encoding::SaltedDigest(form) => {
            let place = match form.salt_place {
                SaltPlace::Before => "before",
                SaltPlace::After => "after",
            };
            format!("salted-{}/{place}/{}/{}", digest(&form.digest), form.salt_bytes, notation(&form.notation))
        }
        Encoding::Bcrypt(form) => {
            let prefix = match form.prefix {
                BcryptPrefix::TwoA => "2a",
                BcryptPrefix::TwoB => "2b",
                BcryptPrefix::TwoY => "2y",
            };
            format!("bcrypt/{prefix}/{}", form.cost)
        }
        Encoding::Pbkdf2(form) => format!("pbkdf2-{}/{}", digest(&form.digest), form.iterations),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_refuses_what_the_host_refuses() {
        let mut sql = FakeSql::new(&["A {}", "B"], |_| Ok(vec![]));
        let mut run = |template, params| sql.execute(None, &[Statement::raw(template, params)]);
        assert!(run("B", vec![]).is_ok());
        let one = ["a".to_owned()];
        assert!(run("A {}", vec![Param::Idents(&one)]).is_ok());
        for (template, params) in
            [("C", vec![]), ("A {}", vec![]), ("A {}", vec![Param::Idents(&[])]), ("B", vec![Param::Number(1)])]
        {
            assert!(matches!(run(template, params), Err(SqlError::Denied(_))));
        }
        assert_eq!(sql.templates(), ["B", "A {}"]);
    }
}
