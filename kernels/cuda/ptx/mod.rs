//! The compiled kernels. Made by `scripts/make-ptx`; don't edit.

use super::Module;

/// All of them by name, those for Hopper beside those for every GPU.
pub(super) const MODULES: &[Module] = &[
    Module { name: "add", architecture: 80, text: include_str!("add.sm80.ptx") },
    Module { name: "causal", architecture: 80, text: include_str!("causal.sm80.ptx") },
    Module { name: "causal_narrow", architecture: 80, text: include_str!("causal_narrow.sm80.ptx") },
    Module { name: "decode", architecture: 80, text: include_str!("decode.sm80.ptx") },
    Module { name: "decode_narrow", architecture: 80, text: include_str!("decode_narrow.sm80.ptx") },
    Module { name: "elements", architecture: 80, text: include_str!("elements.sm80.ptx") },
    Module { name: "embedding", architecture: 80, text: include_str!("embedding.sm80.ptx") },
    Module { name: "fill_up", architecture: 80, text: include_str!("fill_up.sm80.ptx") },
    Module { name: "gelu", architecture: 80, text: include_str!("gelu.sm80.ptx") },
    Module { name: "peak", architecture: 80, text: include_str!("peak.sm80.ptx") },
    Module { name: "peak", architecture: 90, text: include_str!("peak.sm90a.ptx") },
    Module { name: "rms_norm", architecture: 80, text: include_str!("rms_norm.sm80.ptx") },
    Module { name: "rotary", architecture: 80, text: include_str!("rotary.sm80.ptx") },
    Module { name: "rotate_and_write", architecture: 80, text: include_str!("rotate_and_write.sm80.ptx") },
    Module { name: "rows", architecture: 80, text: include_str!("rows.sm80.ptx") },
    Module { name: "sampling", architecture: 80, text: include_str!("sampling.sm80.ptx") },
    Module { name: "silu_mul", architecture: 80, text: include_str!("silu_mul.sm80.ptx") },
    Module { name: "skinny", architecture: 80, text: include_str!("skinny.sm80.ptx") },
    Module { name: "skinny_quantized", architecture: 80, text: include_str!("skinny_quantized.sm80.ptx") },
    Module { name: "tiles", architecture: 80, text: include_str!("tiles.sm80.ptx") },
    Module { name: "tiles_quantized", architecture: 80, text: include_str!("tiles_quantized.sm80.ptx") },
    Module { name: "top_k", architecture: 80, text: include_str!("top_k.sm80.ptx") },
    Module { name: "varlen", architecture: 80, text: include_str!("varlen.sm80.ptx") },
    Module { name: "varlen_narrow", architecture: 80, text: include_str!("varlen_narrow.sm80.ptx") },
    Module { name: "wgmma", architecture: 90, text: include_str!("wgmma.sm90a.ptx") },
];
