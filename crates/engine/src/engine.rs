//! The handle that callers hold: load a model once, submit requests from any thread, read events.

use std::{
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    task::{Context, Poll},
    thread,
};

use futures_core::Stream;
use ocellus_kernels::Device;
use ocellus_media::Budget;
use ocellus_weights::Source;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::{
    Error, Event, Formats, Load, LoadError, Model, Part, Place, Progress, Request, Sampling, Started,
    WeightFormat,
    load::LoadCounters,
    model,
    prepare::{Bounds, Prepared},
    runner::{self, Job, RunnerOptions},
};

/// A loaded model that answers requests. Clones share it; the threads end when the last clone and the last
/// answer are gone.
#[derive(Clone)]
pub struct Engine {
    shared: Arc<Shared>,
}

struct Shared {
    info: Info,
    /// For counting requests without running them.
    model: Arc<Model>,
    bounds: Bounds,
    /// Requests with pictures or clips on their way to the prepare threads.
    with_media: mpsc::Sender<Submitted>,
    /// Those of text alone: they take milliseconds and must not wait for pictures, which may take many seconds.
    of_text: mpsc::Sender<Submitted>,
    /// Requests that were submitted and have not started on the device yet.
    waiting: Arc<AtomicUsize>,
    queue_limit: usize,
    /// Written by the device's thread.
    load: Arc<LoadCounters>,
}

/// How a model is loaded and what it may use.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where to compute: `auto`, or a device's name.
    pub device: String,
    /// How weights are held.
    pub formats: Formats,
    /// Tokens that prompt and answer of all running requests may have together. `None` takes what the model was
    /// made for, up to 32768.
    pub context_tokens: Option<usize>,
    /// Bytes of the host's memory that may be taken, where no device has its own. `None`: nobody looks.
    pub host_memory: Option<usize>,
    /// What decoding a picture may cost.
    pub media_budget: Budget,
    /// Requests that may wait before further ones are refused.
    pub queue_limit: usize,
    /// Requests that are computed side by side; with weights in f32 it is one, so that its numbers are the same alone
    /// and in company.
    pub parallel: usize,
    /// Prompt tokens that are computed at a time.
    pub prefill_chunk: usize,
    /// The same while answers are being written, which wait as long for their next token.
    pub prefill_chunk_beside_answers: usize,
    /// Tokens of pictures, of one request or of several, that are embedded together; a larger picture is embedded alone.
    /// `None`: as many as the largest picture has where the device gains by it, else each picture alone.
    pub picture_batch: Option<usize>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            device: "auto".to_owned(),
            formats: Formats::default(),
            context_tokens: None,
            host_memory: None,
            media_budget: Budget::default(),
            queue_limit: 64,
            parallel: 8,
            prefill_chunk: 1024,
            prefill_chunk_beside_answers: 128,
            picture_batch: None,
        }
    }
}

/// What is known of a loaded model.
#[derive(Clone, Debug)]
pub struct Info {
    /// Tokens that prompt and answer may have together.
    pub context_tokens: usize,
    /// The longest answer, in tokens: one prompt token at least lies before it.
    pub max_completion_tokens: usize,
    /// Sampling as the checkpoint's `generation_config.json` says.
    pub default_sampling: Sampling,
    /// Where it computes.
    pub device: String,
    /// Bytes of all weights as they are stored.
    pub weights_bytes: usize,
    /// How weights are held.
    pub formats: Formats,
}

/// A request on its way to a prepare thread.
struct Submitted {
    request: Request,
    events: UnboundedSender<Event>,
    waiting: Waiting,
    /// What the caller logs under.
    span: tracing::Span,
}

/// Counts a request as waiting for as long as it lives.
#[derive(Debug)]
pub(crate) struct Waiting(Arc<AtomicUsize>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The default limit of the context: more would take gigabytes of cache that few need.
pub(crate) const DEFAULT_CONTEXT_TOKENS: usize = 32_768;
/// Tokens in a block of the cache.
const BLOCK_SIZE: usize = 16;
/// Threads that decode and resize pictures; each may hold one decoded picture in memory. One more prepares text.
const PREPARE_THREADS: usize = 2;

impl Engine {
    /// Loads a checkpoint and starts the threads.
    ///
    /// # Errors
    /// [`LoadError`] naming what is missing, broken or contradictory, and where.
    pub fn load(source: &Source, options: &Options, progress: &dyn Fn(Progress)) -> Result<Self, LoadError> {
        let device = Device::open(&options.device)?;
        if let Some((free, place)) = memory(&device, options)? {
            let plan = model::plan(source, options, place, free)?;
            progress(Progress::Planned { plan, free, place });
        }
        let model = Model::load_as(source, options.formats, &device, progress)?;
        Self::start(model, options)
    }

    /// Whether there is room for a model of which only the content of its `config.json` is here, and the bytes of its
    /// weights are known, as if it were stored in bf16: before it is fetched.
    ///
    /// # Errors
    /// [`LoadError::NoRoom`] when there is none, others when the configuration or the device can't be used.
    pub fn would_fit(config: &str, stored_bytes: usize, options: &Options) -> Result<(), LoadError> {
        match memory(&Device::open(&options.device)?, options)? {
            Some((free, place)) => {
                model::plan_of_config(config, stored_bytes, options, place, free).map(drop)
            }
            None => Ok(()),
        }
    }

    /// Starts the threads for a model that is loaded already.
    ///
    /// # Errors
    /// [`LoadError`] when the cache can't be made or a thread not be started.
    pub fn start(model: Model, options: &Options) -> Result<Self, LoadError> {
        let most = model.decoder.config().max_position_embeddings;
        let wanted = options.context_tokens.unwrap_or(DEFAULT_CONTEXT_TOKENS.min(most));
        if wanted < 2 || wanted > most {
            return Err(LoadError::Contradiction(format!(
                "the context is {wanted} tokens, expected 2 to {most} (max_position_embeddings in config.json)"
            )));
        }
        let info = Info {
            context_tokens: wanted,
            max_completion_tokens: wanted - 1,
            default_sampling: model.default_sampling.clone(),
            device: model.device.name().to_owned(),
            weights_bytes: model.weights_bytes,
            formats: model.formats,
        };
        let model = Arc::new(model);
        let runner_options = RunnerOptions {
            blocks: wanted.div_ceil(BLOCK_SIZE),
            block_size: BLOCK_SIZE,
            context_tokens: wanted,
            prefill_chunk: options.prefill_chunk.max(1),
            prefill_chunk_beside_answers: options.prefill_chunk_beside_answers.max(1),
            // Sums in f32 are cut by their size, so what is computed beside a request would show in its last digits.
            parallel: if model.formats.decoder == WeightFormat::F32 { 1 } else { options.parallel.max(1) },
            picture_batch: options.picture_batch.unwrap_or(match model.device.gains_by_batches() {
                true => model::LARGEST_PICTURE_TOKENS,
                false => 0,
            }),
            queue_limit: options.queue_limit,
            load: Arc::new(LoadCounters::new(wanted.div_ceil(BLOCK_SIZE))),
        };
        let load = runner_options.load.clone();
        let jobs = runner::start(model.clone(), &runner_options)?;
        let bounds = Bounds { media: options.media_budget, prompt_tokens: wanted - 1 };
        let (with_media, media_queue) = mpsc::channel::<Submitted>();
        let (of_text, text_queue) = mpsc::channel::<Submitted>();
        let media_queue = Arc::new(Mutex::new(media_queue));
        let mut queues = vec![media_queue; PREPARE_THREADS];
        queues.push(Arc::new(Mutex::new(text_queue)));
        for queue in queues {
            let (jobs, model) = (jobs.clone(), model.clone());
            thread::Builder::new()
                .name("ocellus-prepare".to_owned())
                .spawn(move || prepare(&queue, &jobs, &model, &bounds))?;
        }
        let waiting = Arc::new(AtomicUsize::new(0));
        let queue_limit = options.queue_limit;
        Ok(Self {
            shared: Arc::new(Shared { info, model, bounds, with_media, of_text, waiting, queue_limit, load }),
        })
    }

    /// Starts an answer. The first event is [`Event::Started`] or [`Event::Failed`]; dropping the stream cancels
    /// the request.
    pub fn submit(&self, request: Request) -> Events {
        let (events, receiver) = unbounded_channel();
        let before = self.shared.waiting.fetch_add(1, Ordering::AcqRel);
        let waiting = Waiting(self.shared.waiting.clone());
        let has_media = request
            .messages
            .iter()
            .any(|message| message.parts.iter().any(|part| !matches!(part, Part::Text(_))));
        let requests = if has_media { &self.shared.with_media } else { &self.shared.of_text };
        if before >= self.shared.queue_limit {
            // The receiver is held right here, so nothing can be lost.
            let _ = events.send(Event::Failed(Error::Busy { waiting: before }));
        } else if let Err(mpsc::SendError(lost)) =
            requests.send(Submitted { request, events, waiting, span: tracing::Span::current() })
        {
            let error = Error::Internal("the threads that prepare requests have ended".to_owned());
            let _ = lost.events.send(Event::Failed(error));
        }
        Events { receiver }
    }

    /// Counts the tokens of a request without answering it: its pictures are decoded and its text is tokenized, here
    /// on the caller's thread, but the model is not asked.
    ///
    /// # Errors
    /// What [`Event::Failed`] would say to this request.
    pub fn count(&self, request: &Request) -> Result<Started, Error> {
        let Shared { model, bounds, .. } = &*self.shared;
        let prepared = runner::contained(|| Prepared::new(request, model, bounds))?;
        Ok(Started { prompt: prepared.prompt.tokens, media: prepared.sizes })
    }

    /// How busy it is at this moment.
    pub fn load_now(&self) -> Load {
        self.shared.load.read(self.shared.waiting.load(Ordering::Acquire))
    }

    /// What is known of the loaded model.
    pub fn info(&self) -> &Info {
        &self.shared.info
    }
}

/// What is free, and whose; `None` when nobody looks.
fn memory(device: &Device, options: &Options) -> Result<Option<(usize, Place)>, LoadError> {
    Ok(match device.free_memory()? {
        Some(free) => Some((free, Place::Device)),
        None => options.host_memory.map(|free| (free, Place::Host)),
    })
}

/// The events of one answer, in order. Dropping it cancels the request.
#[derive(Debug)]
pub struct Events {
    receiver: UnboundedReceiver<Event>,
}

impl Events {
    /// Waits for the next event on a thread that runs no asynchronous code. `None` after the last one.
    pub fn blocking_next(&mut self) -> Option<Event> {
        self.receiver.blocking_recv()
    }
}

impl Stream for Events {
    type Item = Event;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        self.receiver.poll_recv(cx)
    }
}

/// The life of a prepare thread: until the last engine handle is gone.
fn prepare(
    queue: &Mutex<mpsc::Receiver<Submitted>>,
    jobs: &mpsc::Sender<Job>,
    model: &Model,
    bounds: &Bounds,
) {
    loop {
        // A poisoned lock only says that another thread panicked while it waited; the queue is whole.
        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Submitted { request, events, waiting, span }) = next else { return };
        let _entered = span.enter();
        if events.is_closed() {
            continue;
        }
        let prepared = runner::contained(|| Prepared::new(&request, model, bounds));
        let failed = match prepared {
            Ok(prepared) => {
                let job = Job::new(request, prepared, events, waiting);
                match jobs.send(job) {
                    Ok(()) => continue,
                    Err(mpsc::SendError(job)) => {
                        (job.events, Error::Internal("the device's thread has ended".to_owned()))
                    }
                }
            }
            Err(error) => (events, error),
        };
        let (events, error) = failed;
        // The caller may have gone meanwhile.
        let _ = events.send(Event::Failed(error));
    }
}
