//! Wrong command lines, given to the binary itself: the exact words on the standard error stream, nothing on the
//! standard output, and the exit status: 2 for what can't be meant, 1 for what was meant and went wrong.

#![allow(clippy::unwrap_used)]

use std::fmt::Write;
use std::net::TcpListener;
use std::path::Path;
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
        let output =
            ocellus(words.map(|word| word.replace("FOLDER", &place).replace("PORT", &port)), &folder);
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
    let output = ocellus(words.map(str::to_owned), &std::env::temp_dir());
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(!output.stdout.is_empty() && output.stderr.is_empty());
}

fn ocellus(words: impl IntoIterator<Item = String>, home: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ocellus"));
    // What the one who runs the tests has set must not answer for the arguments.
    command.env_remove("OCELLUS_API_KEY").env_remove("OCELLUS_LOG").env("NO_COLOR", "1");
    // No test asks a hub, or sees what is in the user's cache.
    command.env_remove("HF_HUB_CACHE").env("HF_HOME", home).env("HF_HUB_OFFLINE", "1");
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
    // Models by name. None of these asks anybody.
    ("pull", 2, "error: the following required arguments were not provided:\n  <NAME>"),
    ("pull FOLDER", 2, "error: FOLDER: a folder, expected the name of a repository"),
    ("pull nothing", 2, "error: \"nothing\" is no folder here and no model's name: expected the folder of a checkpoint, owner/name of a repository, or one of qwen2.5-vl-3b-instruct, qwen2.5-vl-7b-instruct, qwen2.5-vl-32b-instruct, qwen2.5-vl-72b-instruct"),
    ("pull owner/..name", 2, "error: \"owner/..name\" is no folder here, and no repository: expected owner/name of letters, digits and single `-`, `_` or `.` between them, at most 96 characters"),
    ("pull owner/name --revision ../main", 2, "error: --revision \"../main\": expected a branch, a tag or a commit as revision: letters, digits, `-`, `_`, `.`, `+` and `/`, at most 200 characters"),
    ("pull owner/name --parallel 0", 2, "error: invalid value '0' for '--parallel <FILES>': 0 is not in 1..=32"),
    ("ask Why? --model nothing", 1, "error: \"nothing\" is no folder here and no model's name: expected the folder of a checkpoint, owner/name of a repository, or one of qwen2.5-vl-3b-instruct, qwen2.5-vl-7b-instruct, qwen2.5-vl-32b-instruct, qwen2.5-vl-72b-instruct"),
    ("ask Why? --model owner/name", 1, "error: no folder is called owner/name; as a repository: owner/name is not whole in the cache FOLDER/hub, and HF_HUB_OFFLINE=1 forbids fetching it: pull it once with a network (ocellus pull owner/name), or give the folder of a checkpoint"),
    ("serve --port 0 --offline --model owner/name@v1", 1, "error: no folder is called owner/name; as a repository: owner/name@v1 is not whole in the cache FOLDER/hub, and --offline forbids fetching it: pull it once with a network (ocellus pull owner/name@v1), or give the folder of a checkpoint"),
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
