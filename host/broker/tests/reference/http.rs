//! The page of the HTTP API, from its OpenAPI document.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::made_by;

/// The page: what can be asked, then what the bodies hold.
pub(super) fn page(document: &Value) -> String {
    let mut page = made_by("the API's OpenAPI document");
    page.push_str(
        "# HTTP API\n\n`GET /openapi.json` and `jit-broker openapi` have the same for programs (OpenAPI 3.1). Every \
         request of a workload\nneeds its token: `Authorization: Bearer …`. A refusal is a [problem](problem-codes.md).\n",
    );
    let empty = Map::new();
    for (path, methods) in document["paths"].as_object().unwrap_or(&empty) {
        // The short path is the same operation as the long one, which follows.
        if path == "/issue" {
            continue;
        }
        for (method, operation) in methods.as_object().unwrap_or(&empty) {
            page.push_str(&of_operation(path, &method.to_uppercase(), operation));
        }
    }
    page.push_str("\n## Bodies\n");
    for (name, schema) in document["components"]["schemas"].as_object().unwrap_or(&empty) {
        page.push_str(&of_schema(name, schema));
    }
    page
}

fn of_operation(path: &str, method: &str, operation: &Value) -> String {
    let mut text = format!("\n## `{method} {path}`\n\n{}\n", sentence(&operation["summary"]));
    if path == "/v1/issue" {
        text.push_str("`POST /issue` is the same.\n");
    }
    if operation["description"].is_string() {
        text.push_str(&format!("\n{}\n", sentence(&operation["description"])));
    }
    let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
    if !parameters.is_empty() {
        text.push_str("\n| parameter | in | type | meaning |\n|---|---|---|---|\n");
    }
    for parameter in &parameters {
        let required = if parameter["required"] == true { ", required" } else { "" };
        text.push_str(&format!(
            "| `{}` | {}{required} | {} | {} |\n",
            word(&parameter["name"]),
            word(&parameter["in"]),
            kind(&parameter["schema"]),
            cell(&parameter["description"]),
        ));
    }
    if let Some(schema) = operation.pointer("/requestBody/content/application~1json/schema") {
        text.push_str(&format!("\nBody: {}.\n", kind(schema)));
    }
    text.push_str("\n| status | body | meaning |\n|---|---|---|\n");
    for (status, reply) in operation["responses"].as_object().unwrap_or(&Map::new()) {
        let schema = reply["content"].as_object().and_then(|content| content.values().next());
        let body = schema.map_or_else(String::new, |content| kind(&content["schema"]));
        text.push_str(&format!("| {status} | {body} | {} |\n", meaning(&reply["description"])));
    }
    text
}

/// What a status means: the codes of problems link to their page.
fn meaning(description: &Value) -> String {
    let text = cell(description);
    let codes: BTreeSet<&str> = jit_api::ProblemCode::ALL.iter().map(|code| code.as_str()).collect();
    let linked = |part: &str| match part.split_once(':') {
        None if codes.contains(part) => format!("[`{part}`](problem-codes.md)"),
        Some((code, rest)) if codes.contains(code) => format!("[`{code}`](problem-codes.md):{rest}"),
        _ => part.to_owned(),
    };
    text.split(", ").map(linked).collect::<Vec<_>>().join(", ")
}

fn of_schema(name: &str, schema: &Value) -> String {
    let mut text = format!("\n### {name}\n\n{}\n", sentence(&schema["description"]));
    let mut rows = Vec::new();
    let mut includes = Vec::new();
    let parts = schema["allOf"].as_array().cloned().unwrap_or_else(|| vec![schema.clone()]);
    for part in &parts {
        if part["$ref"].is_string() {
            includes.push(kind(part));
        }
        let required: BTreeSet<&str> =
            part["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        for (field, schema) in part["properties"].as_object().unwrap_or(&Map::new()) {
            let needed = if required.contains(field.as_str()) { "yes" } else { "" };
            rows.push(format!("| `{field}` | {} | {needed} | {} |\n", kind(schema), described(schema)));
        }
    }
    if !includes.is_empty() {
        text.push_str(&format!("\nIt has the fields of {} too.\n", includes.join(", ")));
    }
    if !rows.is_empty() {
        text.push_str("\n| field | type | always there | meaning |\n|---|---|---|---|\n");
        text.push_str(&rows.concat());
    }
    text
}

/// A field's description, which stands beside a reference or within the choice of one.
fn described(schema: &Value) -> String {
    let own = &schema["description"];
    if own.is_string() {
        return cell(own);
    }
    let choices = schema["oneOf"].as_array().into_iter().flatten();
    choices.map(|choice| cell(&choice["description"])).find(|text| !text.is_empty()).unwrap_or_default()
}

/// A schema's type, as a reader says it.
fn kind(schema: &Value) -> String {
    if let Some(reference) = schema["$ref"].as_str() {
        let name = reference.rsplit('/').next().unwrap_or_default();
        return format!("[{name}](#{})", name.to_lowercase());
    }
    if let Some(choices) = schema["oneOf"].as_array() {
        let words: Vec<_> = choices.iter().filter(|choice| choice["type"] != "null").map(kind).collect();
        return words.join(" or ");
    }
    let types: Vec<&str> = match &schema["type"] {
        Value::Array(types) => types.iter().filter_map(Value::as_str).filter(|word| *word != "null").collect(),
        one => one.as_str().into_iter().collect(),
    };
    let mut text = types.join(" or ");
    match types.first() {
        Some(&"array") => text = format!("list of {}", kind(&schema["items"])),
        Some(&"object") if schema["additionalProperties"].is_object() => {
            text = format!("object of {}", kind(&schema["additionalProperties"]));
        }
        Some(&"string") => {
            if let Some(words) = schema["enum"].as_array() {
                let words: Vec<_> = words.iter().map(|value| format!("`{}`", word(value))).collect();
                text = words.join(", ");
            } else if let Some(format) = schema["format"].as_str() {
                text = format!("string ({format})");
            }
        }
        _ => {}
    }
    text
}

fn word(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// A text on one line.
fn sentence(value: &Value) -> String {
    word(value).split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A text as a cell of a table.
fn cell(value: &Value) -> String {
    sentence(value).replace('|', "\\|")
}
