//! In which form weights are held: what the user asks for, and what that means for a checkpoint.

use std::{fmt, str::FromStr};

use ocellus_kernels::linear::{Format, Scheme};
use ocellus_weights::{Checkpoint, Dtype};

/// How weights are held in memory on the processor. Everything but [`WeightFormat::F32`] computes in narrow types and is
/// much faster; what it costs in exactness is written in the README.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WeightFormat {
    /// `bf16` for checkpoints that are stored so, `f32` for others.
    #[default]
    Auto,
    /// As they are stored, all arithmetic in f32: the numbers of the reference implementation.
    F32,
    /// Packed bf16.
    Bf16,
    /// Packed 8-bit integers with a scale for each group.
    Int8,
    /// Packed 4-bit integers with a scale for each group; the output layer, and a table of embeddings that is tied to
    /// it, have 8 bits.
    Int4,
}

impl WeightFormat {
    /// All of them, in the order of the help text.
    pub const ALL: [Self; 5] = [Self::Auto, Self::F32, Self::Bf16, Self::Int8, Self::Int4];

    /// The name that is parsed.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::Int8 => "int8",
            Self::Int4 => "int4",
        }
    }

    /// What it means for this checkpoint: the same, never [`WeightFormat::Auto`].
    pub fn resolve(self, checkpoint: &Checkpoint) -> Self {
        match self {
            Self::Auto if checkpoint.main_dtype() == Some(Dtype::BF16) => Self::Bf16,
            Self::Auto => Self::F32,
            other => other,
        }
    }

    /// The layers' format.
    pub fn layers(self) -> Format {
        match self {
            Self::Auto | Self::F32 => Format::Exact,
            Self::Bf16 => Format::Bf16Squeezed,
            Self::Int8 => Format::Quantized(Scheme::Int8),
            Self::Int4 => Format::Quantized(Scheme::Int4Asymmetric),
        }
    }

    /// The format of the vision tower's layers, which always see many patches at a time.
    pub fn tower_layers(self) -> Format {
        self.layers().in_files()
    }

    /// The format of the output layer and of the table of embeddings.
    pub fn vocabulary(self) -> Format {
        match self {
            Self::Int4 => Self::Int8.layers(),
            other => other.layers(),
        }
    }

    /// The vision tower's format when none is asked for: quantization costs pictures more than it gives, for their
    /// encoding is bound by arithmetic.
    pub fn of_tower(self) -> Self {
        match self {
            Self::Int8 | Self::Int4 => Self::Bf16,
            other => other,
        }
    }
}

impl FromStr for WeightFormat {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|format| format.name() == name).ok_or_else(|| {
            let names: Vec<_> = Self::ALL.iter().map(|format| format.name()).collect();
            format!("expected one of {}", names.join(", "))
        })
    }
}

impl fmt::Display for WeightFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
