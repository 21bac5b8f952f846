//! Requests that are answered side by side get the answers that each would get alone.

#![allow(clippy::unwrap_used)]

use ocellus_engine::{
    Engine, Event, Events, Formats, ImagePart, Message, Options, Part, PixelLimits, Request, Role, Sampling,
    Source, WeightFormat,
};

fn engine(decoder: WeightFormat, parallel: usize) -> Engine {
    engine_with(decoder, parallel, None)
}

fn engine_with(decoder: WeightFormat, parallel: usize, picture_batch: Option<usize>) -> Engine {
    let source = Source::folder(concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/nano"));
    let options = Options {
        formats: Formats { decoder, tower: None },
        parallel,
        // Prompts are cut into pieces beside answers.
        prefill_chunk: 64,
        prefill_chunk_beside_answers: 5,
        picture_batch,
        ..Options::default()
    };
    Engine::load(&source, &options, &|_| {}).unwrap()
}

/// Nothing but a grey picture of `width` x `height`, as a BMP of 24 bits without compression.
fn picture(width: u32, height: u32, grey: u8) -> Part {
    let row = (width as usize * 3).next_multiple_of(4);
    let pixels = vec![grey; row * height as usize];
    let mut file = b"BM".to_vec();
    let size = pixels.len() as u32;
    for field in [54 + size, 0, 54, 40, width, height, 1 | 24 << 16, 0, size] {
        file.extend(field.to_le_bytes());
    }
    file.resize(54, 0);
    file.extend(pixels);
    Part::Image(ImagePart { bytes: file.into(), limits: PixelLimits::HOSTED })
}

/// Requests of every kind: short and long, with pictures and without, greedy and drawn.
fn requests() -> Vec<Request> {
    (0..12u32)
        .map(|i| {
            let mut parts = vec![Part::Text("tell me more of this ".repeat(1 + 7 * i as usize))];
            if i % 3 == 1 {
                parts.insert(0, picture(56 + 28 * i, 140, 20 * i as u8));
            }
            if i % 4 == 1 {
                parts.push(picture(70, 60 + 13 * i, 255 - 20 * i as u8));
            }
            let message = Message { role: Role::User, parts, tool_calls: Vec::new() };
            let sampling = Sampling {
                temperature: if i % 2 == 0 { 0.0 } else { 0.8 },
                seed: Some(u64::from(i)),
                ..Sampling::default()
            };
            Request {
                messages: vec![message],
                sampling,
                max_tokens: Some(8 + 5 * i as usize),
                ..Request::default()
            }
        })
        .collect()
}

/// The text, and how many tokens it has.
fn answer(mut events: Events) -> (String, usize) {
    let mut text = String::new();
    while let Some(event) = events.blocking_next() {
        match event {
            Event::Text(delta) => text.push_str(&delta.text),
            Event::Finished(finished) => return (text, finished.completion_tokens),
            Event::Failed(error) => panic!("{error}"),
            Event::Started(_) => {}
        }
    }
    panic!("no end came after {text:?}");
}

fn check(format: WeightFormat) {
    let alone = engine(format, 1);
    let expected: Vec<_> = requests().into_iter().map(|request| answer(alone.submit(request))).collect();
    // One after another, although they came together; then side by side, pictures one by one or in batches.
    for (parallel, picture_batch) in [(1, None), (5, None), (5, Some(60))] {
        let engine = engine_with(format, parallel, picture_batch);
        let events: Vec<_> = requests().into_iter().map(|request| engine.submit(request)).collect();
        let mut most = 0;
        let found: Vec<_> = events
            .into_iter()
            .map(|events| {
                let answer = answer(events);
                most = most.max(engine.load_now().running);
                answer
            })
            .collect();
        assert_eq!(found, expected, "{format}, {parallel} at once");
        assert!(most <= parallel && (parallel == 1 || most > 1), "{format}: {most} of {parallel} at once");
    }
}

#[test]
fn the_answer_is_the_same_as_alone() {
    // Formats whose sums have one order whatever is computed beside them, so that even drawn tokens are the same.
    for format in [WeightFormat::Bf16, WeightFormat::Int8, WeightFormat::Int4] {
        check(format);
    }
}

#[test]
fn who_leaves_in_the_middle_changes_nothing_for_the_others() {
    let engine = engine(WeightFormat::Bf16, 4);
    let expected: Vec<_> = requests().into_iter().map(|request| answer(engine.submit(request))).collect();
    let mut events: Vec<_> = requests().into_iter().map(|request| Some(engine.submit(request))).collect();
    for (i, (events, expected)) in events.iter_mut().zip(expected).enumerate() {
        let mut events = events.take().unwrap();
        if i % 2 == 0 {
            assert_eq!(answer(events), expected, "request {i}");
        } else {
            // Some before they started, some after their first words.
            let _ = events.blocking_next();
        }
    }
    // What they had is free again.
    let last = answer(engine.submit(requests().remove(0)));
    assert!(last.1 > 0);
    while engine.load_now().used_cache_blocks > 0 {
        std::thread::yield_now();
    }
}
