//! The values of random weights: a counter-based generator, so that any element can be computed alone.
//!
//! For the element with flat (row-major) index `i` of the tensor called `name`, all modulo 2⁶⁴:
//!
//! ```text
//! key = mix(seed XOR fnv1a64(name))
//! z   = mix(key + (i + 1) * 0x9E3779B97F4A7C15)
//! m   = z >> 40                                   24 bits
//! r   = f32(m) * 2^-23 - 1                        exact, in [-1, 1)
//! w   = bf16(offset + scale * r)                  in f32, each step rounded, then to the nearest even bf16
//! ```
//!
//! `mix` is the finalizer of splitmix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number
//! generators", 2014), `fnv1a64` is the hash of Fowler, Noll and Vo. `name` is always the hub's name.

use half::bf16;

/// Values spread evenly over `[offset - scale, offset + scale)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// Half of the width.
    pub scale: f32,
    /// The middle.
    pub offset: f32,
}

/// The values of elements `start`, `start + 1`, … of the tensor with `key`.
pub fn values(key: u64, start: u64, spread: Spread) -> impl Iterator<Item = bf16> {
    (start..).map(move |index| {
        let z = mix(key.wrapping_add(index.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15)));
        // 24 bits are exact in f32, so each line below rounds at most once.
        let r = (z >> 40) as u32 as f32 * (1.0 / 8_388_608.0) - 1.0;
        let scaled = r * spread.scale;
        // Zero is not added: it would turn -0 into +0.
        bf16::from_f32(if spread.offset == 0.0 { scaled } else { scaled + spread.offset })
    })
}

/// What tells the values of a tensor from those of all others.
pub fn tensor_key(seed: u64, name: &str) -> u64 {
    mix(seed ^ fnv1a64(name.as_bytes()))
}

fn mix(z: u64) -> u64 {
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

fn fnv1a64(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xCBF2_9CE4_8422_2325, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3))
}
