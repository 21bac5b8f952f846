//! The golden numbers see mistakes: each test makes one on purpose, outside of the product's code, and names the
//! family that must break. The same conversation without the mistake must hold.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use ocellus_decoder::positions::{Positions, Span};
use ocellus_engine::{MediaKind, Model};
use ocellus_kernels::{Tensor, gelu, rms_norm};
use ocellus_tests::golden::{
    Folder, Gauge,
    images::{Images, NORMALIZATION, Steps},
    indices::GEOMETRY,
    model::{self, Inputs, Measures, ModelGolden},
    positions,
};
use ocellus_vision_encoder::{patches::patchify, windows::WindowOrder};
use ocellus_weights::{Checkpoint, LinearShape, Source};
use serde_json::json;

/// A checkpoint with its golden numbers and the folder's pictures.
struct Scene {
    golden: ModelGolden,
    model: Model,
    images: Images,
}

impl Scene {
    fn new() -> Self {
        let folder = Folder::own();
        let golden = ModelGolden::read(&folder, "nano").unwrap();
        let model = golden.open().unwrap();
        Self { golden, model, images: Images::read(&folder).unwrap().unwrap() }
    }

    fn inputs(&self, case: &str, steps: &Steps) -> Inputs {
        self.golden.inputs(case, &self.model, Some(&self.images), steps).unwrap()
    }

    fn measure(&self, case: &str, model: &Model, inputs: &Inputs) -> Measures {
        let mut measures = Measures::default();
        self.golden.compare(case, model, inputs, &mut measures).unwrap();
        measures
    }

    /// Asserts that a conversation holds, and that after `mistake` its logits do not. Gives what broke.
    fn check(&self, case: &str, mistake: impl FnOnce(&mut Inputs)) -> Measures {
        let mut inputs = self.inputs(case, &Steps::default());
        let right = self.measure(case, &self.model, &inputs);
        for gauge in [&right.conversation, &right.vision, &right.decoder, &right.logits, &right.generated] {
            assert!(gauge.holds(), "{}: {gauge}", gauge.family());
        }
        mistake(&mut inputs);
        let wrong = self.measure(case, &self.model, &inputs);
        assert_broken(&wrong.logits);
        wrong
    }
}

fn assert_broken(gauge: &Gauge) {
    assert!(gauge.compared() > 0 && !gauge.holds(), "{} does not see it: {gauge}", gauge.family());
}

#[test]
fn full_and_window_layers_swapped() {
    let scene = Scene::new();
    let swapped = scene.golden.open_edited(|config| {
        config["vision_config"]["fullatt_block_indexes"] = json!([0, 2]);
    });
    let inputs = scene.inputs("image", &Steps::default());
    let wrong = scene.measure("image", &swapped.unwrap(), &inputs);
    assert_broken(&wrong.vision);
    assert_broken(&wrong.logits);
}

#[test]
fn height_and_width_positions_exchanged() {
    let exchange = |tokens: &mut Vec<[u32; 3]>| tokens.iter_mut().for_each(|[_, h, w]| std::mem::swap(h, w));
    let wrong = Scene::new().check("image", |inputs| exchange(&mut inputs.positions.tokens));
    assert_broken(&wrong.conversation);

    let rule = |spans: &[Span], tokens_per_second| {
        let mut positions = Positions::new(spans, tokens_per_second);
        exchange(&mut positions.tokens);
        positions
    };
    assert_broken(&positions::compare_with(&Folder::own(), &rule).unwrap().unwrap());
}

#[test]
fn positions_on_one_axis() {
    let wrong = Scene::new().check("image", |inputs| {
        let n = inputs.ids.len() as u32;
        inputs.positions = Positions { tokens: (0..n).map(|index| [index; 3]).collect(), next: n };
    });
    assert_broken(&wrong.conversation);

    let rule = |spans: &[Span], tokens_per_second| {
        let n = Positions::new(spans, tokens_per_second).tokens.len() as u32;
        Positions { tokens: (0..n).map(|index| [index; 3]).collect(), next: n }
    };
    assert_broken(&positions::compare_with(&Folder::own(), &rule).unwrap().unwrap());
}

#[test]
fn two_seconds_per_grid_instead_of_one() {
    let wrong = Scene::new().check("clip", |inputs| {
        for span in &mut inputs.spans {
            if let Span::Vision { seconds_per_step, .. } = span {
                assert_eq!(*seconds_per_step, 1.0, "the clip's own");
                *seconds_per_step = 2.0;
            }
        }
        inputs.positions = Positions::new(&inputs.spans, 2);
    });
    assert_broken(&wrong.conversation);
}

#[test]
fn patches_in_raster_order() {
    let raster = Steps {
        patchify: |frames| {
            let mut patches = patchify(frames, &GEOMETRY, &NORMALIZATION)?;
            let grid = patches.grid;
            let places = ocellus_vision_encoder::windows::patch_positions(&[grid], GEOMETRY.merge_size)?;
            let width = GEOMETRY.patch_values();
            let rows: Vec<f32> = patches.values.clone();
            for (row, &[y, x]) in places.iter().enumerate() {
                let step = row / (grid.h * grid.w);
                let target = (step * grid.h + y as usize) * grid.w + x as usize;
                patches.values[target * width..][..width].copy_from_slice(&rows[row * width..][..width]);
            }
            Ok(patches)
        },
        ..Steps::default()
    };
    check_steps(&raster);
}

#[test]
fn blue_first() {
    let bgr = Steps {
        patchify: |frames| {
            let rgb: Vec<u8> =
                frames.rgb.chunks_exact(3).flat_map(|pixel| [pixel[2], pixel[1], pixel[0]]).collect();
            Ok(patchify(
                &ocellus_vision_encoder::patches::Frames { rgb: &rgb, ..*frames },
                &GEOMETRY,
                &NORMALIZATION,
            )?)
        },
        ..Steps::default()
    };
    check_steps(&bgr);
}

#[test]
fn resize_without_bytes_in_between() {
    let float = Steps { resize: |rgb, from, to| Ok(float_resize(rgb, from, to)), ..Steps::default() };
    let scene = Scene::new();
    assert!(scene.images.resized().unwrap().holds());
    assert_broken(&scene.images.resized_with(&float).unwrap());
    check_steps(&float);
}

/// Wrong steps break the pixel values and, through them, what the model says.
fn check_steps(wrong: &Steps) {
    let scene = Scene::new();
    assert!(scene.images.pixel_values().unwrap().holds());
    assert_broken(&scene.images.pixel_values_with(wrong).unwrap());
    scene.check("image", |inputs| *inputs = scene.inputs("image", wrong));
}

/// The same bicubic kernel and the same order of passes, but rounded once, at the end.
fn float_resize(rgb: &[u8], from: (usize, usize), to: (usize, usize)) -> Vec<u8> {
    let across =
        resample(&rgb.iter().map(|&byte| f64::from(byte)).collect::<Vec<_>>(), from.0, from.1, to.1, 3);
    // Along the height a "pixel" is a whole row.
    let down = resample(&across, 1, from.0, to.0, to.1 * 3);
    down.iter().map(|value| value.round().clamp(0.0, 255.0) as u8).collect()
}

/// Resizes the middle axis of `(outer, input, inner)` to `output`.
fn resample(values: &[f64], outer: usize, input: usize, output: usize, inner: usize) -> Vec<f64> {
    if input == output {
        return values.to_vec();
    }
    let kernel = |x: f64| match x.abs() {
        x if x < 1.0 => (1.5 * x - 2.5) * x * x + 1.0,
        x if x < 2.0 => ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0,
        _ => 0.0,
    };
    let scale = input as f64 / output as f64;
    let widened = scale.max(1.0);
    let mut result = vec![0.0; outer * output * inner];
    for place in 0..output {
        let centre = (place as f64 + 0.5) * scale;
        let weights: Vec<f64> =
            (0..input).map(|source| kernel((source as f64 + 0.5 - centre) / widened)).collect();
        let sum: f64 = weights.iter().sum();
        for (block, (source, weight)) in
            (0..outer).flat_map(|block| weights.iter().enumerate().map(move |w| (block, w)))
        {
            if *weight == 0.0 {
                continue;
            }
            for at in 0..inner {
                result[(block * output + place) * inner + at] +=
                    weight / sum * values[(block * input + source) * inner + at];
            }
        }
    }
    result
}

#[test]
fn tanh_in_place_of_the_error_function() {
    let erf = |x: &Tensor| gelu::forward(x).unwrap();
    let tanh = |x: &Tensor| {
        let approximate = |x: f32| 0.5 * x * (1.0 + (0.797_884_6 * (x + 0.044_715 * x * x * x)).tanh());
        let values = x.to_f32_vec().unwrap().into_iter().map(approximate).collect();
        Tensor::from_f32(values, x.shape(), &x.device()).unwrap()
    };
    let right = with_activation(&erf);
    assert!(right.vision.holds() && right.logits.holds(), "{}, {}", right.vision, right.logits);
    let wrong = with_activation(&tanh);
    assert_broken(&wrong.vision);
    assert_broken(&wrong.logits);
}

/// The conversation `image` with the merger's last part computed here, from the last block's output on.
fn with_activation(activation: &dyn Fn(&Tensor) -> Tensor) -> Measures {
    let scene = Scene::new();
    let (golden, model) = (&scene.golden, &scene.model);
    let inputs = scene.inputs("image", &Steps::default());
    let mut seen = BTreeMap::new();
    let mut rows = model::embed(model, &inputs, &mut seen).unwrap();

    let config = model.tower.config();
    let (width, merged) = (config.hidden_size, config.hidden_size * 4);
    let checkpoint = Checkpoint::open(&Source::folder(golden.checkpoint())).unwrap();
    let loader = checkpoint.loader(&model.device);
    let merger = loader.scope_any(&["model.visual", "visual"]).unwrap().scope("merger");
    let linear = |name, out_features| {
        merger.linear(name, LinearShape { out_features, in_features: merged, bias: true }).unwrap()
    };
    let block = seen[&format!("vision.block_{}", config.depth - 1)].clone();
    let patches = block.len() / width;
    let hidden = Tensor::from_f32(block, &[patches, width], &model.device).unwrap();
    let normed = rms_norm::forward(&hidden, &merger.vector("ln_q.weight", width).unwrap(), 1e-6).unwrap();
    let joined = normed.reshape(&[patches / 4, merged]).unwrap();
    let active = activation(&linear("mlp.0", merged).forward(&joined).unwrap());
    let windowed = linear("mlp.2", config.out_hidden_size).forward(&active).unwrap().to_f32_vec().unwrap();

    let grid = inputs.media[0].patches.grid;
    let order = WindowOrder::new(&[grid], &config.geometry, config.window_size).unwrap();
    let row = |place: u32| &windowed[place as usize * config.out_hidden_size..][..config.out_hidden_size];
    let embeds: Vec<f32> = order.inverse.iter().flat_map(|&place| row(place).to_vec()).collect();
    seen.insert("vision.merger_window_order".to_owned(), windowed.clone());
    seen.insert("vision.embeds".to_owned(), embeds.clone());
    model::splice(model, &inputs, MediaKind::Image, &embeds, &mut rows);
    let forced = golden.generated_ids("image").unwrap();
    let answer = model::answer_embedded(model, &inputs, rows, forced, seen).unwrap();
    let mut measures = Measures::default();
    golden.compare_answer("image", &answer, &mut measures).unwrap();
    measures
}
