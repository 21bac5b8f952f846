//! Ways to compute the same thing that must give the same numbers.
#![allow(clippy::unwrap_used)]

use futures_util::StreamExt;
use ocellus_engine::{
    Engine, Event, FinishReason, ImagePart, Message, Options, Part, PixelLimits, Request, Role, Sampling,
};
use ocellus_tests::{
    house::{Run, nano},
    picture,
};
use ocellus_vision_encoder::{
    Tower,
    patches::{Grid, Patches},
};

/// Products of few rows and of many take different paths through the processor's kernels, which sum in
/// different orders: differences of f32 rounding on logits of about 10.
const LOGITS: f32 = 5e-5;
/// The same for image embeddings of about 1.
const EMBEDDINGS: f32 = 1e-5;

fn assert_close(what: &str, found: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let worst = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst <= tolerance, "{what}: worst difference {worst}, tolerance {tolerance}");
    assert!(found.iter().any(|v| *v != 0.0), "{what}: all zeros prove nothing");
}

/// Pseudo-random ids of the nano vocabulary.
fn ids(n: usize) -> Vec<u32> {
    (0..n as u32).map(|i| i.wrapping_mul(2_654_435_761) % 2048).collect()
}

#[test]
fn prefill_at_once_equals_token_by_token_equals_chunks() {
    let model = nano().unwrap();
    let ids = ids(37);
    let at_once = Run::new(&model.decoder, 37).unwrap().append_text(&ids).unwrap();
    for chunk in [1, 3, 4, 16, 36] {
        let mut run = Run::new(&model.decoder, 37).unwrap();
        let parts: Vec<f32> = ids.chunks(chunk).flat_map(|part| run.append_text(part).unwrap()).collect();
        assert_close(&format!("chunks of {chunk}"), &parts, &at_once, LOGITS);
    }
}

#[test]
fn a_batch_of_two_sequences_equals_each_alone() {
    use ocellus_decoder::{Batch, Sequence};
    let model = nano().unwrap();
    let (a, b) = (ids(19), ids(31)[5..].to_vec());
    let alone: Vec<f32> = [&a, &b]
        .into_iter()
        .flat_map(|ids| Run::new(&model.decoder, 64).unwrap().append_text(ids).unwrap())
        .collect();
    let mut cache = model.decoder.new_cache(16, 4).unwrap();
    let blocks: [Vec<u32>; 2] = [(0..16).step_by(2).collect(), (1..16).step_by(2).collect()];
    let positions: Vec<[u32; 3]> =
        (0..a.len() as u32).chain(0..b.len() as u32).map(|position| [position; 3]).collect();
    let sequence = |ids: &[u32], blocks| Sequence { queries: ids.len(), keys: ids.len(), blocks };
    let rows: Vec<u32> = (0..positions.len() as u32).collect();
    let batch = Batch {
        embeddings: model.decoder.embed(&[a.clone(), b.clone()].concat()).unwrap(),
        positions: &positions,
        sequences: &[sequence(&a, &blocks[0]), sequence(&b, &blocks[1])],
        logits_for: &rows,
    };
    let together = model.decoder.forward(&batch, &mut cache).unwrap().to_f32_vec().unwrap();
    assert_close("two sequences", &together, &alone, LOGITS);
}

/// Made-up patches of a grid.
fn patches(tower: &Tower, grid: Grid, seed: u32) -> Patches {
    let n = grid.patches().unwrap() * tower.config().geometry.patch_values();
    let values = (0..n as u32)
        .map(|i| (i.wrapping_add(seed).wrapping_mul(2_654_435_761) >> 8) as f32 / (1 << 23) as f32 - 1.0)
        .collect();
    Patches { values, grid }
}

#[test]
fn two_pictures_together_equal_each_alone() {
    let tower = nano().unwrap().tower;
    let grids = [
        Grid { t: 1, h: 14, w: 18 },
        Grid { t: 1, h: 2, w: 2 },
        Grid { t: 3, h: 6, w: 8 },
        Grid { t: 1, h: 16, w: 8 },
    ];
    let pictures: Vec<Patches> =
        grids.iter().zip(0..).map(|(&grid, seed)| patches(&tower, grid, seed)).collect();
    let together = tower.forward(&pictures.iter().collect::<Vec<_>>()).unwrap().to_f32_vec().unwrap();
    let alone: Vec<f32> =
        pictures.iter().flat_map(|p| tower.forward(&[p]).unwrap().to_f32_vec().unwrap()).collect();
    assert_close("pictures", &together, &alone, EMBEDDINGS);
}

#[test]
fn a_picture_twice_equals_it_once() {
    let tower = nano().unwrap().tower;
    let picture = patches(&tower, Grid { t: 1, h: 10, w: 6 }, 3);
    let once = tower.forward(&[&picture]).unwrap().to_f32_vec().unwrap();
    let twice = tower.forward(&[&picture, &picture]).unwrap().to_f32_vec().unwrap();
    assert_close("first", &twice[..once.len()], &once, EMBEDDINGS);
    assert_close("second", &twice[once.len()..], &once, EMBEDDINGS);
}

#[test]
fn no_pictures_give_no_embeddings() {
    let tower = nano().unwrap().tower;
    let none = tower.forward(&[]).unwrap();
    assert_eq!(none.shape(), [0, tower.config().out_hidden_size]);
}

fn request(sampling: Sampling, max_tokens: usize) -> Request {
    let image = ImagePart { bytes: picture::bmp(60, 90).into(), limits: PixelLimits::HOSTED };
    Request {
        messages: vec![Message {
            role: Role::User,
            parts: vec![Part::Text("Look:".into()), Part::Image(image), Part::Text("What is it?".into())],
            tool_calls: Vec::new(),
        }],
        sampling,
        max_tokens: Some(max_tokens),
        ..Request::default()
    }
}

async fn answer(engine: &Engine, request: Request) -> (String, FinishReason, usize) {
    let mut events = engine.submit(request);
    let mut text = String::new();
    let first = events.next().await;
    assert!(matches!(first, Some(Event::Started(_))), "{first:?}");
    while let Some(event) = events.next().await {
        match event {
            Event::Text(delta) => text.push_str(&delta.text),
            Event::Finished(finished) => {
                assert!(events.next().await.is_none(), "nothing comes after the end");
                return (text, finished.reason, finished.completion_tokens);
            }
            other => panic!("{other:?}"),
        }
    }
    panic!("the stream ended without an end");
}

fn engine(prefill_chunk: usize) -> Engine {
    Engine::start(nano().unwrap(), &Options { prefill_chunk, ..Options::default() }).unwrap()
}

#[tokio::test]
async fn the_same_seed_gives_the_same_text() {
    let engine = engine(1024);
    let sampling = |seed| Sampling { temperature: 1.0, seed: Some(seed), ..Sampling::default() };
    let first = answer(&engine, request(sampling(7), 24)).await;
    assert_eq!(first, answer(&engine, request(sampling(7), 24)).await);
    assert_ne!(first.0, answer(&engine, request(sampling(8), 24)).await.0);
}

#[tokio::test]
async fn chunked_prefill_gives_the_same_answer() {
    let greedy = || request(Sampling::default(), 24);
    let whole = answer(&engine(1024), greedy()).await;
    for chunk in [1, 5, 16] {
        assert_eq!(whole, answer(&engine(chunk), greedy()).await, "chunks of {chunk}");
    }
}

#[tokio::test]
async fn many_requests_at_once_each_get_the_answer_they_get_alone() {
    let engine = engine(16);
    let sampling = |seed| Sampling { temperature: 1.0, seed: Some(seed), ..Sampling::default() };
    let alone =
        [answer(&engine, request(sampling(1), 9)).await, answer(&engine, request(sampling(2), 17)).await];
    let (a, b) =
        tokio::join!(answer(&engine, request(sampling(1), 9)), answer(&engine, request(sampling(2), 17)));
    assert_eq!([a, b], alone);
}

#[tokio::test]
async fn the_limit_of_tokens_is_kept_and_said() {
    let engine = engine(1024);
    let (_, reason, tokens) = answer(&engine, request(Sampling::default(), 5)).await;
    assert_eq!((reason, tokens), (FinishReason::Length, 5));
    let (text, reason, tokens) = answer(&engine, request(Sampling::default(), 0)).await;
    assert_eq!((text.as_str(), reason, tokens), ("", FinishReason::Length, 0));
}

#[tokio::test]
async fn a_stop_text_ends_the_answer_before_it() {
    let engine = engine(1024);
    let (whole, ..) = answer(&engine, request(Sampling::default(), 24)).await;
    // A stretch from the middle, which straddles tokens for most choices.
    let characters: Vec<char> = whole.chars().collect();
    let middle = characters.len() / 2;
    let stop: String = characters[middle..middle + 5].iter().collect();
    let mut request = request(Sampling::default(), 24);
    request.stop = vec![stop.as_str().into()];
    let (text, reason, _) = answer(&engine, request).await;
    assert_eq!(reason, FinishReason::Stop);
    assert_eq!(text, whole[..whole.find(&stop).unwrap()]);
}

#[tokio::test]
async fn a_receiver_that_goes_away_frees_the_device() {
    let engine = engine(1024);
    for _ in 0..4 {
        let mut events = engine.submit(request(Sampling { temperature: 1.0, ..Sampling::default() }, 30_000));
        assert!(matches!(events.next().await, Some(Event::Started(_))));
        drop(events);
    }
    // Would wait for 120,000 tokens if those went on.
    let (_, reason, _) = answer(&engine, request(Sampling::default(), 2)).await;
    assert_eq!(reason, FinishReason::Length);
}

#[tokio::test]
async fn log_probabilities_are_of_the_tokens_that_made_the_text() {
    let engine = engine(1024);
    let mut request = request(Sampling::default(), 12);
    request.logprobs = Some(3);
    let mut events = engine.submit(request);
    let (mut bytes, mut text, mut n) = (Vec::new(), String::new(), 0);
    while let Some(event) = events.next().await {
        let Event::Text(delta) = event else { continue };
        text.push_str(&delta.text);
        for token in delta.logprobs {
            n += 1;
            bytes.extend(&token.chosen.bytes);
            assert_eq!(token.top.len(), 3);
            assert!(token.top.is_sorted_by(|a, b| a.logprob >= b.logprob), "largest first");
            assert_eq!(token.top[0], token.chosen, "greedy takes the likeliest");
            let total: f32 = token.top.iter().map(|t| t.logprob.exp()).sum();
            assert!(total > 0.0 && total <= 1.0 + 1e-5, "{total}");
        }
    }
    assert_eq!(n, 12);
    assert_eq!(String::from_utf8_lossy(&bytes), text);
}
