//! The integers of one step of the decoder: whose tokens are computed, where they lie in the cache, and where they are on
//! the three axes of positions.
//!
//! They are the same for all layers. On the host a [`Step`] only refers to them; on a CUDA device it holds a copy in the
//! device's memory, made once, since kernels read them there. A [`Bucket`] has room for the copies of many steps of the
//! same kind, one after another, so that launches need not change from step to step and can be recorded.

pub(crate) mod cuda;

use self::cuda::{DeviceStep, Layout};
use crate::{
    Error, Result,
    attention::Sequence,
    error::argument,
    kv_cache::{self, Layer},
    rotary::{Multimodal, Tables},
};

const OP: &str = "step";

/// What a step consists of.
#[derive(Clone, Copy, Debug)]
pub struct Parts<'a> {
    /// Whose tokens these are, in order, and where their keys and values lie.
    pub sequences: &'a [Sequence<'a>],
    /// The slots that the tokens' keys and values are written to, in the tokens' order.
    pub slots: &'a [u32],
    /// Time, height and width of each token.
    pub positions: &'a [[u32; 3]],
    /// How the angles follow from positions.
    pub rope: Multimodal<'a>,
    /// Heads of queries.
    pub heads: usize,
}

/// A step whose parts agree with each other and with the cache, ready to be computed.
#[derive(Debug)]
pub struct Step<'a> {
    pub(crate) parts: Parts<'a>,
    pub(crate) device: Option<DeviceStep>,
}

impl<'a> Step<'a> {
    /// Checks the parts against each other and against a layer of the cache, like which all layers are.
    ///
    /// # Errors
    /// [`Error::Argument`] or [`Error::Index`] when they disagree, or when the device has no room.
    pub fn new(parts: Parts<'a>, layer: &Layer) -> Result<Self> {
        parts.check(layer)?;
        let device = match layer.cuda() {
            Some(layer) => {
                let layout = Layout::of(&parts, layer.kv_heads)?;
                Some(DeviceStep::new(layer.gpu(), layout, &parts)?)
            }
            None => None,
        };
        Ok(Self { parts, device })
    }

    /// How many tokens are computed.
    pub fn tokens(&self) -> usize {
        self.device.as_ref().map_or(self.parts.slots.len(), DeviceStep::tokens)
    }

    /// The angles of all tokens, where `layer` lies.
    ///
    /// # Errors
    /// [`Error::Argument`] when the sections don't fit the head.
    pub fn tables(&self, layer: &Layer) -> Result<Tables> {
        match &self.device {
            Some(step) => step.angles.tables(),
            None => Tables::multimodal(self.parts.positions, self.parts.rope, &layer.device()),
        }
    }
}

impl Parts<'_> {
    fn check(&self, layer: &Layer) -> Result<()> {
        let queries: usize = self.sequences.iter().map(|s| s.queries).sum();
        let (kv_heads, _) = layer.heads();
        if self.slots.len() != queries {
            return Err(argument(OP, "slots", self.slots.len(), format!("{queries}, the queries in sum")));
        }
        if self.positions.len() != queries {
            return Err(argument(
                OP,
                "positions",
                self.positions.len(),
                format!("{queries}, the queries in sum"),
            ));
        }
        if self.heads == 0 || !self.heads.is_multiple_of(kv_heads) {
            return Err(argument(OP, "heads", self.heads, format!("a multiple of {kv_heads}")));
        }
        if let Some(s) = self.sequences.iter().find(|s| s.queries > s.keys) {
            return Err(argument(OP, "keys", s.keys, format!("at least {} queries", s.queries)));
        }
        for s in self.sequences {
            let used = s.keys.div_ceil(layer.block_size());
            let Some(blocks) = s.blocks.get(..used) else {
                return Err(Error::Index { op: OP, index: used, len: s.blocks.len() });
            };
            let slots = layer.slots() / layer.block_size();
            if let Some(&block) = blocks.iter().find(|&&block| block as usize >= slots) {
                return Err(Error::Index { op: OP, index: block as usize, len: slots });
            }
        }
        if let Some(&slot) = self.slots.iter().find(|&&slot| slot as usize >= layer.slots()) {
            return Err(Error::Index { op: OP, index: slot as usize, len: layer.slots() });
        }
        Ok(())
    }
}

/// How large the steps of a [`Bucket`] are at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Limits {
    /// Sequences, each with one query.
    pub sequences: usize,
    /// Keys of the longest of them.
    pub keys: usize,
}

/// Room in a device's memory for steps in which every sequence has one query. All steps of a bucket have the same launches:
/// rows beyond a step's sequences are computed from nothing, and are zeros.
#[derive(Debug)]
pub struct Bucket {
    limits: Limits,
    device: Option<DeviceStep>,
}

impl Bucket {
    /// Room for steps within `limits`, for a cache like `layer`.
    ///
    /// # Errors
    /// When the device has no room, or an argument is nonsense.
    pub fn new(limits: Limits, rope: Multimodal<'_>, heads: usize, layer: &Layer) -> Result<Self> {
        let device = match layer.cuda() {
            Some(cuda) => {
                let positions = vec![[0; 3]; limits.sequences];
                let parts = Parts { sequences: &[], slots: &[], positions: &positions, rope, heads };
                let layout = Layout::of_bucket(limits, &parts, cuda.kv_heads)?;
                Some(DeviceStep::new(cuda.gpu(), layout, &parts)?)
            }
            None => None,
        };
        Ok(Self { limits, device })
    }

    /// What it has room for.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Puts a step in the place of the one before, whose launches see the new integers from now on. On the host this is
    /// [`Step::new`].
    ///
    /// # Errors
    /// As [`Step::new`], and [`Error::Argument`] when the step is larger than the bucket.
    pub fn fill<'a>(&self, parts: Parts<'a>, layer: &kv_cache::Layer) -> Result<Step<'a>> {
        parts.check(layer)?;
        let Limits { sequences, keys } = self.limits;
        if parts.sequences.len() > sequences
            || parts.sequences.iter().any(|s| s.queries != 1 || s.keys > keys)
        {
            let expected = format!("at most {sequences}, each with one query and at most {keys} keys");
            return Err(argument(OP, "sequences", parts.sequences.len(), expected));
        }
        let device = self.device.clone();
        if let Some(device) = &device {
            let (kv_heads, _) = layer.heads();
            device.fill(&parts, kv_heads)?;
        }
        Ok(Step { parts, device })
    }
}
