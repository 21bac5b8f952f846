//! The names under which the loaded model answers.

use serde_json::Value;

use crate::Refusal;
use crate::definition::MODEL;
use crate::parameter::Fields;

/// Names of the hosted service that programs written for it ask for.
const HOSTED: [&str; 14] = [
    "qwen-vl-max",
    "qwen-vl-max-latest",
    "qwen-vl-max-2025-04-08",
    "qwen-vl-max-0408",
    "qwen-vl-plus",
    "qwen-vl-plus-latest",
    "qwen-vl-plus-2025-05-07",
    "qwen-vl-plus-0507",
    "qwen-vl-plus-2025-01-25",
    "qwen-vl-plus-0125",
    "qwen2.5-vl-3b-instruct",
    "qwen2.5-vl-7b-instruct",
    "qwen2.5-vl-32b-instruct",
    "qwen2.5-vl-72b-instruct",
];

/// The model's own name and its aliases. Case matters, as it does at the hosted service.
#[derive(Clone, Debug)]
pub struct ModelNames {
    names: Vec<String>,
}

impl ModelNames {
    /// One name, nothing else.
    pub fn own(name: impl Into<String>) -> Self {
        Self { names: vec![name.into()] }
    }

    /// Adds the names of the hosted service, so that programs written for it run unchanged.
    pub fn with_hosted_names(self) -> Self {
        HOSTED.iter().fold(self, |names, name| names.with_alias(*name))
    }

    /// Adds one more name.
    pub fn with_alias(mut self, name: impl Into<String>) -> Self {
        let name = name.into();
        if !self.knows(&name) {
            self.names.push(name);
        }
        self
    }

    /// Whether the model answers to this name.
    pub fn knows(&self, name: &str) -> bool {
        self.names.iter().any(|known| known == name)
    }

    /// The name in the `model` of a request, which must be one of these.
    pub(crate) fn requested(&self, fields: &Fields<'_>) -> Result<String, Refusal> {
        let name = match fields.get(MODEL.name) {
            Some(Value::String(name)) if !name.is_empty() => name.clone(),
            None | Some(Value::String(_)) => return Err(Refusal::ModelMissing),
            Some(_) => return Err(Refusal::WrongType { name: MODEL.name.into(), expected: "String" }),
        };
        if self.knows(&name) { Ok(name) } else { Err(Refusal::ModelUnknown { name }) }
    }

    /// All names, the model's own first.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(String::as_str)
    }
}
