//! What the processor can do, asked once at run time, so that one binary serves every machine of an architecture.

use std::{fmt, str::FromStr, sync::OnceLock};

/// The instruction set that the processor kernels use. Each kernel has a path for every one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Isa {
    /// Plain Rust, which the compiler vectorises as far as the target's baseline goes.
    Portable,
    /// x86-64 with AVX2, FMA and F16C.
    Avx2,
    /// x86-64 with AVX-512 F, BW, VL, DQ, BF16 and VNNI.
    Avx512,
}

/// Names the instruction set that is used in place of the best one, for tests and measurements.
const VARIABLE: &str = "OCELLUS_ISA";

impl Isa {
    /// The best that this processor has, or a lesser one that the environment variable `OCELLUS_ISA` names
    /// (`portable`, `avx2`, `avx512`). A better one than the processor has, or an unknown name, changes nothing.
    pub fn current() -> Self {
        static CURRENT: OnceLock<Isa> = OnceLock::new();
        *CURRENT.get_or_init(|| {
            let best = Self::detect();
            let wanted = std::env::var(VARIABLE).ok().and_then(|name| name.parse().ok());
            wanted.map_or(best, |wanted: Self| wanted.min(best))
        })
    }

    /// The best that this processor has.
    pub fn detect() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = is_x86_feature_detected!("avx2")
                && is_x86_feature_detected!("fma")
                && is_x86_feature_detected!("f16c");
            let avx512 = avx2
                && is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512bf16")
                && is_x86_feature_detected!("avx512vnni");
            if avx512 {
                return Self::Avx512;
            }
            if avx2 {
                return Self::Avx2;
            }
        }
        Self::Portable
    }

    /// All that this processor has, the least first: what a test of a kernel runs through.
    pub fn available() -> Vec<Self> {
        [Self::Portable, Self::Avx2, Self::Avx512].into_iter().filter(|&isa| isa <= Self::detect()).collect()
    }

    /// Its name, as `OCELLUS_ISA` takes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
        }
    }
}

impl FromStr for Isa {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        [Self::Portable, Self::Avx2, Self::Avx512].into_iter().find(|isa| isa.name() == name).ok_or(())
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        for isa in Isa::available() {
            assert_eq!(isa.to_string().parse(), Ok(isa));
        }
        assert_eq!("sse9".parse::<Isa>(), Err(()));
        assert_eq!(Isa::available().last(), Some(&Isa::detect()));
    }
}
