//! What kinds of parameters a request has: how each is read, and how it is described.
//!
//! A definition is a constant of one of these types. The reader of a request and `/openapi.json` both work from it, so
//! that neither can say what the other does not.

use std::fmt;
use std::ops::{Bound, RangeBounds};

use serde_json::{Map, Number as JsonNumber, Value, json};

use crate::Refusal;

/// What every kind can say of itself.
pub(crate) trait Described {
    /// The key in a request.
    fn name(&self) -> &'static str;

    /// The JSON Schema of its values.
    fn schema(&self) -> Value;
}

/// The properties of an object, by their definitions.
pub(crate) fn properties(definitions: &[&dyn Described]) -> Map<String, Value> {
    definitions.iter().map(|definition| (definition.name().to_owned(), definition.schema())).collect()
}

/// A switch, also as text: `true`, `"true"`, `"True"`.
#[derive(Debug)]
pub(crate) struct Boolean {
    pub(crate) name: &'static str,
    /// A sentence for the document.
    pub(crate) about: &'static str,
    /// What holds where a request says nothing.
    pub(crate) default: bool,
}

/// A number within a range, also as text.
#[derive(Debug)]
pub(crate) struct Ranged<T> {
    pub(crate) name: &'static str,
    /// A sentence for the document.
    pub(crate) about: &'static str,
    pub(crate) range: Range<T>,
    /// How the refusal of what lies outside begins; the range follows.
    pub(crate) complaint: &'static str,
    /// What holds where a request says nothing, if that is the same for every model.
    pub(crate) default: Option<T>,
}

/// Any finite number.
pub(crate) type Number = Ranged<f64>;

/// A whole number; `3.0` and `"3"` are whole.
pub(crate) type Integer = Ranged<i128>;

/// A value with a reader of its own, which finds it by this name.
#[derive(Debug)]
pub(crate) struct Shaped {
    pub(crate) name: &'static str,
    /// The JSON Schema, with its description.
    pub(crate) schema: fn() -> Value,
}

/// From the first bound to the second.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Range<T>(pub(crate) Bound<T>, pub(crate) Bound<T>);

/// `[0, 2)`, or in words where there is no end. A precision holds for both ends.
impl<T: fmt::Display> fmt::Display for Range<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(least, most) = self;
        match (least, most) {
            (Bound::Included(_), Bound::Unbounded) => f.write_str("greater than or equal to ")?,
            (Bound::Excluded(_), Bound::Unbounded) => f.write_str("greater than ")?,
            (Bound::Included(_), _) => f.write_str("[")?,
            _ => f.write_str("(")?,
        }
        if let Bound::Included(least) | Bound::Excluded(least) = least {
            least.fmt(f)?;
        }
        if let Bound::Included(most) | Bound::Excluded(most) = most {
            f.write_str(", ")?;
            most.fmt(f)?;
        }
        match most {
            Bound::Included(_) => f.write_str("]"),
            Bound::Excluded(_) => f.write_str(")"),
            Bound::Unbounded => Ok(()),
        }
    }
}

/// The numbers that [`Ranged`] reads.
pub(crate) trait Numeric: Copy + PartialOrd + fmt::Display {
    /// As messages name it.
    const NAME: &'static str;
    /// As JSON Schema names it.
    const JSON_NAME: &'static str;

    fn parse(value: &Value) -> Option<Self>;

    /// Nothing for a number that readers of JSON may round, which would move a bound.
    fn to_json(self) -> Option<JsonNumber>;
}

impl Numeric for f64 {
    const NAME: &'static str = "Float";
    const JSON_NAME: &'static str = "number";

    fn parse(value: &Value) -> Option<Self> {
        match value {
            Value::Number(number) => number.as_f64(),
            // Rust also reads "inf" and "nan", which are no JSON numbers.
            Value::String(text) => text.trim().parse::<f64>().ok().filter(|number| number.is_finite()),
            _ => None,
        }
    }

    fn to_json(self) -> Option<JsonNumber> {
        JsonNumber::from_f64(self)
    }
}

impl Numeric for i128 {
    const NAME: &'static str = "Integer";
    const JSON_NAME: &'static str = "integer";

    fn parse(value: &Value) -> Option<Self> {
        // Every f64 that is a whole number becomes one here; those beyond i128 saturate, far outside of any range.
        let whole = |number: f64| (number.is_finite() && number.fract() == 0.0).then_some(number as i128);
        match value {
            Value::Number(number) => number
                .as_i64()
                .map(i128::from)
                .or_else(|| number.as_u64().map(i128::from))
                .or_else(|| number.as_f64().and_then(whole)),
            Value::String(text) => {
                let text = text.trim();
                text.parse::<i128>().ok().or_else(|| text.parse::<f64>().ok().and_then(whole))
            }
            _ => None,
        }
    }

    fn to_json(self) -> Option<JsonNumber> {
        let exact = 1 << f64::MANTISSA_DIGITS;
        i64::try_from(self).ok().filter(|_| (-exact..=exact).contains(&self)).map(JsonNumber::from)
    }
}

impl Boolean {
    /// The switch as a request has it.
    pub(crate) fn read(&self, value: &Value) -> Result<bool, Refusal> {
        match value {
            Value::Bool(value) => Ok(*value),
            Value::String(text) if text.trim().eq_ignore_ascii_case("true") => Ok(true),
            Value::String(text) if text.trim().eq_ignore_ascii_case("false") => Ok(false),
            _ => Err(Refusal::WrongType { name: self.name.into(), expected: "Boolean" }),
        }
    }
}

impl<T: Numeric> Ranged<T> {
    /// The number under `key`, which is the name unless the request chooses its keys, or `complaint` when it lies
    /// outside of the range.
    pub(crate) fn read(
        &self,
        key: &str,
        value: &Value,
        complaint: impl FnOnce() -> String,
    ) -> Result<T, Refusal> {
        let number =
            T::parse(value).ok_or_else(|| Refusal::WrongType { name: key.into(), expected: T::NAME })?;
        let Range(least, most) = self.range;
        if (least, most).contains(&number) {
            Ok(number)
        } else {
            Err(Refusal::BadValue { message: complaint() })
        }
    }

    /// What is said of a number outside of the range; the hosted service shows one decimal of each float.
    pub(crate) fn complaint(&self) -> String {
        format!("{} {:.1}", self.complaint, self.range)
    }
}

impl Described for Boolean {
    fn name(&self) -> &'static str {
        self.name
    }

    fn schema(&self) -> Value {
        json!({"type": ["boolean", "string", "null"], "description": self.about, "default": self.default})
    }
}

impl<T: Numeric> Described for Ranged<T> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn schema(&self) -> Value {
        let mut schema = json!({"type": [T::JSON_NAME, "string", "null"], "description": self.about});
        let Range(least, most) = self.range;
        for (bound, included, excluded) in
            [(least, "minimum", "exclusiveMinimum"), (most, "maximum", "exclusiveMaximum")]
        {
            let (keyword, limit) = match bound {
                Bound::Included(limit) => (included, limit),
                Bound::Excluded(limit) => (excluded, limit),
                Bound::Unbounded => continue,
            };
            if let Some(limit) = limit.to_json() {
                schema[keyword] = limit.into();
            }
        }
        if let Some(default) = self.default.and_then(T::to_json) {
            schema["default"] = default.into();
        }
        schema
    }
}

impl Described for Shaped {
    fn name(&self) -> &'static str {
        self.name
    }

    fn schema(&self) -> Value {
        (self.schema)()
    }
}
