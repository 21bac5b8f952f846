//! The compiled kernels. Made by `scripts/make-ptx`; don't edit.

use super::Module;

/// All of them by name, those for Hopper beside those for every GPU.
pub(super) const MODULES: &[Module] = &[
    Module { name: "elements", architecture: 80, text: include_str!("elements.sm80.ptx") },
    Module { name: "fill_up", architecture: 80, text: include_str!("fill_up.sm80.ptx") },
    Module { name: "peak", architecture: 80, text: include_str!("peak.sm80.ptx") },
    Module { name: "peak", architecture: 90, text: include_str!("peak.sm90a.ptx") },
    Module { name: "rms_norm", architecture: 80, text: include_str!("rms_norm.sm80.ptx") },
    Module { name: "skinny", architecture: 80, text: include_str!("skinny.sm80.ptx") },
    Module { name: "skinny_quantized", architecture: 80, text: include_str!("skinny_quantized.sm80.ptx") },
    Module { name: "tiles", architecture: 80, text: include_str!("tiles.sm80.ptx") },
    Module { name: "tiles_quantized", architecture: 80, text: include_str!("tiles_quantized.sm80.ptx") },
    Module { name: "wgmma", architecture: 80, text: include_str!("wgmma.sm80.ptx") },
    Module { name: "wgmma", architecture: 90, text: include_str!("wgmma.sm90a.ptx") },
];
