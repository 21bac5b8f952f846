//! The thread that owns the device: it takes prepared requests, lets the scheduler choose, computes a step of all
//! sequences that take part at once, samples, and tells each caller what is new. Nobody else touches the models' cache.
//!
//! Where logits lie on a device, tokens are chosen there and one integer is read back for each sequence; the logits come
//! to the host for those answers alone that need them: with log-probabilities, or following a grammar.
//!
//! Pictures are embedded between steps, one block of the tower at a time, so that answers go on meanwhile.

use std::{
    collections::HashMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use ocellus_decoder::{Batch, KvCache, Sequence};
use ocellus_kernels::{Tensor, rows, sampling};
use tokio::sync::mpsc::UnboundedSender;

use crate::{
    Error, Event, FinishReason, LoadError, Model, Request, Started,
    blocks::BlockAllocator,
    engine::Waiting,
    load::LoadCounters,
    prepare::Prepared,
    sampler::DeviceSampler,
    scheduler::{Scheduler, SchedulerLimits, SequenceId, Step},
};

mod active;
mod pictures;

use active::Active;
use pictures::InTower;

/// A request that is ready for the device.
pub(crate) struct Job {
    request: Request,
    prepared: Prepared,
    pub(crate) events: UnboundedSender<Event>,
    waiting: Waiting,
    ready: Instant,
    /// What the caller logs under.
    span: tracing::Span,
}

impl Job {
    pub(crate) fn new(
        request: Request,
        prepared: Prepared,
        events: UnboundedSender<Event>,
        waiting: Waiting,
    ) -> Self {
        let span = tracing::Span::current();
        Self { request, prepared, events, waiting, ready: Instant::now(), span }
    }
}

/// How much the runner may use.
pub(crate) struct RunnerOptions {
    pub(crate) blocks: usize,
    pub(crate) block_size: usize,
    pub(crate) context_tokens: usize,
    pub(crate) prefill_chunk: usize,
    pub(crate) prefill_chunk_beside_answers: usize,
    pub(crate) parallel: usize,
    /// Tokens of pictures that go through the tower together; a larger picture goes alone.
    pub(crate) picture_batch: usize,
    pub(crate) queue_limit: usize,
    pub(crate) load: Arc<LoadCounters>,
}

/// Makes the cache and starts the thread. It ends when the last sender is gone and the last answer is given.
pub(crate) fn start(model: Arc<Model>, options: &RunnerOptions) -> Result<mpsc::Sender<Job>, LoadError> {
    let cache = model.decoder.new_cache(options.blocks, options.block_size)?;
    let blocks = u32::try_from(options.blocks)
        .ok()
        .zip(std::num::NonZeroUsize::new(options.block_size))
        .map(|(blocks, size)| BlockAllocator::new(blocks, size))
        .ok_or_else(|| LoadError::Contradiction(format!("{} cache blocks are too many", options.blocks)))?;
    let limits = SchedulerLimits {
        max_waiting: options.queue_limit.max(1),
        max_running: options.parallel,
        max_step_tokens: options.prefill_chunk,
        max_prompt_tokens_beside_answers: options.prefill_chunk_beside_answers,
    };
    let (sender, jobs) = mpsc::channel();
    let vocabulary = model.decoder.config().vocab_size;
    let mut runner = Runner {
        device_sampler: DeviceSampler::new(options.parallel, vocabulary, &model.device)?,
        model,
        cache,
        scheduler: Scheduler::new(limits, blocks),
        running: HashMap::new(),
        in_tower: None,
        next_id: 0,
        context_tokens: options.context_tokens,
        picture_batch: options.picture_batch,
        load: options.load.clone(),
    };
    thread::Builder::new().name("ocellus-device".to_owned()).spawn(move || runner.run(&jobs))?;
    Ok(sender)
}

/// Calls `work`; a panic in it becomes an error, so that one request's trouble ends no thread. What `work`
/// leaves half-done must be dropped or overwritten by the caller.
pub(crate) fn contained<R>(work: impl FnOnce() -> Result<R, Error>) -> Result<R, Error> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<&str>().map(ToString::to_string);
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
        tracing::error!(panic = %text, "a request ran into a fault of the engine");
        Err(Error::Internal(format!("a fault of the engine: {text}")))
    })
}

struct Runner {
    model: Arc<Model>,
    cache: KvCache,
    /// `None` where the host chooses all tokens.
    device_sampler: Option<DeviceSampler>,
    scheduler: Scheduler,
    running: HashMap<SequenceId, Active>,
    /// The pictures that are being embedded.
    in_tower: Option<InTower>,
    next_id: u64,
    context_tokens: usize,
    picture_batch: usize,
    load: Arc<LoadCounters>,
}

/// What the last of a step's tokens gives.
enum Next<'a> {
    /// Nothing: the end of what is known is not reached.
    Nothing,
    /// `(vocab_size)`, to choose from.
    Logits(&'a [f32]),
    /// The device has chosen.
    Chosen(sampling::Choice),
}

impl Runner {
    fn run(&mut self, jobs: &mpsc::Receiver<Job>) {
        loop {
            self.publish_load();
            if self.running.is_empty() {
                ocellus_kernels::release_idle_buffers();
                match jobs.recv() {
                    Ok(job) => self.admit(job),
                    Err(mpsc::RecvError) => return,
                }
            }
            while let Ok(job) = jobs.try_recv() {
                self.admit(job);
            }
            self.drop_cancelled();
            let encoding = self.encode();
            let running = &self.running;
            let plan = self.scheduler.plan(|id| running.get(&id).is_some_and(Active::is_ready));
            if plan.steps.is_empty() {
                // Every sequence fits into the empty cache, so something runs unless nothing is there.
                if !encoding && !self.running.is_empty() {
                    self.fail_all(&Error::Internal("nothing can run although requests wait".to_owned()));
                }
                continue;
            }
            self.publish_load();
            self.compute(&plan.steps);
        }
    }

    /// Computes steps of different sequences at once. A fault must not fail the others: after one, each is computed
    /// alone, which writes the same places of the cache again.
    fn compute(&mut self, steps: &[Step]) {
        let alone = |step: &Step, running: &HashMap<SequenceId, Active>| {
            running.get(&step.sequence).map(|active| active.span.clone())
        };
        // A step of one sequence is logged under its request.
        let span = if let [step] = steps { alone(step, &self.running) } else { None };
        let entered = span.as_ref().map(tracing::Span::enter);
        let Err(error) = contained(|| self.step(steps)) else { return };
        drop(entered);
        if let Some(device) = &mut self.device_sampler {
            device.release_all();
        }
        if let [step] = steps {
            return self.fail(step.sequence, error);
        }
        for step in steps {
            let span = alone(step, &self.running);
            let _entered = span.as_ref().map(tracing::Span::enter);
            if let Err(error) = contained(|| self.step(std::slice::from_ref(step))) {
                self.fail(step.sequence, error);
            }
        }
    }

    /// Leaves the numbers behind that others read while this thread computes.
    fn publish_load(&self) {
        self.load.publish(self.scheduler.n_running(), self.scheduler.blocks().n_free());
    }

    /// Takes a request in, or refuses it.
    fn admit(&mut self, job: Job) {
        let Job { request, prepared, events, waiting, ready, span } = job;
        let id = SequenceId(self.next_id);
        self.next_id += 1;
        let n_prompt = prepared.prompt.ids.len();
        let room = self.context_tokens.saturating_sub(n_prompt);
        let max_new = request.max_tokens.unwrap_or(room).min(room);
        let admitted = if n_prompt == 0 || room == 0 {
            Err(Error::ContextLength { tokens: n_prompt, limit: self.context_tokens.saturating_sub(1) })
        } else {
            self.scheduler.submit(id, n_prompt, max_new)
        };
        if let Err(error) = admitted {
            let _ = events.send(Event::Failed(error));
            return;
        }
        let started = Started { prompt: prepared.prompt.tokens, media: prepared.sizes.clone() };
        // A caller who is gone is found before the next step.
        let _ = events.send(Event::Started(started));
        let job = Job { request, prepared, events, waiting, ready, span };
        self.running.insert(id, Active::new(job, max_new));
        if max_new == 0 {
            self.finish(id, FinishReason::Length);
        }
    }

    fn drop_cancelled(&mut self) {
        let gone: Vec<_> =
            self.running.iter().filter(|(_, active)| active.events.is_closed()).map(|(&id, _)| id).collect();
        for id in gone {
            self.forget(id);
        }
    }

    /// Computes some tokens of each sequence, and samples where its end is reached. When it fails, nothing was
    /// recorded: the same steps can be computed again.
    fn step(&mut self, steps: &[Step]) -> Result<(), Error> {
        let computing = Instant::now();
        let Self { model, cache, device_sampler, scheduler, running, .. } = self;
        // The logits of those whose tokens the device chooses come first.
        let there = |step: &&Step| {
            let active = running.get(&step.sequence);
            device_sampler.is_some() && step.samples && active.is_some_and(Active::needs_no_logits)
        };
        let (mut ordered, others): (Vec<&Step>, Vec<&Step>) = steps.iter().partition(there);
        let n_there = ordered.len();
        ordered.extend(others);
        let (mut embeddings, mut positions, mut logits_for) = (Vec::new(), Vec::new(), Vec::new());
        let mut sequences = Vec::with_capacity(steps.len());
        for step in &ordered {
            let active = running.get_mut(&step.sequence).ok_or_else(unknown)?;
            active.begin();
            let end = step.start + step.n_tokens;
            embeddings.push(active.embeddings(model, step.start, end)?);
            positions.extend((step.start..end).map(|index| active.position(index)));
            let blocks = scheduler.blocks().table(step.sequence);
            sequences.push(Sequence { queries: step.n_tokens, keys: end, blocks });
            if step.samples {
                logits_for.push(positions.len() as u32 - 1);
            }
        }
        let embeddings = match embeddings.pop() {
            Some(only) if embeddings.is_empty() => only,
            last => {
                embeddings.extend(last);
                rows::concat(&embeddings).map_err(internal)?
            }
        };
        let batch =
            Batch { embeddings, positions: &positions, sequences: &sequences, logits_for: &logits_for };
        let logits = model.decoder.forward(&batch, cache).map_err(internal)?;
        let chosen = self.choose(&logits, &ordered[..n_there])?;
        let logits = match logits_for.len() - chosen.len() {
            0 => Vec::new(),
            _ if chosen.is_empty() => logits.to_f32_vec().map_err(internal)?,
            rest => {
                logits.narrow(0, chosen.len(), rest).and_then(|rest| rest.to_f32_vec()).map_err(internal)?
            }
        };
        let mut chosen = chosen.into_iter();
        let mut rows = logits.chunks_exact(self.model.decoder.config().vocab_size.max(1));
        let spent = computing.elapsed();
        for step in ordered {
            let next = if step.samples {
                let of_host = || rows.next().map_or(Next::Nothing, Next::Logits);
                chosen.next().map_or_else(of_host, Next::Chosen)
            } else {
                Next::Nothing
            };
            // From here on a fault is this sequence's alone.
            if let Err(error) = contained(|| self.take(step, next, spent)) {
                self.fail(step.sequence, error);
            }
        }
        Ok(())
    }

    /// Has the device choose the tokens of `steps` from the first rows of `logits`. None when it can't, so that the host
    /// has to, from now on.
    fn choose(&mut self, logits: &Tensor, steps: &[&Step]) -> Result<Vec<sampling::Choice>, Error> {
        let Some(device) = self.device_sampler.as_mut().filter(|_| !steps.is_empty()) else {
            return Ok(Vec::new());
        };
        let turn = |step: &&Step| {
            self.running.get(&step.sequence).map(|active| active.turn(step.sequence)).ok_or_else(unknown)
        };
        let turns = steps.iter().map(turn).collect::<Result<Vec<_>, _>>()?;
        device.choose(logits, &turns).or_else(|error| {
            tracing::warn!(%error, "the device can't choose tokens, so the host does");
            self.device_sampler = None;
            Ok(Vec::new())
        })
    }

    /// Records that a step was computed in `spent`, and takes the next token in, when it gives one.
    fn take(&mut self, step: &Step, next: Next<'_>, spent: Duration) -> Result<(), Error> {
        let Self { model, scheduler, running, load, .. } = self;
        let active = running.get_mut(&step.sequence).ok_or_else(unknown)?;
        if active.first_token.is_none() {
            active.timings.prefill += spent;
        }
        active.computed(step.start + step.n_tokens);
        scheduler.record(step);
        let choice = match next {
            Next::Nothing => return Ok(()),
            Next::Logits(logits) => active.choose(logits)?,
            Next::Chosen(choice) => active.sampler.settle(choice),
        };
        // Counted here and not where answers are read: nobody reads the tokens of a caller who has left.
        load.count_token();
        active.first_token.get_or_insert_with(Instant::now);
        if let Some(reason) = active.accept(choice, model)? {
            self.finish(step.sequence, reason);
        }
        Ok(())
    }

    /// Tells the caller of the end.
    fn finish(&mut self, id: SequenceId, reason: FinishReason) {
        if let Some(mut active) = self.forget(id) {
            active.flush(reason);
        }
    }

    fn fail(&mut self, id: SequenceId, error: Error) {
        if let Some(active) = self.forget(id) {
            let _ = active.events.send(Event::Failed(error));
        }
    }

    fn fail_all(&mut self, error: &Error) {
        let ids: Vec<_> = self.running.keys().copied().collect();
        for id in ids {
            self.fail(id, error.clone());
        }
    }

    fn forget(&mut self, id: SequenceId) -> Option<Active> {
        if let Some(device) = &mut self.device_sampler {
            device.release(id);
        }
        self.scheduler.remove(id);
        self.running.remove(&id)
    }
}

/// A sequence is forgotten only together with its place in the scheduler.
fn unknown() -> Error {
    Error::Internal("a step was planned for an unknown sequence".to_owned())
}

/// The models are asked only for what was checked before, so their errors are faults of ours or the device's.
fn internal(error: impl std::fmt::Display) -> Error {
    Error::Internal(error.to_string())
}
