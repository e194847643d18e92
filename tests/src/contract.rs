//! What every reply of the API keeps to: the problem document, and the broker's own description
//! of itself (`GET /openapi.json`).

use anyhow::Result;
use serde_json::{Map, Value};

use crate::http::{Client, Reply, reply};

impl Reply {
    /// A refusal as the contract has it: that status and code, and nothing of the broker's insides.
    ///
    /// # Panics
    /// When it is not.
    pub fn assert_problem(&self, status: u16, code: &str) {
        assert_eq!((self.status, self.code()), (status, code), "{}", self.text);
        assert_eq!(self.headers["content-type"], "application/problem+json", "{}", self.text);
        assert_eq!(self.json["type"], format!("urn:jit-broker:problem:{code}"), "{}", self.text);
        assert_eq!(self.json["status"], status, "{}", self.text);
        for field in ["title", "detail"] {
            assert!(!self.text_at(&format!("/{field}")).is_empty(), "{field} is empty in {}", self.text);
        }
        assert_eq!(self.headers["x-request-id"], self.text_at("/request_id"), "{}", self.text);
        assert_eq!(self.headers.contains_key("retry-after"), matches!(status, 429 | 503), "{}", self.text);
        assert_eq!(self.headers.contains_key("www-authenticate"), status == 401, "{}", self.text);
    }
}

/// The broker's own description, against which replies are held.
pub struct Description(Value);

impl Description {
    /// Reads it from a running broker.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn of(client: &Client) -> Result<Self> {
        Ok(Self(reply(client.raw().get(format!("{}/openapi.json", client.broker))).await?.json))
    }

    /// Holds a reply against the operation that gave it: the status is declared, and the body is
    /// what is declared for it: every required field, no other field than those, of their types.
    ///
    /// # Panics
    /// When it is not.
    pub fn hold(&self, method: &str, path: &str, reply: &Reply) {
        let at = format!("{method} {path} → {}", reply.status);
        let declared = &self.0["paths"][path][method]["responses"][reply.status.to_string()];
        assert!(declared.is_object(), "{at} is not declared");
        let sent = reply.headers.get("content-type").map(|kind| kind.to_str().unwrap_or(""));
        let kind = sent.unwrap_or("").split(';').next().unwrap_or("");
        let schema = &declared["content"][kind]["schema"];
        assert!(schema.is_object(), "{at} is not declared as {kind:?}");
        if kind.ends_with("json")
            && let Err(difference) = self.fits(schema, &reply.json)
        {
            panic!("{at}: {difference} in {}", reply.text);
        }
    }

    fn resolve<'a>(&'a self, schema: &'a Value) -> &'a Value {
        match schema["$ref"].as_str() {
            Some(reference) => self.0.pointer(reference.trim_start_matches('#')).unwrap_or(&Value::Null),
            None => schema,
        }
    }

    /// An object's declared fields and which of them are required, gathered over `allOf`.
    fn fields<'a>(&'a self, schema: &'a Value, fields: &mut Map<String, Value>, required: &mut Vec<&'a str>) {
        let schema = self.resolve(schema);
        for part in schema["allOf"].as_array().into_iter().flatten() {
            self.fields(part, fields, required);
        }
        for (name, field) in schema["properties"].as_object().into_iter().flatten() {
            fields.insert(name.clone(), field.clone());
        }
        required.extend(schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str));
    }

    fn fits(&self, schema: &Value, value: &Value) -> Result<(), String> {
        let schema = self.resolve(schema);
        if let Some(alternatives) = schema["oneOf"].as_array() {
            let tried: Vec<_> = alternatives.iter().map(|one| self.fits(one, value)).collect();
            return if tried.iter().any(Result::is_ok) { Ok(()) } else { Err(format!("{tried:?}")) };
        }
        let types: Vec<&str> = match &schema["type"] {
            Value::String(one) => vec![one],
            Value::Array(several) => several.iter().filter_map(Value::as_str).collect(),
            _ if schema["allOf"].is_array() => vec!["object"],
            _ => return Err(format!("no type is declared: {schema}")),
        };
        let is = match value {
            Value::Null => "null",
            Value::Bool(_) => "boolean",
            Value::Number(number) if number.is_f64() => "number",
            Value::Number(_) => "integer",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        };
        if !types.contains(&is) {
            return Err(format!("{value} is {is}, not {types:?}"));
        }
        match value {
            Value::Array(items) => items.iter().try_for_each(|item| self.fits(&schema["items"], item)),
            Value::Object(object) if schema["additionalProperties"].is_object() => {
                object.values().try_for_each(|field| self.fits(&schema["additionalProperties"], field))
            }
            Value::Object(object) => {
                let (mut fields, mut required) = (Map::new(), Vec::new());
                self.fields(schema, &mut fields, &mut required);
                if let Some(missing) = required.iter().find(|name| !object.contains_key(**name)) {
                    return Err(format!("{missing} is missing"));
                }
                object.iter().try_for_each(|(name, field)| match fields.get(name) {
                    Some(declared) => self.fits(declared, field).map_err(|error| format!("{name}: {error}")),
                    None => Err(format!("{name} is not declared")),
                })
            }
            _ => Ok(()),
        }
    }
}
