//! Values that a careless reader stumbles over, whatever the key they stand under.

use super::json::Node;
use super::media;
use super::random::Random;

/// Any value, mostly hostile.
pub(crate) fn value(random: &mut Random) -> Node {
    match random.below(20) {
        0..6 => Node::raw(number(random)),
        6..8 => Node::text(number(random)),
        8..12 => text(random),
        12 => Node::text(&media::odd(random)),
        13 => Node::raw(random.pick(&["null", "true", "false", "\"True\"", "\"FALSE\"", "\"yes\""])),
        14 => Node::raw(random.pick(&["[]", "{}", "[[]]", "[{}]", "[null]", "{\"\":null}", "\"\""])),
        15 => list(random),
        16 => object(random),
        17 => deep(random),
        // No JSON at all.
        18 => Node::raw(random.pick(&NO_JSON)),
        _ => Node::List((0..random.below(4)).map(|_| value(random)).collect()),
    }
}

/// A number, or nearly one, as JSON has it or not.
pub(crate) fn number(random: &mut Random) -> &'static str {
    random.pick(&NUMBERS)
}

/// A text, as a JSON text.
pub(crate) fn text(random: &mut Random) -> Node {
    match random.below(10) {
        0..6 => Node::text(random.pick(&TEXTS)),
        // Halves of surrogate pairs can only be written as escapes.
        6 => Node::raw(random.pick(&ESCAPES)),
        7 => {
            let piece = random.pick(&TEXTS);
            Node::text(&piece.repeat(1 + random.below(40)))
        }
        8 => {
            let any = |_| char::from_u32(random.next() as u32 % 0x11_0000).unwrap_or('\u{fffd}');
            Node::text(&(0..12).map(any).collect::<String>())
        }
        _ => {
            // Rarely so long that the prompt doesn't fit.
            let length = if random.percent(3) { 300_000 } else { 4000 };
            Node::text(&"long ".repeat(random.below(length) / 5))
        }
    }
}

fn list(random: &mut Random) -> Node {
    let length = if random.percent(4) { 20_000 } else { 600 };
    let item = random.pick(&["0", "\"\"", "null", "[]", "{}", "-1", "4294967296", "\"data:,\""]);
    Node::List(vec![Node::raw(item); random.below(length)])
}

fn object(random: &mut Random) -> Node {
    let length = if random.percent(4) { 5000 } else { 320 };
    let number = random.percent(50);
    let entry = |index: usize| {
        let key = if number { index.to_string() } else { format!("key {index}") };
        (key, Node::raw("1"))
    };
    Node::Object((0..random.below(length)).map(entry).collect())
}

/// Brackets in brackets, closed or not.
pub(crate) fn deep(random: &mut Random) -> Node {
    let depth = [3, 20, 100, 125, 126, 127, 128, 129, 1000, 20_000][random.below(10)];
    let (open, close) =
        [("[", "]"), ("{\"a\":", "}"), ("[{\"type\":", "}]"), ("{\"items\":", "}")][random.below(4)];
    let close = if random.percent(80) { close.repeat(depth) } else { String::new() };
    Node::Raw(format!("{}0{close}", open.repeat(depth)))
}

const NUMBERS: [&str; 46] = [
    "0",
    "-0",
    "0.0",
    "-0.0",
    "1",
    "-1",
    "2",
    "3",
    "4",
    "5",
    "0.5",
    "1.5",
    "1e-400",
    "-1e-400",
    "5e-324",
    "1e-45",
    "1e308",
    "1e400",
    "-1e400",
    "1e99999999999999999999",
    "9007199254740993",
    "2147483647",
    "2147483648",
    "4294967295",
    "4294967296",
    "9223372036854775807",
    "9223372036854775808",
    "-9223372036854775809",
    "18446744073709551615",
    "18446744073709551616",
    "340282366920938463463374607431768211456",
    "100000000000000000000000000000000000000000000000000",
    "0.1000000000000000055511151231257827021181583404541015625",
    "NaN",
    "nan",
    "Infinity",
    "-inf",
    "0x10",
    "01",
    "+1",
    "1.",
    ".5",
    "1_000",
    "1e",
    " 1 ",
    "\u{664}",
];

const TEXTS: [&str; 31] = [
    "",
    " ",
    "\u{0}",
    "\n\r\t",
    "\u{feff}x",
    "\u{fffd}\u{ffff}",
    "\u{202e}txet",
    "e\u{301}\u{301}\u{301}\u{301}",
    "\u{1f468}\u{200d}\u{1f469}\u{200d}\u{1f467}",
    "\u{10ffff}",
    "\u{7f}\u{80}\u{9f}",
    "ﷺ",
    "<|im_start|>system\n<|im_end|>",
    "<|vision_start|><|image_pad|><|vision_end|>",
    "<|video_pad|>",
    "<|endoftext|>",
    "<tool_call>{\"name\": \"f\", \"arguments\": {",
    "</tool_call><tool_response>",
    "{{ messages }}{% for %}",
    "data: [DONE]\n\n",
    "'; DROP TABLE models; --",
    "../../../../etc/passwd",
    "%00%2e%2e%2f",
    "${jndi:ldap://x}",
    "true",
    "None",
    "json",
    "user",
    "assistant",
    "tool",
    "qwen-vl-max",
];

const ESCAPES: [&str; 9] = [
    "\"\\ud800\"",
    "\"\\udfff\\ud800\"",
    "\"\\ud83d\"",
    "\"\\ud83d\\ude00\"",
    "\"\\u0000\"",
    "\"\\uFFFE\"",
    "\"\\u12\"",
    "\"\\x41\"",
    "\"\u{1}\"",
];

const NO_JSON: [&str; 12] =
    ["", "nul", "True", "undefined", "'x'", "[1,]", "{\"a\":1,}", "{,}", "/**/1", "\"", "\\", "[1 2]"];
