//! The table of cases: what a policy is asked, and what it must answer.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use jiff::Timestamp;
use jit_core::policy::{Operation, PolicyRequest, Requirement};
use jit_core::ttl::Ttl;
use serde::Deserialize;

/// The largest file, in bytes.
const MAX_FILE: u64 = 4 << 20;
/// The most cases of one file.
const MAX_CASES: usize = 10_000;

/// Monday, 5 January 2026, noon in UTC: within the office hours of most of the world.
const NOON: u64 = 1_767_614_400;

/// A file of cases.
#[derive(Debug, Clone)]
pub struct Cases {
    /// In the file's order; at least one.
    pub cases: Vec<Case>,
}

/// One case, whole.
#[derive(Debug, Clone)]
pub struct Case {
    /// Its name, once in a file.
    pub name: String,
    /// The policy's configuration, as JSON.
    pub config: String,
    /// What is asked.
    pub request: PolicyRequest,
    /// What must be answered.
    pub expect: Expect,
}

/// What must be answered. What is not named is not compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expect {
    /// A yes.
    Allow(ExpectAllow),
    /// A no.
    Deny {
        /// A part of its reason.
        reason: Option<String>,
    },
    /// The configuration is refused.
    Problems(Vec<String>),
    /// It fails.
    Fault(String),
}

/// The conditions of an expected yes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExpectAllow {
    /// A part of its reason.
    pub reason: Option<String>,
    /// The cap; `Some(None)` is none at all.
    pub max_ttl: Option<Option<Ttl>>,
    /// The narrower role; `Some(None)` is none.
    pub role: Option<Option<String>>,
    /// What it requires, all of it.
    pub requires: Option<Vec<Requirement>>,
    /// Labels, among others.
    pub labels: BTreeMap<String, String>,
}

impl Cases {
    /// Reads a file; `config` is another configuration in the place of the shared one.
    ///
    /// # Errors
    /// With the line and what to write instead.
    pub fn load(path: &Path, config: Option<&Path>) -> Result<Self> {
        let shared = config.map(read_config).transpose()?;
        Self::parse(&read(path)?, path, shared)
    }

    /// Reads a text; `path` is for messages.
    ///
    /// # Errors
    /// With the line and what to write instead.
    pub fn parse(text: &str, path: &Path, shared: Option<toml::Table>) -> Result<Self> {
        let file: File = toml::from_str(text).with_context(|| path.display().to_string())?;
        let shared = shared.or(file.config).unwrap_or_default();
        ensure!(!file.case.is_empty(), "{}: it has no [[case]]", path.display());
        ensure!(file.case.len() <= MAX_CASES, "{}: it has more than {MAX_CASES} cases", path.display());
        let mut cases: Vec<Case> = Vec::with_capacity(file.case.len());
        for case in file.case {
            let name = case.name.clone();
            let case =
                case.whole(&shared, &file.request).with_context(|| format!("{}: case {name:?}", path.display()))?;
            ensure!(cases.iter().all(|other| other.name != name), "{}: there are two cases {name:?}", path.display());
            cases.push(case);
        }
        Ok(Self { cases })
    }
}

fn read(path: &Path) -> Result<String> {
    let cannot = || format!("cannot read {}", path.display());
    let size = std::fs::metadata(path).with_context(cannot)?.len();
    ensure!(size <= MAX_FILE, "{} has more than {MAX_FILE} bytes", path.display());
    std::fs::read_to_string(path).with_context(cannot)
}

/// A policy's configuration alone, in TOML or, by the file's name, in JSON.
fn read_config(path: &Path) -> Result<toml::Table> {
    let text = read(path)?;
    let table = match path.extension() {
        Some(ending) if ending == "json" => serde_json::from_str(&text).map_err(anyhow::Error::from),
        _ => text.parse().map_err(anyhow::Error::from),
    };
    table.with_context(|| path.display().to_string())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    config: Option<toml::Table>,
    #[serde(default)]
    request: RequestTable,
    #[serde(default)]
    case: Vec<CaseTable>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CaseTable {
    name: String,
    config: Option<toml::Table>,
    #[serde(default)]
    request: RequestTable,
    expect: ExpectTable,
}

/// What a request says; the rest is as usual.
#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RequestTable {
    operation: Option<Operation>,
    time: Option<Time>,
    workload: Option<String>,
    issuer: Option<String>,
    attributes: Option<BTreeMap<String, String>>,
    target: Option<String>,
    role: Option<String>,
    ttl: Option<Ttl>,
    reason: Option<String>,
    ticket: Option<String>,
    metadata: Option<BTreeMap<String, String>>,
    facts: Option<BTreeMap<String, Scalar>>,
    caller_address: Option<IpAddr>,
    resource: Option<BTreeMap<String, String>>,
}

/// RFC 3339 as TOML's own type or as a text, or seconds since the Unix epoch.
#[derive(Clone, Deserialize)]
#[serde(untagged)]
enum Time {
    Seconds(u64),
    Toml(toml::value::Datetime),
    Text(String),
}

/// Facts are texts; a number is written as one.
#[derive(Clone, Deserialize)]
#[serde(untagged)]
enum Scalar {
    Text(String),
    Whole(i64),
    Truth(bool),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ExpectTable {
    verdict: Option<Word>,
    reason: Option<String>,
    max_ttl: Option<String>,
    role: Option<String>,
    requires: Option<Vec<String>>,
    labels: Option<BTreeMap<String, String>>,
    problems: Option<Vec<String>>,
    fault: Option<String>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Word {
    Allow,
    Deny,
}

impl CaseTable {
    fn whole(self, shared: &toml::Table, base: &RequestTable) -> Result<Case> {
        ensure!(!self.name.trim().is_empty() && self.name.len() <= 200, "its name must have 1 to 200 characters");
        let config = self.config.as_ref().unwrap_or(shared);
        let config = json(&toml::Value::Table(config.clone()), 0).context("config")?;
        Ok(Case {
            name: self.name,
            config: config.to_string(),
            request: self.request.over(base).context("request")?,
            expect: self.expect.whole().context("expect")?,
        })
    }
}

impl RequestTable {
    /// This request, what it does not say from the shared one, and the rest as usual.
    fn over(self, base: &Self) -> Result<PolicyRequest> {
        let base = base.clone();
        let usual =
            |own: Option<String>, shared: Option<String>, usual: &str| own.or(shared).unwrap_or(usual.to_owned());
        let facts = self.facts.or(base.facts).unwrap_or_default();
        Ok(PolicyRequest {
            operation: self.operation.or(base.operation).unwrap_or(Operation::Issue),
            time: self.time.or(base.time).map_or(Ok(NOON), Time::seconds)?,
            workload: usual(self.workload, base.workload, "payment-service"),
            issuer: usual(self.issuer, base.issuer, "cluster"),
            attributes: self.attributes.or(base.attributes).unwrap_or_default(),
            target: usual(self.target, base.target, "inventory_db"),
            role: usual(self.role, base.role, "app_read_only"),
            ttl_seconds: self.ttl.or(base.ttl).map_or(3_600, |ttl| u64::from(ttl.seconds())),
            reason: self.reason.or(base.reason),
            ticket: self.ticket.or(base.ticket),
            metadata: self.metadata.or(base.metadata).unwrap_or_default(),
            facts: facts.into_iter().map(|(name, value)| (name, value.text())).collect(),
            caller_address: self.caller_address.or(base.caller_address),
            resource: self.resource.or(base.resource).unwrap_or_default(),
        })
    }
}

impl Time {
    fn seconds(self) -> Result<u64> {
        let text = match self {
            Self::Seconds(seconds) => return Ok(seconds),
            Self::Toml(time) => time.to_string(),
            Self::Text(text) => text,
        };
        let time: Timestamp = text.parse().map_err(|_| {
            anyhow!("time: {text:?} has no zone or is no time: write 2026-01-05T12:00:00Z, or seconds since 1970")
        })?;
        u64::try_from(time.as_second()).context("time: it is before 1970")
    }
}

impl Scalar {
    fn text(self) -> String {
        match self {
            Self::Text(text) => text,
            Self::Whole(number) => number.to_string(),
            Self::Truth(truth) => truth.to_string(),
        }
    }
}

impl ExpectTable {
    fn whole(self) -> Result<Expect> {
        let conditions =
            self.max_ttl.is_some() || self.role.is_some() || self.requires.is_some() || self.labels.is_some();
        match (self.verdict, self.problems, self.fault) {
            (Some(Word::Allow), None, None) => {
                let none_or = |text: String| if text == "none" { None } else { Some(text) };
                let max_ttl = self.max_ttl.map(none_or).map(|text| text.map(|text| text.parse()).transpose());
                let requires = self.requires.map(|words| words.iter().map(|word| requirement(word)).collect());
                Ok(Expect::Allow(ExpectAllow {
                    reason: self.reason,
                    max_ttl: max_ttl.transpose().context("max_ttl")?,
                    role: self.role.map(none_or),
                    requires: requires.transpose()?,
                    labels: self.labels.unwrap_or_default(),
                }))
            }
            _ if conditions => bail!("max_ttl, role, requires and labels go with verdict = \"allow\""),
            (Some(Word::Deny), None, None) => Ok(Expect::Deny { reason: self.reason }),
            _ if self.reason.is_some() => bail!("reason goes with a verdict"),
            (None, Some(problems), None) => {
                ensure!(!problems.is_empty(), "problems: name a part of each, such as [\"rules[0].role\"]");
                Ok(Expect::Problems(problems))
            }
            (None, None, Some(fault)) => Ok(Expect::Fault(fault)),
            _ => bail!("write one of verdict = \"allow\", verdict = \"deny\", problems = [\"…\"], fault = \"…\""),
        }
    }
}

fn requirement(word: &str) -> Result<Requirement> {
    Requirement::from_word(word).with_context(|| format!("requires: {word:?} must be reason, ticket or approval"))
}

/// As the broker hands it to a plugin: a time becomes a text.
fn json(value: &toml::Value, depth: usize) -> Result<serde_json::Value> {
    ensure!(depth < 64, "it is nested too deep");
    Ok(match value {
        toml::Value::String(text) => text.clone().into(),
        toml::Value::Integer(number) => (*number).into(),
        toml::Value::Float(number) => serde_json::Number::from_f64(*number).context("a number is not finite")?.into(),
        toml::Value::Boolean(truth) => (*truth).into(),
        toml::Value::Datetime(time) => time.to_string().into(),
        toml::Value::Array(items) => {
            serde_json::Value::Array(items.iter().map(|item| json(item, depth + 1)).collect::<Result<_>>()?)
        }
        toml::Value::Table(table) => serde_json::Value::Object(
            table.iter().map(|(key, value)| Ok((key.clone(), json(value, depth + 1)?))).collect::<Result<_>>()?,
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Cases> {
        Cases::parse(text, Path::new("cases.toml"), None)
    }

    fn told(text: &str) -> String {
        format!("{:#}", parse(text).unwrap_err())
    }

    #[test]
    fn what_is_not_said_is_as_usual() {
        let cases = parse("[[case]]\nname = \"c\"\nexpect = { verdict = \"allow\" }").unwrap();
        let request = &cases.cases[0].request;
        assert_eq!((request.workload.as_str(), request.target.as_str()), ("payment-service", "inventory_db"));
        assert_eq!((request.ttl_seconds, request.time), (3_600, NOON));
        let noon: Timestamp = "2026-01-05T12:00:00Z".parse().unwrap();
        assert_eq!(noon.as_second(), i64::try_from(NOON).unwrap());
        assert_eq!(cases.cases[0].config, "{}");
    }

    #[test]
    fn a_case_overrides_what_the_file_shares() {
        let cases = parse(
            r#"
            [config]
            a = 1
            [request]
            workload = "batch"
            facts = { requests = 7, ok = true, team = "x" }
            [[case]]
            name = "shared"
            expect = { verdict = "allow" }
            [[case]]
            name = "own"
            config = { b = [2.5, 1979-05-27] }
            request = { operation = "proxy.http", caller_address = "2001:db8::7", resource = { method = "GET" }, workload = "web", time = 2026-03-29T01:30:00+01:00, ttl = "30m", facts = {} }
            expect = { verdict = "deny" }
            "#,
        )
        .unwrap()
        .cases;
        assert_eq!(cases[0].config, r#"{"a":1}"#);
        assert_eq!(cases[0].request.facts["requests"], "7");
        assert_eq!(cases[0].request.facts["ok"], "true");
        assert_eq!(cases[1].config, r#"{"b":[2.5,"1979-05-27"]}"#);
        assert_eq!((cases[1].request.time, cases[1].request.ttl_seconds), (1_774_744_200, 1_800));
        assert!(cases[1].request.facts.is_empty());
        assert_eq!((cases[0].request.operation.as_str(), cases[0].request.caller_address), ("issue", None));
        assert_eq!(cases[1].request.operation.as_str(), "proxy.http");
        assert_eq!(cases[1].request.caller_address, "2001:db8::7".parse().ok());
        assert_eq!(cases[1].request.resource["method"], "GET");
    }

    #[test]
    fn another_configuration_takes_the_place_of_the_shared_one_only() {
        let text = "[config]\na = 1\n[[case]]\nname = \"c\"\nexpect = { verdict = \"allow\" }\n\
                    [[case]]\nname = \"d\"\nconfig = { own = 1 }\nexpect = { verdict = \"allow\" }";
        let other = "a = 2".parse().unwrap();
        let cases = Cases::parse(text, Path::new("cases.toml"), Some(other)).unwrap().cases;
        assert_eq!((cases[0].config.as_str(), cases[1].config.as_str()), (r#"{"a":2}"#, r#"{"own":1}"#));
    }

    #[test]
    fn every_mistake_says_where_and_what_to_write() {
        let with = |expect: &str| told(&format!("[[case]]\nname = \"c\"\nexpect = {{ {expect} }}"));
        assert!(told("").contains("no [[case]]"));
        assert!(told("[[case]]\nname = \"c\"\nexpekt = {}").contains("expekt"));
        assert!(with("").contains("write one of"));
        assert!(with("verdict = \"maybe\"").contains("maybe"));
        assert!(with("verdict = \"deny\", max_ttl = \"1h\"").contains("go with verdict"));
        assert!(with("verdict = \"allow\", max_ttl = \"soon\"").contains("max_ttl"));
        assert!(with("verdict = \"allow\", requires = [\"luck\"]").contains("must be reason"));
        assert!(with("problems = []").contains("name a part"));
        assert!(with("problems = [\"x\"], reason = \"y\"").contains("reason goes with"));
        let asked = |request: &str| {
            told(&format!("[[case]]\nname = \"c\"\nrequest = {{ {request} }}\nexpect = {{ verdict = \"deny\" }}"))
        };
        assert!(asked("operation = \"Issue it\"").contains("such as issue or renew"));
        assert!(asked("caller_address = \"nowhere\"").contains("IP address"));
        let twice = "[[case]]\nname = \"c\"\nexpect = { verdict = \"deny\" }\n";
        assert!(told(&twice.repeat(2)).contains("two cases"));
        let local = "[[case]]\nname = \"c\"\nrequest = { time = 2026-01-05T12:00:00 }\nexpect = { verdict = \"deny\" }";
        assert!(told(local).contains("no zone"));
    }
}
