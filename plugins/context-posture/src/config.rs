//! The provider's configuration.

use std::collections::{BTreeMap, BTreeSet};

use jit_plugin::{ConfigProblem, Request};
use serde::{Deserialize, Deserializer, de};

use crate::facts::{Constants, FactName, MAX_FACTS, Source};
use crate::template::{Missing, Template};

/// The most segments, parameters and headers, each.
const MAX_PARTS: usize = 16;

/// `[contexts.NAME.config]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Segments below the connection's URL.
    path: Vec<Template>,
    /// Parameters.
    #[serde(default)]
    query: BTreeMap<String, Template>,
    /// The secret of the connection that is sent as a bearer token.
    bearer: Option<String>,
    /// Headers that are a secret of the connection: `{ "x-api-key" = "key" }`.
    #[serde(default)]
    secret_headers: BTreeMap<Header, String>,
    /// Facts, and where each stands in the answer.
    pub(crate) facts: BTreeMap<FactName, Source>,
    /// Those without which there is no answer; left out, all of them.
    required: Option<BTreeSet<FactName>>,
    /// What an answer with another status than 200 means.
    #[serde(default)]
    on_status: BTreeMap<Status, Constants>,
    /// What is known of a request that lacks what `path` or `query` names.
    pub(crate) without_value: Option<Constants>,
}

/// A path and parameters, ready to be sent.
pub(crate) type Filled<'c> = (Vec<String>, Vec<(&'c str, String)>);

impl Config {
    /// The path and the parameters for a request.
    pub(crate) fn filled(&self, request: &Request) -> Result<Filled<'_>, Missing> {
        let path = self.path.iter().map(|segment| segment.fill_segment(request)).collect::<Result<_, _>>()?;
        let query = self.query.iter().map(|(name, value)| Ok((name.as_str(), value.fill(request)?)));
        Ok((path, query.collect::<Result<_, Missing>>()?))
    }

    /// Headers that hold a secret: name, what stands before it, the secret's name.
    pub(crate) fn secrets(&self) -> impl Iterator<Item = (&str, &'static str, &str)> {
        let bearer = self.bearer.iter().map(|name| ("authorization", "Bearer ", name.as_str()));
        bearer.chain(self.secret_headers.iter().map(|(header, name)| (header.0.as_str(), "", name.as_str())))
    }

    pub(crate) fn on_status(&self, status: u16) -> Option<&Constants> {
        self.on_status.get(&Status(status))
    }

    pub(crate) fn requires(&self, fact: &FactName) -> bool {
        self.required.as_ref().is_none_or(|required| required.contains(fact))
    }

    /// What the types do not say.
    pub(crate) fn problems(&self) -> Vec<ConfigProblem> {
        let mut problems = Vec::new();
        let mut problem = |path: &str, message: String| problems.push(ConfigProblem::new(path, message));
        if let Some(index) = self.path.iter().position(Template::is_dots) {
            let message = "is a dot segment, which walks about: write the path without it";
            problem(&format!("path[{index}]"), message.to_owned());
        }
        if self.path.iter().chain(self.query.values()).all(Template::is_constant) {
            let message = "asks the same for every request: name what it is about, such as `{workload}`";
            problem("path", message.to_owned());
        }
        for (key, count) in
            [("path", self.path.len()), ("query", self.query.len()), ("secret_headers", self.secret_headers.len())]
        {
            if count > MAX_PARTS {
                problem(key, format!("has more than {MAX_PARTS} entries"));
            }
        }
        if self.facts.is_empty() {
            problem("facts", "is empty, so nothing is found out: write `score = \"/edr/score\"`".to_owned());
        }
        let constants = [("without_value", self.without_value.iter().map(Constants::len).max())];
        let statuses = self.on_status.values().map(Constants::len).max();
        let counts = constants.into_iter().chain([("facts", Some(self.facts.len())), ("on_status", statuses)]);
        for (key, count) in counts {
            if count.is_some_and(|count| count > MAX_FACTS) {
                problem(key, format!("has more than {MAX_FACTS} facts"));
            }
        }
        for name in self.required.iter().flatten().filter(|name| !self.facts.contains_key(name)) {
            let message = format!("has `{}`, which is not among the facts", name.as_str());
            problem("required", message);
        }
        if self.bearer.is_some() && self.secret_headers.keys().any(|header| header.0 == "authorization") {
            problem("secret_headers", "has `authorization`, which `bearer` is already".to_owned());
        }
        problems
    }
}

/// A header's name, in lower case.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Header(String);

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?.to_ascii_lowercase();
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        if text.is_empty() || text.len() > 64 || !text.bytes().all(plain) || text == "accept" {
            return Err(de::Error::custom("is no header for a secret: write a name such as `x-api-key`"));
        }
        Ok(Self(text))
    }
}

/// A status that says something about the workload. Those that speak of the broker's own credential, of
/// a full or broken server or of another place are failures, whatever a configuration says.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Status(u16);

impl<'de> Deserialize<'de> for Status {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        match text.parse() {
            Ok(status @ (204 | 400 | 404 | 409 | 410 | 422 | 451)) => Ok(Self(status)),
            _ => Err(de::Error::custom(
                "is no status that says something about a workload: 204, 400, 404, 409, 410, 422 and 451 do; all \
                 others but 200 are failures",
            )),
        }
    }
}
