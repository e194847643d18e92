//! JSON as a person reads it: fields in the order in which they were sent, and a line broken only
//! where it would be too long.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

/// A value whose objects keep their order, which `serde_json::Value` does not.
enum Ordered {
    Plain(Value),
    List(Vec<Ordered>),
    Object(Vec<(String, Ordered)>),
}

/// Lays a text of JSON out for lines of at most `width` characters where that can be; anything else
/// comes back as it is.
pub(crate) fn pretty(text: &str, width: usize) -> String {
    match serde_json::from_str::<Ordered>(text) {
        Ok(value @ Ordered::Object(_)) => broken(&value, 0, width),
        _ => text.to_owned(),
    }
}

/// One part on each line.
fn broken(value: &Ordered, indent: usize, width: usize) -> String {
    let inner = indent + 2;
    let part = |name: Option<&String>, value: &Ordered| {
        let name = name.map_or_else(String::new, |name| format!("{}: ", Value::from(name.as_str())));
        let line = format!("{name}{value}");
        let fits = inner + line.chars().count() < width;
        let text = if fits { line } else { format!("{name}{}", broken(value, inner, width)) };
        format!("{:inner$}{text}", "")
    };
    let (open, parts, close): (_, Vec<String>, _) = match value {
        Ordered::Plain(value) => return value.to_string(),
        Ordered::List(items) => ('[', items.iter().map(|item| part(None, item)).collect(), ']'),
        Ordered::Object(fields) => ('{', fields.iter().map(|(name, value)| part(Some(name), value)).collect(), '}'),
    };
    format!("{open}\n{}\n{:indent$}{close}", parts.join(",\n"), "")
}

/// All of it on one line, with room between the parts.
impl fmt::Display for Ordered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain(value) => write!(f, "{value}"),
            Self::List(items) => {
                let items: Vec<String> = items.iter().map(ToString::to_string).collect();
                write!(f, "[{}]", items.join(", "))
            }
            Self::Object(fields) => {
                let field = |(name, value): &(String, Self)| format!("{}: {value}", Value::from(name.as_str()));
                let fields: Vec<String> = fields.iter().map(field).collect();
                write!(f, "{{{}}}", fields.join(", "))
            }
        }
    }
}

impl<'de> Deserialize<'de> for Ordered {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Ordered;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Ordered, E> {
        Ok(Ordered::Plain(Value::Null))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Ordered, E> {
        Ok(Ordered::Plain(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Ordered, E> {
        Ok(Ordered::Plain(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Ordered, E> {
        Ok(Ordered::Plain(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Ordered, E> {
        Ok(Ordered::Plain(value.into()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Ordered, E> {
        Ok(Ordered::Plain(value.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Ordered, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element()? {
            items.push(item);
        }
        Ok(Ordered::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Ordered, A::Error> {
        let mut fields = Vec::new();
        while let Some(field) = map.next_entry()? {
            fields.push(field);
        }
        Ok(Ordered::Object(fields))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_keep_their_order_and_short_parts_their_line() {
        let text = r#"{"b":{"d":1.5,"c":null},"a":[true,"x"]}"#;
        assert_eq!(pretty(text, 80), "{\n  \"b\": {\"d\": 1.5, \"c\": null},\n  \"a\": [true, \"x\"]\n}");
    }

    #[test]
    fn long_parts_are_broken() {
        let text = r#"{"a":[{"name":"first"},{"name":"second"}]}"#;
        let broken = "{\n  \"a\": [\n    {\"name\": \"first\"},\n    {\"name\": \"second\"}\n  ]\n}";
        assert_eq!(pretty(text, 30), broken);
        assert_eq!(pretty("no json", 30), "no json");
    }
}
