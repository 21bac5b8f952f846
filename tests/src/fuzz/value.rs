//! Values that a schema describes, and values that it just does not.
//!
//! Where a schema only says "a text" the key tells which texts make sense; the document's own words are used for
//! everything else.

use serde_json::Value;

use super::document::Document;
use super::json::Node;
use super::random::Random;
use super::{media, odd};

/// Draws values for one request.
pub(crate) struct Draw<'a> {
    pub(crate) document: &'a Document,
    pub(crate) models: &'a [String],
    pub(crate) random: Random,
}

impl Draw<'_> {
    /// A value that the server should take.
    pub(crate) fn good(&mut self, key: &str, schema: &Value) -> Node {
        if let Some(known) = self.known(key) {
            return known;
        }
        let schema = self.document.resolve(schema);
        for alternatives in ["anyOf", "oneOf", "enum"] {
            if let Some(choices) = schema[alternatives].as_array().filter(|choices| !choices.is_empty()) {
                let choice = &choices[self.random.below(choices.len())];
                return if alternatives == "enum" { choice.into() } else { self.good(key, choice) };
            }
        }
        if let Some(value) = schema.get("const") {
            return value.into();
        }
        let kinds: Vec<&str> = match &schema["type"] {
            Value::String(kind) => vec![kind],
            Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).collect(),
            _ => return odd::text(&mut self.random),
        };
        let numeric = kinds.iter().any(|kind| matches!(*kind, "number" | "integer"));
        match self.random.pick(&kinds) {
            "null" => Node::raw("null"),
            "boolean" => Node::raw(self.random.percent(50)),
            "number" | "integer" => Node::raw(self.within(schema)),
            "string" if numeric => Node::text(&self.within(schema)),
            "string" if kinds.contains(&"boolean") => Node::text(self.random.pick(&["true", "False"])),
            "string" => Node::text("a text"),
            "array" => {
                let items = (0..1 + self.random.below(3)).map(|_| self.good("", &schema["items"]));
                Node::List(items.collect())
            }
            _ => self.object(schema, 10),
        }
    }

    /// An object with everything that is required, and so many percent of the rest.
    pub(crate) fn object(&mut self, schema: &Value, percent: usize) -> Node {
        let required = schema["required"].as_array().cloned().unwrap_or_default();
        let mut object = Node::Object(Vec::new());
        for (name, schema) in schema["properties"].as_object().into_iter().flatten() {
            if required.iter().any(|required| required == name) || self.random.percent(percent) {
                let value = self.good(name, schema);
                object.push(name, value);
            }
        }
        object
    }

    /// A value near the border of what is described, or far beyond it.
    pub(crate) fn odd(&mut self, key: &str, schema: &Value) -> Node {
        let schema = self.document.resolve(schema);
        let limits = ["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"];
        let limits: Vec<f64> = limits.into_iter().filter_map(|limit| schema[limit].as_f64()).collect();
        if !limits.is_empty() && self.random.percent(60) {
            let limit = limits[self.random.below(limits.len())];
            let step = [0.0, 1.0, -1.0, 1e-9, -1e-9, 0.5][self.random.below(6)];
            let number = (limit + step).to_string();
            return if self.random.percent(30) { Node::text(&number) } else { Node::raw(number) };
        }
        if self.random.percent(30) {
            // A good value of another key, or in one list too many.
            let other = self.random.pick(&KNOWN);
            let value = self.known(other).unwrap_or_else(|| Node::raw("null"));
            return if self.random.percent(30) { Node::List(vec![value]) } else { value };
        }
        if self.random.percent(25) {
            let mut good = self.good(key, schema);
            spoil(&mut good, &mut self.random);
            return good;
        }
        odd::value(&mut self.random)
    }

    /// A number in its range, mostly at its ends.
    fn within(&mut self, schema: &Value) -> String {
        let integer = match &schema["type"] {
            Value::Array(kinds) => kinds.iter().any(|kind| kind == "integer"),
            kind => kind == "integer",
        };
        let inward = if integer { 1.0 } else { 0.125 };
        let least =
            schema["minimum"].as_f64().or(schema["exclusiveMinimum"].as_f64().map(|end| end + inward));
        let most = schema["maximum"].as_f64().or(schema["exclusiveMaximum"].as_f64().map(|end| end - inward));
        let number = match (least, most, self.random.below(3)) {
            (None, None, _) => 1.0,
            (Some(end), _, 0) | (Some(end), None, _) | (None, Some(end), _) | (_, Some(end), 1) => end,
            (Some(least), Some(most), _) => (least + most) / 2.0,
        };
        if integer { number.floor().to_string() } else { number.to_string() }
    }

    /// What the schema can't say.
    fn known(&mut self, key: &str) -> Option<Node> {
        let random = &mut self.random;
        Some(match key {
            "model" => {
                let own = random.percent(97);
                let name = &self.models[random.below(self.models.len())];
                Node::text(if own { name } else { "gpt-4" })
            }
            "messages" => return Some(self.messages()),
            "url" | "image" | "image_url" => {
                let url = Node::text(&media::good(random));
                if key == "image_url" && random.percent(50) { Node::object([("url", url)]) } else { url }
            }
            "video" => {
                let frame = Node::text(&media::good(random));
                Node::List(vec![frame; 4 + random.below(3)])
            }
            "stop" => self.stop(),
            "tools" => {
                let tools = (0..1 + random.below(3)).map(|index| self.tool(index));
                Node::List(tools.collect())
            }
            "tool_choice" => Node::raw(random.pick(&[
                "\"none\"",
                "\"auto\"",
                "\"auto\"",
                "\"required\"",
                r#"{"type":"function","function":{"name":"f0"}}"#,
                r#"{"type":"function","function":{"name":"f9"}}"#,
            ])),
            "response_format" => match random.below(4) {
                0 => Node::raw(r#"{"type":"text"}"#),
                1 => Node::raw(r#"{"type":"json_object"}"#),
                _ => {
                    let schema = self.schema(3);
                    let format = Node::object([("name", Node::text("answer")), ("schema", schema)]);
                    Node::object([("type", Node::text("json_schema")), ("json_schema", format)])
                }
            },
            "logit_bias" => {
                let id = [0, 7, 2047, 2050, 2062, 4_000_000_000_u64][random.below(6)].to_string();
                Node::Object(vec![(id, Node::raw(random.pick(&["-100", "100", "0.5", "\"1\""])))])
            }
            _ => return None,
        })
    }

    /// A conversation in the spelling of either dialect.
    fn messages(&mut self) -> Node {
        let message =
            |role: &str, content: Node| Node::object([("role", Node::text(role)), ("content", content)]);
        let mut messages = Vec::new();
        if self.random.percent(15) {
            messages.push(message("system", Node::text("Answer in json.")));
        }
        if self.random.percent(10) {
            let call = r#"[{"id":"call_1","type":"function","function":{"name":"f0","arguments":"{}"}}]"#;
            messages.push(message("user", Node::text("Look.")));
            messages.push(Node::object([("role", Node::text("assistant")), ("tool_calls", Node::raw(call))]));
            messages.push(message("tool", Node::text("A dog.")));
        }
        let content = match self.random.below(10) {
            0..5 => Node::text("What is it?"),
            5 => Node::List(vec![Node::text("What"), Node::object([("text", Node::text("is it?"))])]),
            _ => {
                let mut parts = vec![Node::object([("text", Node::text("What, as json?"))])];
                let (kind, key) = [
                    (None, "image"),
                    (None, "video"),
                    (Some("image_url"), "image_url"),
                    (Some("video"), "video"),
                ][self.random.below(4)];
                let value = self.known(key).unwrap_or_else(|| Node::raw("null"));
                let mut part = Node::object([(key, value)]);
                if let Some(kind) = kind {
                    part.push("type", Node::text(kind));
                }
                parts.push(part);
                Node::List(parts)
            }
        };
        messages.push(message("user", content));
        Node::List(messages)
    }

    fn stop(&mut self) -> Node {
        Node::raw(self.random.pick(&[
            "\"e\"",
            "[\"the\",\" \"]",
            "[]",
            "[2050]",
            "[4294967295]",
            "[[1,2],[3]]",
            "[[]]",
            "[\"\"]",
            "[\"a\",1]",
            "[1,[2]]",
            "\"\\u0000\"",
        ]))
    }

    fn tool(&mut self, index: usize) -> Node {
        let mut function = Node::object([("name", Node::text(&format!("f{index}")))]);
        if self.random.percent(60) {
            function.push("description", Node::text("Looks."));
        }
        if self.random.percent(70) {
            let properties = Node::object([("x", self.schema(2))]);
            function.push("parameters", Node::object([("properties", properties)]));
        }
        Node::object([("type", Node::text("function")), ("function", function)])
    }

    /// A schema for answers; some can't be met.
    fn schema(&mut self, depth: usize) -> Node {
        let inner = depth.saturating_sub(1);
        match self.random.below(if depth == 0 { 6 } else { 12 }) {
            0 => Node::raw(r#"{"type":"boolean"}"#),
            1 => Node::raw(r#"{"enum":["a","b",null,1]}"#),
            2 => {
                let (least, most) = (odd::number(&mut self.random), odd::number(&mut self.random));
                Node::Raw(format!(r#"{{"type":"integer","minimum":{least},"maximum":{most}}}"#))
            }
            3 => Node::raw(
                self.random
                    .pick(&[r#"{"type":"string","pattern":"^[a-c]{1,3}$"}"#, r#"{"pattern":"(?<=a)("}"#]),
            ),
            4 => Node::raw(self.random.pick(&[
                "{}",
                "true",
                "{\"not\":{}}",
                r##"{"$ref":"#"}"##,
                r##"{"$ref":"#/$defs/a","$defs":{"a":{"$ref":"#/$defs/a"}}}"##,
                r#"{"type":"string","minLength":5,"maxLength":2}"#,
                r#"{"type":"string","minLength":100000000}"#,
                r#"{"type":"array","minItems":4294967295}"#,
                r#"{"format":"date-time","type":"string"}"#,
                r#"{"type":["string","null"],"const":7}"#,
            ])),
            5 => odd::value(&mut self.random),
            6 | 7 => Node::object([("type", Node::text("array")), ("items", self.schema(inner))]),
            8 => {
                let choices = vec![self.schema(inner), self.schema(inner)];
                Node::object([("anyOf", Node::List(choices))])
            }
            _ => {
                let properties = Node::object([("a", self.schema(inner)), ("b", self.schema(inner))]);
                let mut object = Node::object([("type", Node::text("object")), ("properties", properties)]);
                object
                    .push("required", Node::raw(self.random.pick(&["[\"a\"]", "[\"a\",\"b\",\"c\"]", "[]"])));
                object.push("additionalProperties", Node::raw(self.random.percent(30)));
                object
            }
        }
    }
}

/// Keys whose good values are known here.
const KNOWN: [&str; 10] = [
    "model",
    "messages",
    "image_url",
    "image",
    "video",
    "stop",
    "tools",
    "tool_choice",
    "response_format",
    "logit_bias",
];

/// Changes one place of a tree.
pub(crate) fn spoil(tree: &mut Node, random: &mut Random) {
    let number = random.below(tree.count());
    let node = tree.at(number);
    let entries = match node {
        Node::Object(entries) if !entries.is_empty() && random.percent(60) => entries,
        Node::List(items) if !items.is_empty() && random.percent(50) => {
            let at = random.below(items.len());
            match random.below(3) {
                0 => drop(items.remove(at)),
                1 => items.push(odd::value(random)),
                _ => {
                    let copies = vec![items[at].clone(); random.below(40)];
                    items.extend(copies);
                }
            }
            return;
        }
        node => {
            let old = std::mem::replace(node, Node::raw("null"));
            *node = match random.below(5) {
                0 => Node::List(vec![old]),
                1 => Node::object([("url", old)]),
                2 => Node::text(&old.write()),
                _ => odd::value(random),
            };
            return;
        }
    };
    let at = random.below(entries.len());
    match random.below(5) {
        0 => drop(entries.remove(at)),
        // A key twice: readers take one of them, which is fine, but must not fall over.
        1 => {
            let key = entries[at].0.clone();
            entries.push((key, odd::value(random)));
        }
        2 => entries[at].0 = random.pick(&["", "type", "text", "\u{0}", "messages", "__proto__"]).to_owned(),
        3 => entries[at].1 = odd::value(random),
        _ => {
            let other = random.below(entries.len());
            let value = entries[other].1.clone();
            entries[at].1 = value;
        }
    }
}
