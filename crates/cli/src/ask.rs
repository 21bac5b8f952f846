//! `ocellus ask`: one question, answered on the terminal.

use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use ocellus_engine::{
    Budget, Error, Event, FinishReason, Finished, ImagePart, Info, Message, Part, PixelLimits, Request, Role,
    Sampling, Started, decode_image,
};
use serde_json::{Value, json};

use crate::Failure;
use crate::located::located;
use crate::memory::peak_resident_bytes;
use crate::model::ModelArguments;
use crate::{document, draw};

/// What was typed.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    model: ModelArguments,
    /// Pictures to ask about: BMP, JPEG, PNG, TIFF or WEBP.
    #[arg(long, value_name = "FILE", num_args = 1.., action = clap::ArgAction::Append)]
    image: Vec<PathBuf>,
    /// The question.
    question: Option<String>,
    /// Instructions for the model, in place of its default ones.
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    /// Write one JSON object with text, usage, sizes and timings in place of the text.
    #[arg(long)]
    json: bool,
    /// Most tokens of the answer.
    #[arg(long, value_name = "N", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..))]
    max_tokens: u32,
    /// 0 takes the likeliest token each time; larger is more random, below 2 [default: the model's own].
    #[arg(long, value_name = "T", value_parser = temperature)]
    temperature: Option<f32>,
    /// The same seed gives the same answer.
    #[arg(long)]
    seed: Option<u64>,
    /// Write the picture with the boxes and points of the answer on it. With one picture only.
    #[arg(long, value_name = "PNG")]
    draw: Option<PathBuf>,
    /// Write the document that the answer parsed the picture into, beside the picture, as one page. Ask "QwenVL HTML".
    /// With one picture only.
    #[arg(long, value_name = "HTML")]
    html: Option<PathBuf>,
}

/// What it means.
#[derive(Debug)]
pub(crate) struct Ask {
    model: ModelArguments,
    images: Vec<PathBuf>,
    question: String,
    system: Option<String>,
    json: bool,
    max_tokens: usize,
    temperature: Option<f32>,
    seed: Option<u64>,
    draw: Option<PathBuf>,
    html: Option<PathBuf>,
}

/// Longer files are no pictures. The engine has a bound of its own; this one keeps an endless file out of memory.
const LONGEST_FILE_BYTES: u64 = 256 << 20;

impl Arguments {
    pub(crate) fn parse(self) -> Result<Ask, Failure> {
        let (mut images, mut question) = (self.image, self.question);
        // `--image a.png b.png "What is this?"` reads naturally, but a flag that takes several values takes the question
        // too. It is the last value then, unless that is a file.
        if question.is_none() && images.last().is_some_and(|last| images.len() > 1 && !last.exists()) {
            question = images.pop().map(|last| last.to_string_lossy().into_owned());
        }
        let Some(question) = question else {
            return Err(Failure::Usage(
                "a question is missing: ocellus ask --image FILE \"QUESTION\"".to_owned(),
            ));
        };
        // An answer does not say which of several pictures a box is in.
        if let Some((flag, _)) =
            [("--draw", &self.draw), ("--html", &self.html)].iter().find(|(_, file)| file.is_some())
            && images.len() != 1
        {
            return Err(Failure::Usage(format!("{flag} needs exactly one picture, found {}", images.len())));
        }
        Ok(Ask {
            model: self.model,
            images,
            question,
            system: self.system,
            json: self.json,
            max_tokens: usize::try_from(self.max_tokens).unwrap_or(usize::MAX),
            temperature: self.temperature,
            seed: self.seed,
            draw: self.draw,
            html: self.html,
        })
    }
}

impl Ask {
    pub(crate) fn apply(self) -> Result<(), Failure> {
        // The files first: a wrong name should not cost the time of loading a model.
        let pictures = self.images.iter().map(|path| read_picture(path)).collect::<Result<Vec<_>, _>>()?;
        let first = pictures.first().cloned().unwrap_or_default();
        let engine = self.model.load(None)?;
        let mut events = engine.submit(self.request(pictures, engine.info()));

        let mut output = Output::new(self.json);
        let mut started = None;
        let mut text = String::new();
        while let Some(event) = events.blocking_next() {
            match event {
                Event::Started(start) => started = Some(start),
                Event::Text(delta) => {
                    if !output.text(&delta.text)? {
                        return Ok(());
                    }
                    text.push_str(&delta.text);
                }
                Event::Finished(finished) => {
                    let mut report = self.report(&text, started.as_ref(), &finished);
                    report["peak_resident_bytes"] = json!(peak_resident_bytes());
                    output.end(&report)?;
                    return Ok(self.write_files(&text, &first, started.as_ref())?);
                }
                Event::Failed(error) => {
                    output.abandon();
                    return Err(self.named(error).into());
                }
            }
        }
        output.abandon();
        Err(anyhow::anyhow!("the engine stopped in the middle of the answer").into())
    }

    fn request(&self, pictures: Vec<Vec<u8>>, info: &Info) -> Request {
        // The same budget as the server's, so that both answer alike.
        let image =
            |bytes: Vec<u8>| Part::Image(ImagePart { bytes: bytes.into(), limits: PixelLimits::HOSTED });
        let mut parts: Vec<Part> = pictures.into_iter().map(image).collect();
        parts.push(Part::Text(self.question.clone()));
        let system = self.system.iter().map(|text| Message::text(Role::System, text));
        let user = Message { role: Role::User, parts, tool_calls: Vec::new() };
        let defaults = info.default_sampling.clone();
        Request {
            messages: system.chain([user]).collect(),
            sampling: Sampling {
                temperature: self.temperature.unwrap_or(defaults.temperature),
                seed: self.seed.or(defaults.seed),
                ..defaults
            },
            max_tokens: Some(self.max_tokens),
            ..Request::default()
        }
    }

    /// The files of `--draw` and `--html`, for the answer `text` about the one picture in the file `bytes`.
    fn write_files(&self, text: &str, bytes: &[u8], started: Option<&Started>) -> anyhow::Result<()> {
        let Some(media) = started.and_then(|started| started.media.first()) else { return Ok(()) };
        let places = located(text);
        if let Some(path) = &self.draw {
            let picture = decode_image(bytes, &Budget::default())?;
            draw::write(picture, media.seen, &places, path)?;
        }
        if let Some(path) = &self.html {
            document::write(text, bytes, media.seen, &places, path)?;
        }
        Ok(())
    }

    /// The engine counts pictures; here they have names.
    fn named(&self, error: Error) -> anyhow::Error {
        match &error {
            Error::Media { index, reason } => match self.images.get(*index) {
                Some(path) => anyhow::anyhow!("{}: {reason}", path.display()),
                None => error.into(),
            },
            _ => error.into(),
        }
    }

    /// The object of `--json`. Sizes are in pixels, times in seconds.
    fn report(&self, text: &str, started: Option<&Started>, finished: &Finished) -> Value {
        let size = |(height, width): (usize, usize)| json!({"height": height, "width": width});
        let media = started.map(|started| started.media.as_slice()).unwrap_or_default();
        let images = self.images.iter().zip(media).map(|(path, media)| {
            json!({
                "file": path.to_string_lossy(),
                "original": size(media.original),
                "seen": size(media.seen),
                "tokens": media.tokens,
            })
        });
        let prompt_tokens = finished.prompt.total();
        let timings = &finished.timings;
        json!({
            "model": self.model.name(),
            "text": text,
            "finish_reason": match finished.reason {
                FinishReason::Stop => "stop",
                FinishReason::Length => "length",
            },
            "usage": {
                "prompt_tokens": prompt_tokens,
                "completion_tokens": finished.completion_tokens,
                "total_tokens": prompt_tokens + finished.completion_tokens,
                "text_tokens": finished.prompt.text,
                "image_tokens": finished.prompt.image,
            },
            "images": images.collect::<Vec<_>>(),
            "timings": {
                "decode_images_s": timings.decode_images.as_secs_f64(),
                "queue_s": timings.queue.as_secs_f64(),
                "encode_s": timings.encode.as_secs_f64(),
                "prefill_s": timings.prefill.as_secs_f64(),
                "decode_s": timings.decode.as_secs_f64(),
                "tokens_per_second": tokens_per_second(finished.completion_tokens, timings.decode),
            },
        })
    }
}

/// Tokens after the first one, which the prefill gives, in the time from the first to the last.
fn tokens_per_second(completion_tokens: usize, decode: Duration) -> Option<f64> {
    let further = completion_tokens.checked_sub(1).filter(|further| *further > 0)?;
    (!decode.is_zero()).then(|| further as f64 / decode.as_secs_f64())
}

pub(crate) fn read_picture(path: &Path) -> anyhow::Result<Vec<u8>> {
    let read = || -> anyhow::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        File::open(path)?.take(LONGEST_FILE_BYTES + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > LONGEST_FILE_BYTES {
            bail!("the file is longer than {} MiB", LONGEST_FILE_BYTES >> 20);
        }
        Ok(bytes)
    };
    read().with_context(|| path.display().to_string())
}

/// The standard output: text as it comes, or one JSON object at the end.
struct Output {
    json: bool,
    /// On a terminal, control characters in an answer must not move the cursor or change colours.
    to_terminal: bool,
    in_line: bool,
}

impl Output {
    fn new(json: bool) -> Self {
        Self { json, to_terminal: io::stdout().is_terminal(), in_line: false }
    }

    /// Shows new text. `false`: nobody reads any more.
    fn text(&mut self, text: &str) -> io::Result<bool> {
        if self.json || text.is_empty() {
            return Ok(true);
        }
        self.in_line = !text.ends_with('\n');
        if self.to_terminal { write(&printable(text)) } else { write(text) }
    }

    fn end(&mut self, report: &Value) -> io::Result<()> {
        if self.json {
            write(&format!("{report:#}\n"))?;
        } else if self.in_line {
            write("\n")?;
        }
        Ok(())
    }

    /// Leaves the line, so that the error stands on its own.
    fn abandon(&mut self) {
        if self.in_line && self.to_terminal {
            // The error that follows matters more than one of this line break.
            let _ = write("\n");
        }
    }
}

/// Without control characters other than line breaks and tabs.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && !matches!(c, '\n' | '\t') { '\u{fffd}' } else { c }).collect()
}

/// `false` when the reader has closed the pipe, as `head` does.
fn write(text: &str) -> io::Result<bool> {
    let mut output = io::stdout().lock();
    match output.write_all(text.as_bytes()).and_then(|()| output.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error),
    }
}

/// Reads a temperature within the range that the server has too.
fn temperature(text: &str) -> Result<f32, String> {
    let number = text.parse::<f32>().ok().filter(|number| (0.0..2.0).contains(number));
    number.ok_or_else(|| "expected a number in [0, 2)".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use ocellus_engine::{MediaFault, MediaSize, PromptTokens, Timings};

    use super::*;

    #[derive(Parser)]
    struct Typed {
        #[command(flatten)]
        arguments: Arguments,
    }

    fn parse(words: &[&str]) -> Result<Ask, String> {
        let words = ["ask"].iter().chain(words);
        let typed = Typed::try_parse_from(words).map_err(|error| error.to_string())?;
        typed.arguments.parse().map_err(|failure| match failure {
            Failure::Usage(message) => message,
            Failure::Failed(error) => panic!("{error:#}"),
        })
    }

    #[track_caller]
    fn check(words: &[&str], images: &[&str], question: &str) {
        let ask = parse(words).unwrap();
        let images: Vec<PathBuf> = images.iter().map(PathBuf::from).collect();
        assert_eq!((ask.images, ask.question.as_str()), (images, question), "{words:?}");
    }

    #[track_caller]
    fn refused(words: &[&str], part: &str) {
        let message = parse(words).map(drop).expect_err(&format!("{words:?}"));
        assert!(message.contains(part), "{words:?}: {message}");
    }

    /// A file that is there, since tests run in the crate's folder.
    const FILE: &str = "Cargo.toml";

    #[test]
    fn pictures_and_question_in_any_order() {
        check(&["Why?"], &[], "Why?");
        check(&["Why?", "--image", "a.png"], &["a.png"], "Why?");
        check(&["Why?", "--image", "a.png", "b.png"], &["a.png", "b.png"], "Why?");
        check(&["--image", "a.png", "Why?"], &["a.png"], "Why?");
        check(&["--image", "a.png", "b.png", "Why?"], &["a.png", "b.png"], "Why?");
        check(&["--image", "a.png", "--image", "b.png", "Why?"], &["a.png", "b.png"], "Why?");
        check(&["--image", "a.png", "--json", "Why?"], &["a.png"], "Why?");
        check(&["--image", "a.png", "--", "Why?"], &["a.png"], "Why?");
        check(&["--image", "a.png", "--", "--why"], &["a.png"], "--why");
        refused(&[], "a question is missing");
        refused(&["--image", "a.png"], "a question is missing");
        refused(&["--image", "a.png", FILE], "a question is missing");
        refused(&["Why?", "How?"], "unexpected argument");
        refused(&["Where?", "--draw", "out.png"], "--draw needs exactly one picture, found 0");
        refused(
            &["Where?", "--html", "a.html", "--image", "a.png", "b.png"],
            "--html needs exactly one picture, found 2",
        );
    }

    #[test]
    fn numbers_within_their_ranges() {
        let ask =
            parse(&["Why?", "--max-tokens", "5", "--temperature", "1.5", "--seed", "7", "--system", "S"])
                .unwrap();
        assert_eq!(
            (ask.max_tokens, ask.temperature, ask.seed, ask.system.as_deref()),
            (5, Some(1.5), Some(7), Some("S"))
        );
        refused(&["Why?", "--max-tokens", "0"], "0 is not in 1..");
        for wrong in ["2", "-1", "nan", "inf", "warm"] {
            refused(&["Why?", &format!("--temperature={wrong}")], "expected a number in [0, 2)");
        }
        refused(&["Why?", "--seed=-1"], "invalid value '-1'");
    }

    #[test]
    fn pictures_that_can_t_be_read() {
        let message = |path: &str| format!("{:#}", read_picture(Path::new(path)).unwrap_err());
        assert!(message("no/such.png").starts_with("no/such.png: "));
        assert!(message(".").starts_with(".: "));
        assert!(read_picture(Path::new(FILE)).is_ok_and(|bytes| !bytes.is_empty()));
        let ask = parse(&["Why?", "--image", "a.png", "b.png"]).unwrap();
        let fault = |index| Error::Media { index, reason: MediaFault::Broken("cut off".into()) };
        assert_eq!(ask.named(fault(1)).to_string(), "b.png: cut off");
        assert_eq!(ask.named(fault(2)).to_string(), fault(2).to_string());
    }

    #[test]
    fn the_report_is_complete() {
        let ask = parse(&["Why?", "--image", "a.png", "--json"]).unwrap();
        let prompt = PromptTokens { text: 29, image: 1247, video: 0 };
        let media = MediaSize { original: (1365, 2048), seen: (812, 1204), frames: 1, tokens: 1247 };
        let started = Started { prompt, media: vec![media] };
        let second = Duration::from_secs(1);
        let timings =
            Timings { encode: second * 2, prefill: second * 3, decode: second * 2, ..Timings::default() };
        let finished = Finished { reason: FinishReason::Length, prompt, completion_tokens: 5, timings };
        let expected = json!({
            "model": "ocellus-demo", "text": "Because.", "finish_reason": "length",
            "usage": {"prompt_tokens": 1276, "completion_tokens": 5, "total_tokens": 1281, "text_tokens": 29,
                      "image_tokens": 1247},
            "images": [{"file": "a.png", "original": {"height": 1365, "width": 2048},
                        "seen": {"height": 812, "width": 1204}, "tokens": 1247}],
            "timings": {"decode_images_s": 0.0, "queue_s": 0.0, "encode_s": 2.0, "prefill_s": 3.0, "decode_s": 2.0,
                        "tokens_per_second": 2.0},
        });
        assert_eq!(ask.report("Because.", Some(&started), &finished), expected);
        assert_eq!(tokens_per_second(0, second), None);
        assert_eq!(tokens_per_second(1, second), None);
        assert_eq!(tokens_per_second(2, Duration::ZERO), None);
    }

    #[test]
    fn an_answer_can_t_steer_the_terminal() {
        assert_eq!(printable("a\tb\n\u{1b}[31mred\r\u{9b}2J"), "a\tb\n\u{fffd}[31mred\u{fffd}\u{fffd}2J");
    }
}
