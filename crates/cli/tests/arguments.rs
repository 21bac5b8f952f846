//! Wrong command lines, given to the binary itself: the exact words on the standard error stream, nothing on the
//! standard output, and the exit status: 2 for what can't be meant, 1 for what was meant and went wrong.

#![allow(clippy::unwrap_used)]

use std::fmt::Write;
use std::net::TcpListener;
use std::process::{Command, Output, Stdio};

#[test]
fn each_wrong_command_line_says_what_is_wrong() {
    let folder = std::env::temp_dir().join(format!("ocellus-arguments-{}", std::process::id()));
    std::fs::create_dir_all(folder.join("checkpoint")).unwrap();
    // Messages of several lines, as a JSON parser's may be, are still one line for the reader.
    std::fs::write(folder.join("checkpoint/config.json"), "{\n\n\"hidden_size\" 64}").unwrap();
    std::fs::write(folder.join("notes.txt"), "Milk, bread.").unwrap();
    std::fs::write(folder.join("empty.png"), "").unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let (place, port) = (folder.display().to_string(), taken.local_addr().unwrap().port().to_string());

    let mut wrong = String::new();
    for (line, status, expected) in CASES {
        let words = line.split(' ').filter(|word| !word.is_empty());
        let output = ocellus(words.map(|word| word.replace("FOLDER", &place).replace("PORT", &port)));
        let error =
            String::from_utf8(output.stderr).unwrap().replace(&place, "FOLDER").replace(&port, "PORT");
        // clap adds the same advice under each message, and the system's numbers differ from system to system.
        let advice = error.split("\n\n").next().unwrap();
        let found = advice.split(" (os error").next().unwrap().trim_end();
        if (output.status.code(), found) != (Some(*status), *expected) || !output.stdout.is_empty() {
            let _ = writeln!(
                wrong,
                "{line}\n   found: {:?} {found}\nexpected: {status} {expected}",
                output.status.code()
            );
        }
    }
    std::fs::remove_dir_all(&folder).unwrap();
    assert!(wrong.is_empty(), "of {} command lines:\n{wrong}", CASES.len());
}

/// The same binary answers a good line: none of the above fails for want of something else.
#[test]
fn a_good_command_line_is_answered() {
    let words = ["ask", "Why?", "--max-tokens", "2", "--context", "64", "--device", "auto"];
    let output = ocellus(words.map(str::to_owned));
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(!output.stdout.is_empty() && output.stderr.is_empty());
}

fn ocellus(words: impl IntoIterator<Item = String>) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ocellus"));
    // What the one who runs the tests has set must not answer for the arguments.
    command.env_remove("OCELLUS_API_KEY").env_remove("OCELLUS_LOG").env("NO_COLOR", "1");
    command.args(words).stdin(Stdio::null()).output().unwrap()
}

/// What is typed, the exit status, and what is read. `FOLDER` stands for a folder with broken files, `PORT` for a
/// port that is taken.
type Case = (&'static str, i32, &'static str);

#[rustfmt::skip]
const CASES: &[Case] = &[
    // Words.
    ("frobnicate", 2, "error: unrecognized subcommand 'frobnicate'"),
    ("serve --frobnicate", 2, "error: unexpected argument '--frobnicate' found"),
    ("serve model", 2, "error: unexpected argument 'model' found"),
    ("ask", 2, r#"error: a question is missing: ocellus ask --image FILE "QUESTION""#),
    ("ask --image FOLDER/empty.png", 2, r#"error: a question is missing: ocellus ask --image FILE "QUESTION""#),
    ("ask Why? How?", 2, "error: unexpected argument 'How?' found"),
    // Numbers.
    ("serve --port 65536", 2, "error: invalid value '65536' for '--port <PORT>': 65536 is not in 0..=65535"),
    ("serve --port http", 2, "error: invalid value 'http' for '--port <PORT>': invalid digit found in string"),
    ("serve --port", 2, "error: a value is required for '--port <PORT>' but none was supplied"),
    ("serve --media-timeout 0", 2, "error: invalid value '0' for '--media-timeout <SECONDS>': 0 is not in 1..=3600"),
    ("serve --max-completion-tokens 0", 2, "error: invalid value '0' for '--max-completion-tokens <TOKENS>': expected a number from 1"),
    ("ask Why? --max-tokens 0", 2, "error: invalid value '0' for '--max-tokens <N>': 0 is not in 1..=4294967295"),
    ("ask Why? --max-tokens 4294967296", 2, "error: invalid value '4294967296' for '--max-tokens <N>': 4294967296 is not in 1..=4294967295"),
    ("ask Why? --temperature=2", 2, "error: invalid value '2' for '--temperature <T>': expected a number in [0, 2)"),
    ("ask Why? --temperature=nan", 2, "error: invalid value 'nan' for '--temperature <T>': expected a number in [0, 2)"),
    ("ask Why? --seed=-1", 2, "error: invalid value '-1' for '--seed <SEED>': invalid digit found in string"),
    ("ask Why? --context few", 2, "error: invalid value 'few' for '--context <TOKENS>': invalid digit found in string"),
    ("ask Why? --context 0", 1, "error: loading the embedded model: the context is 0 tokens, expected 2 to 128000 (max_position_embeddings in config.json)"),
    ("ask Why? --context 128001", 1, "error: loading the embedded model: the context is 128001 tokens, expected 2 to 128000 (max_position_embeddings in config.json)"),
    ("ask Why? --context 18446744073709551615", 1, "error: loading the embedded model: the context is 18446744073709551615 tokens, expected 2 to 128000 (max_position_embeddings in config.json)"),
    // Names and policies.
    ("ask Why? --device abacus", 1, r#"error: loading the embedded model: device "abacus": unknown; one of auto, cpu, cuda, cuda:1, metal"#),
    ("serve --model-name=", 2, "error: a model's name must not be empty"),
    ("serve --alias=", 2, "error: a model's name must not be empty"),
    ("serve --api-key=", 2, "error: --api-key must be visible ASCII characters without spaces"),
    ("serve --api-key=schlüssel", 2, "error: --api-key must be visible ASCII characters without spaces"),
    ("serve --media-fetch everywhere", 2, "error: invalid value 'everywhere' for '--media-fetch <MEDIA_FETCH>'\n  [possible values: public, off, allow-list, any]"),
    ("serve --media-fetch allow-list", 2, "error: --media-fetch allow-list needs at least one --media-allow HOST[:PORT]"),
    ("serve --media-allow example.org", 2, "error: --media-allow has an effect only with --media-fetch allow-list"),
    ("serve --media-fetch allow-list --media-allow http://example.org/", 2, r#"error: invalid value 'http://example.org/' for '--media-allow <HOST[:PORT]>': "http://example.org/" is not a host, such as example.org, 10.0.0.7:8080 or [fd00::1]:80"#),
    // Addresses.
    ("serve --host 0.0.0.0 --port 0", 2, "error: --host 0.0.0.0 can be reached from other machines, but no --api-key is set: set one, or accept requests from everybody with --allow-no-key"),
    ("serve --port PORT", 1, "error: listening on 127.0.0.1 port PORT: Address already in use"),
    // Files.
    ("serve --port 0 --model FOLDER/nothing", 1, "error: loading FOLDER/nothing: FOLDER/nothing: does not exist, expected a folder that holds a checkpoint"),
    ("serve --port 0 --model FOLDER/notes.txt", 1, "error: loading FOLDER/notes.txt: FOLDER/notes.txt: a file, not a folder, expected a folder that holds a checkpoint"),
    ("serve --port 0 --model FOLDER", 1, "error: loading FOLDER: config.json is missing in FOLDER"),
    ("ask Why? --model FOLDER/checkpoint", 1, "error: loading FOLDER/checkpoint: config.json: the content is not JSON (expected `:` at line 3 column 15), expected a JSON object"),
    ("ask Why? --image FOLDER/nothing.png", 1, "error: FOLDER/nothing.png: No such file or directory"),
    ("ask Why? --image FOLDER", 1, "error: FOLDER: Is a directory"),
    ("ask Why? --image FOLDER/empty.png", 1, "error: FOLDER/empty.png: the content looks like nothing (no bytes at all), which is not accepted; pictures may be BMP, JPEG, PNG, TIFF or WEBP"),
    ("ask Why? --image FOLDER/notes.txt", 1, "error: FOLDER/notes.txt: the content is no known picture: 12 bytes that start with [4d 69 6c 6b 2c 20 62 72]; pictures may be BMP, JPEG, PNG, TIFF or WEBP"),
];
