//! `fuzz-api`: many requests, drawn from the server's own OpenAPI document, against the real binary. Each answer must
//! be one that the document allows; afterwards the server must be as it was before, in what it says and in how much
//! memory it holds.
#![allow(clippy::print_stdout)]

use std::{
    fs::File,
    io::{BufRead, BufReader, Read, Seek},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use base64::{Engine, engine::general_purpose::STANDARD};
use clap::Parser;
use ocellus_tests::{
    fuzz::{Answer, Case, Connection, Document, Figures, Target, storm, try_case},
    picture,
};
use serde_json::{Value, json};

/// Send random requests to a server and hold its answers against its own description.
#[derive(Parser)]
struct Arguments {
    /// The `ocellus` binary; it is started with its built-in model
    #[arg(long)]
    ocellus: PathBuf,

    /// How many cases
    #[arg(default_value_t = 100_000)]
    cases: u64,

    /// Which cases: the same seed draws the same ones
    #[arg(long, default_value_t = 1)]
    seed: u64,

    /// How many are sent at the same time
    #[arg(long, default_value_t = 4)]
    workers: usize,

    /// Send this one case alone, and print it and its answer
    #[arg(long)]
    only: Option<u64>,
}

const KEY: &str = "sk-fuzz";

/// The resident memory may grow by so much after the first tenth of the run: pages between those in use, and the names
/// of files that were uploaded. 200 bytes lost in each of the other 90,000 cases would be more.
const MOST_GROWTH: u64 = 16 << 20;

/// Tenths of a second in which clients that left are noticed and the threads that served them go.
const SETTLING_LOOKS: usize = 30;

/// Requests at the same time that fill the server's queue of 64 for certain.
const CROWD: usize = 200;

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    let mut server = Server::start(&arguments.ocellus)?;
    let document = Document::new(&server.json("/openapi.json")?)?;
    let models = server.json("/v1/models")?;
    let models = models["data"].as_array().into_iter().flatten();
    let models: Vec<String> = models.filter_map(|model| Some(model["id"].as_str()?.to_owned())).collect();
    let target = Target {
        address: server.address,
        document: &document,
        models: &models,
        key: KEY,
        seed: arguments.seed,
    };
    if let Some(number) = arguments.only {
        return only(&target, number);
    }

    let mut report = Report::default();
    let before = texts(&server, &models[0])?;
    let (mut figures, mut marks) = (Figures::default(), Vec::new());
    let since = Instant::now();
    let mut start = 0;
    for percent in [10, 50, 100] {
        let end = arguments.cases * percent / 100;
        figures.add(storm(&target, start..end, arguments.workers));
        start = end;
        marks.push((percent, server.resident_bytes()));
    }
    report.figures(&arguments, &figures, since.elapsed());
    report.memory(&marks);
    report.check("crowd", crowd(&server, &models[0]));
    report.check("health", server.json("/health").map(|health| health.to_string()));
    report.check(
        "same answers as before",
        texts(&server, &models[0]).and_then(|after| {
            ensure!(after == before, "before: {before:?}, after: {after:?}");
            Ok(format!("{} texts", after.len()))
        }),
    );
    report.check(
        "log",
        server.log().and_then(|log| {
            let bad = log.lines().find(|line| line.contains("panicked") || line.contains("ERROR"));
            ensure!(bad.is_none(), "{}", bad.unwrap_or_default());
            Ok("no error and no panic".into())
        }),
    );
    println!("fuzz-api: {}", if report.broken { "does NOT hold" } else { "holds" });
    Ok(if report.broken { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// What is printed, and whether anything of it is bad.
#[derive(Default)]
struct Report {
    broken: bool,
}

impl Report {
    fn figures(&mut self, arguments: &Arguments, figures: &Figures, time: Duration) {
        println!("{:62} {:>6} {:>6} {:>6} {:>6} {:>6}", "answers", "2xx", "3xx", "4xx", "5xx", "none");
        for (path, [none, _, good, moved, refused, failed]) in &figures.answers {
            println!("{path:62} {good:>6} {moved:>6} {refused:>6} {failed:>6} {none:>6}");
        }
        for (kind, (all, good)) in &figures.kinds {
            println!("{kind}: {all} requests, {:.0} % answered", 100.0 * *good as f64 / (*all).max(1) as f64);
        }
        let (slowest, number) = figures.slowest;
        println!(
            "seed {}: {} cases, {} requests in {:.0} s, {:.0} requests/s, slowest case {number} {:.2} s",
            arguments.seed,
            arguments.cases,
            figures.requests,
            time.as_secs_f64(),
            figures.requests as f64 / time.as_secs_f64(),
            slowest.as_secs_f64(),
        );
        for violation in &figures.violations {
            println!(
                "VIOLATION {} ({}), to be seen again with --seed {} --only {}: {}\n    {:?}",
                violation.number,
                violation.kind,
                arguments.seed,
                violation.number,
                violation.what,
                violation.request,
            );
        }
        println!("{} violations", figures.violation_count);
        self.broken |= figures.violation_count > 0;
    }

    fn memory(&mut self, marks: &[(u64, Option<u64>)]) {
        let mebibytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let known: Vec<(u64, u64)> =
            marks.iter().filter_map(|(percent, bytes)| Some((*percent, (*bytes)?))).collect();
        let [(_, first), .., (_, last)] = known[..] else {
            println!("memory: not told by this system");
            return;
        };
        let shown: Vec<String> = known
            .iter()
            .map(|(percent, bytes)| format!("{:.1} MiB at {percent} %", mebibytes(*bytes)))
            .collect();
        let growth = known.iter().map(|(_, bytes)| bytes.saturating_sub(first)).max().unwrap_or_default();
        let flat = growth <= MOST_GROWTH;
        println!(
            "resident memory: {}; growth {:.1} MiB, allowed {:.0}: {}",
            shown.join(", "),
            mebibytes(last.saturating_sub(first).max(growth)),
            mebibytes(MOST_GROWTH),
            if flat { "flat" } else { "NOT flat" },
        );
        self.broken |= !flat;
    }

    fn check(&mut self, name: &str, outcome: Result<String>) {
        self.broken |= outcome.is_err();
        match outcome {
            Ok(text) => println!("{name}: {text}"),
            Err(error) => println!("{name}: BROKEN: {error:#}"),
        }
    }
}

/// The binary with its built-in model, on a port of its own.
struct Server {
    process: Child,
    address: SocketAddr,
    log: File,
}

impl Server {
    fn start(ocellus: &Path) -> Result<Self> {
        let log = tempfile::tempfile()?;
        let mut process = Command::new(ocellus)
            .args(["serve", "--port", "0", "--offline", "--context", "2048", "--max-completion-tokens", "16"])
            .args(["--api-key", KEY])
            .env("OCELLUS_LOG", "error")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log.try_clone()?)
            .spawn()
            .with_context(|| ocellus.display().to_string())?;
        let output = process.stdout.take().context("the server has no output")?;
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line)?;
        let address = line.split("http://").nth(1).and_then(|rest| rest.split('/').next());
        let address = address.and_then(|address| address.parse().ok());
        let Some(address) = address else {
            // It may go on without an address; nobody would stop it.
            let _ = process.kill();
            bail!("the server says {line:?}, expected its address");
        };
        Ok(Self { process, address, log })
    }

    fn send(&self, case: &Case) -> Result<Answer> {
        let answer = Connection::open(self.address)?.send(case)?;
        answer.context("no answer")
    }

    fn json(&self, path: &str) -> Result<Value> {
        let answer = self.send(&Case::good(path, KEY, None))?;
        ensure!(answer.status == 200, "{path}: {}", answer.status);
        Ok(serde_json::from_slice(&answer.body)?)
    }

    /// What stays resident once the last requests are over. Linux alone tells it.
    fn resident_bytes(&self) -> Option<u64> {
        let now = || {
            let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id())).ok()?;
            let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
            Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? << 10)
        };
        let looks = (0..SETTLING_LOOKS).map(|_| {
            std::thread::sleep(Duration::from_millis(100));
            now()
        });
        looks.collect::<Option<Vec<u64>>>()?.into_iter().min()
    }

    fn log(&mut self) -> Result<String> {
        let mut log = String::new();
        self.log.rewind()?;
        self.log.read_to_string(&mut log)?;
        Ok(log)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may be gone already, which the report has said.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What the likeliest tokens say about a picture, in both dialects.
fn texts(server: &Server, model: &str) -> Result<Vec<String>> {
    let url = format!("data:image/bmp;base64,{}", STANDARD.encode(picture::bmp(120, 90)));
    let ask = |path: &str, body: Value, text: &str| -> Result<String> {
        let answer = server.send(&Case::good(path, KEY, Some(&body)))?;
        let body: Value = serde_json::from_slice(&answer.body)?;
        let text = body.pointer(text).and_then(Value::as_str);
        Ok(text.with_context(|| format!("{path}: {} {body}", answer.status))?.to_owned())
    };
    let content = json!([{"image": url}, {"text": "What is it?"}]);
    let messages = json!([{"role": "user", "content": content}]);
    Ok(vec![
        ask(
            "/v1/chat/completions",
            json!({"model": model, "messages": messages, "temperature": 0}),
            "/choices/0/message/content",
        )?,
        ask(
            "/api/v1/services/aigc/multimodal-generation/generation",
            json!({"model": model, "input": {"messages": messages}, "parameters": {"temperature": 0}}),
            "/output/choices/0/message/content/0/text",
        )?,
    ])
}

/// More requests at a time than may wait: some are answered, the others told when to come again.
fn crowd(server: &Server, model: &str) -> Result<String> {
    let messages = json!([{"role": "user", "content": "What is it? ".repeat(60)}]);
    let case = Case::good("/v1/chat/completions", KEY, Some(&json!({"model": model, "messages": messages})));
    let answers: Vec<Result<Answer>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..CROWD).map(|_| scope.spawn(|| server.send(&case))).collect();
        threads.into_iter().map(|thread| thread.join().expect("sending does not panic")).collect()
    });
    let (mut answered, mut later) = (0, 0);
    for answer in answers {
        let answer = answer?;
        match answer.status {
            200 => answered += 1,
            429 if answer.header("retry-after").is_some() => later += 1,
            status => bail!("{status}: {}", String::from_utf8_lossy(&answer.body)),
        }
    }
    ensure!(answered > 0 && later > 0, "{answered} of {CROWD} were answered, {later} told to come again");
    Ok(format!("{answered} of {CROWD} answered at once, {later} told when to come again"))
}

/// Shows one case.
fn only(target: &Target<'_>, number: u64) -> Result<ExitCode> {
    let mut figures = Figures::default();
    let answer = try_case(target, &mut None, number, &mut figures);
    println!("{}", String::from_utf8_lossy(&target.case(number).bytes()));
    if let Some(answer) = answer {
        println!("{} {}", answer.status, String::from_utf8_lossy(&answer.body));
    }
    for violation in &figures.violations {
        println!("VIOLATION {}", violation.what);
    }
    Ok(if figures.violation_count == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
