//! Which sequences run next and with how many tokens. A synchronous function of numbers: what a token is,
//! what a step computes and who waits for it is unknown here.

use std::collections::VecDeque;

use crate::Error;
use crate::blocks::BlockAllocator;

/// Waiting and running sequences, first come, first served.
///
/// A sequence is admitted when the cache has blocks for its prompt and its longest possible answer, and keeps
/// them to its end: so a running sequence never has to stop for another one. Prompts are computed in pieces
/// when they are longer than a step. Answers that have begun come first and get a token in every step; beside
/// them, the pieces of prompts are small, so that a long prompt slows them down but never holds them up.
///
/// The caller's loop: [`submit`](Self::submit) what came, [`plan`](Self::plan), compute the plan,
/// [`record`](Self::record) each of its steps, [`remove`](Self::remove) what is finished or cancelled.
#[derive(Debug)]
pub(crate) struct Scheduler {
    limits: SchedulerLimits,
    blocks: BlockAllocator,
    waiting: VecDeque<Sequence>,
    /// Oldest first.
    running: Vec<Sequence>,
}

/// Names a sequence. Ids are chosen by the caller and never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SequenceId(pub(crate) u64);

/// How much a scheduler takes on. Zeros count as one, except for the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SchedulerLimits {
    /// Sequences that may wait, beside those that run.
    pub(crate) max_waiting: usize,
    /// Sequences that run side by side.
    pub(crate) max_running: usize,
    /// Tokens of one step, all sequences together.
    pub(crate) max_step_tokens: usize,
    /// Tokens of prompts in a step in which an answer that has begun takes part.
    pub(crate) max_prompt_tokens_beside_answers: usize,
}

/// What runs next. Empty when nothing can run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// One entry for each sequence that takes part: answers that have begun, then prompts, each oldest first.
    pub(crate) steps: Vec<Step>,
}

/// The part of one sequence in a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    /// Whose tokens.
    pub(crate) sequence: SequenceId,
    /// Index of the first token. All before it are in the cache.
    pub(crate) start: usize,
    /// Number of tokens, at least one.
    pub(crate) n_tokens: usize,
    /// The last known token is among them, so its logits give the next one.
    pub(crate) samples: bool,
}

#[derive(Debug)]
struct Sequence {
    id: SequenceId,
    /// Tokens that are known: the prompt and what was generated.
    n_known: usize,
    /// Tokens that are in the cache.
    n_computed: usize,
    /// Tokens it may have in all.
    max_tokens: usize,
    /// Tokens of its prompt.
    n_prompt: usize,
}

impl Sequence {
    /// Whether its first token is known.
    fn answers(&self) -> bool {
        self.n_known > self.n_prompt
    }
}

impl Scheduler {
    /// A scheduler without sequences that gives out these blocks.
    pub(crate) fn new(limits: SchedulerLimits, blocks: BlockAllocator) -> Self {
        Self { limits, blocks, waiting: VecDeque::new(), running: Vec::new() }
    }

    /// Queues a sequence of `n_prompt` tokens whose answer may have `max_new` more. Errors: [`Error::Busy`]
    /// when the queue is full, [`Error::ContextLength`] when the cache could not hold the sequence if it were
    /// alone, [`Error::Internal`] for an empty prompt or an id that is here already.
    pub(crate) fn submit(&mut self, id: SequenceId, n_prompt: usize, max_new: usize) -> Result<(), Error> {
        let max_tokens = n_prompt.saturating_add(max_new);
        if n_prompt == 0 || self.contains(id) {
            return Err(Error::Internal(format!("sequence {} is empty or scheduled already", id.0)));
        }
        if max_tokens > self.blocks.capacity() {
            return Err(Error::ContextLength { tokens: max_tokens, limit: self.blocks.capacity() });
        }
        // Admitting first keeps a queue of length 0 usable: then nothing may wait, but one sequence may run.
        self.admit();
        let starts_at_once = self.waiting.is_empty() && self.has_room(max_tokens);
        if !starts_at_once && self.waiting.len() >= self.limits.max_waiting {
            return Err(Error::Busy { waiting: self.waiting.len() });
        }
        self.waiting.push_back(Sequence { id, n_known: n_prompt, n_computed: 0, max_tokens, n_prompt });
        self.admit();
        Ok(())
    }

    /// Admits what has room and says what runs next, among the sequences that are `ready`: pictures may still have to
    /// be embedded. Planning again without recording gives the same plan. A sequence that has all the tokens it may
    /// have gets no step any more and waits to be removed.
    pub(crate) fn plan(&mut self, ready: impl Fn(SequenceId) -> bool) -> Plan {
        self.admit();
        let mut budget = self.limits.max_step_tokens.max(1);
        let mut steps = Vec::new();
        let mut take = |sequence: &Sequence, budget: &mut usize| {
            let missing = sequence.n_known.min(sequence.max_tokens).saturating_sub(sequence.n_computed);
            let n_tokens = missing.min(*budget);
            if n_tokens == 0 || !ready(sequence.id) {
                return;
            }
            *budget -= n_tokens;
            steps.push(Step {
                sequence: sequence.id,
                start: sequence.n_computed,
                n_tokens,
                samples: n_tokens == missing,
            });
        };
        let (answers, prompts): (Vec<&Sequence>, Vec<&Sequence>) =
            self.running.iter().partition(|sequence| sequence.answers());
        let whole = budget;
        answers.into_iter().for_each(|sequence| take(sequence, &mut budget));
        if budget < whole {
            budget = budget.min(self.limits.max_prompt_tokens_beside_answers.max(1));
        }
        prompts.into_iter().for_each(|sequence| take(sequence, &mut budget));
        Plan { steps }
    }

    /// The sequences that have their blocks, oldest first.
    pub(crate) fn running(&self) -> impl Iterator<Item = SequenceId> + '_ {
        self.running.iter().map(|sequence| sequence.id)
    }

    /// Says that a step was computed. Where it samples, the sequence has one token more. A step of a sequence
    /// that was removed in between, or that was recorded already, changes nothing.
    pub(crate) fn record(&mut self, step: &Step) {
        let running = self.running.iter_mut().find(|sequence| sequence.id == step.sequence);
        if let Some(sequence) = running.filter(|sequence| sequence.n_computed == step.start) {
            sequence.n_computed = sequence.n_known.min(step.start.saturating_add(step.n_tokens));
            if step.samples {
                sequence.n_known += 1;
            }
        }
    }

    /// Forgets a sequence that is finished or cancelled, and frees its blocks. Returns whether it was here.
    pub(crate) fn remove(&mut self, id: SequenceId) -> bool {
        let was_here = self.contains(id);
        self.waiting.retain(|sequence| sequence.id != id);
        self.running.retain(|sequence| sequence.id != id);
        self.blocks.release(id);
        was_here
    }

    /// The blocks, to look up a running sequence's table.
    pub(crate) fn blocks(&self) -> &BlockAllocator {
        &self.blocks
    }

    /// Sequences that wait.
    #[cfg(test)]
    pub(crate) fn n_waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Sequences that run.
    pub(crate) fn n_running(&self) -> usize {
        self.running.len()
    }

    fn contains(&self, id: SequenceId) -> bool {
        self.waiting.iter().chain(&self.running).any(|sequence| sequence.id == id)
    }

    fn has_room(&self, max_tokens: usize) -> bool {
        let needed = max_tokens.div_ceil(self.blocks.block_size());
        self.running.len() < self.limits.max_running.max(1) && needed <= self.blocks.n_free()
    }

    /// Moves sequences from the queue to the running ones, as long as the first has room. [`Scheduler::plan`] does so
    /// too.
    pub(crate) fn admit(&mut self) {
        while let Some(first) = self.waiting.front() {
            if !self.has_room(first.max_tokens) || self.blocks.reserve(first.id, first.max_tokens).is_err() {
                break;
            }
            self.running.extend(self.waiting.pop_front());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use super::*;

    const ONE_BY_ONE: SchedulerLimits = SchedulerLimits {
        max_waiting: 2,
        max_running: 1,
        max_step_tokens: 8,
        max_prompt_tokens_beside_answers: 8,
    };
    const THREE: SchedulerLimits = SchedulerLimits { max_running: 3, ..ONE_BY_ONE };

    /// What happens, with the result that is expected.
    enum Call {
        /// id, n_prompt, max_new
        Submit(u64, usize, usize),
        Refuse(u64, usize, usize, Error),
        /// Each step as (id, start, n_tokens, samples); all of them are computed and recorded.
        Run(&'static [(u64, usize, usize, bool)]),
        Remove(u64),
        Unknown(u64),
        /// waiting, running, free blocks
        State(usize, usize, usize),
    }

    /// Plays the calls on a cache of 8 blocks of 4 tokens.
    fn check(limits: SchedulerLimits, calls: &[Call]) {
        let blocks = BlockAllocator::new(8, NonZeroUsize::new(4).unwrap());
        let mut scheduler = Scheduler::new(limits, blocks);
        for (index, call) in calls.iter().enumerate() {
            let at = format!("call {index}");
            match call {
                Call::Submit(id, n_prompt, max_new) => {
                    assert_eq!(scheduler.submit(SequenceId(*id), *n_prompt, *max_new), Ok(()), "{at}");
                }
                Call::Refuse(id, n_prompt, max_new, error) => {
                    assert_eq!(
                        scheduler.submit(SequenceId(*id), *n_prompt, *max_new).as_ref(),
                        Err(error),
                        "{at}"
                    );
                }
                Call::Run(expected) => {
                    let steps = expected.iter().map(|&(id, start, n_tokens, samples)| Step {
                        sequence: SequenceId(id),
                        start,
                        n_tokens,
                        samples,
                    });
                    let plan = scheduler.plan(|_| true);
                    assert_eq!(plan, Plan { steps: steps.collect() }, "{at}");
                    assert_eq!(plan, scheduler.plan(|_| true), "{at}: planning changed the plan");
                    plan.steps.iter().for_each(|step| scheduler.record(step));
                }
                Call::Remove(id) => assert!(scheduler.remove(SequenceId(*id)), "{at}"),
                Call::Unknown(id) => assert!(!scheduler.remove(SequenceId(*id)), "{at}"),
                Call::State(waiting, running, free) => {
                    let found = (scheduler.n_waiting(), scheduler.n_running(), scheduler.blocks().n_free());
                    assert_eq!(found, (*waiting, *running, *free), "{at}");
                }
            }
        }
    }

    use Call::*;

    #[test]
    fn computes_a_long_prompt_in_pieces_and_then_one_by_one() {
        check(
            ONE_BY_ONE,
            &[
                Run(&[]),
                Submit(1, 19, 4),
                State(0, 1, 2),
                Run(&[(1, 0, 8, false)]),
                Run(&[(1, 8, 8, false)]),
                Run(&[(1, 16, 3, true)]),
                Run(&[(1, 19, 1, true)]),
                Run(&[(1, 20, 1, true)]),
                Remove(1),
                State(0, 0, 8),
                Run(&[]),
            ],
        );
    }

    #[test]
    fn a_prompt_that_ends_at_a_steps_edge_samples_there() {
        check(ONE_BY_ONE, &[Submit(1, 8, 1), Run(&[(1, 0, 8, true)]), Run(&[(1, 8, 1, true)]), Run(&[])]);
        check(ONE_BY_ONE, &[Submit(1, 16, 0), Run(&[(1, 0, 8, false)]), Run(&[(1, 8, 8, true)]), Run(&[])]);
    }

    #[test]
    fn the_others_wait_in_their_order() {
        check(
            ONE_BY_ONE,
            &[
                Submit(1, 4, 4),
                Submit(2, 4, 4),
                Submit(3, 4, 4),
                State(2, 1, 6),
                Refuse(4, 4, 4, Error::Busy { waiting: 2 }),
                Run(&[(1, 0, 4, true)]),
                Remove(2), // Cancelled while it waits.
                Submit(4, 4, 4),
                Remove(1),
                Run(&[(3, 0, 4, true)]),
                Remove(3), // Cancelled while it runs.
                Unknown(3),
                Run(&[(4, 0, 4, true)]),
            ],
        );
    }

    #[test]
    fn refuses_what_could_never_run() {
        check(
            ONE_BY_ONE,
            &[
                Submit(1, 31, 1),
                Refuse(2, 32, 1, Error::ContextLength { tokens: 33, limit: 32 }),
                Refuse(2, usize::MAX, usize::MAX, Error::ContextLength { tokens: usize::MAX, limit: 32 }),
                Refuse(2, 0, 1, Error::Internal("sequence 2 is empty or scheduled already".to_owned())),
                Refuse(1, 1, 1, Error::Internal("sequence 1 is empty or scheduled already".to_owned())),
                State(0, 1, 0),
            ],
        );
    }

    #[test]
    fn without_a_queue_one_may_run() {
        let limits = SchedulerLimits {
            max_waiting: 0,
            max_running: 0,
            max_step_tokens: 0,
            max_prompt_tokens_beside_answers: 0,
        };
        check(
            limits,
            &[
                Submit(1, 2, 1),
                Refuse(2, 2, 1, Error::Busy { waiting: 0 }),
                Run(&[(1, 0, 1, false)]),
                Run(&[(1, 1, 1, true)]),
                Remove(1),
                Submit(2, 2, 1),
            ],
        );
    }

    #[test]
    fn shares_a_step_among_many() {
        check(
            THREE,
            &[
                Submit(1, 3, 5),
                Submit(2, 9, 3),
                Run(&[(1, 0, 3, true), (2, 0, 5, false)]),
                Submit(3, 6, 2),
                // The one that answers comes first, then the older prompt; the younger gets what is left.
                Run(&[(1, 3, 1, true), (2, 5, 4, true), (3, 0, 3, false)]),
                Run(&[(1, 4, 1, true), (2, 9, 1, true), (3, 3, 3, true)]),
                Remove(2),
                Run(&[(1, 5, 1, true), (3, 6, 1, true)]),
                State(0, 2, 4),
            ],
        );
    }

    #[test]
    fn prompts_are_cut_small_beside_answers() {
        let limits = SchedulerLimits { max_prompt_tokens_beside_answers: 3, ..THREE };
        check(
            limits,
            &[
                Submit(1, 9, 3),
                Run(&[(1, 0, 8, false)]),
                Submit(2, 2, 5),
                // Nobody answers yet: the step is filled.
                Run(&[(1, 8, 1, true), (2, 0, 2, true)]),
                Submit(3, 8, 2),
                Run(&[(1, 9, 1, true), (2, 2, 1, true), (3, 0, 3, false)]),
                Remove(1),
                Run(&[(2, 3, 1, true), (3, 3, 3, false)]),
                Remove(2),
                Run(&[(3, 6, 2, true)]),
            ],
        );
    }

    #[test]
    fn an_answer_comes_before_an_older_prompt() {
        let limits = SchedulerLimits { max_step_tokens: 4, ..THREE };
        check(
            limits,
            &[
                Submit(1, 9, 3),
                Run(&[(1, 0, 4, false)]),
                Run(&[(1, 4, 4, false)]),
                Submit(2, 3, 5),
                Run(&[(1, 8, 1, true), (2, 0, 3, true)]),
                Submit(3, 7, 1),
                Run(&[(1, 9, 1, true), (2, 3, 1, true), (3, 0, 2, false)]),
            ],
        );
    }

    #[test]
    fn who_is_not_ready_takes_no_part_and_keeps_its_place() {
        let blocks = BlockAllocator::new(8, NonZeroUsize::new(4).unwrap());
        let mut scheduler = Scheduler::new(THREE, blocks);
        scheduler.submit(SequenceId(1), 6, 4).unwrap();
        scheduler.submit(SequenceId(2), 6, 4).unwrap();
        assert_eq!(scheduler.running().collect::<Vec<_>>(), [SequenceId(1), SequenceId(2)]);
        let step = |id, start, n_tokens, samples| Step { sequence: SequenceId(id), start, n_tokens, samples };
        let plan = scheduler.plan(|id| id != SequenceId(1));
        assert_eq!(plan.steps, [step(2, 0, 6, true)]);
        assert_eq!(scheduler.plan(|_| false), Plan::default());
        plan.steps.iter().for_each(|step| scheduler.record(step));
        assert_eq!(scheduler.plan(|_| true).steps, [step(2, 6, 1, true), step(1, 0, 6, true)]);
    }

    #[test]
    fn waits_for_blocks_without_overtaking() {
        check(
            THREE,
            &[
                Submit(1, 4, 16),
                Submit(2, 4, 12), // Needs 4 blocks, 3 are free.
                Submit(3, 4, 4),  // Would fit, but is younger.
                State(2, 1, 3),
                Run(&[(1, 0, 4, true)]),
                Remove(1),
                Run(&[(2, 0, 4, true), (3, 0, 4, true)]),
                State(0, 2, 2),
            ],
        );
    }

    #[test]
    fn ignores_steps_that_are_out_of_date() {
        let blocks = BlockAllocator::new(8, NonZeroUsize::new(4).unwrap());
        let mut scheduler = Scheduler::new(ONE_BY_ONE, blocks);
        scheduler.submit(SequenceId(1), 4, 4).unwrap();
        let first = scheduler.plan(|_| true);
        scheduler.record(&first.steps[0]);
        let second = scheduler.plan(|_| true);
        scheduler.record(&first.steps[0]);
        assert_eq!(scheduler.plan(|_| true), second);
        scheduler.remove(SequenceId(1));
        scheduler.record(&second.steps[0]);
        assert_eq!(scheduler.plan(|_| true), Plan::default());
    }
}
