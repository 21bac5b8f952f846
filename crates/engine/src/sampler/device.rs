//! The choice of tokens where the logits lie: a step reads one integer back for each sequence, not its logits. Every
//! sequence that runs has a place there with the counts of its tokens; the host's sampler keeps the random stream, and
//! knows enough to go on by itself at any time.

use ocellus_kernels::{
    Device, Result, Tensor,
    sampling::{self, Choice, Row},
};

use super::Sampler;
use crate::scheduler::SequenceId;

/// The places of a device on which tokens are chosen.
#[derive(Debug)]
pub(crate) struct DeviceSampler {
    sampler: sampling::Sampler,
    /// Who has which place.
    places: Vec<Option<SequenceId>>,
}

/// A sequence whose next token is chosen.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Turn<'a> {
    pub(crate) id: SequenceId,
    pub(crate) sampler: &'a Sampler,
    pub(crate) prompt: &'a [u32],
    /// The answer so far.
    pub(crate) answer: &'a [u32],
}

impl DeviceSampler {
    /// Places for `places` sequences over a vocabulary of so many tokens; `None` where the host chooses.
    pub(crate) fn new(places: usize, vocabulary: usize, device: &Device) -> Result<Option<Self>> {
        if !device.chooses_tokens() {
            return Ok(None);
        }
        let sampler = sampling::Sampler::new(places, vocabulary, device)?;
        Ok(Some(Self { sampler, places: vec![None; places] }))
    }

    /// Chooses from the first rows of `logits: (rows, vocabulary)`, one for each turn. What the host must take into
    /// account is for [`Sampler::settle`].
    pub(crate) fn choose(&mut self, logits: &Tensor, turns: &[Turn<'_>]) -> Result<Vec<Choice>> {
        let mut rows = Vec::with_capacity(turns.len());
        for turn in turns {
            let slot = self.place(turn)?;
            rows.push(Row { slot, number: turn.sampler.next_number(), allowed: None });
        }
        self.sampler.choose(logits, &rows)
    }

    /// The place of a sequence; a free one, with what is known of it, when it has none yet.
    fn place(&mut self, turn: &Turn<'_>) -> Result<usize> {
        if let Some(place) = self.places.iter().position(|owner| *owner == Some(turn.id)) {
            return Ok(place);
        }
        // No more sequences run than there are places; were it otherwise, the sampler would refuse this one.
        let place = self.places.iter().position(Option::is_none).unwrap_or(self.places.len());
        self.sampler.assign(place, &turn.sampler.sequence(turn.prompt, turn.answer))?;
        if let Some(owner) = self.places.get_mut(place) {
            *owner = Some(turn.id);
        }
        Ok(place)
    }

    /// Frees the place of a sequence that has ended.
    pub(crate) fn release(&mut self, id: SequenceId) {
        self.places.iter_mut().filter(|owner| **owner == Some(id)).for_each(|owner| *owner = None);
    }

    /// Frees all places: when a step fails, tokens may be counted there that nobody was told.
    pub(crate) fn release_all(&mut self) {
        self.places.fill(None);
    }
}
