//! Pictures and clips on their way through the tower: block by block between the steps of answers, and those that wait
//! together, as far as the device gains by it.

use std::time::Instant;

use ocellus_kernels::{Tensor, graph};
use ocellus_vision_encoder::{Encoding, patches::Patches};

use super::{Runner, contained, internal};
use crate::scheduler::SequenceId;

/// Pictures and clips on their way through the tower.
pub(super) struct InTower {
    encoding: Encoding,
    /// Whose they are, and the tokens of each, in their order.
    pictures: Vec<(SequenceId, usize)>,
}

impl InTower {
    /// Whose pictures they are, each once. Those of one sequence lie side by side.
    fn owners(&self) -> Vec<SequenceId> {
        let mut owners: Vec<SequenceId> = self.pictures.iter().map(|(id, _)| *id).collect();
        owners.dedup();
        owners
    }
}

/// How many of the pictures that wait, oldest first, are embedded together: no more than `limit` tokens, but the first
/// one in any case.
fn together(tokens: impl Iterator<Item = usize>, limit: usize) -> usize {
    let mut sum = 0usize;
    let fits = tokens.enumerate().take_while(|&(i, tokens)| {
        sum = sum.saturating_add(tokens);
        i == 0 || sum <= limit
    });
    fits.count()
}

impl Runner {
    /// Does the next piece of embedding pictures. Whether there was one.
    pub(super) fn encode(&mut self) -> bool {
        self.scheduler.admit();
        // When all whose pictures they are have left, nobody waits for them.
        let waits = |batch: &InTower| batch.pictures.iter().any(|(id, _)| self.running.contains_key(id));
        match self.in_tower.take().filter(waits) {
            Some(batch) => self.advance(batch),
            None => return self.begin_pictures(),
        }
        true
    }

    /// The span of a request whose pictures are in the tower alone.
    fn span_of(&self, pictures: &[(SequenceId, usize)]) -> tracing::Span {
        let first = pictures.first().filter(|(id, _)| pictures.iter().all(|(other, _)| other == id));
        let active = first.and_then(|(id, _)| self.running.get(id));
        active.map_or_else(tracing::Span::none, |active| active.span.clone())
    }

    /// Takes the oldest pictures that wait into the tower. Whether there was one.
    fn begin_pictures(&mut self) -> bool {
        let Self { model, scheduler, running, picture_batch, .. } = &*self;
        let merge = model.tower.config().geometry.merge_size;
        let of = |id| {
            running
                .get(&id)
                .into_iter()
                .flat_map(move |active| active.prepared.patches.iter().map(move |patches| (id, patches)))
        };
        let waiting: Vec<(SequenceId, &Patches)> = scheduler.running().flat_map(of).collect();
        let tokens = waiting.iter().map(|(_, patches)| patches.grid.tokens(merge));
        let mut pictures: Vec<_> =
            waiting.iter().zip(tokens).map(|((id, _), tokens)| (*id, tokens)).collect();
        pictures.truncate(together(pictures.iter().map(|(_, tokens)| *tokens), *picture_batch));
        let patches: Vec<&Patches> = waiting.iter().map(|(_, patches)| *patches).collect();
        let started = Instant::now();
        let encoding = loop {
            let Some(&(first, _)) = pictures.first() else { return false };
            let span = self.span_of(&pictures);
            let _entered = span.enter();
            match contained(|| model.tower.begin(&patches[..pictures.len()]).map_err(internal)) {
                Ok(encoding) => break encoding,
                Err(error) if pictures.len() == 1 => {
                    self.fail(first, error);
                    return true;
                }
                // Whichever is at fault, the oldest one is taken alone.
                Err(_) => pictures.truncate(1),
            }
        };
        let batch = InTower { encoding, pictures };
        for (id, _) in &batch.pictures {
            if let Some(active) = self.running.get_mut(id) {
                active.begin();
                active.prepared.patches.pop_front();
                active.in_tower += 1;
            }
        }
        self.spent_on(&batch, started);
        self.in_tower = Some(batch);
        true
    }

    /// Computes the tower's next block, and hands the embeddings out after the last one.
    fn advance(&mut self, mut batch: InTower) {
        let span = self.span_of(&batch.pictures);
        let _entered = span.enter();
        let started = Instant::now();
        let outcome = contained(|| self.model.tower.advance(&mut batch.encoding).map_err(internal));
        self.spent_on(&batch, started);
        match outcome {
            Ok(None) => self.in_tower = Some(batch),
            Ok(Some(embeddings)) => {
                let alone = batch.pictures.len() == 1;
                let mut first = 0;
                for &(id, tokens) in &batch.pictures {
                    let Some(active) = self.running.get_mut(&id) else {
                        first += tokens;
                        continue;
                    };
                    let own = || -> Result<Tensor, ocellus_kernels::Error> {
                        match alone {
                            true => Ok(embeddings.clone()),
                            // A copy, so that nobody's pictures keep those of the others in memory.
                            false => graph::copied(&embeddings.narrow(0, first, tokens)?),
                        }
                    };
                    if let Err(error) = contained(|| active.embedded(own().map_err(internal)?)) {
                        self.fail(id, error);
                    }
                    first += tokens;
                }
            }
            // What fails here is the device, whose memory the picture's patches have left the host for.
            Err(error) => batch.owners().into_iter().for_each(|id| self.fail(id, error.clone())),
        }
    }

    /// Counts the time since `started` for all whose pictures are in the tower.
    fn spent_on(&mut self, batch: &InTower, started: Instant) {
        for id in batch.owners() {
            if let Some(active) = self.running.get_mut(&id) {
                active.timings.encode += started.elapsed();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_go_together_up_to_the_limit() {
        for (tokens, limit, expected) in [
            (&[][..], 100, 0),
            (&[5, 7], 0, 1),
            (&[500, 7], 100, 1),
            (&[50, 50, 1], 100, 2),
            // Nobody is overtaken by a smaller picture.
            (&[50, 60, 1], 100, 1),
            (&[1, 1, 1], usize::MAX, 3),
            (&[usize::MAX, 2], usize::MAX - 1, 1),
        ] {
            assert_eq!(together(tokens.iter().copied(), limit), expected, "{tokens:?} up to {limit}");
        }
    }
}
