//! What is taken for sampling parameters that a request leaves out.

use ocellus_engine::Sampling;

/// Whose defaults.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SamplingDefaults {
    /// The checkpoint's own, from its `generation_config.json`.
    #[default]
    Weights,
    /// The hosted service's for Qwen2.5-VL. They choose the likeliest token each time, but with a presence penalty
    /// that bends longer answers away from what the weights alone would say.
    Hosted,
}

impl SamplingDefaults {
    /// The values, given those of the checkpoint.
    pub(crate) fn sampling(self, weights: &Sampling) -> Sampling {
        match self {
            Self::Weights => weights.clone(),
            Self::Hosted => Sampling {
                temperature: 0.01,
                top_p: 0.001,
                top_k: 1,
                repetition_penalty: 1.0,
                presence_penalty: 1.5,
                seed: Some(1234),
                ..Sampling::default()
            },
        }
    }
}
