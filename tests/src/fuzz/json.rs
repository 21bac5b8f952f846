//! JSON text that may be wrong: objects may have a key twice, and a leaf is any text at all.

use serde_json::Value;

/// A tree that is written as JSON. Whether it can be read is its maker's business.
#[derive(Clone, Debug)]
pub(crate) enum Node {
    /// Written as it is.
    Raw(String),
    List(Vec<Node>),
    /// Keys are written as JSON texts.
    Object(Vec<(String, Node)>),
}

impl Node {
    /// A JSON text.
    pub(crate) fn text(text: &str) -> Self {
        Self::Raw(Value::from(text).to_string())
    }

    pub(crate) fn raw(text: impl std::fmt::Display) -> Self {
        Self::Raw(text.to_string())
    }

    /// An object of the entries.
    pub(crate) fn object<const N: usize>(entries: [(&str, Node); N]) -> Self {
        Self::Object(entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
    }

    /// Appends an entry, whatever is there already.
    pub(crate) fn push(&mut self, key: &str, value: Node) {
        if let Self::Object(entries) = self {
            entries.push((key.to_owned(), value));
        }
    }

    /// Replaces an entry, or appends it.
    pub(crate) fn set(&mut self, key: &str, value: Node) {
        if let Self::Object(entries) = self {
            entries.retain(|(known, _)| known != key);
            entries.push((key.to_owned(), value));
        }
    }

    pub(crate) fn get_mut(&mut self, key: &str) -> Option<&mut Node> {
        match self {
            Self::Object(entries) => {
                entries.iter_mut().find(|(known, _)| known == key).map(|(_, value)| value)
            }
            _ => None,
        }
    }

    /// How many nodes there are, this one included.
    pub(crate) fn count(&self) -> usize {
        1 + match self {
            Self::Raw(_) => 0,
            Self::List(items) => items.iter().map(Self::count).sum(),
            Self::Object(entries) => entries.iter().map(|(_, value)| value.count()).sum(),
        }
    }

    /// The node of this number, in the order in which they are written; 0 is this one.
    pub(crate) fn at(&mut self, number: usize) -> &mut Node {
        fn find<'a>(node: &'a mut Node, left: &mut usize) -> Option<&'a mut Node> {
            if *left == 0 {
                return Some(node);
            }
            *left -= 1;
            match node {
                Node::Raw(_) => None,
                Node::List(items) => items.iter_mut().find_map(|item| find(item, left)),
                Node::Object(entries) => entries.iter_mut().find_map(|(_, value)| find(value, left)),
            }
        }
        let mut left = number % self.count();
        find(self, &mut left).expect("the number is below the count")
    }

    pub(crate) fn write(&self) -> String {
        let mut text = String::new();
        self.write_to(&mut text);
        text
    }

    fn write_to(&self, text: &mut String) {
        match self {
            Self::Raw(raw) => text.push_str(raw),
            Self::List(items) => {
                text.push('[');
                for (index, item) in items.iter().enumerate() {
                    text.push_str(if index > 0 { "," } else { "" });
                    item.write_to(text);
                }
                text.push(']');
            }
            Self::Object(entries) => {
                text.push('{');
                for (index, (key, value)) in entries.iter().enumerate() {
                    text.push_str(if index > 0 { "," } else { "" });
                    text.push_str(&Value::from(key.as_str()).to_string());
                    text.push(':');
                    value.write_to(text);
                }
                text.push('}');
            }
        }
    }
}

impl From<&Value> for Node {
    fn from(value: &Value) -> Self {
        match value {
            Value::Array(items) => Self::List(items.iter().map(Self::from).collect()),
            Value::Object(entries) => {
                Self::Object(entries.iter().map(|(key, value)| (key.clone(), value.into())).collect())
            }
            leaf => Self::Raw(leaf.to_string()),
        }
    }
}
