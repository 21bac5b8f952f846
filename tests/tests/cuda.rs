//! The nano model on an emulated CUDA device: every kernel that a conversation with pictures needs, end to end.

#![cfg(unix)]
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use ocellus_cuda_emulator::{self as emulator, Emulator, ReadBacks, testing};
use ocellus_decoder::{Batch, Sequence};
use ocellus_engine::{
    Constraint, Engine, Event, Events, Formats, ImagePart, MemoryPlan, Message, Model, Options, Part,
    PixelLimits, Place, Request, Role, Sampling, Sizes, Source, WeightFormat,
};
use ocellus_kernels::{Device, Tensor};
use ocellus_tests::{
    golden::{
        Folder,
        formats::Divergence,
        images::{Images, Steps},
        model::{ModelGolden, answer},
    },
    house::workspace,
};
use ocellus_vision_encoder::patches::{Grid, Patches};

fn nano(device: &Device) -> Model {
    nano_as(WeightFormat::Bf16, device)
}

fn nano_as(decoder: WeightFormat, device: &Device) -> Model {
    let source = Source::folder(workspace().join("models/nano"));
    let formats = Formats { decoder, tower: None };
    Model::load_as(&source, formats, device, &|_| {}).unwrap()
}

/// Golden tokens are forced, so that steps stay comparable after a near tie.
#[test]
fn conversations_stay_as_close_to_f32_as_those_of_the_host() {
    const STEPS: usize = 4;
    let golden = ModelGolden::read(&Folder::own(), "nano").unwrap();
    let images = Images::read(&Folder::own()).unwrap();
    let (exact, host) = (golden.open().unwrap(), nano(&Device::cpu()));
    let device = nano(&Emulator::device(testing::seed()));
    let (mut of_host, mut of_device, mut between) =
        (Divergence::default(), Divergence::default(), Divergence::default());
    for case in golden.cases().take(3) {
        let inputs = golden.inputs(case, &exact, images.as_ref(), &Steps::default()).unwrap();
        let forced = &golden.generated(case).unwrap()[..STEPS];
        let answers = [&exact, &host, &device].map(|model| answer(model, &inputs, forced).unwrap());
        let [exact, host, device] = &answers;
        for ((exact, host), device) in exact.logits.iter().zip(&host.logits).zip(&device.logits) {
            of_host.add(exact, host);
            of_device.add(exact, device);
            between.add(host, device);
        }
    }
    assert!(of_device.steps() > 6);
    // Both round weights' inputs to bf16; the device also stores keys, values, queries and what attention gives so.
    assert!(
        of_device.mean_difference() < 2.0 * of_host.mean_difference(),
        "device: {of_device}\nhost: {of_host}\nbetween: {between}"
    );
    assert!(of_device.mean_difference() > 1e-6, "the narrow path was not taken: {of_device}");
}

/// Sequences of different lengths, together and alone, recorded and not.
#[test]
fn recorded_steps_give_the_bits_of_direct_ones() {
    let device = Emulator::device(testing::seed());
    let model = nano(&device);
    let decoder = &model.decoder;
    let lengths = [3usize, 17, 9];
    let blocks: Vec<Vec<u32>> = (0..3u32).map(|i| vec![5 - i, i]).collect();
    let embed = |ids: &[u32]| decoder.embed(ids).unwrap();
    let prefill = |cache: &mut _| {
        for (blocks, &length) in blocks.iter().zip(&lengths) {
            let ids: Vec<u32> = (0..length as u32).map(|i| 7 * i + 1).collect();
            let positions: Vec<[u32; 3]> = (0..length as u32).map(|i| [i; 3]).collect();
            let sequences = [Sequence { queries: length, keys: length, blocks }];
            let batch = Batch {
                embeddings: embed(&ids),
                positions: &positions,
                sequences: &sequences,
                logits_for: &[],
            };
            decoder.forward(&batch, cache).unwrap();
        }
    };
    let step = |step: usize, observed: bool, cache: &mut _| -> Vec<f32> {
        let ids: Vec<u32> = (0..3).map(|i| (11 * step + i + 2) as u32).collect();
        let positions: Vec<[u32; 3]> = lengths.iter().map(|&n| [(n + step) as u32; 3]).collect();
        let sequences: Vec<Sequence<'_>> = blocks
            .iter()
            .zip(&lengths)
            .map(|(blocks, n)| Sequence { queries: 1, keys: n + step + 1, blocks })
            .collect();
        let batch = Batch {
            embeddings: embed(&ids),
            positions: &positions,
            sequences: &sequences,
            logits_for: &[0, 1, 2],
        };
        // Who watches is told of each layer, so nothing is recorded.
        let logits: Tensor = match observed {
            true => decoder.forward_observed(&batch, cache, &mut |_, _| {}).unwrap(),
            false => decoder.forward(&batch, cache).unwrap(),
        };
        logits.to_f32_vec().unwrap()
    };
    let mut direct = decoder.new_cache(6, 16).unwrap();
    let mut recorded = decoder.new_cache(6, 16).unwrap();
    prefill(&mut direct);
    prefill(&mut recorded);
    for i in 0..5 {
        let (expected, found) = (step(i, true, &mut direct), step(i, false, &mut recorded));
        assert!(expected.iter().all(|x| x.is_finite()));
        assert_eq!(expected, found, "step {i}");
    }
}

/// Sequences that run side by side below.
const PARALLEL: usize = 5;

/// The nano model, answering on an emulated device.
fn engine() -> (Engine, Arc<Emulator>) {
    let options = emulator::Options { seed: testing::seed(), ..emulator::Options::default() };
    let emulator = Arc::new(Emulator::new(options));
    let model = nano(&Device::with_driver(emulator.clone()));
    let options = Options { parallel: PARALLEL, context_tokens: Some(1024), ..Options::default() };
    (Engine::start(model, &options).unwrap(), emulator)
}

fn request(text: &str, sampling: Sampling) -> Request {
    let messages = vec![Message::text(Role::User, text)];
    Request { messages, sampling, max_tokens: Some(7), ..Request::default() }
}

/// The text, and how many tokens it has.
fn text(mut events: Events) -> (String, usize) {
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

/// Who asks for log-probabilities has the host choose, with the same random numbers: so every request's answer is known
/// from both ways.
#[test]
fn the_device_chooses_the_tokens_of_the_host() {
    let (engine, emulator) = engine();
    let warm = Sampling { temperature: 0.9, seed: Some(3), ..Sampling::default() };
    let penalized = Sampling {
        repetition_penalty: 1.3,
        presence_penalty: 0.5,
        frequency_penalty: 0.2,
        logit_bias: vec![(40, 2.5), (41, -3.0)],
        ..warm.clone()
    };
    let requests = [
        request("greedy", Sampling::default()),
        request("drawn among few", Sampling { top_k: 40, top_p: 0.9, ..warm.clone() }),
        request("penalized", penalized),
        Request { logprobs: Some(2), ..request("told how likely", Sampling { min_p: 0.02, ..warm.clone() }) },
        Request { constraint: Some(Constraint::JsonObject), ..request("in JSON", warm) },
    ];
    // Each step reads the choices, a token and whether it was drawn for each place, and nothing else.
    let before = emulator.read_backs();
    let (_, tokens) = text(engine.submit(requests[0].clone()));
    let after = emulator.read_backs();
    assert!(tokens > 1);
    assert_eq!(
        after,
        ReadBacks { copies: before.copies + tokens, bytes: before.bytes + tokens * PARALLEL * 8 }
    );
    let together: Vec<_> = requests.iter().map(|request| engine.submit(request.clone())).collect();
    let of_device: Vec<_> = together.into_iter().map(text).collect();
    let chosen = emulator.launches("sampling_best");
    assert!(chosen > tokens && emulator.launches("sampling_draw") > 0);
    let alone = requests.map(|request| Request { logprobs: Some(0), ..request });
    let of_host = alone.map(|request| text(engine.submit(request)));
    assert_eq!(of_device, of_host);
    assert_eq!(emulator.launches("sampling_best"), chosen, "the host had no part");
    // What was drawn was not just the likeliest.
    assert_ne!(of_host[0].0, of_host[1].0);
}

/// Patches of a picture, all of one value.
fn patches(model: &Model, (h, w): (usize, usize), value: f32) -> Patches {
    let grid = Grid { t: 1, h, w };
    let values = grid.patches().unwrap() * model.tower.config().geometry.patch_values();
    Patches { grid, values: (0..values).map(|i| value * (i % 17) as f32 / 17.0).collect() }
}

#[test]
fn pictures_in_one_batch_have_the_bits_of_each_alone() {
    let model = nano(&Emulator::device(testing::seed()));
    let pictures =
        [patches(&model, (4, 10), 1.0), patches(&model, (2, 2), -0.7), patches(&model, (10, 8), 0.4)];
    let embed = |pictures: &[&Patches]| model.tower.forward(pictures).unwrap().to_f32_vec().unwrap();
    let each: Vec<f32> = pictures.iter().flat_map(|picture| embed(&[picture])).collect();
    assert!(each.iter().all(|x| x.is_finite()));
    assert_eq!(embed(&pictures.each_ref()), each);
}

/// A grey picture of `width` x `height`, as a BMP of 24 bits.
fn picture(width: u32, height: u32, grey: u8) -> Part {
    let row = (width as usize * 3).next_multiple_of(4);
    let mut file = b"BM".to_vec();
    for field in [54 + row as u32 * height, 0, 54, 40, width, height, 1 | 24 << 16, 0, 0, 0, 0, 0, 0] {
        file.extend(field.to_le_bytes());
    }
    file.extend(vec![grey; row * height as usize]);
    Part::Image(ImagePart { bytes: file.into(), limits: PixelLimits::HOSTED })
}

fn about(parts: Vec<Part>) -> Request {
    let messages = vec![Message { role: Role::User, parts, tool_calls: Vec::new() }];
    Request { messages, max_tokens: Some(3), ..Request::default() }
}

#[test]
fn pictures_of_many_requests_go_through_the_tower_together() {
    let (engine, emulator) = engine();
    let of_tower = || ["attention_windows_16", "attention_frames_16"].map(|name| emulator.launches(name));
    let one = || about(vec![picture(56, 112, 90), Part::Text("what is it".to_owned())]);
    let two = || about(vec![picture(112, 84, 10), picture(56, 112, 200)]);
    // Two pictures of one request take as many launches as one of another.
    let mut counts = vec![of_tower()];
    let alone = [one(), two()].map(|request| {
        let answer = text(engine.submit(request));
        counts.push(of_tower());
        answer
    });
    let launches: Vec<usize> =
        counts.windows(2).map(|pair| pair[1].iter().sum::<usize>() - pair[0].iter().sum::<usize>()).collect();
    assert!(launches[0] > 0 && launches[0] == launches[1], "{launches:?}");
    // Whoever leaves in the middle takes nothing from the others.
    let mut together: Vec<_> = [one(), two(), one(), two()].into_iter().map(|r| engine.submit(r)).collect();
    drop(together.pop());
    let together: Vec<_> = together.into_iter().map(text).collect();
    assert_eq!(together, [&alone[0], &alone[1], &alone[0]].map(Clone::clone));
}

/// What the plan says is what the device is asked for.
#[test]
fn the_memory_plan_holds() {
    const TOKENS: usize = 96;
    for format in [WeightFormat::Bf16, WeightFormat::Int8, WeightFormat::Int4] {
        let emulator = Arc::new(Emulator::new(emulator::Options::default()));
        let device = Device::with_driver(emulator.clone());
        let used = || emulator::Options::default().memory - device.free_memory().unwrap().unwrap();
        let model = nano_as(format, &device);
        let Model { decoder, tower, .. } = &model;
        let plan = MemoryPlan::new(&Sizes {
            decoder: decoder.config(),
            tower: tower.config(),
            decoder_format: format,
            tower_format: format.of_tower(),
            context_tokens: 128,
            chunk_tokens: TOKENS,
            picture_tokens: 20,
            sequences: 1,
            place: Place::Device,
            stored_bytes: 0,
        });
        // Norms and biases in f32 are all that is not in the plan.
        let (d, v) = (decoder.config(), tower.config());
        let heads = d.num_attention_heads + 2 * d.num_key_value_heads;
        let of_layer = 2 * d.hidden_size + heads * d.head_dim;
        let of_block = 6 * v.hidden_size + 2 * v.intermediate_size.next_multiple_of(8) + v.hidden_size;
        let merged = 4 * v.hidden_size;
        let vectors = d.num_hidden_layers * of_layer
            + d.hidden_size
            + v.depth * of_block
            + v.hidden_size
            + merged
            + v.out_hidden_size;
        assert_eq!(used(), plan.weights + 4 * vectors, "{format}");
        let before = used();
        let mut cache = decoder.new_cache(8, 16).unwrap();
        assert_eq!(used() - before, plan.cache, "{format}");

        let blocks: Vec<u32> = (0..8).collect();
        let positions: Vec<[u32; 3]> = (0..TOKENS as u32).map(|i| [i; 3]).collect();
        let before = used();
        emulator.take_most_used();
        let ids: Vec<u32> = (0..TOKENS as u32).collect();
        let batch = Batch {
            embeddings: decoder.embed(&ids).unwrap(),
            positions: &positions,
            sequences: &[Sequence { queries: TOKENS, keys: TOKENS, blocks: &blocks }],
            logits_for: &[TOKENS as u32 - 1],
        };
        decoder.forward(&batch, &mut cache).unwrap();
        drop(batch);
        let most = emulator.take_most_used() - before;
        assert!(most <= plan.activations + plan.choices, "{format}: {most} of {plan:?}");
        assert!(2 * most > plan.activations, "{format}: {most} of {plan:?}");

        let picture = patches(&model, (8, 10), 1.0);
        emulator.take_most_used();
        tower.forward(&[&picture]).unwrap();
        let most = emulator.take_most_used() - before;
        assert!(most <= plan.picture && 2 * most > plan.picture, "{format}: {most} of {plan:?}");
    }
}
