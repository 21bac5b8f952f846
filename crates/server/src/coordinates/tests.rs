//! Every spelling of a coordinate, what is none, and that a stream is the whole cut into pieces.

use futures_util::{StreamExt, stream};
use ocellus_engine::{FinishReason, Finished, PromptTokens, Timings};
use serde_json::json;

use super::*;

/// Twice as wide, three times as high.
const MEDIA: MediaSize = MediaSize { original: (300, 200), seen: (100, 100), frames: 1, tokens: 9 };

fn rewritten(pieces: &[&str]) -> String {
    let mut rewriter = Rewriter::new(Scale::of(&MEDIA));
    let mut text: String = pieces.iter().map(|piece| rewriter.push(piece)).collect();
    text.push_str(&rewriter.finish());
    text
}

#[track_caller]
fn check(text: &str, expected: &str) {
    assert_eq!(rewritten(&[text]), expected);
    let characters: Vec<String> = text.chars().map(String::from).collect();
    let pieces: Vec<&str> = characters.iter().map(String::as_str).collect();
    assert_eq!(rewritten(&pieces), expected, "character by character");
}

#[track_caller]
fn unchanged(text: &str) {
    check(text, text);
}

#[test]
fn json() {
    check(
        r#"[{"bbox_2d": [1, 2, 3, 4], "label": "dog 5"}]"#,
        r#"[{"bbox_2d": [2, 6, 6, 12], "label": "dog 5"}]"#,
    );
    check("{\"bbox\":[10,20,\n30,40]}", "{\"bbox\":[20,60,\n60,120]}");
    check(r#"{"point_2d" : [ 7 , 8 ], "n": [1, 2]}"#, r#"{"point_2d" : [ 14 , 24 ], "n": [1, 2]}"#);
    check("{'bbox_2d': [1, 2]}", "{'bbox_2d': [2, 6]}");
    check(r#""point": [1, 1]"#, r#""point": [2, 3]"#);
    check(
        r#""bbox_2d": [[1, 1, 2, 2], [3, 3, 4, 4]], "x": [1, 1]"#,
        r#""bbox_2d": [[2, 3, 4, 6], [6, 9, 8, 12]], "x": [1, 1]"#,
    );
    check(r#""bbox_2d": [1.25, 0.5, -3, 0]"#, r#""bbox_2d": [2.50, 1.5, -6, 0]"#);
    check(
        "```json\n[\n\t{\"bbox_2d\": [1, 1, 1, 1]},\n\t{\"bbox_2d\": [2, 2, 2, 2]}\n]\n```",
        "```json\n[\n\t{\"bbox_2d\": [2, 3, 2, 3]},\n\t{\"bbox_2d\": [4, 6, 4, 6]}\n]\n```",
    );
    // Cut off in the middle.
    check(r#"{"bbox_2d": [1, 2, 3"#, r#"{"bbox_2d": [2, 6, 6"#);
    check(r#"{"bbox_2d": ["#, r#"{"bbox_2d": ["#);
}

#[test]
fn xml() {
    check(
        r#"<points x1="1" y1="2" alt="x1=3 y1='4'">5</points>"#,
        r#"<points x1="2" y1="6" alt="x1=3 y1='4'">5</points>"#,
    );
    check(
        r#"<points x1="1" y1="1" x2="2" y2="2" alt="ä" x10='3'/> x1="1""#,
        r#"<points x1="2" y1="3" x2="4" y2="6" alt="ä" x10='6'/> x1="1""#,
    );
    check("<point\nx = \"1.5\" y=\" 2 \">", "<point\nx = \"3.0\" y=\" 6 \">");
    unchanged(r#"<pointsx1="1"> <points max1="1" x_1="1" xy="1"> <dot x1="1">"#);
    unchanged(r#"<points alt="a > b" n="1">"#);
}

#[test]
fn html() {
    check(r#"<p data-bbox="1 2 3 4">5 6</p>"#, r#"<p data-bbox="2 6 6 12">5 6</p>"#);
    check(
        "<div class=\"image\" data-bbox='10,20,30,40'><img data-bbox = \"1 1 1 1\"/>",
        "<div class=\"image\" data-bbox='20,60,60,120'><img data-bbox = \"2 3 2 3\"/>",
    );
    unchanged(r#"<p mydata-bbox="1 2"> data-bbox2="1 2" data-bbox: 1 2"#);
}

#[test]
fn what_is_no_coordinate_stays() {
    for text in [
        "",
        "1 2 3",
        "bbox_2d: [1, 2]",
        "\"my_bbox\": [1, 2]",
        "\"bbox_2d\": 5",
        "\"bbox_2d\": \"[1, 2]\"",
        "[1, 2, 3, 4]",
        "\"bbox_2d\": [1e3, 2..5, --1, +4, 1., .5, 5-]",
        "«\"bbox_2d» [1]",
        "\"bbox_2d\": [null, {\"a\": [1]}]",
        "\"bbox_2d\", [1, 2]",
    ] {
        unchanged(text);
    }
    // Longer than any coordinate.
    unchanged("\"bbox_2d\": [1234567890123456789012345678901234567890]");
    // After something unexpected the next opening counts again.
    check("\"bbox_2d\": [x, 1], \"bbox_2d\": [1, 1]", "\"bbox_2d\": [x, 1], \"bbox_2d\": [2, 3]");
    check("\"bbox_2d\": \"bbox\": [1, 1]", "\"bbox_2d\": \"bbox\": [2, 3]");
}

/// However a text is cut, it becomes the same; and nothing is held back but one number.
#[test]
fn streamed_is_whole() {
    const FRAGMENTS: [&str; 28] = [
        "\"bbox_2d\": [",
        "<points x1=\"",
        "\" y1=\"",
        " data-bbox=\"",
        "\"bbox_2d\"",
        "\"bbox\"",
        "'point_2d'",
        ": ",
        ":",
        "[",
        "]",
        "1",
        "23",
        "4.5",
        ", ",
        ",",
        "<points",
        " ",
        "x1=",
        "y2 = ",
        "\"",
        "'",
        ">",
        " data-bbox=",
        "ä🐕",
        "-",
        "alt=",
        "\n",
    ];
    let mut state = 1u64;
    let mut random = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    let mut changed = 0;
    for _ in 0..10_000 {
        let text: String = (0..random(30)).map(|_| FRAGMENTS[random(FRAGMENTS.len())]).collect();
        let whole = rewritten(&[&text]);
        changed += usize::from(whole != text);
        let mut rewriter = Rewriter::new(Scale::of(&MEDIA));
        let mut streamed = String::new();
        let mut piece = String::new();
        for character in text.chars() {
            piece.push(character);
            if random(3) == 0 {
                streamed.push_str(&rewriter.push(&piece));
                piece.clear();
                assert!(whole.starts_with(&streamed), "{text:?}: {streamed:?} and then {whole:?}");
                assert!(rewriter.number.len() <= LONGEST_NUMBER);
                assert!(rewriter.number.is_empty() || rewriter.axis().is_some());
            }
        }
        streamed.push_str(&rewriter.push(&piece));
        streamed.push_str(&rewriter.finish());
        assert_eq!(streamed, whole, "{text:?}");
    }
    assert!(changed > 200, "{changed} texts prove little");
}

#[test]
fn numbers_are_rounded_once() {
    let media = MediaSize { original: (1365, 2048), seen: (812, 1204), frames: 1, tokens: 1247 };
    let mut rewriter = Rewriter::new(Scale::of(&media));
    // 602 * 2048 / 1204 = 1024; 3 * 1365 / 812 = 5.04; 1204 * 2048 / 1204; 812 * 1365 / 812.
    assert_eq!(rewriter.push("\"bbox_2d\": [602, 3, 1204, 812]"), "\"bbox_2d\": [1024, 5, 2048, 1365]");
}

fn started(media: &[MediaSize]) -> Started {
    Started { prompt: PromptTokens::default(), media: media.to_vec() }
}

#[tokio::test]
async fn what_was_held_back_comes_before_the_end() {
    let text = |text: &str, completion_tokens| {
        Event::Text(TextDelta { text: text.into(), completion_tokens, ..TextDelta::default() })
    };
    let finished = Finished {
        reason: FinishReason::Length,
        prompt: PromptTokens::default(),
        completion_tokens: 2,
        timings: Timings::default(),
    };
    let events = [text("\"bbox\": [1", 1), text("0, 4", 2), Event::Finished(finished)];
    let events: BoxEvents = Box::pin(stream::iter(events));
    let events = Coordinates::Original.apply(events, &started(&[MEDIA])).unwrap();
    let seen: Vec<String> = events
        .map(|event| match event {
            Event::Text(delta) => format!("{} {}", delta.completion_tokens, delta.text),
            Event::Finished(finished) => format!("end {}", finished.completion_tokens),
            other => panic!("{other:?}"),
        })
        .collect()
        .await;
    assert_eq!(seen, ["1 \"bbox\": [", "2 20, ", "2 12", "end 2"]);
}

#[test]
fn several_pictures_need_one_scale() {
    let apply = |coordinates: Coordinates, media: &[MediaSize]| {
        coordinates.apply(Box::pin(stream::empty()), &started(media)).map(drop)
    };
    let same = MediaSize { original: (600, 400), seen: (200, 200), frames: 4, tokens: 9 };
    let other = MediaSize { original: (600, 401), ..same };
    assert_eq!(apply(Coordinates::Original, &[]), Ok(()));
    assert_eq!(apply(Coordinates::Original, &[MEDIA, same]), Ok(()));
    assert_eq!(apply(Coordinates::Seen, &[MEDIA, other]), Ok(()));
    assert!(matches!(apply(Coordinates::Original, &[MEDIA, other]), Err(Refusal::BadValue { .. })));
}

#[test]
fn the_parameter() {
    let read =
        |value: Value| Coordinates::read(&Fields::new(json!({"coordinates": value}).as_object().unwrap()));
    assert_eq!(read(json!(null)), Ok(Coordinates::Seen));
    assert_eq!(read(json!("seen")), Ok(Coordinates::Seen));
    assert_eq!(read(json!("original")), Ok(Coordinates::Original));
    for wrong in [json!("Original"), json!(true), json!(["original"])] {
        assert!(matches!(read(wrong), Err(Refusal::BadValue { .. })));
    }
}
