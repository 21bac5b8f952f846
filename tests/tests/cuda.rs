//! The nano model on an emulated CUDA device: every kernel that a conversation with pictures needs, end to end.

#![cfg(unix)]
#![allow(clippy::unwrap_used)]

use ocellus_cuda_emulator::{Emulator, testing};
use ocellus_decoder::{Batch, Sequence};
use ocellus_engine::{Formats, Model, Source, WeightFormat};
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

fn nano(device: &Device) -> Model {
    let source = Source::folder(workspace().join("models/nano"));
    let formats = Formats { decoder: WeightFormat::Bf16, tower: None };
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
