//! What `/metrics` shows, in the text format of Prometheus: the names, units and bounds are those of vLLM with our
//! prefix in place of its own, so that its dashboards need one replacement.

use std::fmt::Write;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use ocellus_engine::{FinishReason, Finished, Load};

/// Everything counted since the start.
#[derive(Debug)]
pub(crate) struct Metrics {
    counted: Mutex<Counted>,
}

#[derive(Debug)]
struct Counted {
    prompt_tokens: u64,
    stopped: u64,
    cut: u64,
    aborted: u64,
    failed: u64,
    request_prompt_tokens: Histogram,
    request_generation_tokens: Histogram,
    time_to_first_token: Histogram,
    inter_token: Histogram,
    e2e: Histogram,
    queue: Histogram,
    prefill: Histogram,
    decode: Histogram,
    media_decode: Histogram,
    media_encode: Histogram,
}

/// vLLM's bounds, in seconds.
const FIRST_TOKEN: &[f64] = &[
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0,
    80.0, 160.0, 640.0, 2560.0,
];
const INTER_TOKEN: &[f64] = &[
    0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
];
const REQUEST: &[f64] = &[
    0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0,
    960.0, 1920.0, 7680.0,
];
/// Tokens: 1, 2, 5 and their multiples by ten, up to the longest context of the model family.
const TOKENS: &[f64] = &[
    1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0, 5000.0, 10000.0, 20000.0, 50000.0,
    100000.0,
];

/// How an answer came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The client went away first.
    Aborted,
    /// The engine failed, or refused what only it could see.
    Failed,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        Self {
            counted: Mutex::new(Counted {
                prompt_tokens: 0,
                stopped: 0,
                cut: 0,
                aborted: 0,
                failed: 0,
                request_prompt_tokens: Histogram::new(TOKENS),
                request_generation_tokens: Histogram::new(TOKENS),
                time_to_first_token: Histogram::new(FIRST_TOKEN),
                inter_token: Histogram::new(INTER_TOKEN),
                e2e: Histogram::new(REQUEST),
                queue: Histogram::new(REQUEST),
                prefill: Histogram::new(REQUEST),
                decode: Histogram::new(REQUEST),
                media_decode: Histogram::new(REQUEST),
                media_encode: Histogram::new(REQUEST),
            }),
        }
    }

    /// The first token came: the prompt is computed.
    pub(crate) fn first_token(&self, prompt_tokens: usize, since_submitted: Duration) {
        self.with(|counted| {
            counted.prompt_tokens += prompt_tokens as u64;
            counted.time_to_first_token.observe(since_submitted.as_secs_f64());
        });
    }

    /// More tokens came, the last of them `since_last` after the one before these.
    pub(crate) fn tokens(&self, count: usize, since_last: Option<Duration>) {
        self.with(|counted| {
            if let Some(since) = since_last.filter(|_| count > 0) {
                counted.inter_token.observe_many(since.as_secs_f64() / count as f64, count as u64);
            }
        });
    }

    /// An answer is complete.
    pub(crate) fn finished(&self, finished: &Finished, since_submitted: Duration) {
        self.with(|counted| {
            *match finished.reason {
                FinishReason::Stop => &mut counted.stopped,
                FinishReason::Length => &mut counted.cut,
            } += 1;
            let timings = &finished.timings;
            counted.request_prompt_tokens.observe(finished.prompt.total() as f64);
            counted.request_generation_tokens.observe(finished.completion_tokens as f64);
            counted.e2e.observe(since_submitted.as_secs_f64());
            counted.queue.observe(timings.queue.as_secs_f64());
            counted.prefill.observe(timings.prefill.as_secs_f64());
            counted.decode.observe(timings.decode.as_secs_f64());
            if finished.prompt.image + finished.prompt.video > 0 {
                counted.media_decode.observe(timings.decode_images.as_secs_f64());
                counted.media_encode.observe(timings.encode.as_secs_f64());
            }
        });
    }

    /// An answer ended without being complete.
    pub(crate) fn ended(&self, end: End) {
        self.with(|counted| match end {
            End::Aborted => counted.aborted += 1,
            End::Failed => counted.failed += 1,
        });
    }

    /// The whole page.
    pub(crate) fn render(&self, model_name: &str, load: &Load) -> String {
        let mut page = Page { text: String::new(), label: format!("model_name=\"{}\"", escaped(model_name)) };
        page.gauge("num_requests_running", "Requests that the device works on.", load.running as f64);
        page.gauge("num_requests_waiting", "Requests that wait to be computed.", load.waiting as f64);
        page.gauge(
            "kv_cache_usage_perc",
            "Share of the cache's blocks in use; 1 means 100 percent.",
            load.cache_usage(),
        );
        self.with(|counted| {
            page.counter("prompt_tokens_total", "Prompt tokens computed.", counted.prompt_tokens);
            page.counter("generation_tokens_total", "Tokens generated.", load.generated_tokens);
            page.head("request_success_total", "Answers, by the reason for their end.", "counter");
            for (reason, count) in
                [("stop", counted.stopped), ("length", counted.cut), ("abort", counted.aborted)]
            {
                page.sample("request_success_total", &format!("finished_reason=\"{reason}\""), count as f64);
            }
            page.counter(
                "request_failure_total",
                "Requests that the engine refused or failed at.",
                counted.failed,
            );
            for (name, help, histogram) in counted.histograms() {
                page.histogram(name, help, histogram);
            }
        });
        page.text
    }

    fn with<R>(&self, work: impl FnOnce(&mut Counted) -> R) -> R {
        // Numbers are whole whatever a panicking thread did.
        work(&mut self.counted.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Counted {
    fn histograms(&self) -> [(&'static str, &'static str, &Histogram); 10] {
        [
            ("request_prompt_tokens", "Prompt tokens of a request.", &self.request_prompt_tokens),
            ("request_generation_tokens", "Tokens generated for a request.", &self.request_generation_tokens),
            (
                "time_to_first_token_seconds",
                "From the submission of a request to its first token.",
                &self.time_to_first_token,
            ),
            ("inter_token_latency_seconds", "From one token to the next.", &self.inter_token),
            ("e2e_request_latency_seconds", "From the submission of a request to its end.", &self.e2e),
            ("request_queue_time_seconds", "Waiting for the device.", &self.queue),
            ("request_prefill_time_seconds", "The decoder over the prompt.", &self.prefill),
            ("request_decode_time_seconds", "From the first token to the last.", &self.decode),
            (
                "request_media_decode_time_seconds",
                "Decoding, resizing and cutting pictures and clips.",
                &self.media_decode,
            ),
            (
                "request_media_encode_time_seconds",
                "The vision tower over pictures and clips.",
                &self.media_encode,
            ),
        ]
    }
}

/// Observations by size.
#[derive(Debug)]
struct Histogram {
    /// Upper bounds, rising; the last, infinite one is not written down.
    bounds: &'static [f64],
    /// Observations above the bound before and up to this one; one more than bounds.
    counts: Vec<u64>,
    sum: f64,
}

impl Histogram {
    fn new(bounds: &'static [f64]) -> Self {
        Self { bounds, counts: vec![0; bounds.len() + 1], sum: 0.0 }
    }

    fn observe(&mut self, value: f64) {
        self.observe_many(value, 1);
    }

    fn observe_many(&mut self, value: f64, times: u64) {
        let place = self.bounds.partition_point(|bound| *bound < value);
        self.counts[place] += times;
        self.sum += value * times as f64;
    }
}

/// The text as it grows.
struct Page {
    text: String,
    /// On every sample.
    label: String,
}

impl Page {
    fn gauge(&mut self, name: &str, help: &str, value: f64) {
        self.head(name, help, "gauge");
        self.sample(name, "", value);
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.head(name, help, "counter");
        self.sample(name, "", value as f64);
    }

    fn histogram(&mut self, name: &str, help: &str, histogram: &Histogram) {
        self.head(name, help, "histogram");
        let mut below = 0;
        let bounds = histogram.bounds.iter().map(|bound| format!("{bound:?}")).chain(["+Inf".to_owned()]);
        for (bound, count) in bounds.zip(&histogram.counts) {
            below += count;
            self.sample(&format!("{name}_bucket"), &format!("le=\"{bound}\""), below as f64);
        }
        self.sample(&format!("{name}_sum"), "", histogram.sum);
        self.sample(&format!("{name}_count"), "", below as f64);
    }

    fn head(&mut self, name: &str, help: &str, kind: &str) {
        // Writing into a String can't fail.
        let _ = writeln!(self.text, "# HELP ocellus:{name} {help}\n# TYPE ocellus:{name} {kind}");
    }

    fn sample(&mut self, name: &str, label: &str, value: f64) {
        let comma = if label.is_empty() { "" } else { "," };
        let _ = writeln!(self.text, "ocellus:{name}{{{}{comma}{label}}} {value}", self.label);
    }
}

/// A label's value.
fn escaped(text: &str) -> String {
    text.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n")
}

#[cfg(test)]
mod tests {
    use ocellus_engine::{PromptTokens, Timings};

    use super::*;

    fn finished(reason: FinishReason, image: usize) -> Finished {
        let timings = Timings { queue: Duration::from_millis(400), ..Timings::default() };
        let prompt = PromptTokens { text: 23, image, video: 0 };
        Finished { reason, prompt, completion_tokens: 3, timings }
    }

    #[track_caller]
    fn check(page: &str, line: &str) {
        assert!(page.lines().any(|found| found == line), "{line} is not in\n{page}");
    }

    #[test]
    fn numbers_end_up_under_their_names() {
        let metrics = Metrics::new();
        metrics.first_token(1270, Duration::from_millis(30));
        metrics.tokens(1, None);
        metrics.tokens(2, Some(Duration::from_millis(100)));
        metrics.finished(&finished(FinishReason::Stop, 1247), Duration::from_secs(2));
        metrics.finished(&finished(FinishReason::Length, 0), Duration::from_secs(100_000));
        metrics.ended(End::Aborted);
        metrics.ended(End::Failed);
        let load =
            Load { waiting: 4, running: 1, used_cache_blocks: 1, cache_blocks: 4, generated_tokens: 3 };
        let page = metrics.render("e\"y\\e", &load);
        let label = r#"model_name="e\"y\\e""#;
        check(&page, &format!("ocellus:num_requests_running{{{label}}} 1"));
        check(&page, &format!("ocellus:num_requests_waiting{{{label}}} 4"));
        check(&page, &format!("ocellus:kv_cache_usage_perc{{{label}}} 0.25"));
        check(&page, &format!("ocellus:prompt_tokens_total{{{label}}} 1270"));
        check(&page, &format!("ocellus:generation_tokens_total{{{label}}} 3"));
        for reason in ["stop", "length", "abort"] {
            check(&page, &format!("ocellus:request_success_total{{{label},finished_reason=\"{reason}\"}} 1"));
        }
        check(&page, &format!("ocellus:request_failure_total{{{label}}} 1"));
        // A value on a bound belongs below it; one beyond all bounds is in the last bucket only.
        check(&page, &format!("ocellus:time_to_first_token_seconds_bucket{{{label},le=\"0.02\"}} 0"));
        check(&page, &format!("ocellus:time_to_first_token_seconds_bucket{{{label},le=\"0.04\"}} 1"));
        check(&page, &format!("ocellus:inter_token_latency_seconds_bucket{{{label},le=\"0.05\"}} 2"));
        check(&page, &format!("ocellus:inter_token_latency_seconds_sum{{{label}}} 0.1"));
        check(&page, &format!("ocellus:e2e_request_latency_seconds_bucket{{{label},le=\"1.5\"}} 0"));
        check(&page, &format!("ocellus:e2e_request_latency_seconds_bucket{{{label},le=\"2.0\"}} 1"));
        check(&page, &format!("ocellus:e2e_request_latency_seconds_bucket{{{label},le=\"7680.0\"}} 1"));
        check(&page, &format!("ocellus:e2e_request_latency_seconds_bucket{{{label},le=\"+Inf\"}} 2"));
        check(&page, &format!("ocellus:e2e_request_latency_seconds_count{{{label}}} 2"));
        check(&page, &format!("ocellus:request_queue_time_seconds_sum{{{label}}} 0.8"));
        check(&page, &format!("ocellus:request_media_encode_time_seconds_count{{{label}}} 1"));
    }

    #[test]
    fn every_line_is_a_comment_or_a_sample() {
        let page = Metrics::new().render("eye", &Load::default());
        assert!(page.ends_with('\n'));
        for line in page.lines() {
            let sample = line.rsplit_once(' ').is_some_and(|(name, value)| {
                name.starts_with("ocellus:") && name.ends_with('}') && value.parse::<f64>().is_ok()
            });
            assert!(
                line.starts_with("# HELP ocellus:") || line.starts_with("# TYPE ocellus:") || sample,
                "{line}"
            );
        }
        // The bounds of a histogram rise, or its buckets would lie.
        for bounds in [FIRST_TOKEN, INTER_TOKEN, REQUEST, TOKENS] {
            assert!(bounds.is_sorted());
        }
    }
}
