//! The compiled kernels. Made by `scripts/make-ptx`; don't edit.

use super::Module;

/// All of them by name, those for Hopper beside those for every GPU.
pub(super) const MODULES: &[Module] = &[
    Module { name: "elements", architecture: 80, text: include_str!("elements.sm80.ptx") },
    Module { name: "rms_norm", architecture: 80, text: include_str!("rms_norm.sm80.ptx") },
];
