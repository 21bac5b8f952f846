//! Numbers out of a JSON configuration file, each within a range, with errors that name file, field, found
//! and expected. Which fields there are is the models' business.

use std::ops::RangeInclusive;

use serde_json::{Map, Value};

/// A field of a configuration file is not what it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}: {field} is {found}, expected {expected}")]
pub struct FieldError {
    /// The file.
    pub file: String,
    /// The path of the field within the file, with dots.
    pub field: String,
    /// What it was, or `missing`.
    pub found: String,
    /// What it should be.
    pub expected: String,
}

/// A JSON object within a configuration file.
#[derive(Clone, Debug)]
pub struct Fields {
    file: String,
    path: String,
    object: Map<String, Value>,
}

impl Fields {
    /// Parses the text of `file`, whose outermost value must be an object.
    ///
    /// # Errors
    /// [`FieldError`] when it is not JSON or not an object.
    pub fn parse(file: &str, text: &str) -> Result<Self, FieldError> {
        let fail = |found: String| FieldError {
            file: file.to_owned(),
            field: "the content".to_owned(),
            found,
            expected: "a JSON object".to_owned(),
        };
        match serde_json::from_str(text) {
            Ok(Value::Object(object)) => Ok(Self { file: file.to_owned(), path: String::new(), object }),
            Ok(other) => Err(fail(shown(&other))),
            Err(error) => Err(fail(format!("not JSON ({error})"))),
        }
    }

    /// The object in field `name`; `None` when the field is missing or null.
    ///
    /// # Errors
    /// [`FieldError`] when it is something else.
    pub fn object(&self, name: &str) -> Result<Option<Self>, FieldError> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Object(object)) => Ok(Some(Self {
                file: self.file.clone(),
                path: format!("{}{name}.", self.path),
                object: object.clone(),
            })),
            Some(_) => Err(self.error(name, "an object")),
        }
    }

    /// A required integer.
    ///
    /// # Errors
    /// [`FieldError`] when it is missing, not an integer, or out of range.
    pub fn integer(&self, name: &str, range: RangeInclusive<usize>) -> Result<usize, FieldError> {
        let expected = || match (range.start(), range.end()) {
            (only, last) if only == last => only.to_string(),
            (first, last) => format!("an integer from {first} to {last}"),
        };
        self.get(name)
            .and_then(Value::as_u64)
            .and_then(|n| usize::try_from(n).ok())
            .filter(|n| range.contains(n))
            .ok_or_else(|| self.error(name, &expected()))
    }

    /// An integer with a default for when the field is missing or null.
    ///
    /// # Errors
    /// [`FieldError`] when it is there but wrong.
    pub fn integer_or(
        &self,
        name: &str,
        default: usize,
        range: RangeInclusive<usize>,
    ) -> Result<usize, FieldError> {
        if self.get(name).is_none() { Ok(default) } else { self.integer(name, range) }
    }

    /// A required finite number.
    ///
    /// # Errors
    /// [`FieldError`] when it is missing, not a number, or out of range.
    pub fn number(&self, name: &str, range: RangeInclusive<f64>) -> Result<f64, FieldError> {
        self.get(name)
            .and_then(Value::as_f64)
            .filter(|n| range.contains(n))
            .ok_or_else(|| self.error(name, &format!("a number from {} to {}", range.start(), range.end())))
    }

    /// A number with a default for when the field is missing or null.
    ///
    /// # Errors
    /// [`FieldError`] when it is there but wrong.
    pub fn number_or(&self, name: &str, default: f64, range: RangeInclusive<f64>) -> Result<f64, FieldError> {
        if self.get(name).is_none() { Ok(default) } else { self.number(name, range) }
    }

    /// A truth value with a default.
    ///
    /// # Errors
    /// [`FieldError`] when it is there but no truth value.
    pub fn boolean_or(&self, name: &str, default: bool) -> Result<bool, FieldError> {
        match self.get(name) {
            None => Ok(default),
            Some(Value::Bool(value)) => Ok(*value),
            Some(_) => Err(self.error(name, "true or false")),
        }
    }

    /// A text; `None` when the field is missing or null.
    ///
    /// # Errors
    /// [`FieldError`] when it is there but no text.
    pub fn text(&self, name: &str) -> Result<Option<&str>, FieldError> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::String(value)) => Ok(Some(value)),
            Some(_) => Err(self.error(name, "a string")),
        }
    }

    /// A list of integers; `None` when the field is missing or null.
    ///
    /// # Errors
    /// [`FieldError`] when it is no list of at most 4096 integers in range.
    pub fn integers(
        &self,
        name: &str,
        range: RangeInclusive<usize>,
    ) -> Result<Option<Vec<usize>>, FieldError> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let expected = || format!("a list of integers from {} to {}", range.start(), range.end());
        let list = value.as_array().filter(|list| list.len() <= 4096);
        list.and_then(|list| {
            list.iter()
                .map(|n| n.as_u64().and_then(|n| usize::try_from(n).ok()).filter(|n| range.contains(n)))
                .collect::<Option<Vec<_>>>()
        })
        .map(Some)
        .ok_or_else(|| self.error(name, &expected()))
    }

    /// Three numbers, such as one for each colour channel; `None` when the field is missing or null.
    ///
    /// # Errors
    /// [`FieldError`] when it is no list of three numbers in range.
    pub fn three_numbers(
        &self,
        name: &str,
        range: RangeInclusive<f64>,
    ) -> Result<Option<[f64; 3]>, FieldError> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let numbers: Option<Vec<f64>> = value
            .as_array()
            .and_then(|list| list.iter().map(|n| n.as_f64().filter(|n| range.contains(n))).collect());
        numbers.and_then(|n| <[f64; 3]>::try_from(n).ok()).map(Some).ok_or_else(|| {
            self.error(name, &format!("three numbers from {} to {}", range.start(), range.end()))
        })
    }

    /// Whether the field is there and not null.
    pub fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// The error that field `name` should be `expected`.
    pub fn error(&self, name: &str, expected: &str) -> FieldError {
        FieldError {
            file: self.file.clone(),
            field: format!("{}{name}", self.path),
            found: self.get(name).map_or_else(|| "missing".to_owned(), shown),
            expected: expected.to_owned(),
        }
    }

    fn get(&self, name: &str) -> Option<&Value> {
        self.object.get(name).filter(|value| !value.is_null())
    }
}

/// A value for an error message: short, whatever the file holds.
fn shown(value: &Value) -> String {
    const LONGEST: usize = 60;
    let text = value.to_string();
    if text.chars().count() <= LONGEST {
        return text;
    }
    text.chars().take(LONGEST).chain("…".chars()).collect()
}
