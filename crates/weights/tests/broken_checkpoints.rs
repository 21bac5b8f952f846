//! Every way in which a checkpoint can be broken, each with the exact sentence that the user reads.

#![allow(clippy::unwrap_used)]

mod fixture;

use std::{fs, path::Path};

use fixture::{GOOD_INDEX, file, load, write_good};
use ocellus_weights::Source;

/// What is broken, how to break it, and what the user reads. `FOLDER` stands for the path of the folder.
type Case = (&'static str, fn(&Path), &'static str);

/// Breaks the good checkpoint in each way, loads it, and compares the messages.
fn check(cases: &[Case]) {
    let mut wrong = Vec::new();
    for (case, break_it, expected) in cases {
        let folder = tempfile::tempdir().unwrap();
        write_good(folder.path());
        break_it(folder.path());
        let error = load(&Source::folder(folder.path())).expect_err(case).to_string();
        let error = error.replace(&folder.path().display().to_string(), "FOLDER");
        if error != *expected || error.contains('\n') {
            wrong.push(format!("{case}\n   found: {error}\nexpected: {expected}"));
        }
    }
    assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

const FIRST: &str = "model-00001-of-00002.safetensors";
const SECOND: &str = "model-00002-of-00002.safetensors";
const INDEX: &str = "model.safetensors.index.json";

#[test]
fn folders_and_layouts() {
    check(FOLDERS_AND_LAYOUTS);
}

const FOLDERS_AND_LAYOUTS: &[Case] = &[
    (
        "no folder",
        |f| fs::remove_dir_all(f).unwrap(),
        "FOLDER: does not exist, expected a folder that holds a checkpoint",
    ),
    (
        "a file in place of the folder",
        |f| {
            fs::remove_dir_all(f).unwrap();
            fs::write(f, b"x").unwrap();
        },
        "FOLDER: a file, not a folder, expected a folder that holds a checkpoint",
    ),
    (
        "an empty folder",
        empty,
        "FOLDER: found an empty folder, expected model.safetensors, or model.safetensors.index.json and its files",
    ),
    (
        "no weights",
        |f| {
            empty(f);
            fs::write(f.join("config.json"), "{}").unwrap();
        },
        "FOLDER: found no weights, expected model.safetensors, or model.safetensors.index.json and its files",
    ),
    (
        "GGUF",
        |f| {
            empty(f);
            fs::write(f.join("qwen2.5-vl-q4_k_m.GGUF"), b"GGUF").unwrap();
        },
        "FOLDER: found a GGUF file (qwen2.5-vl-q4_k_m.GGUF), expected model.safetensors, or model.safetensors.index.json and its files",
    ),
    (
        "PyTorch",
        |f| {
            empty(f);
            fs::write(f.join("pytorch_model.bin"), b"PK\x03\x04").unwrap();
        },
        "FOLDER: found a PyTorch file (pytorch_model.bin), expected model.safetensors, or model.safetensors.index.json and its files",
    ),
    (
        "no index",
        |f| fs::remove_file(f.join(INDEX)).unwrap(),
        "FOLDER: found a safetensors file without its index (model-00001-of-00002.safetensors), expected model.safetensors, or model.safetensors.index.json and its files",
    ),
    (
        "both layouts",
        |f| fs::write(f.join("model.safetensors"), file(&[])).unwrap(),
        "FOLDER: found model.safetensors beside model.safetensors.index.json, which does not name it, expected model.safetensors, or model.safetensors.index.json and its files",
    ),
    (
        "a folder in place of a file",
        |f| {
            fs::remove_file(f.join(SECOND)).unwrap();
            fs::create_dir(f.join(SECOND)).unwrap();
        },
        "model-00002-of-00002.safetensors: a folder, expected a file",
    ),
    (
        "a folder in place of the index",
        |f| {
            fs::remove_file(f.join(INDEX)).unwrap();
            fs::create_dir(f.join(INDEX)).unwrap();
        },
        "model.safetensors.index.json: a folder, expected a file",
    ),
];

#[test]
fn indexes() {
    check(INDEXES);
}

const INDEXES: &[Case] = &[
    (
        "the index is empty",
        |f| write_index(f, ""),
        "model.safetensors.index.json: EOF while parsing a value at line 1 column 0, expected a JSON object with a weight_map from tensor names to file names",
    ),
    (
        "the index is not JSON",
        |f| write_index(f, "weight_map: {}"),
        "model.safetensors.index.json: expected value at line 1 column 1, expected a JSON object with a weight_map from tensor names to file names",
    ),
    (
        "the index is cut",
        |f| write_index(f, &GOOD_INDEX[..70]),
        "model.safetensors.index.json: text.embed.weight: EOF while parsing a value at line 2 column 21, expected a JSON object with a weight_map from tensor names to file names",
    ),
    (
        "the index is a list",
        |f| write_index(f, "[1]"),
        "model.safetensors.index.json: invalid type: integer `1`, expected an object weight_map at line 1 column 2, expected a JSON object with a weight_map from tensor names to file names",
    ),
    (
        "brackets without end",
        |f| write_index(f, &"[".repeat(200_000)),
        "model.safetensors.index.json: invalid type: sequence, expected an object weight_map at line 1 column 1, expected a JSON object with a weight_map from tensor names to file names",
    ),
    (
        "brackets without end in what is skipped",
        |f| write_index(f, &format!("{{\"metadata\": {}", "[".repeat(200_000))),
        "model.safetensors.index.json: EOF while parsing a list at line 1 column 200013, expected a JSON object with a weight_map from tensor names to file names",
    ),
    (
        "no weight_map",
        |f| write_index(f, r#"{"metadata": {}}"#),
        "model.safetensors.index.json: missing field `weight_map` at line 1 column 16, expected a JSON object with a weight_map from tensor names to file names",
    ),
    (
        "an empty weight_map",
        |f| write_index(f, r#"{"weight_map": {}}"#),
        "model.safetensors.index.json: an empty weight_map, expected the names of tensors and their files",
    ),
    (
        "weight_map is a list",
        |f| write_index(f, r#"{"weight_map": ["a"]}"#),
        "model.safetensors.index.json: invalid type: sequence, expected an object weight_map at line 1 column 15, expected a JSON object with a weight_map from tensor names to file names",
    ),
    (
        "a file name is a number",
        |f| write_index(f, r#"{"weight_map": {"tower.norm.weight": 1}}"#),
        "model.safetensors.index.json: tower.norm.weight: invalid type: integer `1`, expected a string at line 1 column 38, expected a JSON object with a weight_map from tensor names to file names",
    ),
    (
        "not UTF-8",
        |f| fs::write(f.join(INDEX), b"{\"weight_map\": \xff}").unwrap(),
        "model.safetensors.index.json: invalid UTF-8 after byte 15, expected text",
    ),
    (
        "an absolute path",
        |f| redirect(f, "/etc/passwd"),
        r#"tower.norm.weight in model.safetensors.index.json: file "/etc/passwd", expected the name of a file in the same folder"#,
    ),
    (
        "a path upwards",
        |f| redirect(f, "../other/model.safetensors"),
        r#"tower.norm.weight in model.safetensors.index.json: file "../other/model.safetensors", expected the name of a file in the same folder"#,
    ),
    (
        "a path downwards",
        |f| redirect(f, "sub/model.safetensors"),
        r#"tower.norm.weight in model.safetensors.index.json: file "sub/model.safetensors", expected the name of a file in the same folder"#,
    ),
    (
        "a path in the manner of Windows",
        |f| redirect(f, r"..\\model.safetensors"),
        r#"tower.norm.weight in model.safetensors.index.json: file "..\model.safetensors", expected the name of a file in the same folder"#,
    ),
    (
        "the folder above",
        |f| redirect(f, ".."),
        r#"tower.norm.weight in model.safetensors.index.json: file "..", expected the name of a file in the same folder"#,
    ),
    (
        "an empty file name",
        |f| redirect(f, ""),
        r#"tower.norm.weight in model.safetensors.index.json: file "", expected the name of a file in the same folder"#,
    ),
    (
        "a file name with a zero and an escape sequence",
        |f| redirect(f, r"a\u0000\u001b[31m"),
        r#"tower.norm.weight in model.safetensors.index.json: file "a\0\u{1b}[31m", expected the name of a file in the same folder"#,
    ),
    ("a file name without end", |f| redirect(f, &"n".repeat(1000)), TOO_LONG_A_NAME),
    (
        "a missing file",
        |f| fs::remove_file(f.join(SECOND)).unwrap(),
        "model-00002-of-00002.safetensors: no such file, expected the file that model.safetensors.index.json names for text.embed.weight",
    ),
    (
        "a tensor twice in the index",
        |f| write_index(f, &GOOD_INDEX.replace("tower.proj.weight", "tower.norm.weight")),
        "tower.norm.weight in model.safetensors.index.json: two entries, expected one",
    ),
    (
        "the index names a tensor that the file lacks",
        |f| write_index(f, &GOOD_INDEX.replace("tower.norm.weight", "tower.gone.weight")),
        "tower.gone.weight in model-00001-of-00002.safetensors: no such tensor, expected one, as model.safetensors.index.json says",
    ),
    (
        "the index names the wrong file",
        |f| redirect(f, SECOND),
        "tower.norm.weight in model-00002-of-00002.safetensors: no such tensor (it is in model-00001-of-00002.safetensors), expected one, as model.safetensors.index.json says",
    ),
    (
        "a file holds a tensor that the index does not name",
        |f| {
            write_index(
                f,
                &GOOD_INDEX.replace(r#""tower.norm.weight": "model-00001-of-00002.safetensors","#, ""),
            )
        },
        "tower.norm.weight in model-00001-of-00002.safetensors: a tensor that model.safetensors.index.json does not name, expected the index to name every tensor",
    ),
    (
        "a tensor in two files",
        |f| fs::copy(f.join(FIRST), f.join(SECOND)).map(drop).unwrap(),
        "tower.norm.weight in model-00002-of-00002.safetensors: a second copy of the one in model-00001-of-00002.safetensors, expected each tensor in one file",
    ),
];

/// A message shows the beginning of such a name only.
const TOO_LONG_A_NAME: &str = r#"tower.norm.weight in model.safetensors.index.json: file "nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn…", expected the name of a file in the same folder"#;

#[test]
fn headers() {
    check(HEADERS);
}

const HEADERS: &[Case] = &[
    (
        "a file of no length",
        |f| fs::write(f.join(FIRST), b"").unwrap(),
        "model-00001-of-00002.safetensors: empty, expected a safetensors file",
    ),
    (
        "a file of 7 bytes",
        |f| fs::write(f.join(FIRST), [0; 7]).unwrap(),
        "model-00001-of-00002.safetensors: 7 bytes, expected a safetensors file",
    ),
    (
        "a Git LFS pointer",
        |f| {
            fs::write(f.join(FIRST), "version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 4\n")
                .unwrap()
        },
        "model-00001-of-00002.safetensors: a Git LFS pointer (the file itself was never downloaded), expected a safetensors file",
    ),
    (
        "GGUF under another name",
        |f| fs::write(f.join(FIRST), b"GGUF\x03\0\0\0\0\0\0\0").unwrap(),
        "model-00001-of-00002.safetensors: a GGUF file, expected a safetensors file",
    ),
    (
        "PyTorch under another name",
        |f| fs::write(f.join(FIRST), b"PK\x03\x04\0\0\0\0\0\0").unwrap(),
        "model-00001-of-00002.safetensors: a zip archive, perhaps a PyTorch checkpoint, expected a safetensors file",
    ),
    (
        "an absurd length of the header",
        |f| fs::write(f.join(FIRST), [0xff; 64]).unwrap(),
        "model-00001-of-00002.safetensors: a header of 18446744073709551615 bytes, expected a safetensors file, with a header of at most 100000000 bytes",
    ),
    (
        "cut within the header",
        |f| cut(f, 100),
        "model-00001-of-00002.safetensors: 100 bytes, expected more than 296 bytes, for its header alone has 288: it was cut",
    ),
    (
        "cut by one byte",
        |f| cut(f, 323),
        "model-00001-of-00002.safetensors: 323 bytes, expected 324 bytes as its header says: it was cut, or something was appended",
    ),
    (
        "one byte too many",
        |f| {
            let mut bytes = fs::read(f.join(FIRST)).unwrap();
            bytes.push(0);
            fs::write(f.join(FIRST), bytes).unwrap();
        },
        "model-00001-of-00002.safetensors: 325 bytes, expected 324 bytes as its header says: it was cut, or something was appended",
    ),
    (
        "a header of no length",
        |f| write_header(f, "", 0),
        "model-00001-of-00002.safetensors: a header that can't be understood: EOF while parsing a value at line 1 column 0, expected a safetensors header",
    ),
    (
        "a header that is not JSON",
        |f| write_header(f, "tensors", 0),
        "model-00001-of-00002.safetensors: a header that can't be understood: expected ident at line 1 column 2, expected a safetensors header",
    ),
    (
        "a header that is not UTF-8",
        |f| fs::write(f.join(FIRST), b"\x03\0\0\0\0\0\0\0{\"\xff").unwrap(),
        "model-00001-of-00002.safetensors: a header that can't be understood: EOF while parsing a string at line 1 column 3, expected a safetensors header",
    ),
    (
        "a header that is a list",
        |f| write_header(f, "[]", 0),
        "model-00001-of-00002.safetensors: a header that can't be understood: invalid type: sequence, expected an object of tensors at line 1 column 0, expected a safetensors header",
    ),
    (
        "text behind the header",
        |f| write_header(f, "{} x", 0),
        "model-00001-of-00002.safetensors: a header that can't be understood: trailing characters at line 1 column 4, expected a safetensors header",
    ),
    (
        "a tensor that is no object",
        |f| write_header(f, r#"{"tower.norm.weight": 4}"#, 0),
        "model-00001-of-00002.safetensors: a header that can't be understood: tower.norm.weight: invalid type: integer `4`, expected struct TensorInfo at line 1 column 23, expected a safetensors header",
    ),
    (
        "a tensor without a dtype",
        |f| write_header(f, r#"{"tower.norm.weight": {"shape": [4], "data_offsets": [0, 8]}}"#, 8),
        "model-00001-of-00002.safetensors: a header that can't be understood: tower.norm.weight: missing field `dtype` at line 1 column 60, expected a safetensors header",
    ),
    (
        "a negative dimension",
        |f| write_header(f, r#"{"x": {"dtype": "F16", "shape": [-4], "data_offsets": [0, 8]}}"#, 8),
        "model-00001-of-00002.safetensors: a header that can't be understood: x: invalid value: integer `-4`, expected usize at line 1 column 35, expected a safetensors header",
    ),
    (
        "a fractional dimension",
        |f| write_header(f, r#"{"x": {"dtype": "F16", "shape": [4.5], "data_offsets": [0, 8]}}"#, 8),
        "model-00001-of-00002.safetensors: a header that can't be understood: x: invalid type: floating point `4.5`, expected usize at line 1 column 36, expected a safetensors header",
    ),
    (
        "too many dimensions",
        |f| {
            write_header(
                f,
                r#"{"x": {"dtype": "F16", "shape": [1,1,1,1,1,1,1,1,4], "data_offsets": [0, 8]}}"#,
                8,
            )
        },
        "x in model-00001-of-00002.safetensors: 9 dimensions, expected at most 8",
    ),
    (
        "one offset",
        |f| write_header(f, r#"{"x": {"dtype": "F16", "shape": [4], "data_offsets": [0]}}"#, 8),
        "model-00001-of-00002.safetensors: a header that can't be understood: x: invalid length 1, expected a tuple of size 2 at line 1 column 56, expected a safetensors header",
    ),
    (
        "offsets that run backwards",
        |f| write_header(f, r#"{"x": {"dtype": "F16", "shape": [4], "data_offsets": [8, 0]}}"#, 8),
        "x in model-00001-of-00002.safetensors: data offsets 8 to 0, expected a start at 0, without gap or overlap",
    ),
    (
        "a gap before a tensor",
        |f| write_header(f, r#"{"x": {"dtype": "F16", "shape": [4], "data_offsets": [8, 16]}}"#, 16),
        "x in model-00001-of-00002.safetensors: data offsets 8 to 16, expected a start at 0, without gap or overlap",
    ),
    (
        "tensors that overlap",
        |f| {
            let x = r#""x": {"dtype": "F16", "shape": [4], "data_offsets": [0, 8]}"#;
            let y = r#""y": {"dtype": "F16", "shape": [4], "data_offsets": [4, 12]}"#;
            write_header(f, &format!("{{{x}, {y}}}"), 12);
        },
        "y in model-00001-of-00002.safetensors: data offsets 4 to 12, expected a start at 8, without gap or overlap",
    ),
    (
        "a tensor twice in one header",
        |f| {
            let x = r#""x": {"dtype": "F16", "shape": [4], "data_offsets": [0, 8]}"#;
            write_header(f, &format!("{{{x}, {x}}}"), 8);
        },
        "x in model-00001-of-00002.safetensors: two entries in the header, expected one",
    ),
    (
        "fewer bytes than the shape needs",
        |f| write_header(f, r#"{"x": {"dtype": "F32", "shape": [4], "data_offsets": [0, 8]}}"#, 8),
        "x in model-00001-of-00002.safetensors: 8 bytes, expected 16 for shape [4] of F32",
    ),
    (
        "a shape that overflows",
        |f| {
            write_header(
                f,
                r#"{"x": {"dtype": "F16", "shape": [4294967296, 4294967296, 0, 2], "data_offsets": [0, 0]}}"#,
                0,
            )
        },
        "x in model-00001-of-00002.safetensors: 0 bytes, expected a size that can exist for shape [4294967296, 4294967296, 0, 2] of F16",
    ),
    (
        "offsets whose sum overflows",
        |f| {
            let largest = 1u64 << 60;
            let entry = |i: u64| {
                format!(
                    r#""x{i:02}": {{"dtype": "BOOL", "shape": [{largest}], "data_offsets": [{}, {}]}}"#,
                    i * largest,
                    (i + 1) * largest
                )
            };
            let last = format!(
                r#""x15": {{"dtype": "BOOL", "shape": [{}], "data_offsets": [{}, {}]}}"#,
                largest - 1,
                15 * largest,
                u64::MAX
            );
            let entries: Vec<String> = (0..15).map(entry).chain([last]).collect();
            write_header(f, &format!("{{{}}}", entries.join(", ")), 8);
        },
        "model-00001-of-00002.safetensors: 1901 bytes, expected 1893 + 18446744073709551615 bytes as its header says: it was cut, or something was appended",
    ),
    (
        "an unknown dtype",
        |f| write_header(f, r#"{"x": {"dtype": "Q4_K", "shape": [4], "data_offsets": [0, 8]}}"#, 8),
        "model-00001-of-00002.safetensors: a header that can't be understood: x: unknown variant `Q4_K`, expected one of `BOOL`, `F4`, `F6_E2M3`, `F6_E3M2`, `U8`, `I8`, `F8_E5M2`, `F8_E4M3`, `F8_E8M0`, `F8_E4M3FNUZ`, `F8_E5M2FNUZ`, `I16`, `U16`, `F16`, `BF16`, `I32`, `U32`, `F32`, `C64`, `F64`, `I64`, `U64` at line 1…, expected a safetensors header",
    ),
    (
        "half bytes",
        |f| write_header(f, r#"{"x": {"dtype": "F4", "shape": [3], "data_offsets": [0, 1]}}"#, 1),
        "x in model-00001-of-00002.safetensors: 1 bytes, expected a size that can exist for shape [3] of F4",
    ),
];

#[test]
fn models() {
    check(MODELS);
}

/// Checkpoints that are sound in themselves, but of another model.
const MODELS: &[Case] = &[
    (
        "a missing tensor",
        |f| rename(f, "tower.norm.weight", "tower.morn.weight"),
        "tower.norm.weight in model.safetensors.index.json: no such tensor, expected one of shape [4] (config.json says hidden_size 4)",
    ),
    (
        "a missing bias",
        |f| rename(f, "tower.proj.bias", "tower.proj.bais"),
        "tower.proj.bias in model.safetensors.index.json: no such tensor, expected one of shape [2] (config.json says hidden_size 4)",
    ),
    (
        "no tensor of a whole part",
        |f| {
            for tensor in ["norm.weight", "norm.bias", "proj.weight", "proj.bias"] {
                rename(f, &format!("tower.{tensor}"), &format!("towel.{tensor}"));
            }
        },
        "model.safetensors.index.json: no tensor is called model.tower.* or tower.*",
    ),
    (
        "a wrong shape",
        |f| replace(f, FIRST, "tower.norm.weight", "BF16", "[2,2]"),
        "tower.norm.weight in model-00001-of-00002.safetensors: shape [2, 2], expected [4] (config.json says hidden_size 4)",
    ),
    (
        "a transposed matrix",
        |f| replace(f, FIRST, "tower.proj.weight", "BF16", "[2,2,1]"),
        "tower.proj.weight in model-00001-of-00002.safetensors: shape [2, 2, 1], expected [2, 1, 2] (config.json says hidden_size 4)",
    ),
    (
        "a scalar",
        |f| {
            let text = r#"{"text.embed.weight": {"dtype": "F32", "shape": [], "data_offsets": [0, 4]}, "text.norm.weight": {"dtype": "F16", "shape": [4], "data_offsets": [4, 12]}}"#;
            fs::write(f.join(SECOND), fixture::raw(text, 12)).unwrap();
        },
        "text.embed.weight in model-00002-of-00002.safetensors: shape [], expected [3, 4]",
    ),
    (
        "integers",
        |f| replace(f, FIRST, "tower.norm.weight", "I16", "[4]"),
        "tower.norm.weight in model-00001-of-00002.safetensors: dtype I16, expected BF16, F16 or F32",
    ),
    (
        "bytes of a quantized model",
        |f| replace(f, SECOND, "text.norm.weight", "F8_E4M3", "[8]"),
        "text.norm.weight in model-00002-of-00002.safetensors: shape [8], expected [4]",
    ),
    (
        "one surplus tensor",
        |f| {
            add(f, &["text.gate.weight"]);
        },
        "1 tensor that the model does not have: text.gate.weight in extra.safetensors, expected no surplus tensor",
    ),
    (
        "many surplus tensors",
        |f| {
            add(f, &["a", "b", "c", "d", "e\\u001b[2J"]);
        },
        "5 tensors that the model does not have: a in extra.safetensors, b in extra.safetensors, c in extra.safetensors and 2 more, expected no surplus tensor",
    ),
    (
        "both naming schemes at once",
        |f| {
            add(f, &["model.tower.norm.weight"]);
        },
        "model.tower.norm.bias in model.safetensors.index.json: no such tensor, expected one of shape [4] (config.json says hidden_size 4)",
    ),
];

#[cfg(unix)]
#[test]
fn links_and_pipes() {
    check(&[
        (
            "a link to nothing",
            |f| {
                fs::remove_file(f.join(FIRST)).unwrap();
                std::os::unix::fs::symlink("gone", f.join(FIRST)).unwrap();
            },
            "model-00001-of-00002.safetensors: a link to a file that does not exist, expected a file",
        ),
        (
            "a link to a device: reading it would never end",
            |f| {
                fs::remove_file(f.join(INDEX)).unwrap();
                std::os::unix::fs::symlink("/dev/zero", f.join(INDEX)).unwrap();
            },
            "model.safetensors.index.json: a device or pipe, expected a file",
        ),
    ]);
    // A cache of downloads is a folder of links to files elsewhere.
    let (elsewhere, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write_good(elsewhere.path());
    for name in [INDEX, FIRST, SECOND] {
        std::os::unix::fs::symlink(elsewhere.path().join(name), folder.path().join(name)).unwrap();
    }
    load(&Source::folder(folder.path())).unwrap();
}

#[test]
fn texts() {
    let folder = tempfile::tempdir().unwrap();
    let source = Source::folder(folder.path());
    let write = |bytes: &[u8]| fs::write(folder.path().join("config.json"), bytes).unwrap();
    assert_eq!(source.read_text("config.json").unwrap(), None);
    write(b"\xef\xbb\xbf{}");
    assert_eq!(source.read_text("config.json").unwrap().as_deref(), Some("{}"), "a byte order mark");
    write(b"");
    assert_eq!(source.read_text("config.json").unwrap().as_deref(), Some(""));
    // A sparse file takes no room, but it would fill the memory.
    fs::File::create(folder.path().join("config.json")).unwrap().set_len((64 << 20) + 1).unwrap();
    assert_eq!(
        source.read_text("config.json").unwrap_err().to_string(),
        "config.json: more than 67108864 bytes, expected a text file of at most that size"
    );
    assert_eq!(
        source.read_text("../config.json").unwrap_err().to_string(),
        "../config.json: a path, expected the name of a file in the folder"
    );
    assert_eq!(
        Source::folder("/does/not/exist").read_text("config.json").unwrap_err().to_string(),
        "/does/not/exist: does not exist, expected a folder that holds a checkpoint"
    );
}

fn empty(folder: &Path) {
    fs::remove_dir_all(folder).unwrap();
    fs::create_dir(folder).unwrap();
}

fn write_index(folder: &Path, text: &str) {
    fs::write(folder.join(INDEX), text).unwrap();
}

/// Makes the index name another file for `tower.norm.weight`; `file` is JSON text.
fn redirect(folder: &Path, file: &str) {
    let entry = r#""tower.norm.weight": "model-00001-of-00002.safetensors""#;
    assert!(GOOD_INDEX.contains(entry));
    write_index(folder, &GOOD_INDEX.replace(entry, &format!(r#""tower.norm.weight": "{file}""#)));
}

fn write_header(folder: &Path, json: &str, data_bytes: usize) {
    fs::write(folder.join(FIRST), fixture::raw(json, data_bytes)).unwrap();
}

fn cut(folder: &Path, length: usize) {
    let bytes = fs::read(folder.join(FIRST)).unwrap();
    fs::write(folder.join(FIRST), &bytes[..length]).unwrap();
}

/// Changes type and shape of a tensor in the header of `file`, which keeps its length.
fn replace(folder: &Path, file: &str, tensor: &str, dtype: &str, shape: &str) {
    fixture::edit_header(&folder.join(file), |header| {
        header[tensor]["dtype"] = dtype.into();
        header[tensor]["shape"] = serde_json::from_str(shape).unwrap();
    });
}

/// Renames a tensor in the index and in its file, to a name of the same length.
fn rename(folder: &Path, from: &str, to: &str) {
    for file in [INDEX, FIRST, SECOND] {
        let mut bytes = fs::read(folder.join(file)).unwrap();
        let from = format!("\"{from}\"");
        if let Some(at) = bytes.windows(from.len()).position(|window| window == from.as_bytes()) {
            bytes[at + 1..at + 1 + to.len()].copy_from_slice(to.as_bytes());
        }
        fs::write(folder.join(file), bytes).unwrap();
    }
}

/// Adds a file with tensors of the given names (JSON text) that the index names too.
fn add(folder: &Path, tensors: &[&str]) {
    let entries: Vec<_> = tensors.iter().map(|tensor| (*tensor, "F16", &[4][..])).collect();
    fs::write(folder.join("extra.safetensors"), file(&entries)).unwrap();
    let named: String = tensors.iter().map(|tensor| format!(r#""{tensor}": "extra.safetensors","#)).collect();
    write_index(folder, &GOOD_INDEX.replace(r#""weight_map": {"#, &format!(r#""weight_map": {{{named}"#)));
}
