//! The thread that owns the device: it takes prepared requests, lets the scheduler choose, computes a step of all
//! sequences that take part at once, samples, and tells each caller what is new. Nobody else touches the models' cache.
//!
//! Where logits lie on a device, tokens are chosen there and one integer is read back for each sequence; the logits come
//! to the host for those answers alone that need them: with log-probabilities, or following a grammar.
//!
//! Pictures are embedded between steps, one block of the tower at a time, so that answers go on meanwhile; those that
//! wait, of whichever requests, go through the tower together as far as the device gains by it.

use std::{
    collections::{HashMap, VecDeque},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use ocellus_decoder::{Batch, KvCache, Sequence};
use ocellus_kernels::{Tensor, graph, rows, sampling};
use ocellus_vision_encoder::{Encoding, patches::Patches};
use tokio::sync::mpsc::UnboundedSender;

use crate::{
    Error, Event, FinishReason, Finished, LoadError, Logprob, Model, Request, Started, Stop, TextDelta,
    Timings, TokenLogprob,
    blocks::BlockAllocator,
    detokenizer::Detokenizer,
    engine::Waiting,
    load::LoadCounters,
    prepare::Prepared,
    sampler::{Choice, DeviceSampler, Sampler, Turn},
    scheduler::{Scheduler, SchedulerLimits, SequenceId, Step},
    stop::StopMatcher,
    stop_ids::StopIds,
};

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

/// Pictures and clips on their way through the tower.
struct InTower {
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

/// A sequence between its submission and its end.
struct Active {
    request: Request,
    prepared: Prepared,
    events: UnboundedSender<Event>,
    span: tracing::Span,
    /// Given back when the sequence runs for the first time.
    waiting: Option<Waiting>,
    /// Pictures and clips that are embedded already, in their order.
    embedded: Vec<Tensor>,
    /// How many of them are being embedded.
    in_tower: usize,
    /// The embeddings of all pictures and clips; there from the last of them to the end of the prompt.
    media: Option<Tensor>,
    /// Prompt and answer.
    ids: Vec<u32>,
    max_new: usize,
    sampler: Sampler,
    detokenizer: Detokenizer,
    stop_ids: StopIds<Held>,
    stop: StopMatcher,
    /// Log-probabilities of tokens of which no byte has been told yet.
    logprobs: VecDeque<TokenLogprob>,
    /// Bytes of the token whose log-probability was told last that are still held back.
    held_bytes: usize,
    timings: Timings,
    ready: Instant,
    started: Option<Instant>,
    first_token: Option<Instant>,
}

/// What a token adds to the answer, as long as it may still become part of a stop sequence.
struct Held {
    bytes: Vec<u8>,
    logprob: Option<TokenLogprob>,
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

    /// Does the next piece of embedding pictures. Whether there was one.
    fn encode(&mut self) -> bool {
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
        let seed = request.sampling.seed.unwrap_or_else(random_seed);
        let active = Active {
            sampler: Sampler::new(&request.sampling, seed, &prepared.prompt.ids),
            stop: StopMatcher::new(request.stop.iter().filter_map(|stop| match stop {
                Stop::Text(text) => Some(text.as_str()),
                Stop::Ids(_) => None,
            })),
            stop_ids: StopIds::new(request.stop.iter().filter_map(|stop| match stop {
                Stop::Ids(ids) => Some(ids.as_slice()),
                Stop::Text(_) => None,
            })),
            detokenizer: Detokenizer::default(),
            ids: prepared.prompt.ids.clone(),
            timings: Timings { decode_images: prepared.decode_images, ..Timings::default() },
            waiting: Some(waiting),
            embedded: Vec::new(),
            in_tower: 0,
            media: None,
            logprobs: VecDeque::new(),
            held_bytes: 0,
            started: None,
            first_token: None,
            request,
            prepared,
            events,
            span,
            max_new,
            ready,
        };
        self.running.insert(id, active);
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

impl Active {
    /// The wait is over: the device works on it.
    fn begin(&mut self) {
        if self.started.is_none() {
            self.waiting = None;
            self.started = Some(Instant::now());
            self.timings.queue = self.ready.elapsed();
        }
    }

    /// Whether all pictures are embedded.
    fn is_ready(&self) -> bool {
        self.prepared.patches.is_empty() && self.in_tower == 0
    }

    /// Takes the embeddings of the next picture in.
    fn embedded(&mut self, embeddings: Tensor) -> Result<(), Error> {
        self.in_tower = self.in_tower.saturating_sub(1);
        self.embedded.push(embeddings);
        if self.is_ready() {
            self.media = Some(rows::concat(&self.embedded).map_err(internal)?);
            self.embedded.clear();
        }
        Ok(())
    }

    /// Embeds tokens `start..end`, pictures in their places: `(end - start, hidden_size)`.
    fn embeddings(&self, model: &Model, start: usize, end: usize) -> Result<Tensor, Error> {
        let mut embeddings = model.decoder.embed(&self.ids[start..end]).map_err(internal)?;
        let Some(media) = &self.media else { return Ok(embeddings) };
        let mut first_row = 0;
        let (mut targets, mut sources) = (Vec::new(), Vec::new());
        for span in &self.prepared.prompt.media {
            let overlap = span.start.max(start)..(span.start + span.len).min(end);
            for index in overlap {
                targets.push((index - start) as u32);
                sources.push((first_row + index - span.start) as u32);
            }
            first_row += span.len;
        }
        if !targets.is_empty() {
            let values = rows::gather(media, &sources).map_err(internal)?;
            embeddings = rows::scatter(&embeddings, &targets, &values).map_err(internal)?;
        }
        Ok(embeddings)
    }

    /// All tokens before `end` are in the cache: after the prompt, nobody asks for pictures any more.
    fn computed(&mut self, end: usize) {
        if end >= self.prepared.prompt.ids.len() {
            self.media = None;
        }
    }

    /// Time, height and width of token `index`.
    fn position(&self, index: usize) -> [u32; 3] {
        let positions = &self.prepared.positions;
        positions.tokens.get(index).copied().unwrap_or_else(|| {
            let generated = (index - positions.tokens.len()) as u32;
            [positions.next.saturating_add(generated); 3]
        })
    }

    /// Whether the next token is all that is wanted of its logits.
    fn needs_no_logits(&self) -> bool {
        self.request.logprobs.is_none() && self.prepared.grammar.is_none()
    }

    /// What a device needs to choose the next token.
    fn turn(&self, id: SequenceId) -> Turn<'_> {
        let (prompt, answer) = self.ids.split_at(self.prepared.prompt.ids.len());
        Turn { id, sampler: &self.sampler, prompt, answer }
    }

    /// Chooses the next token: among those that the answer's grammar allows, where it has one.
    fn choose(&mut self, logits: &[f32]) -> Result<Choice, Error> {
        let n_top = self.request.logprobs;
        match &mut self.prepared.grammar {
            None => Ok(self.sampler.sample(logits, n_top)),
            Some(grammar) => {
                let allowed = grammar.allowed()?;
                Ok(self.sampler.sample_allowed(logits, n_top, |id| allowed.has(id)))
            }
        }
    }

    /// Takes a sampled token in and tells the caller; a reason when it was the last.
    fn accept(&mut self, choice: Choice, model: &Model) -> Result<Option<FinishReason>, Error> {
        let Choice { id, logprobs } = choice;
        self.ids.push(id);
        if model.eos_token_ids.contains(&id) {
            // The turn's end is no part of the text, and neither are its log-probabilities.
            return Ok(Some(FinishReason::Stop));
        }
        let bytes_of = |id: u32| model.tokenizer.token_bytes(id).unwrap_or_default().to_vec();
        let entry = |id, logprob| Logprob { id, bytes: bytes_of(id), logprob };
        let logprob = logprobs.map(|logprobs| TokenLogprob {
            chosen: entry(id, logprobs.chosen),
            top: logprobs.top.iter().map(|&(id, logprob)| entry(id, logprob)).collect(),
        });
        let complete = match &mut self.prepared.grammar {
            Some(grammar) => grammar.advance(id)?,
            None => false,
        };
        let released = self.stop_ids.push(id, Held { bytes: bytes_of(id), logprob });
        if self.say(released.tokens) || released.stopped || complete {
            return Ok(Some(FinishReason::Stop));
        }
        Ok((self.completion_tokens() >= self.max_new).then_some(FinishReason::Length))
    }

    /// Turns tokens into text and tells the caller. True when a stop text is complete.
    fn say(&mut self, tokens: Vec<Held>) -> bool {
        for Held { bytes, logprob } in tokens {
            self.logprobs.extend(logprob);
            let characters = self.detokenizer.push(&bytes);
            let released = self.stop.push(&characters);
            self.tell(released.text);
            if released.stopped {
                return true;
            }
        }
        false
    }

    /// Sends new text with the log-probabilities of the tokens that begin in it.
    fn tell(&mut self, text: String) {
        if text.is_empty() {
            return;
        }
        let mut logprobs = Vec::new();
        while self.held_bytes < text.len() {
            let Some(next) = self.logprobs.pop_front() else { break };
            self.held_bytes += next.chosen.bytes.len();
            logprobs.push(next);
        }
        // Bytes that are no character became longer text.
        self.held_bytes = self.held_bytes.saturating_sub(text.len());
        self.send(text, logprobs);
    }

    fn send(&self, text: String, logprobs: Vec<TokenLogprob>) {
        let completion_tokens = self.completion_tokens();
        // A caller who is gone is found before the next step.
        let _ = self.events.send(Event::Text(TextDelta { text, completion_tokens, logprobs }));
    }

    /// Sends what was held back, and the end.
    fn flush(&mut self, reason: FinishReason) {
        let held = self.stop_ids.finish();
        self.say(held);
        let rest = self.detokenizer.finish();
        let released = self.stop.push(&rest);
        let mut text = released.text;
        if !released.stopped {
            text.push_str(&self.stop.finish());
        }
        self.tell(text);
        // Tokens without any text are part of the answer too, but those of a stop text are not.
        if !released.stopped && !self.logprobs.is_empty() {
            let logprobs = std::mem::take(&mut self.logprobs).into();
            self.send(String::new(), logprobs);
        }
        if let Some(first_token) = self.first_token {
            self.timings.decode = first_token.elapsed();
        }
        let _ = self.events.send(Event::Finished(Finished {
            reason,
            prompt: self.prepared.prompt.tokens,
            completion_tokens: self.completion_tokens(),
            timings: self.timings,
        }));
    }

    fn completion_tokens(&self) -> usize {
        self.ids.len() - self.prepared.prompt.ids.len()
    }
}

/// A seed for a request that names none.
fn random_seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(Instant::now())
}

/// A sequence is forgotten only together with its place in the scheduler.
fn unknown() -> Error {
    Error::Internal("a step was planned for an unknown sequence".to_owned())
}

/// The models are asked only for what was checked before, so their errors are faults of ours or the device's.
fn internal(error: impl std::fmt::Display) -> Error {
    Error::Internal(error.to_string())
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
