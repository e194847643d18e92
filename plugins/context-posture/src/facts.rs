//! From an answer to facts: short strings, numbers and booleans at JSON Pointers (RFC 6901).

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Deserializer, de};
use serde_json::Value;

use crate::config::Config;

/// The most facts that the host takes.
pub(crate) const MAX_FACTS: usize = 32;

/// The longest text of a fact, in bytes.
const MAX_TEXT: usize = 256;

/// A fact's name: `score`. Policies see it behind the provider's own (`posture.score`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct FactName(String);

impl FactName {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for FactName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_.-".contains(&byte);
        if text.is_empty() || text.len() > 48 || !text.bytes().all(plain) {
            return Err(de::Error::custom(
                "is no fact's name: write up to 48 lower-case letters, digits, `_`, `.` and `-`",
            ));
        }
        if text == "status" {
            return Err(de::Error::custom("is the host's own fact, which says whether this provider answered"));
        }
        Ok(Self(text))
    }
}

/// A JSON Pointer.
#[derive(Debug)]
pub(crate) struct Pointer(String);

impl<'de> Deserialize<'de> for Pointer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let escapes = text.split('~').skip(1).all(|rest| rest.starts_with(['0', '1']));
        if !text.starts_with('/') || text.len() > 256 || !escapes {
            return Err(de::Error::custom("is no JSON Pointer: write the way to a value such as `/edr/score`"));
        }
        Ok(Self(text))
    }
}

/// What a fact must be. Without a word, any of them will do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    String,
    Number,
    Boolean,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::String => "string",
            Self::Number => "number",
            Self::Boolean => "boolean",
        })
    }
}

/// Where a fact stands: a pointer, or a pointer with what the value must be.
#[derive(Debug)]
pub(crate) struct Source {
    pointer: Pointer,
    kind: Option<Kind>,
}

impl<'de> Deserialize<'de> for Source {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Full {
            pointer: Pointer,
            #[serde(rename = "type")]
            kind: Option<Kind>,
        }
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Source;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a pointer such as \"/edr/score\", or { pointer = \"/edr/score\", type = \"number\" }")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Source, E> {
                let pointer = Pointer::deserialize(de::value::StrDeserializer::new(text))?;
                Ok(Source { pointer, kind: None })
            }

            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Source, A::Error> {
                let full = Full::deserialize(de::value::MapAccessDeserializer::new(map))?;
                Ok(Source { pointer: full.pointer, kind: full.kind })
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// A fact that the configuration itself gives, as the text that policies see.
#[derive(Debug)]
pub(crate) struct Constant(String);

impl<'de> Deserialize<'de> for Constant {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        let (_, text) = text(&value).map_err(|odd| de::Error::custom(format!("is {odd}: {SHAPE}")))?;
        Ok(Self(text))
    }
}

pub(crate) type Constants = BTreeMap<FactName, Constant>;

const SHAPE: &str = "a fact is a short string, a number or a boolean";

/// Facts that the configuration gives.
pub(crate) fn constant<'c>(facts: impl IntoIterator<Item = (&'c FactName, &'c Constant)>) -> Vec<(String, String)> {
    facts.into_iter().map(|(name, Constant(text))| (name.0.clone(), text.clone())).collect()
}

/// Reads the facts out of an answer.
///
/// # Errors
/// Which of them is missing or is no fact; never the answer's own words, which nobody has vouched for.
pub(crate) fn read(config: &Config, body: &str) -> Result<Vec<(String, String)>, String> {
    let answer: Value = serde_json::from_str(body).map_err(|_| "the answer is not JSON".to_owned())?;
    let mut facts = Vec::new();
    for (name, source) in &config.facts {
        let value = answer.pointer(&source.pointer.0).filter(|value| !value.is_null());
        let said = |what: &str| format!("fact {} at {} of the answer {what}", name.0, source.pointer.0);
        let Some(value) = value else {
            if config.requires(name) {
                return Err(said("is not there"));
            }
            continue;
        };
        let (kind, text) = text(value).map_err(|odd| said(&format!("is {odd}: {SHAPE}")))?;
        match source.kind {
            Some(wanted) if wanted != kind => return Err(said(&format!("is a {kind}, and should be a {wanted}"))),
            _ => facts.push((name.0.clone(), text)),
        }
    }
    Ok(facts)
}

/// A value as the text of a fact.
fn text(value: &Value) -> Result<(Kind, String), &'static str> {
    match value {
        Value::String(text) if text.len() > MAX_TEXT => Err("a string of more than 256 bytes"),
        Value::String(text) if text.chars().any(char::is_control) => Err("a string with control characters"),
        Value::String(text) => Ok((Kind::String, text.clone())),
        Value::Number(number) => Ok((Kind::Number, number.to_string())),
        Value::Bool(boolean) => Ok((Kind::Boolean, boolean.to_string())),
        Value::Array(_) => Err("a list"),
        Value::Object(_) => Err("an object"),
        Value::Null => Err("null"),
    }
}
