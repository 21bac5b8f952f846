//! The server's OpenAPI document, read for its calls: what they take and what they may answer.

use std::collections::HashMap;

use anyhow::{Context, Result, bail};
use jsonschema::Validator;
use serde_json::{Value, json};

/// A document of OpenAPI 3.1.
#[derive(Debug)]
pub struct Document {
    pub(crate) schemas: Value,
    pub(crate) calls: Vec<Call>,
    /// Of schemas by their names.
    validators: HashMap<String, Validator>,
}

/// One method of one path.
#[derive(Debug)]
pub(crate) struct Call {
    /// In capitals.
    pub(crate) method: String,
    /// With `{name}` where a name belongs.
    pub(crate) path: String,
    /// The content type of a body and its schema.
    pub(crate) body: Option<(String, Value)>,
    /// Names of headers, and values that they may have.
    pub(crate) headers: Vec<(String, Vec<String>)>,
    pub(crate) needs_key: bool,
    answers: HashMap<u16, Value>,
}

impl Document {
    /// Reads a document.
    ///
    /// # Errors
    /// When it is of another version, describes no calls, or a schema of an answer is none.
    pub fn new(document: &Value) -> Result<Self> {
        if document["openapi"] != "3.1.0" {
            bail!("the document is of OpenAPI {}, expected 3.1.0", document["openapi"]);
        }
        let schemas = document["components"]["schemas"].clone();
        let paths = document["paths"].as_object().context("the document has no paths")?;
        let mut calls = Vec::new();
        for (path, item) in paths {
            for (method, operation) in item.as_object().into_iter().flatten() {
                calls.push(Call::new(method, path, operation));
            }
        }
        let mut validators = HashMap::new();
        for name in schemas.as_object().into_iter().flatten().map(|(name, _)| name) {
            let root =
                json!({"$ref": format!("#/components/schemas/{name}"), "components": {"schemas": schemas}});
            let validator = jsonschema::validator_for(&root).with_context(|| format!("the schema {name}"))?;
            validators.insert(name.clone(), validator);
        }
        Ok(Self { schemas, calls, validators })
    }

    /// What a request with this method and path is. `Err` lists the methods of a known path.
    pub(crate) fn find(&self, method: &str, path: &str) -> Result<Option<&Call>, Vec<&str>> {
        let of_path: Vec<&Call> = self.calls.iter().filter(|call| call.is_at(path)).collect();
        // A HEAD is answered like a GET.
        let method = if method == "HEAD" { "GET" } else { method };
        match of_path.iter().find(|call| call.method == method) {
            Some(call) => Ok(Some(call)),
            None if of_path.is_empty() => Ok(None),
            None => Err(of_path.iter().map(|call| call.method.as_str()).collect()),
        }
    }

    /// Follows a schema's reference.
    pub(crate) fn resolve<'a>(&'a self, schema: &'a Value) -> &'a Value {
        match reference(schema) {
            Some(name) => &self.schemas[name],
            None => schema,
        }
    }

    /// What is wrong with an answer to a call: its status, its content type, or its JSON.
    pub(crate) fn fault(&self, call: &Call, status: u16, kind: &str, body: &[u8]) -> Option<String> {
        let Some(answer) = call.answers.get(&status) else {
            return Some(format!("{status} is not described for {} {}", call.method, call.path));
        };
        let contents = answer["content"].as_object();
        let kind = kind.split(';').next().unwrap_or_default();
        let Some(content) = contents.and_then(|contents| contents.get(kind)) else {
            let empty = contents.is_none() && kind.is_empty() && body.is_empty();
            return (!empty)
                .then(|| format!("{status} of {} {} is described without '{kind}'", call.method, call.path));
        };
        if kind != "application/json" {
            return None;
        }
        let value: Value = match serde_json::from_slice(body) {
            Ok(value) => value,
            Err(error) => return Some(format!("{status}: the body is no JSON: {error}")),
        };
        let validator = self.validators.get(reference(&content["schema"])?)?;
        let error = validator.iter_errors(&value).next()?;
        Some(format!("{status}: the body is not as described: {error} at {}", error.instance_path()))
    }

    /// Whether a value is what a schema of this name describes; false where there is none.
    pub(crate) fn is_a(&self, name: &str, value: &Value) -> bool {
        self.validators.get(name).is_some_and(|validator| validator.is_valid(value))
    }
}

impl Call {
    fn new(method: &str, path: &str, operation: &Value) -> Self {
        let body = operation["requestBody"]["content"].as_object();
        let body = body.and_then(|contents| contents.iter().next());
        let parameters = operation["parameters"].as_array();
        let headers = parameters.into_iter().flatten().filter(|parameter| parameter["in"] == "header");
        let header = |parameter: &Value| {
            let values = parameter["schema"]["enum"].as_array();
            let values = values.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned);
            Some((parameter["name"].as_str()?.to_owned(), values.collect()))
        };
        let answers = operation["responses"].as_object();
        Self {
            method: method.to_uppercase(),
            path: path.to_owned(),
            body: body.map(|(kind, content)| (kind.clone(), content["schema"].clone())),
            headers: headers.filter_map(header).collect(),
            needs_key: operation["security"].as_array().is_none_or(|schemes| !schemes.is_empty()),
            answers: answers
                .into_iter()
                .flatten()
                .filter_map(|(status, answer)| Some((status.parse().ok()?, answer.clone())))
                .collect(),
        }
    }

    /// Whether a path is this one; a name may have slashes but not be empty.
    fn is_at(&self, path: &str) -> bool {
        match self.path.strip_suffix("{name}") {
            Some(start) => path.strip_prefix(start).is_some_and(|name| !name.is_empty()),
            None => self.path == path,
        }
    }
}

fn reference(schema: &Value) -> Option<&str> {
    schema["$ref"].as_str()?.strip_prefix("#/components/schemas/")
}
