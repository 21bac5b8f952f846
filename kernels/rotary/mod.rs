//! Rotary position embedding: each head's halves are rotated by angles that grow with the position,
//! `y = x · cos + rotate_half(x) · sin` with `rotate_half([a, b]) = [-b, a]`
//! (Su et al., <https://arxiv.org/abs/2104.09864>).
//!
//! Two ways to the angles, both in f32 from integer positions to cosines:
//! - *spatial*, for the vision tower: the first quarter of the head turns with the row, the second with the
//!   column, and the other half repeats both (the reference's `rot_pos_emb`).
//! - *multimodal* (M-RoPE), for the decoder: the frequencies are split into sections that turn with time,
//!   height and width (`apply_multimodal_rotary_pos_emb`; Wang et al., <https://arxiv.org/abs/2409.12191>).
//!
//! The tables are made once for each step and shared by all layers.

pub(crate) mod cpu;
pub(crate) mod cuda;
mod reference;

pub use reference::forward as reference;

use self::cuda::Angles;
use crate::{DType, Device, Result, Storage, Tensor, error::argument};

const OP: &str = "rotary";

/// Cosines and sines of every token's angles, each `(tokens, head_dim)` f32.
#[derive(Clone, Debug)]
pub struct Tables {
    pub(crate) cos: Tensor,
    pub(crate) sin: Tensor,
}

/// How the decoder's frequencies are shared out.
#[derive(Clone, Copy, Debug)]
pub struct Multimodal<'a> {
    /// The width of a head.
    pub head_dim: usize,
    /// The base of the geometric series of wave lengths.
    pub theta: f32,
    /// How many of the `head_dim / 2` frequencies follow time, height and width.
    pub sections: &'a [usize; 3],
}

impl Multimodal<'_> {
    /// The inverse frequencies of the first half of a head, into the beginning of `room`, and the axis that each follows.
    pub(crate) fn frequencies<'a>(
        &self,
        room: &'a mut [f32; MOST_FREQUENCIES],
    ) -> Result<(&'a [f32], impl Fn(usize) -> usize)> {
        let half = self.head_dim / 2;
        let [time, height, width] = *self.sections;
        if half == 0 || !self.head_dim.is_multiple_of(2) || time + height + width != half {
            return Err(argument(OP, "sections", self.sections, format!("{half} in sum")));
        }
        let axis = move |i| usize::from(i >= time) + usize::from(i >= time + height);
        Ok((inverse_frequencies(self.head_dim, self.theta, room)?, axis))
    }
}

impl Tables {
    /// Tables from rows and columns of patches; `head_dim` must be a multiple of 4.
    ///
    /// # Errors
    /// [`crate::Error::Argument`] when it is not.
    pub fn spatial(positions: &[[u32; 2]], head_dim: usize, theta: f32, device: &Device) -> Result<Self> {
        if head_dim == 0 || !head_dim.is_multiple_of(4) {
            return Err(argument(OP, "head_dim", head_dim, "a multiple of 4"));
        }
        let mut frequencies = [0.0; MOST_FREQUENCIES];
        let frequencies = inverse_frequencies(head_dim / 2, theta, &mut frequencies)?;
        if let Some(gpu) = device.gpu() {
            let quarter = frequencies.len();
            let axes: Vec<u32> = (0..2 * quarter).map(|i| (i / quarter) as u32).collect();
            let angles = Angles { frequencies: &frequencies.repeat(2), axes: &axes, n_axes: 2 };
            return angles.upload(gpu, positions.as_flattened())?.tables();
        }
        let angle = |position: &[u32; 2], i: usize| {
            let axis = i / frequencies.len();
            position[axis] as f32 * frequencies[i % frequencies.len()]
        };
        Self::from_angles(positions, head_dim, angle, device)
    }

    /// Tables from positions on the three axes.
    ///
    /// # Errors
    /// [`crate::Error::Argument`] when the sections don't add up to half of an even `head_dim`.
    pub fn multimodal(positions: &[[u32; 3]], rope: Multimodal<'_>, device: &Device) -> Result<Self> {
        let mut room = [0.0; MOST_FREQUENCIES];
        let (frequencies, axis) = rope.frequencies(&mut room)?;
        if let Some(gpu) = device.gpu() {
            let axes: Vec<u32> = (0..frequencies.len()).map(|i| axis(i) as u32).collect();
            let angles = Angles { frequencies, axes: &axes, n_axes: 3 };
            return angles.upload(gpu, positions.as_flattened())?.tables();
        }
        let angle = |position: &[u32; 3], i: usize| position[axis(i)] as f32 * frequencies[i];
        Self::from_angles(positions, rope.head_dim, angle, device)
    }

    /// The width of a head.
    pub fn head_dim(&self) -> usize {
        self.cos.dim(1)
    }

    /// The number of tokens.
    pub fn tokens(&self) -> usize {
        self.cos.dim(0)
    }

    /// `angle(position, i)` for `i` in the first half of a head; the second half repeats it.
    fn from_angles<P>(
        positions: &[P],
        head_dim: usize,
        angle: impl Fn(&P, usize) -> f32,
        device: &Device,
    ) -> Result<Self> {
        let half = head_dim / 2;
        let table = |of: fn(f32) -> f32| {
            let fill = |values: &mut [f32]| {
                for (row, position) in values.chunks_exact_mut(head_dim).zip(positions) {
                    let (first, second) = row.split_at_mut(half);
                    first.iter_mut().enumerate().for_each(|(i, value)| *value = of(angle(position, i)));
                    second.copy_from_slice(first);
                }
            };
            let shape = [positions.len(), head_dim];
            if device.is_host() {
                return Tensor::host(&shape, fill);
            }
            let mut values = vec![0.0; positions.len() * head_dim];
            fill(&mut values);
            Tensor::from_f32(values, &shape, device)
        };
        Ok(Self { cos: table(f32::cos)?, sin: table(f32::sin)? })
    }
}

/// Rotates `x: (tokens, heads, head_dim)`, f32 or on a CUDA device bf16, by the tables of the same tokens.
///
/// # Errors
/// [`crate::Error::Argument`] when shapes disagree.
pub fn forward(x: &Tensor, tables: &Tables) -> Result<Tensor> {
    let [tokens, heads, head_dim] = x.dims(OP, "x")?;
    tables.cos.expect_shape(OP, "tables", &[tokens, head_dim])?;
    match (x.storage(), tables.cos.storage(), tables.sin.storage()) {
        (Storage::Cuda(values), Storage::Cuda(cos), Storage::Cuda(sin))
            if values.dtype() == DType::BF16 && cuda::can_rotate(head_dim) =>
        {
            let all = cuda::Heads { x: values, heads, head_dim };
            Ok(cuda::rotate(&all, cos, sin)?.reshape(x.shape())?.into())
        }
        _ => x.alike(OP, reference::forward(x, tables)?),
    }
}

/// More than half of any head's width.
pub(crate) const MOST_FREQUENCIES: usize = 512;

/// `theta^(-2i / dim)` for `i < dim / 2`, in f32 as the reference computes it, into the beginning of `room`.
fn inverse_frequencies(dim: usize, theta: f32, room: &mut [f32; MOST_FREQUENCIES]) -> Result<&[f32]> {
    let Some(frequencies) = room.get_mut(..dim / 2) else {
        return Err(argument(OP, "head_dim", dim, format!("at most {}", 2 * MOST_FREQUENCIES)));
    };
    for (i, frequency) in frequencies.iter_mut().enumerate() {
        *frequency = 1.0 / theta.powf((2 * i) as f32 / dim as f32);
    }
    Ok(frequencies)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    fn rotate(x: &[f32], angle: impl Fn(usize) -> f64) -> Vec<f32> {
        let half = x.len() / 2;
        (0..x.len())
            .map(|i| {
                let (sin, cos) = angle(i % half).sin_cos();
                let other = if i < half { -x[i + half] } else { x[i - half] };
                (f64::from(x[i]) * cos + f64::from(other) * sin) as f32
            })
            .collect()
    }

    fn check(tables: &Tables, head_dim: usize, angle: impl Fn(usize, usize) -> f64) {
        let (tokens, heads) = (tables.tokens(), 3);
        let x = testing::tensor(5, &[tokens, heads, head_dim]);
        let found = forward(&x, tables).unwrap().to_f32_vec().unwrap();
        let values = x.to_f32_vec().unwrap();
        for (i, head) in values.chunks_exact(head_dim).enumerate() {
            let expected = rotate(head, |j| angle(i / heads, j));
            // The angle is a f32 product: at position 500 it is off by up to 3e-5 radians.
            testing::assert_values("rotary", &found[i * head_dim..(i + 1) * head_dim], &expected, 6e-5);
        }
    }

    #[test]
    fn the_first_quarter_follows_rows_and_the_second_columns() {
        let positions = [[0, 0], [1, 0], [0, 1], [500, 23]];
        for head_dim in [4, 16, 80] {
            let tables = Tables::spatial(&positions, head_dim, 10_000.0, &Device::cpu()).unwrap();
            let quarter = head_dim / 4;
            check(&tables, head_dim, |token, i| {
                let frequency = 10_000f64.powf(-2.0 * (i % quarter) as f64 / (head_dim / 2) as f64);
                f64::from(positions[token][i / quarter]) * frequency
            });
        }
    }

    #[test]
    fn sections_follow_time_height_and_width() {
        let positions = [[0, 0, 0], [7, 8, 9], [500, 1, 2], [1, 500, 2], [1, 2, 500]];
        for (head_dim, sections) in [(16, [2, 3, 3]), (128, [16, 24, 24]), (16, [0, 8, 0]), (2, [1, 0, 0])] {
            let rope = Multimodal { head_dim, theta: 1e6, sections: &sections };
            let tables = Tables::multimodal(&positions, rope, &Device::cpu()).unwrap();
            check(&tables, head_dim, |token, i| {
                let axis = if i < sections[0] {
                    0
                } else if i < sections[0] + sections[1] {
                    1
                } else {
                    2
                };
                f64::from(positions[token][axis]) * 1e6f64.powf(-2.0 * i as f64 / head_dim as f64)
            });
        }
    }

    #[test]
    fn wrong_sections_and_heads_are_named() {
        let rope = Multimodal { head_dim: 16, theta: 1e6, sections: &[2, 3, 4] };
        let error = Tables::multimodal(&[[0; 3]], rope, &Device::cpu()).unwrap_err();
        assert_eq!(error.to_string(), "rotary: sections is [2, 3, 4], expected 8 in sum");
        assert!(Tables::spatial(&[[0; 2]], 6, 1e4, &Device::cpu()).is_err());
    }
}
