//! Many cases at a time against one server, and what came of them.

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::case::{self, Case, Expected, Ground, Manner};
use super::document::Document;
use super::exchange::{Answer, Connection, Fault};
use super::judge::judge;

/// A server, what it says of itself, and the seed of a run.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// Where it listens.
    pub address: SocketAddr,
    /// What it may answer.
    pub document: &'a Document,
    /// Names that it answers to.
    pub models: &'a [String],
    /// The key that it accepts.
    pub key: &'a str,
    /// Which requests are drawn.
    pub seed: u64,
}

/// What came of some cases.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// Requests sent, those that are parts of one case included.
    pub requests: u64,
    /// Answers by method and described path, and by the hundreds of their status; the first is for none.
    pub answers: BTreeMap<String, [u64; 6]>,
    /// Of kinds of cases: how many, and how many of them were answered with 2xx.
    pub kinds: BTreeMap<&'static str, (u64, u64)>,
    /// The first of each sort, in the order of their numbers; all are counted in `violation_count`.
    pub violations: Vec<Violation>,
    /// How many there were.
    pub violation_count: u64,
    /// The longest that a case took, and its number.
    pub slowest: (Duration, u64),
}

/// An answer that must not be.
#[derive(Clone, Debug)]
pub struct Violation {
    /// Of the case: with the seed, it can be sent again.
    pub number: u64,
    /// What was done to the request.
    pub kind: &'static str,
    /// What is wrong.
    pub what: String,
    /// How the request begins.
    pub request: String,
}

/// More are of no use to a reader.
const MOST_SHOWN: usize = 20;

/// Sends the cases of these numbers, `workers` at a time.
pub fn storm(target: &Target<'_>, numbers: Range<u64>, workers: usize) -> Figures {
    let next = AtomicU64::new(numbers.start);
    let all = Mutex::new(Figures::default());
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                let (mut connection, mut mine) = (None, Figures::default());
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= numbers.end || mine.violation_count > 1000 {
                        break;
                    }
                    try_case(target, &mut connection, number, &mut mine);
                }
                all.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).add(mine);
            });
        }
    });
    all.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Sends one case, over a connection that is there or a new one, and judges what comes back.
pub fn try_case(
    target: &Target<'_>,
    connection: &mut Option<Connection>,
    number: u64,
    figures: &mut Figures,
) -> Option<Answer> {
    let mut case = target.case(number);
    let since = Instant::now();
    let mut sender = Sender { target, connection, number, figures };
    let answer = if case.manner == Manner::Upload { sender.upload(&mut case) } else { sender.send(&case) };
    figures.slowest = figures.slowest.max((since.elapsed(), number));
    answer
}

impl Target<'_> {
    /// The case of this number.
    pub fn case(&self, number: u64) -> Case {
        let ground = Ground { document: self.document, models: self.models, key: self.key };
        Case::new(&ground, self.seed, number)
    }
}

struct Sender<'a> {
    target: &'a Target<'a>,
    connection: &'a mut Option<Connection>,
    number: u64,
    figures: &'a mut Figures,
}

impl Sender<'_> {
    fn send(&mut self, case: &Case) -> Option<Answer> {
        self.figures.requests += 1;
        let sent = self.exchange(case);
        let path = match self.target.document.find(&case.method, case.path()) {
            _ if matches!(case.manner, Manner::Bytes(_)) => "broken HTTP".into(),
            Ok(Some(call)) => format!("{} {}", call.method, call.path),
            Ok(None) => "unknown path".into(),
            Err(_) => "wrong method".into(),
        };
        let (answer, fault) = match sent {
            Ok(answer) => {
                let fault = answer.as_ref();
                let fault =
                    fault.and_then(|answer| judge(self.target.document, case, self.target.key, answer));
                (answer, fault)
            }
            Err(fault) => (None, Some(fault.to_string())),
        };
        let status = answer.as_ref().map_or(0, |answer| usize::from(answer.status / 100).min(5));
        self.figures.answers.entry(path).or_default()[status] += 1;
        let kind = self.figures.kinds.entry(case.kind).or_default();
        kind.0 += 1;
        kind.1 += u64::from(status == 2);
        if let Some(what) = fault {
            self.figures.violation_count += 1;
            let request = String::from_utf8_lossy(&case.bytes()).chars().take(1500).collect();
            let violation = Violation { number: self.number, kind: case.kind, what, request };
            self.figures.add(Figures { violations: vec![violation], ..Figures::default() });
        }
        answer
    }

    /// Sends over a connection that carried requests before, if there is one; the server may close it whenever nothing
    /// is on its way.
    fn exchange(&mut self, case: &Case) -> Result<Option<Answer>, Fault> {
        loop {
            let mut connection = match self.connection.take() {
                Some(connection) => connection,
                None => Connection::open(self.target.address)?,
            };
            let may_be_stale = connection.is_used();
            let answer = connection.send(case);
            if may_be_stale && matches!(answer, Err(Fault::Closed)) {
                continue;
            }
            let goes_on = matches!(&answer, Ok(Some(answer)) if !answer.is_last())
                && matches!(case.manner, Manner::Whole | Manner::Chunked(_) | Manner::Upload);
            if goes_on {
                *self.connection = Some(connection);
            }
            return answer;
        }
    }

    /// Permission, form, and a request that names the file.
    fn upload(&mut self, case: &mut Case) -> Option<Answer> {
        let key = format!("Bearer {}", self.target.key).into_bytes();
        let with_key =
            |headers: &mut Vec<(String, Vec<u8>)>| headers.push(("Authorization".into(), key.clone()));
        let mut asked = Case {
            method: "GET".into(),
            target: format!("{}?action=getPolicy&model={}", case.target, self.target.models[0]),
            headers: Vec::new(),
            manner: Manner::Whole,
            expected: Expected::Answered,
            ..case.clone()
        };
        with_key(&mut asked.headers);
        let permission = self.send(&asked)?;
        let permission: Value = serde_json::from_slice(&permission.body).unwrap_or_default();
        let (kind, body, place) = case::form(&permission, &mut case.random);
        case.headers = vec![("Content-Type".into(), kind.into_bytes())];
        case.body = body;
        let uploaded = self.send(case)?;
        if uploaded.status != 200 {
            return Some(uploaded);
        }
        let content = json!([{"image": format!("oss://{place}")}, {"text": "What is it?"}]);
        let input = json!({"messages": [{"role": "user", "content": content}]});
        let native =
            self.target.document.calls.iter().find(|call| {
                call.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("X-DashScope-SSE"))
            })?;
        let mut used = Case {
            target: native.path.clone(),
            headers: vec![("X-DashScope-OssResourceResolve".into(), b"enable".to_vec())],
            body: json!({"model": self.target.models[0], "input": input}).to_string().into_bytes(),
            manner: Manner::Whole,
            ..case.clone()
        };
        with_key(&mut used.headers);
        self.send(&used)
    }
}

impl Figures {
    /// Takes in what came of other cases.
    pub fn add(&mut self, other: Self) {
        self.requests += other.requests;
        for (path, counts) in other.answers {
            let mine = self.answers.entry(path).or_default();
            mine.iter_mut().zip(counts).for_each(|(mine, count)| *mine += count);
        }
        for (kind, (all, good)) in other.kinds {
            let mine = self.kinds.entry(kind).or_default();
            *mine = (mine.0 + all, mine.1 + good);
        }
        self.violations.extend(other.violations);
        self.violations.sort_by_key(|violation| violation.number);
        let mut seen = HashSet::new();
        self.violations.retain(|violation| seen.insert(violation.what.clone()));
        self.violations.truncate(MOST_SHOWN);
        self.violation_count += other.violation_count;
        self.slowest = self.slowest.max(other.slowest);
    }
}
