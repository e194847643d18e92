//! Typed values of a section. Each says what to write when the value is something else.

use std::collections::BTreeMap;
use std::ops::{Range, RangeInclusive};
use std::path::PathBuf;
use std::time::Duration;

use jit_core::ttl::{Ttl, TtlError};
use toml::Spanned;
use toml::de::DeValue;

use super::reading::join;
use super::secret::SecretRef;
use super::section::{Section, shown};
use jit_core::spelling;

use super::redact;

/// Why a value does not fit.
pub(super) enum Wrong {
    /// It is of another type.
    Kind,
    /// It is of the right type; this is what is wrong with it, to be read after "must be …: ".
    Value(String),
}

/// A value's type, as a sentence has it.
pub(super) fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a decimal number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

impl<'a> Section<'a> {
    /// Reads a value; `expects` completes "`key` must be …".
    pub(super) fn field<T>(
        &self,
        key: &'static str,
        expects: &str,
        parse: impl FnOnce(&DeValue<'_>) -> Result<T, Wrong>,
    ) -> Option<T> {
        let (_, value) = self.entry(key)?;
        self.parse(&format!("`{key}`"), value, expects, parse)
    }

    fn parse<T>(
        &self,
        what: &str,
        value: &Spanned<DeValue<'_>>,
        expects: &str,
        parse: impl FnOnce(&DeValue<'_>) -> Result<T, Wrong>,
    ) -> Option<T> {
        let wrong = match parse(value.get_ref()) {
            Ok(value) => return Some(value),
            Err(Wrong::Kind) => format!("{what} must be {expects}, not {}", kind(value.get_ref())),
            Err(Wrong::Value(detail)) => format!("{what} must be {expects}: {detail}"),
        };
        self.reading.error(value.span(), wrong, None);
        None
    }

    /// A text that `parse` understands; its error completes the message and must not quote a secret.
    pub(super) fn parsed<T, E: std::fmt::Display>(
        &self,
        key: &'static str,
        expects: &str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        self.field(key, expects, |value| {
            let text = value.as_str().ok_or(Wrong::Kind)?;
            parse(text).map_err(|error| Wrong::Value(error.to_string()))
        })
    }

    /// A text that is not empty, without control characters.
    pub(super) fn text(&self, key: &'static str, expects: &str) -> Option<String> {
        self.parsed(key, expects, check_text)
    }

    /// A list of texts.
    pub(super) fn texts(&self, key: &'static str, expects: &str) -> Option<Vec<String>> {
        let (_, value) = self.entry(key)?;
        let Some(items) = value.get_ref().as_array() else {
            let found = kind(value.get_ref());
            self.error(key, format!("`{key}` must be {expects}, not {found}"), Some("lists stand in [ ]".to_owned()));
            return None;
        };
        let each = |item: &Spanned<DeValue<'_>>| {
            self.parse(&format!("each of `{key}`"), item, "a text in quotes", |value| {
                check_text(value.as_str().ok_or(Wrong::Kind)?).map_err(|e| Wrong::Value(e.to_owned()))
            })
        };
        // All are read before one that failed ends it, so that each mistake is told.
        items.iter().map(each).collect::<Vec<_>>().into_iter().collect()
    }

    pub(super) fn flag(&self, key: &'static str) -> Option<bool> {
        self.field(key, "true or false (without quotes)", |value| value.as_bool().ok_or(Wrong::Kind))
    }

    /// A whole number within bounds.
    pub(super) fn count(&self, key: &'static str, bounds: RangeInclusive<u32>) -> Option<u32> {
        let expects = format!("a whole number from {} to {}", bounds.start(), bounds.end());
        self.field(key, &expects, |value| {
            let number = value.as_integer().ok_or(Wrong::Kind)?;
            let number = i64::from_str_radix(number.as_str(), number.radix()).ok();
            number
                .and_then(|number| u32::try_from(number).ok())
                .filter(|number| bounds.contains(number))
                .ok_or_else(|| Wrong::Value("this is outside".to_owned()))
        })
    }

    /// A percentage, whole or decimal.
    pub(super) fn percent(&self, key: &'static str) -> Option<f64> {
        self.field(key, "a number from 0 to 100", |value| {
            let number = match value {
                DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
                    .ok()
                    .and_then(|number| i32::try_from(number).ok())
                    .map(f64::from),
                DeValue::Float(number) => number.as_str().parse().ok(),
                _ => return Err(Wrong::Kind),
            };
            let within = number.filter(|number| (0.0..=100.0).contains(number));
            within.ok_or_else(|| Wrong::Value("this is outside".to_owned()))
        })
    }

    /// A duration in whole seconds.
    pub(super) fn ttl(&self, key: &'static str) -> Option<Ttl> {
        self.field(key, TtlError::RULE, |value| {
            let parsed = match value {
                DeValue::String(text) => text.parse::<Ttl>(),
                DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
                    Ok(seconds) => Ttl::from_seconds(seconds),
                    Err(_) => Err(TtlError::TooLong),
                },
                _ => return Err(Wrong::Kind),
            };
            parsed.map_err(|error| {
                Wrong::Value(match error {
                    TtlError::Syntax => "whole numbers with the units d, h, m, s, the larger unit first".to_owned(),
                    TtlError::NotPositive => "this is not above zero".to_owned(),
                    TtlError::TooLong => "this is longer".to_owned(),
                })
            })
        })
    }

    /// A duration within bounds, both in seconds.
    pub(super) fn wait(&self, key: &'static str, default: u64, bounds: RangeInclusive<u32>) -> Duration {
        let Some(ttl) = self.ttl(key) else {
            return Duration::from_secs(default);
        };
        if !bounds.contains(&ttl.seconds()) {
            let name =
                |seconds: u32| Ttl::from_seconds(i64::from(seconds)).map_or_else(|_| "0s".into(), |t| t.to_string());
            let (least, most) = (name(*bounds.start()), name(*bounds.end()));
            self.error(key, format!("`{key}` must be from {least} to {most}, not {ttl}"), None);
        }
        ttl.duration()
    }

    /// A path; a relative one begins at the configuration's folder.
    pub(super) fn path(&self, key: &'static str) -> Option<PathBuf> {
        let text = self.text(key, "a path in quotes")?;
        Some(self.reading.folder.join(text))
    }

    /// One of a few words.
    pub(super) fn choice<T: Copy>(&self, key: &'static str, choices: &[(&str, T)]) -> Option<T> {
        let words: Vec<_> = choices.iter().map(|(word, _)| format!("\"{word}\"")).collect();
        self.field(key, &format!("one of {}", words.join(", ")), |value| {
            let text = value.as_str().ok_or(Wrong::Kind)?;
            let found = choices.iter().find(|(word, _)| *word == text).map(|(_, choice)| *choice);
            found.ok_or_else(|| {
                Wrong::Value(match spelling::nearest(text, choices.iter().map(|(word, _)| *word)) {
                    Some(near) => format!("did you mean \"{near}\"?"),
                    None => format!("not \"{}\"", shown(text)),
                })
            })
        })
    }

    /// A reference to a secret. A literal is refused and not shown.
    pub(super) fn secret(&self, key: &'static str) -> Option<SecretRef> {
        let (name, value) = self.entry(key)?;
        self.secret_at(key, name.span(), value)
    }

    /// References to secrets by names of the author's choice. Literals are refused and not shown.
    pub(super) fn secrets(&self, key: &'static str) -> Option<BTreeMap<String, SecretRef>> {
        let mut all = BTreeMap::new();
        let mut right = true;
        if let Some((_, value)) = self.entry(key).filter(|(_, value)| !value.get_ref().is_table()) {
            self.reading.mask_all(value);
        }
        for (name, value) in self.all_entries(key) {
            let word = name.get_ref().as_ref();
            self.reading.secret_names.borrow_mut().insert(word.to_owned());
            let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
            if word.is_empty() || word.len() > 64 || !word.chars().all(plain) {
                self.reading.mask_all(value);
                let message = format!("the name `{}` may only have letters, digits, '-' and '_'", shown(word));
                self.reading.error(name.span(), message, None);
                right = false;
                continue;
            }
            match self.secret_at(word, name.span(), value) {
                Some(secret) => drop(all.insert(word.to_owned(), secret)),
                None => right = false,
            }
        }
        let table = self.entry(key).is_none_or(|(_, value)| value.get_ref().is_table());
        (right && table).then_some(all)
    }

    /// A reference to a secret at a place of the caller's.
    pub(super) fn secret_at(
        &self,
        key: &str,
        span: Range<usize>,
        value: &'a Spanned<DeValue<'a>>,
    ) -> Option<SecretRef> {
        let help = || Some(format!("write {key} = {{ file = \"secrets/{key}\" }} or {key} = {{ env = \"NAME\" }}"));
        let Some(table) = value.get_ref().as_table() else {
            self.reading.mask_all(value);
            let message = format!("`{key}` must not stand in the configuration: say where it is, never what it is");
            self.reading.error(value.span(), message, help());
            return None;
        };
        self.below(join(&self.path, key), span, table, |table| {
            let file = table.entry("file").is_some();
            let env = table.entry("env").is_some();
            if file == env {
                let message = format!("`{key}` must have either `file` or `env`");
                self.reading.error(value.span(), message, help());
                return None;
            }
            if file {
                return table.path("file").map(SecretRef::File);
            }
            let name = table.text("env", "the name of an environment variable")?;
            let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
            if name.len() > 128 || !name.chars().all(plain) || name.starts_with(|c: char| c.is_ascii_digit()) {
                // Most likely the secret itself.
                self.reading.mask(table.span_of("env"));
                let message = "`env` must be the name of an environment variable (letters, digits, _), not its value";
                table.error("env", message, None);
                return None;
            }
            Some(SecretRef::Env(name))
        })
    }

    /// A table as JSON, for a plugin; an empty one when it is not there.
    pub(super) fn json_table(&self, key: &'static str) -> Option<serde_json::Value> {
        let mut map = serde_json::Map::new();
        if let Some((_, value)) = self.entry(key)
            && !value.get_ref().is_table()
        {
            let found = kind(value.get_ref());
            self.error(key, format!("`{key}` must be a table such as {{ name = \"value\" }}, not {found}"), None);
            return None;
        }
        for (name, value) in self.all_entries(key) {
            map.insert(name.get_ref().to_string(), self.json(name.get_ref(), value)?);
        }
        Some(serde_json::Value::Object(map))
    }

    /// The whole table as JSON, every key allowed: a file that is a plugin's own table.
    pub(super) fn json_of_all(&self) -> Option<serde_json::Value> {
        let mut map = serde_json::Map::new();
        for (name, value) in self.own_entries() {
            map.insert(name.get_ref().to_string(), self.json(name.get_ref(), value)?);
        }
        Some(serde_json::Value::Object(map))
    }

    /// A value as JSON. The file's depth is bounded by the TOML reader, so this is too.
    pub(super) fn json(&self, key: &str, value: &Spanned<DeValue<'_>>) -> Option<serde_json::Value> {
        use serde_json::Value;
        let unfit = |what: &str| {
            self.reading.error(value.span(), format!("`{}` {what}", shown(key)), None);
        };
        Some(match value.get_ref() {
            DeValue::String(text) => {
                let is_only_a_name = || self.reading.secret_names.borrow().contains(text.as_ref());
                if redact::looks_secret(text) || redact::names_a_secret(key) && !is_only_a_name() {
                    let message = format!("`{}` looks like a secret, and a plugin is not given any", shown(key));
                    let help = "what a plugin is configured with is neither sealed nor hidden: credentials belong to \
                                [connections.NAME], as { file = \"…\" } or { env = \"…\" }";
                    self.reading.warn(value.span(), message, Some(help.to_owned()));
                }
                Value::from(text.as_ref())
            }
            DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
                Ok(number) => Value::from(number),
                Err(_) => {
                    return {
                        unfit("is too large: whole numbers have 64 bits");
                        None
                    };
                }
            },
            DeValue::Float(number) => {
                match number.as_str().parse::<f64>().ok().and_then(serde_json::Number::from_f64) {
                    Some(number) => Value::Number(number),
                    None => {
                        return {
                            unfit("must be a finite number");
                            None
                        };
                    }
                }
            }
            DeValue::Boolean(flag) => Value::Bool(*flag),
            DeValue::Datetime(time) => Value::from(time.to_string()),
            DeValue::Array(items) => items.iter().map(|item| self.json(key, item)).collect::<Option<Vec<_>>>()?.into(),
            DeValue::Table(table) => {
                let mut map = serde_json::Map::new();
                for (name, value) in table {
                    map.insert(name.get_ref().to_string(), self.json(name.get_ref(), value)?);
                }
                Value::Object(map)
            }
        })
    }
}

fn check_text(text: &str) -> Result<String, &'static str> {
    if text.trim().is_empty() {
        return Err("it must not be empty");
    }
    if text.chars().any(char::is_control) {
        return Err("it must not have control characters");
    }
    if text.len() > 4_096 {
        return Err("it must have at most 4096 bytes");
    }
    Ok(text.to_owned())
}
