//! One request of a run, as a function of the seed and its number.

use serde_json::Value;

use super::document::{Call, Document};
use super::json::Node;
use super::random::Random;
use super::value::{Draw, spoil};
use super::{media, odd};

/// A request, and how it is sent.
#[derive(Clone, Debug)]
pub struct Case {
    /// What was done to it.
    pub kind: &'static str,
    pub(crate) method: String,
    /// Path and query.
    pub(crate) target: String,
    pub(crate) headers: Vec<(String, Vec<u8>)>,
    pub(crate) body: Vec<u8>,
    /// How it is sent.
    pub manner: Manner,
    pub(crate) expected: Expected,
    /// For what is drawn only once there are answers.
    pub(crate) random: Random,
}

/// How a request is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Manner {
    /// With its length.
    Whole,
    /// In chunks of this many bytes.
    Chunked(usize),
    /// The connection is half closed after so many bytes of the body.
    Cut(usize),
    /// The client goes away after so many bytes of the answer.
    Leave(usize),
    /// These bytes, which may be no HTTP at all.
    Bytes(Vec<u8>),
    /// A file is uploaded as the native SDK does it: permission, form, and a request that names the file.
    Upload,
}

/// What a request by itself lets expect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expected {
    Anything,
    /// Every value is as described.
    Answered,
    /// A number is out of its range.
    Refused,
}

/// What the cases of a run have in common.
#[derive(Debug)]
pub(crate) struct Ground<'a> {
    pub(crate) document: &'a Document,
    pub(crate) models: &'a [String],
    pub(crate) key: &'a str,
}

impl Case {
    pub(crate) fn new(ground: &Ground<'_>, seed: u64, number: u64) -> Self {
        let random = Random::new(seed, number);
        let mut draw = Draw { document: ground.document, models: ground.models, random };
        let kind = draw.random.below(100);
        let mut case = match kind {
            0..9 => bound(&mut draw),
            9..19 => body("good", &mut draw, |_, _| {}),
            19..22 => upload(&mut draw),
            22..34 => elsewhere(&mut draw),
            34..38 => broken(&mut draw),
            38..62 => body("nearly good", &mut draw, near),
            62..78 => body("hostile", &mut draw, |body, draw| {
                for _ in 0..2 + draw.random.below(5) {
                    if draw.random.percent(50) { near(body, draw) } else { spoil(body, &mut draw.random) }
                }
            }),
            78..82 => body("any JSON", &mut draw, |body, draw| *body = odd::value(&mut draw.random)),
            _ => {
                let mut case = body("spoiled bytes", &mut draw, |body, _| {
                    // Pictures would take all of the changes.
                    for number in 0..body.count() {
                        if let Node::Raw(text) = body.at(number)
                            && text.len() > 2000
                        {
                            text.replace_range(300..text.len() - 1, "");
                        }
                    }
                });
                draw.random.spoil(&mut case.body);
                case
            }
        };
        if case.kind != "bound" && !matches!(case.manner, Manner::Bytes(_) | Manner::Upload) {
            manners(&mut case, &mut draw.random);
        }
        key(&mut case, ground.key, &mut draw.random);
        case.random = draw.random;
        case
    }

    /// A plain request that should be answered; without a body it is a GET.
    pub fn good(target: &str, key: &str, body: Option<&Value>) -> Self {
        let mut headers = vec![("Authorization".to_owned(), format!("Bearer {key}").into_bytes())];
        if body.is_some() {
            headers.push(("Content-Type".into(), b"application/json".to_vec()));
        }
        Self {
            kind: "plain",
            method: if body.is_some() { "POST" } else { "GET" }.into(),
            target: target.into(),
            headers,
            body: body.map(|body| body.to_string().into_bytes()).unwrap_or_default(),
            manner: Manner::Whole,
            expected: Expected::Answered,
            random: Random::new(0, 0),
        }
    }

    /// The bytes on the wire, for [`Manner::Whole`] with a length and for [`Manner::Chunked`] in chunks.
    pub fn bytes(&self) -> Vec<u8> {
        if let Manner::Bytes(bytes) = &self.manner {
            return bytes.clone();
        }
        let mut bytes = format!("{} {} HTTP/1.1\r\n", self.method, self.target).into_bytes();
        let mut header = |name: &str, value: &[u8]| {
            bytes.extend([name.as_bytes(), b": ", value, b"\r\n"].concat());
        };
        header("Host", b"localhost");
        for (name, value) in &self.headers {
            header(name, value);
        }
        match self.manner {
            Manner::Chunked(size) => {
                header("Transfer-Encoding", b"chunked");
                bytes.extend(b"\r\n");
                for chunk in self.body.chunks(size.max(1)) {
                    bytes.extend(format!("{:x}\r\n", chunk.len()).as_bytes());
                    bytes.extend(chunk);
                    bytes.extend(b"\r\n");
                }
                bytes.extend(b"0\r\n\r\n");
            }
            _ => {
                if !self.body.is_empty() || self.method == "POST" {
                    header("Content-Length", self.body.len().to_string().as_bytes());
                }
                bytes.extend(b"\r\n");
                let sent = match self.manner {
                    Manner::Cut(at) => at.min(self.body.len()),
                    _ => self.body.len(),
                };
                bytes.extend(&self.body[..sent]);
            }
        }
        bytes
    }

    /// Without the query, and without the host that an absolute target names.
    pub(crate) fn path(&self) -> &str {
        let path = self.target.split(['?', '#']).next().unwrap_or_default();
        path.strip_prefix("http://localhost").unwrap_or(path)
    }

    /// Whether HTTP itself is broken, so that any refusal will do.
    pub(crate) fn is_lenient(&self) -> bool {
        matches!(self.manner, Manner::Bytes(_) | Manner::Cut(_))
    }

    fn to(call: &Call, kind: &'static str) -> Self {
        Self {
            kind,
            method: call.method.clone(),
            target: call.path.clone(),
            headers: Vec::new(),
            body: Vec::new(),
            manner: Manner::Whole,
            expected: Expected::Anything,
            random: Random::new(0, 0),
        }
    }
}

/// A call with a JSON body, if there are any.
fn call_with_body<'a>(draw: &mut Draw<'a>) -> (&'a Call, &'a Value) {
    let document = draw.document;
    let json = |call: &'a Call| {
        let (kind, schema) = call.body.as_ref()?;
        (kind == "application/json").then_some((call, document.resolve(schema)))
    };
    let calls: Vec<_> = document.calls.iter().filter_map(json).collect();
    calls[draw.random.below(calls.len())]
}

/// A request that is good but for what `change` does to it.
fn body(kind: &'static str, draw: &mut Draw<'_>, change: impl FnOnce(&mut Node, &mut Draw<'_>)) -> Case {
    let (call, schema) = call_with_body(draw);
    let mut case = Case::to(call, kind);
    let mut body = draw.good("", schema);
    // Several requests in one are slow, and no more dangerous than one.
    if draw.random.percent(80) {
        for parameters in ["", "parameters", "input"] {
            let place = if parameters.is_empty() { Some(&mut body) } else { body.get_mut(parameters) };
            if let Some(Node::Object(entries)) = place {
                entries.retain(|(key, _)| key != "n");
            }
        }
    }
    change(&mut body, draw);
    case.body = body.write().into_bytes();
    case.headers.push(("Content-Type".into(), b"application/json".to_vec()));
    for (name, values) in &call.headers {
        if draw.random.percent(40) && !values.is_empty() {
            let value = values[draw.random.below(values.len())].clone();
            case.headers.push((name.clone(), value.into_bytes()));
        }
    }
    case
}

/// Puts an odd value under a key that a schema has; the schema of another call now and then, so that keys of one dialect
/// come to the other.
fn near(body: &mut Node, draw: &mut Draw<'_>) {
    let (_, schema) = call_with_body(draw);
    near_in(body, schema, draw);
}

fn near_in(place: &mut Node, schema: &Value, draw: &mut Draw<'_>) {
    let properties: Vec<(&String, &Value)> = schema["properties"].as_object().into_iter().flatten().collect();
    if properties.is_empty() {
        return spoil(place, &mut draw.random);
    }
    let (name, inner) = properties[draw.random.below(properties.len())];
    let document = draw.document;
    let inner = document.resolve(inner);
    if inner["properties"].is_object() && draw.random.percent(70) {
        if place.get_mut(name).is_none() {
            place.set(name, Node::Object(Vec::new()));
        }
        return match place.get_mut(name) {
            Some(next) => near_in(next, inner, draw),
            None => spoil(place, &mut draw.random),
        };
    }
    let value = draw.odd(name, inner);
    if draw.random.percent(90) { place.set(name, value) } else { place.push(name, value) }
}

/// A small good request with one number at an end of its range, or beyond it.
fn bound(draw: &mut Draw<'_>) -> Case {
    let (call, schema) = call_with_body(draw);
    let mut case = Case::to(call, "bound");
    let mut body = draw.object(schema, 0);
    let user = Node::object([("role", Node::text("user")), ("content", Node::text("Hi"))]);
    let messages = Node::List(vec![user]);
    let model = Node::text(&draw.models[0]);
    case.expected = Expected::Answered;
    body.set("model", model);
    let parameters = &draw.document.resolve(&schema["properties"]["parameters"])["properties"];
    let properties = match parameters.as_object() {
        Some(properties) => {
            body.set("input", Node::object([("messages", messages)]));
            body.set("parameters", Node::Object(Vec::new()));
            properties
        }
        None => match schema["properties"].as_object() {
            Some(properties) if properties.contains_key("messages") => {
                body.set("messages", messages);
                properties
            }
            // A choice of schemas: the smallest good request will do.
            _ => {
                body.set("messages", messages);
                case.body = body.write().into_bytes();
                return case;
            }
        },
    };
    let limited = |schema: &&Value| {
        ["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"]
            .iter()
            .any(|end| schema[end].is_number())
    };
    let limited: Vec<(&String, &Value)> = properties.iter().filter(|(_, schema)| limited(schema)).collect();
    let (name, schema) = limited[draw.random.below(limited.len())];
    let ends: Vec<(f64, f64, bool)> = [
        ("minimum", -1.0, true),
        ("maximum", 1.0, true),
        ("exclusiveMinimum", -1.0, false),
        ("exclusiveMaximum", 1.0, false),
    ]
    .into_iter()
    .filter_map(|(end, outward, inclusive)| Some((schema[end].as_f64()?, outward, inclusive)))
    .collect();
    let (end, outward, inclusive) = ends[draw.random.below(ends.len())];
    let beyond = draw.random.percent(50);
    let number = if beyond { end + outward } else { end };
    case.expected = if beyond || !inclusive { Expected::Refused } else { Expected::Answered };
    let text = number.to_string();
    let value = if draw.random.percent(40) { Node::text(&text) } else { Node::raw(text) };
    match body.get_mut("parameters") {
        Some(parameters) => parameters.set(name, value),
        None => body.set(name, value),
    }
    case.body = body.write().into_bytes();
    case
}

fn upload(draw: &mut Draw<'_>) -> Case {
    let form = draw.document.calls.iter().find(|call| {
        call.method == "POST" && call.body.as_ref().is_some_and(|(kind, _)| kind.starts_with("multipart/"))
    });
    let Some(form) = form else { return body("good", draw, |_, _| {}) };
    Case { manner: Manner::Upload, ..Case::to(form, "upload") }
}

/// Another path or method, with or without a body.
fn elsewhere(draw: &mut Draw<'_>) -> Case {
    let calls = &draw.document.calls;
    let mut case = Case::to(&calls[draw.random.below(calls.len())], "elsewhere");
    let name = match draw.random.below(4) {
        0 => draw.models[draw.random.below(draw.models.len())].clone(),
        1 => "%ff%00".into(),
        2 => "..%2f..%2fetc/passwd".into(),
        _ => "a%20b/%F0%9F%90%9F?x".into(),
    };
    case.target = case.target.replace("{name}", &name);
    let random = &mut draw.random;
    if random.percent(50) {
        let methods = [
            "GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND", "get", "QUERY",
            "X",
        ];
        case.method = random.pick(&methods).to_owned();
    }
    if random.percent(60) {
        let path = case.target.clone();
        case.target = match random.below(14) {
            0 => format!("{path}/"),
            1 => format!("/{path}"),
            2 => path.to_uppercase(),
            3 => path.replacen('/', "//", 2),
            4 => format!("{path}/../../../../etc/passwd"),
            5 => format!("{path}%2f.."),
            6 => path.replace('/', "%2F").replacen("%2F", "/", 1),
            7 => format!("/..{path}"),
            8 => format!("{path}?{}", "a=b&".repeat(random.below(500))),
            9 => format!("{path}?action=getPolicy&model=%zz&action=&&==%00"),
            10 => format!("{path}?action=getPolicy&model={}", draw.models[0]),
            11 => format!("/{}", "x/".repeat(random.below(3000))),
            12 => {
                ["/", "/v1", "/api", "/api/v1/", "/compatible-mode", "/favicon.ico", "/.env", "/v1/models/"]
                    [random.below(8)]
                .to_owned()
            }
            _ => format!("http://localhost{path}"),
        };
    }
    if random.percent(30) {
        case.body = b"{\"model\":null}".to_vec();
    }
    case
}

/// Bytes that break HTTP in one way or another.
fn broken(draw: &mut Draw<'_>) -> Case {
    let good = body("broken HTTP", draw, |_, _| {});
    let random = &mut draw.random;
    let head = format!("POST {} HTTP/1.1\r\nHost: localhost\r\n", good.target);
    let text = String::from_utf8_lossy(&good.body).into_owned();
    let length = good.body.len();
    let bytes = match random.below(16) {
        0 => format!("{head}Transfer-Encoding: chunked\r\n\r\nzz\r\n{text}\r\n0\r\n\r\n"),
        1 => format!("{head}Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{text}", length + 7),
        2 => format!("{head}Transfer-Encoding: chunked\r\n\r\nffffffffffffffffffff\r\n{text}\r\n0\r\n\r\n"),
        3 => {
            format!("{head}Transfer-Encoding: chunked\r\n\r\n{length:x};a=\"\r\n{text}\r\n0\r\nX: y\r\n\r\n")
        }
        4 => format!("{head}Content-Length: {length}\r\nContent-Length: 3\r\n\r\n{text}"),
        5 => format!("{head}Content-Length: {length}\r\nTransfer-Encoding: chunked\r\n\r\n{text}"),
        6 => format!("{head}Content-Length: -1\r\n\r\n{text}"),
        7 => format!("{head}Content-Length: 99999999999999999999\r\n\r\n{text}"),
        8 => format!("{head}Content-Length: 70000000\r\n\r\n{text}"),
        9 => format!("{head}X-Long: {}\r\n\r\n", "x".repeat(500_000)),
        10 => format!("{head}{}\r\n", "X-Many: 1\r\n".repeat(101 + random.below(300))),
        11 => format!("POST {} HTTP/3.0\r\n\r\n", good.target),
        12 => format!("GET /{} HTTP/1.1\r\nHost: localhost\r\n\r\n", "x".repeat(70_000)),
        13 => "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".into(),
        14 => "\u{16}\u{3}\u{1}\u{2}\u{0}\u{1}\u{0}".into(),
        _ => format!("{head}Transfer-Encoding: gzip, chunked\r\nContent-Encoding: gzip\r\n\r\n{text}"),
    };
    let mut bytes = bytes.into_bytes();
    if random.percent(30) {
        random.spoil(&mut bytes);
    }
    Case { manner: Manner::Bytes(bytes), ..good }
}

/// Headers and ways of sending that should make no difference, or no great one.
fn manners(case: &mut Case, random: &mut Random) {
    let value = |random: &mut Random| match random.below(4) {
        0 => b"\xff\xfe\x80".to_vec(),
        1 => b"a, b;c=\"".to_vec(),
        2 => vec![b'x'; random.below(5000)],
        _ => b"*/*".to_vec(),
    };
    if random.percent(15) {
        case.headers.retain(|(name, _)| name != "Content-Type");
        let kinds =
            ["text/plain", "multipart/form-data", "application/json; charset=utf-16", "", "application/xml"];
        if random.percent(70) {
            case.headers.push(("Content-Type".into(), random.pick(&kinds).as_bytes().to_vec()));
        }
    }
    if random.percent(15) {
        let names = [
            "Accept",
            "Accept-Encoding",
            "Content-Encoding",
            "Origin",
            "X-Request-Id",
            "X-DashScope-SSE",
            "X-DashScope-Async",
            "X-DashScope-OssResourceResolve",
            "X-DashScope-WorkSpace",
            "Range",
            "If-None-Match",
            "X-Forwarded-For",
            "Cookie",
            "Upgrade",
        ];
        let name = random.pick(&names).to_owned();
        let value = if random.percent(40) { b"enable".to_vec() } else { value(random) };
        case.headers.push((name, value));
    }
    if random.percent(5) && !case.body.is_empty() {
        case.headers.push(("Expect".into(), b"100-continue".to_vec()));
    }
    case.manner = match random.below(100) {
        0..10 if !case.body.is_empty() => Manner::Chunked(1 + random.below(case.body.len() * 2)),
        10..13 if !case.body.is_empty() => Manner::Cut(random.below(case.body.len())),
        13..17 => Manner::Leave(random.below(600)),
        _ => Manner::Whole,
    };
}

/// Almost every request has the right key.
fn key(case: &mut Case, key: &str, random: &mut Random) {
    let value = match random.below(100) {
        _ if case.kind == "bound" || case.manner == Manner::Upload => format!("Bearer {key}").into_bytes(),
        0 => return,
        1 => b"Bearer ".to_vec(),
        2 => random.pick(&["Bearer sk-wrong", "Basic eDp5", "bearer", "Bearer  "]).as_bytes().to_vec(),
        3 => b"Bearer \xff".to_vec(),
        4..10 => format!("bEaReR {key}").into_bytes(),
        _ => format!("Bearer {key}").into_bytes(),
    };
    case.headers.push(("Authorization".into(), value));
}

/// The form of an upload with a server's permission, and the key under which the file would lie.
pub(crate) fn form(permission: &Value, random: &mut Random) -> (String, Vec<u8>, String) {
    let field = |name: &str| permission["data"][name].as_str().unwrap_or_default().to_owned();
    let name =
        random.pick(&["a.png", "b c.png", "ü.png", "../x.png", "", "a/b.png", "x\u{7f}.png"]).to_owned();
    let place = format!("{}/{name}", field("upload_dir"));
    let mut fields = vec![
        ("OSSAccessKeyId", field("oss_access_key_id")),
        ("Signature", field("signature")),
        ("policy", field("policy")),
        ("key", place.clone()),
        ("x-oss-object-acl", "private".into()),
        ("success_action_status", "200".into()),
    ];
    if random.percent(40) {
        let at = random.below(fields.len());
        match random.below(5) {
            0 => drop(fields.remove(at)),
            1 => {
                let mut text = std::mem::take(&mut fields[at].1).into_bytes();
                random.spoil(&mut text);
                fields[at].1 = String::from_utf8_lossy(&text).into_owned();
            }
            2 => fields[at].1 = "x".repeat(random.below(40_000)),
            3 => fields.extend((0..random.below(40)).map(|_| ("x", String::new()))),
            _ => fields.swap(at, 0),
        }
    }
    let boundary = random.pick(&["b0undary", "----WebKitFormBoundary7", "'()+_,-./:=?"]);
    let mut body = Vec::new();
    for (name, value) in &fields {
        let part =
            format!("--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n");
        body.extend(part.as_bytes());
    }
    let part = format!(
        "--{boundary}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.png\"\r\nContent-Type: \
         image/png\r\n\r\n"
    );
    body.extend(part.as_bytes());
    body.extend(media::file(random));
    body.extend(format!("\r\n--{boundary}--\r\n").as_bytes());
    if random.percent(25) {
        random.spoil(&mut body);
    }
    let kind = match random.below(20) {
        0 => "multipart/form-data".into(),
        1 => format!("multipart/form-data; boundary={}", "b".repeat(300)),
        2 => "text/plain".into(),
        _ => format!("multipart/form-data; boundary=\"{boundary}\""),
    };
    (kind, body, place)
}
