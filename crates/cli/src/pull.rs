//! `ocellus pull`: a checkpoint from a hub into the cache, and how a download is shown.

use std::{
    io::{IsTerminal, Write},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use ocellus_engine::{MemoryPlan, WeightFormat};
use ocellus_pull::{Event, Options, Plan, Progress, RepositoryName, Settings, cached, plan, pull};

use crate::{
    Failure,
    find::{Meant, tell},
    memory::available_bytes,
};

/// What was typed.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The repository: owner/name, owner/name@revision, or a hosted model's name such as qwen2.5-vl-3b-instruct.
    #[arg(value_name = "NAME")]
    name: PathBuf,
    /// Which branch, tag or commit [default: main].
    #[arg(long, value_name = "REVISION")]
    revision: Option<String>,
    /// Folder of the cache [default: what HF_HUB_CACHE or HF_HOME says, else ~/.cache/huggingface/hub].
    #[arg(long, value_name = "DIR")]
    cache: Option<PathBuf>,
    /// Say what would be fetched and how much memory the model would need, and fetch nothing.
    #[arg(long)]
    dry_run: bool,
    /// Compare the files that are in the cache already with their checksums, too.
    #[arg(long, conflicts_with = "dry_run")]
    verify: bool,
    /// Files that are fetched at the same time.
    #[arg(long, value_name = "FILES", default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=32))]
    parallel: u8,
}

impl Arguments {
    pub(crate) fn apply(self) -> Result<(), Failure> {
        let name = match Meant::new(&self.name).map_err(|error| Failure::Usage(format!("{error:#}")))? {
            Meant::Repository(name) => name,
            Meant::Folder(folder) => {
                let message = format!("{}: a folder, expected the name of a repository", folder.display());
                return Err(Failure::Usage(message));
            }
        };
        let name = match &self.revision {
            Some(revision) => name
                .at(revision)
                .map_err(|reason| Failure::Usage(format!("--revision {revision:?}: {reason}")))?,
            None => name,
        };
        let mut settings = Settings::from_environment()?;
        if let Some(cache) = self.cache {
            settings.cache = cache;
        }
        let there = cached(&name, &settings);
        // Without a network the best that is known is what is here.
        if let (Some(reason), Some(snapshot), false) = (&settings.offline, &there, self.dry_run) {
            tell(&format!("{name}: whole in the cache; {reason} forbids looking for a newer one"));
            return Ok(writeln!(std::io::stdout(), "{}", snapshot.folder.display())?);
        }
        if self.dry_run {
            return Ok(write!(
                std::io::stdout(),
                "{}",
                described(&plan(&name, &settings, &Options::default())?)
            )?);
        }
        let display = Display::new(&name);
        let options = Options {
            parallel: usize::from(self.parallel),
            verify: self.verify,
            progress: display.clone().listener(),
            ..Options::default()
        };
        let pulled = pull(&name, &settings, &options);
        display.finish();
        let snapshot = match (pulled, there) {
            (Ok(snapshot), _) => snapshot,
            (Err(error), Some(snapshot)) if error.is_of_network() => {
                let context = format!(
                    "{name} could not be looked up; the snapshot in the cache (commit {:.12}) is whole and is what `--model {name}` takes",
                    snapshot.commit
                );
                return Err(anyhow::Error::from(error).context(context).into());
            }
            (Err(error), _) => return Err(error.into()),
        };
        Ok(writeln!(std::io::stdout(), "{}", snapshot.folder.display())?)
    }
}

/// What a plan says: each file, the sums, and the memory that the model would need in each format.
fn described(plan: &Plan) -> String {
    let mut text = String::new();
    for file in &plan.files {
        let state = match file.present {
            0 => "to fetch".to_owned(),
            present if present >= file.size => "here".to_owned(),
            present => format!("{} here", bytes(present)),
        };
        text.push_str(&format!("{:>12}  {}  ({state})\n", bytes(file.size), file.name));
    }
    let free = plan.free.map_or_else(String::new, |free| format!("; the disk has {} free", bytes(free)));
    text.push_str(&format!(
        "{} in {} files, {} to fetch{free}\n",
        bytes(plan.bytes()),
        plan.files.len(),
        bytes(plan.missing())
    ));
    let weights = plan.files.iter().filter(|file| file.name.ends_with(".safetensors"));
    let stored = weights.map(|file| file.size).fold(0, u64::saturating_add);
    for format in [WeightFormat::Bf16, WeightFormat::Int8, WeightFormat::Int4] {
        let needs =
            MemoryPlan::of_config(&plan.config, format, usize::try_from(stored).unwrap_or(usize::MAX));
        match needs {
            Ok(needs) => text.push_str(&format!("memory with --weights {format}: {needs}\n")),
            Err(error) => {
                text.push_str(&format!("memory: {error}\n"));
                break;
            }
        }
    }
    if let Some(available) = available_bytes() {
        text.push_str(&format!(
            "memory that is available here: {:.2} GiB\n",
            available as f64 / f64::from(1 << 30)
        ));
    }
    text.push_str(&format!("{}\n", plan.folder().display()));
    text
}

/// Shows a download on the standard error stream: a bar on a terminal, else a line now and then.
#[derive(Debug)]
pub(crate) struct Display {
    name: String,
    bar: Option<ProgressBar>,
    state: Mutex<State>,
}

/// How far it is.
#[derive(Clone, Copy, Debug, Default)]
struct State {
    /// When the files' bytes began to come.
    since: Option<Instant>,
    last_line: Option<Instant>,
    all: u64,
    here: u64,
    received: u64,
}

/// Between two lines where no terminal is.
const BETWEEN_LINES: Duration = Duration::from_secs(5);

impl Display {
    pub(crate) fn new(name: &RepositoryName) -> Arc<Self> {
        let bar = std::io::stderr().is_terminal().then(|| {
            let template = "{msg} {wide_bar} {decimal_bytes} of {decimal_total_bytes}, {decimal_bytes_per_sec}, {eta} left";
            let style =
                ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
            ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr())
                .with_style(style)
                .with_message(name.to_string())
        });
        Arc::new(Self { name: name.to_string(), bar, state: Mutex::default() })
    }

    /// What a download calls.
    pub(crate) fn listener(self: Arc<Self>) -> Arc<Progress> {
        Arc::new(move |event| self.hear(event, Instant::now()))
    }

    /// Leaves the terminal's line, and says what was done if anything was.
    pub(crate) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        let state = *self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let (Some(since), true) = (state.since, state.received > 0) {
            let seconds = since.elapsed().as_secs_f64();
            tell(&format!("{}: {} fetched in {seconds:.1} s", self.name, bytes(state.received)));
        }
    }

    fn hear(&self, event: Event<'_>, now: Instant) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::Planned { files, bytes: all, present } => {
                *state = State { since: Some(now), last_line: Some(now), all, here: present, received: 0 };
                if present < all {
                    let line = format!(
                        "{}: {} files of {}, {} to fetch",
                        self.name,
                        files,
                        bytes(all),
                        bytes(all - present)
                    );
                    if let Some(bar) = &self.bar {
                        bar.set_length(all);
                        bar.set_position(present);
                        bar.reset_eta();
                    }
                    self.line(&line);
                }
                return;
            }
            Event::Received(more) => {
                // What another process has fetched meanwhile may be counted twice.
                state.here = state.here.saturating_add(more).min(state.all);
                state.received = state.received.saturating_add(more);
            }
            Event::Discarded(less) => state.here = state.here.saturating_sub(less),
            Event::Note(text) => {
                let line = format!("{}: {text}", self.name);
                return self.line(&line);
            }
        }
        match &self.bar {
            Some(bar) if state.since.is_some() => bar.set_position(state.here),
            None if state.last_line.is_some_and(|last| now.duration_since(last) >= BETWEEN_LINES) => {
                state.last_line = Some(now);
                let line = state.line(now);
                self.line(&format!("{}: {line}", self.name));
            }
            _ => {}
        }
    }

    fn line(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| tell(line)),
            None => tell(line),
        }
    }
}

impl State {
    /// How far it is, how fast it goes, and how long it will take at this rate.
    fn line(&self, now: Instant) -> String {
        let seconds = self.since.map_or(0.0, |since| now.duration_since(since).as_secs_f64());
        let rate = if seconds > 0.0 { self.received as f64 / seconds } else { 0.0 };
        let missing = self.all.saturating_sub(self.here);
        let left =
            if rate > 0.0 { format!("{:.0} s left", missing as f64 / rate) } else { "stalled".to_owned() };
        format!("{} of {}, {:.1} MB/s, {left}", bytes(self.here), bytes(self.all), rate / 1e6)
    }
}

/// Bytes as people read them.
pub(crate) fn bytes(bytes: u64) -> String {
    match bytes {
        0..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.2} GB", bytes as f64 / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use ocellus_pull::{FilePlan, Snapshot};

    use super::*;

    #[test]
    fn lines_say_how_far_how_fast_and_how_long() {
        let start = Instant::now();
        let display = Display { name: "a/b".into(), bar: None, state: Mutex::default() };
        let at = |seconds| start + Duration::from_secs(seconds);
        let state = || display.state.lock().unwrap().line(at(10));
        display.hear(Event::Planned { files: 3, bytes: 10_000_000_000, present: 1_000_000_000 }, start);
        assert_eq!(state(), "1.00 GB of 10.00 GB, 0.0 MB/s, stalled");
        display.hear(Event::Received(3_000_000_000), at(10));
        assert_eq!(state(), "4.00 GB of 10.00 GB, 300.0 MB/s, 20 s left");
        display.hear(Event::Discarded(1_000_000_000), at(10));
        assert_eq!(state(), "3.00 GB of 10.00 GB, 300.0 MB/s, 23 s left");
    }

    #[test]
    fn a_plan_is_described_with_the_memory_it_needs() {
        let file = |name: &str, size, present| FilePlan { name: name.into(), size, present };
        let plan = Plan {
            snapshot: Snapshot { folder: "/cache/x".into(), commit: "0".repeat(40) },
            files: vec![
                file("config.json", 1374, 1374),
                file("model-1.safetensors", 4_000_000_000, 1_000_000_000),
                file("model-2.safetensors", 3_510_000_000, 0),
            ],
            config: include_str!("../../../models/3b/config.json").to_owned(),
            free: Some(50_000_000_000),
        };
        let text = described(&plan);
        for part in [
            "      1.4 kB  config.json  (here)\n",
            "     4.00 GB  model-1.safetensors  (1.00 GB here)\n",
            "     3.51 GB  model-2.safetensors  (to fetch)\n",
            "7.51 GB in 3 files, 6.51 GB to fetch; the disk has 50.00 GB free\n",
            "memory with --weights int4: ",
        ] {
            assert!(text.contains(part), "{text}");
        }
        assert!(text.ends_with("\n/cache/x\n"));
        let other = described(&Plan { config: "{}".into(), ..plan });
        assert_eq!(other.matches("memory: ").count(), 1, "{other}");
    }
}
