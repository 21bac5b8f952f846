//! Rust source without its comments: as much of a lexer as the rules need.

/// A source file whose comments are gone, once with its strings and once without what is in them. Lines keep their
/// numbers.
pub(crate) struct Code {
    with_strings: String,
    bare: String,
}

impl Code {
    pub(crate) fn new(text: &str) -> Self {
        let mut code = Self { with_strings: String::new(), bare: String::new() };
        let mut rest = text;
        while let Some(c) = rest.chars().next() {
            let (piece, kind) = first_piece(rest, code.bare.chars().next_back());
            let length = piece.max(c.len_utf8());
            let (piece, after) = rest.split_at(length);
            let blank: String = piece.chars().filter(|c| *c == '\n').collect();
            code.with_strings.push_str(if kind == Kind::Comment { &blank } else { piece });
            code.bare.push_str(if kind == Kind::Code { piece } else { &blank });
            rest = after;
        }
        code
    }

    /// Lines with their numbers, strings included.
    pub(crate) fn with_strings(&self) -> impl Iterator<Item = (usize, &str)> {
        (1..).zip(self.with_strings.lines())
    }

    /// Lines with their numbers, strings empty.
    pub(crate) fn bare(&self) -> impl Iterator<Item = (usize, &str)> {
        (1..).zip(self.bare.lines())
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Code,
    Comment,
    /// Of characters, bytes or one character.
    String,
}

/// What the text begins with, and how many bytes it has. `before` is the last character of code: the `r` in `for"` is
/// none of a raw string's.
fn first_piece(text: &str, before: Option<char>) -> (usize, Kind) {
    let in_word = before.is_some_and(|c| c.is_alphanumeric() || c == '_');
    if text.starts_with("//") {
        return (text.find('\n').unwrap_or(text.len()), Kind::Comment);
    }
    if text.starts_with("/*") {
        return (block_comment(text), Kind::Comment);
    }
    if text.starts_with('"') {
        return (quoted(text, '"'), Kind::String);
    }
    let raw = text.strip_prefix('b').unwrap_or(text).strip_prefix('r').filter(|_| !in_word);
    if let Some(raw) = raw {
        let hashes = raw.len() - raw.trim_start_matches('#').len();
        if raw[hashes..].starts_with('"') {
            let end = format!("\"{}", "#".repeat(hashes));
            let start = text.len() - raw.len() + hashes + 1;
            let length = text[start..].find(&end).map_or(text.len(), |at| start + at + end.len());
            return (length, Kind::String);
        }
    }
    if text.starts_with('\'') {
        // A lifetime has no closing quote after its first character.
        let mut characters = text.chars().skip(1);
        let escaped = characters.next() == Some('\\');
        if escaped || characters.next() == Some('\'') {
            return (quoted(text, '\''), Kind::String);
        }
    }
    (0, Kind::Code)
}

/// The length of a text in quotes, from quote to quote.
fn quoted(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if c == quote => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// The length of a block comment, with others in it.
fn block_comment(text: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while let Some(two) = text.as_bytes().get(at..at + 2) {
        match two {
            b"/*" => (depth, at) = (depth + 1, at + 2),
            b"*/" => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    text.len()
}

#[test]
fn comments_go_and_strings_empty() {
    let check = |text: &str, with_strings: &str, bare: &str| {
        let code = Code::new(text);
        assert_eq!((code.with_strings.as_str(), code.bare.as_str()), (with_strings, bare), "{text}");
    };
    check("a // b\nc", "a \nc", "a \nc");
    check("a /* b /* c\n */ d */ e", "a \n e", "a \n e");
    check("a(\"// \\\" b\", c)", "a(\"// \\\" b\", c)", "a(, c)");
    check("r#\"a \" b\"# // c", "r#\"a \" b\"# ", " ");
    check("for\"a\"", "for\"a\"", "for");
    check("br\"\\\" a", "br\"\\\" a", " a");
    check("'\"' a '\\'' 'b: 'c'", "'\"' a '\\'' 'b: 'c'", " a  'b: ");
    check("f::<'a>(\"ä\")", "f::<'a>(\"ä\")", "f::<'a>()");
    check("\"a\nb\" c", "\"a\nb\" c", "\n c");
    check("\"never closed", "\"never closed", "");
    check("/* never closed", "", "");
}
