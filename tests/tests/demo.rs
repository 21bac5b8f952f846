//! The demo model's meaning, end to end: unseen scenes are asked about through the HTTP router, and the answers are judged
//! by what they say. `scripts/check demo` does the same with a thousand scenes; `scripts/check-demo.py --write` drew
//! these.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::future::join_all;
use http_body_util::BodyExt;
use ocellus_engine::{Engine, Formats, Model, Options, Source, WeightFormat};
use ocellus_kernels::Device;
use ocellus_server::{Settings, State, app};
use ocellus_tests::house::workspace;
use serde_json::{Value, json};
use tower::ServiceExt;

/// What each measure must reach, in percent of what was asked: what the checkpoint of today reaches on a thousand scenes,
/// less what chance does to so few questions. `scripts/demo/scoring.py` has what it is meant to reach.
const FLOORS: [(&str, f64); 6] = [
    ("naming", 85.0),
    ("counting", 70.0),
    ("boxes", 70.0),
    ("reading", 75.0),
    ("motion", 80.0),
    ("event times", 70.0),
];

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_model_knows_its_world() {
    for format in [WeightFormat::Bf16, WeightFormat::Int8, WeightFormat::Int4] {
        let formats = Formats { decoder: format, tower: Some(format) };
        let source = Source::folder(workspace().join("models/demo"));
        let model = Model::load_as(&source, formats, &Device::cpu(), &|_| {}).unwrap();
        let engine = Engine::start(model, &Options::default()).unwrap();
        let server = app(State::new(Arc::new(engine), Settings::new("demo")).unwrap());
        let scores = Scores::of(&server).await;
        let missed: Vec<String> = FLOORS
            .iter()
            .filter(|(measure, floor)| scores.percent(measure) < *floor)
            .map(|(measure, floor)| format!("{measure} {:.0} < {floor}", scores.percent(measure)))
            .collect();
        assert!(missed.is_empty(), "{format}: {missed:?}; all: {:?}", scores.0);
    }
}

/// Right and asked, by what is measured.
#[derive(Debug, Default)]
struct Scores(BTreeMap<&'static str, (usize, usize)>);

impl Scores {
    async fn of(server: &Router) -> Self {
        let text = std::fs::read_to_string(folder().join("questions.json")).unwrap();
        let questions: Vec<Value> = serde_json::from_str(&text).unwrap();
        let answers = join_all(questions.iter().map(|question| ask(server, question))).await;
        let mut scores = Self::default();
        for (question, answer) in questions.iter().zip(answers) {
            scores.judge(question["task"].as_str().unwrap(), question["answer"].as_str().unwrap(), &answer);
        }
        scores
    }

    fn percent(&self, measure: &str) -> f64 {
        let (right, asked) = self.0.get(measure).copied().unwrap_or_default();
        assert!(asked > 0, "nothing was asked for {measure}");
        100.0 * right as f64 / asked as f64
    }

    fn judge(&mut self, task: &str, truth: &str, answer: &str) {
        let (measure, right, asked) = match task {
            "describe" => {
                let (wanted, mut found) = (names(truth), names(answer));
                let asked = wanted.len().max(found.len());
                let right = wanted.iter().filter(|name| take(&mut found, |other| other == *name).is_some());
                ("naming", right.count(), asked)
            }
            "counting" => ("counting", usize::from(answer == truth), 1),
            "boxes" => {
                let (wanted, mut found) = (boxes(truth), boxes(answer));
                let good = |(name, place): &&(String, [f64; 4])| {
                    take(&mut found, |other| other.0 == *name && overlap(place, &other.1) >= 0.5).is_some()
                };
                let asked = wanted.len();
                let right = wanted.iter().filter(good).count();
                ("boxes", right, asked + found.len().saturating_sub(asked - right))
            }
            "reading" => {
                let (wanted, found): (Vec<_>, Vec<_>) = (truth.lines().collect(), answer.lines().collect());
                let right = wanted.iter().zip(&found).filter(|(a, b)| a == b).count();
                ("reading", right, wanted.len().max(found.len()))
            }
            "motion" => ("motion", usize::from(way(answer).is_some() && way(answer) == way(truth)), 1),
            "events" => {
                let (wanted, mut found) = (events(truth), events(answer));
                let asked = wanted.len().max(found.len());
                let near = |(event, start, end): &&(String, f64, f64)| {
                    let same = |other: &(String, f64, f64)| {
                        other.0 == *event && (other.1 - start).abs() <= 0.5 && (other.2 - end).abs() <= 0.5
                    };
                    take(&mut found, same).is_some()
                };
                ("event times", wanted.iter().filter(near).count(), asked)
            }
            _ => return,
        };
        let entry = self.0.entry(measure).or_default();
        *entry = (entry.0 + right, entry.1 + asked);
    }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("demo")
}

/// The greedy answer, with places in pixels of the picture that was sent.
async fn ask(server: &Router, question: &Value) -> String {
    let file = |name: &Value| {
        let bytes = std::fs::read(folder().join(name.as_str().unwrap())).unwrap();
        format!("data:image/png;base64,{}", STANDARD.encode(bytes))
    };
    let files: Vec<String> = question["files"].as_array().unwrap().iter().map(file).collect();
    let picture = match question.get("fps") {
        Some(fps) => json!({"type": "video", "video": files, "fps": fps}),
        None => json!({"type": "image_url", "image_url": {"url": files[0]}}),
    };
    let content = json!([picture, {"type": "text", "text": question["question"]}]);
    let body = json!({
        "model": "demo", "temperature": 0, "max_tokens": 400, "coordinates": "original",
        "messages": [{"role": "user", "content": content}],
    });
    // A server holds only so many requests at once; who is refused asks again.
    loop {
        let request = Request::post("/v1/chat/completions").body(Body::from(body.to_string())).unwrap();
        let response = server.clone().oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        let answer: Value = serde_json::from_slice(&bytes).unwrap();
        match status {
            429 => tokio::time::sleep(std::time::Duration::from_millis(20)).await,
            200 => return answer["choices"][0]["message"]["content"].as_str().unwrap().to_owned(),
            _ => panic!("{question}: {answer}"),
        }
    }
}

fn take<T>(found: &mut Vec<T>, is: impl Fn(&T) -> bool) -> Option<T> {
    found.iter().position(is).map(|at| found.swap_remove(at))
}

/// The things of a description: `A red cup, a blue car and a star.`
fn names(text: &str) -> Vec<String> {
    let body = text.trim_end_matches('.').to_lowercase().replace(" and ", ", ");
    let bare = |part: &str| part.trim_start_matches("an ").trim_start_matches("a ").to_owned();
    body.split(", ").map(bare).collect()
}

/// Labels and boxes of an answer's JSON, within a fence or not.
fn boxes(text: &str) -> Vec<(String, [f64; 4])> {
    let read = |row: &Value| {
        let corners: Vec<f64> = row["bbox_2d"].as_array()?.iter().filter_map(Value::as_f64).collect();
        Some((row["label"].as_str()?.to_owned(), corners.try_into().ok()?))
    };
    rows(text).iter().filter_map(read).collect()
}

/// What happens, and from when to when in seconds.
fn events(text: &str) -> Vec<(String, f64, f64)> {
    let seconds = |value: &Value| {
        let parts: Vec<f64> = value.as_str()?.split(':').filter_map(|part| part.parse().ok()).collect();
        let [hours, minutes, seconds] = parts.try_into().ok()?;
        Some(hours * 3600.0 + minutes * 60.0 + seconds)
    };
    let read = |row: &Value| {
        Some((row["event"].as_str()?.to_owned(), seconds(&row["start_time"])?, seconds(&row["end_time"])?))
    };
    rows(text).iter().filter_map(read).collect()
}

fn rows(text: &str) -> Vec<Value> {
    let inside = text.find('[').and_then(|start| Some(&text[start..=text.rfind(']')?]));
    inside.and_then(|inside| serde_json::from_str(inside).ok()).unwrap_or_default()
}

fn way(text: &str) -> Option<&'static str> {
    ["to the right", "to the left", "up", "down", "does not move"]
        .into_iter()
        .find(|way| text.contains(&format!("moves {way}")) || (*way == "does not move" && text.contains(way)))
}

/// Intersection over union.
fn overlap(a: &[f64; 4], b: &[f64; 4]) -> f64 {
    let side = |low: usize, high: usize| (a[high].min(b[high]) - a[low].max(b[low])).max(0.0);
    let area = |c: &[f64; 4]| (c[2] - c[0]) * (c[3] - c[1]);
    let both = side(0, 2) * side(1, 3);
    both / (area(a) + area(b) - both).max(f64::MIN_POSITIVE)
}

/// The judge itself: what is right counts, and what is wrong does not.
#[test]
fn judging() {
    let mut scores = Scores::default();
    let mut judge = |task: &str, truth: &str, answer: &str| scores.judge(task, truth, answer);
    judge("describe", "A red cup and an orange car.", "An orange car, a red cup and a star.");
    judge("counting", "There is one cup.", "There is one cup.");
    judge("counting", "There is one cup.", "There are two cups.");
    let truth = r#"[{"bbox_2d": [0, 0, 10, 10], "label": "a"}, {"bbox_2d": [20, 0, 30, 10], "label": "b"}]"#;
    judge(
        "boxes",
        truth,
        "```json\n[{\"bbox_2d\": [0, 0, 10, 14], \"label\": \"a\"}, {\"bbox_2d\": [0, 0, 9, 9], \"label\": \"b\"}]\n```",
    );
    judge("boxes", truth, "[]");
    judge("reading", "a\nb\nc", "a\nc");
    judge("motion", "The red cup moves up.", "The blue cup moves up.");
    judge("motion", "The red cup moves up.", "The red cup does not move.");
    let event = |start: &str, end: &str| {
        format!(
            r#"[{{"start_time": "00:00:{start}", "end_time": "00:00:{end}", "event": "a cup is there"}}]"#
        )
    };
    judge("events", &event("01.00", "02.00"), &event("01.50", "02.00"));
    judge("events", &event("01.00", "02.00"), &event("01.00", "03.00"));
    let expected = [
        ("boxes", (1, 4)),
        ("counting", (1, 2)),
        ("event times", (1, 2)),
        ("motion", (1, 2)),
        ("naming", (2, 3)),
        ("reading", (1, 3)),
    ];
    assert_eq!(scores.0.into_iter().collect::<Vec<_>>(), expected);
}
