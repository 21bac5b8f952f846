//! Text alone, decoded by candle-transformers' own Qwen2 on the same weights: another hand wrote that model, and
//! for text the three axes of multimodal positions are one.
#![allow(clippy::unwrap_used)]

use candle_core::{DType, Device, Tensor};
use candle_nn::{Activation, VarBuilder};
use candle_transformers::models::qwen2::{Config, ModelForCausalLM};
use ocellus_tests::house::{Run, nano, workspace};

fn witness() -> ModelForCausalLM {
    let model = nano().unwrap();
    let ours = model.decoder.config();
    let config = Config {
        vocab_size: ours.vocab_size,
        hidden_size: ours.hidden_size,
        intermediate_size: ours.intermediate_size,
        num_hidden_layers: ours.num_hidden_layers,
        num_attention_heads: ours.num_attention_heads,
        num_key_value_heads: ours.num_key_value_heads,
        max_position_embeddings: 512,
        sliding_window: 512,
        max_window_layers: ours.num_hidden_layers,
        tie_word_embeddings: ours.tie_word_embeddings,
        rope_theta: f64::from(ours.rope_theta),
        rms_norm_eps: f64::from(ours.rms_norm_eps),
        use_sliding_window: false,
        hidden_act: Activation::Silu,
    };
    let folder = workspace().join("models/nano");
    let mut tensors = std::collections::HashMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "safetensors") {
            tensors.extend(candle_core::safetensors::load(path, &Device::Cpu).unwrap());
        }
    }
    let variables = VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu);
    ModelForCausalLM::new(&config, variables).unwrap()
}

#[test]
fn greedy_decoding_of_text_agrees_with_candle_transformers() {
    let (model, mut witness) = (nano().unwrap(), witness());
    let mut run = Run::new(&model.decoder, 64).unwrap();
    let mut ids: Vec<u32> = vec![2049, 82, 612, 198, 33, 68, 293, 461, 823, 13, 2050, 198, 2049, 872];
    let (mut new, mut done) = (ids.clone(), 0);
    for step in 0..24 {
        let vocab_size = model.decoder.config().vocab_size;
        let all = run.append_text(&new).unwrap();
        let found = &all[all.len() - vocab_size..];
        let input = Tensor::new(&new[..], &Device::Cpu).unwrap().unsqueeze(0).unwrap();
        let logits = witness.forward(&input, done).unwrap();
        let expected = logits.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let worst = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        // Both compute in f32, in different orders, to logits of about 10.
        assert!(worst < 1e-4, "step {step}: worst difference {worst}");
        let argmax = |logits: &[f32]| {
            let best = logits.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).unwrap();
            best.0 as u32
        };
        assert_eq!(argmax(found), argmax(&expected), "step {step}");
        done = ids.len();
        ids.push(argmax(found));
        new = vec![argmax(found)];
    }
    assert!(ids.iter().collect::<std::collections::HashSet<_>>().len() > 20, "{ids:?}");
}
