//! The house keeps itself tidy: rules that no compiler knows, checked on every file of the tree.
//!
//! A rule is a function from a file's path and text to its faults, so that each can be shown a bad file: a rule that
//! finds nothing anywhere proves nothing.

#![allow(clippy::unwrap_used)]

mod code;
mod manifests;

use std::{
    fs,
    path::{Path, PathBuf},
};

use code::Code;
use ocellus_tests::house::workspace;

/// A file, by its path from the root of the workspace with `/` between folders.
struct File {
    path: String,
    text: String,
}

/// What is wrong with a file, one sentence each.
type Rule = fn(&File) -> Vec<String>;

#[test]
fn unsafe_code_stays_in_its_two_places() {
    check(unsafe_code);
    let bad = |path, text: &str, expected: &[&str]| finds(unsafe_code, path, text, expected);
    let text = "//! Doc.\nfn f() {\n    unsafe { g() }\n}\n";
    bad(
        "crates/engine/src/a.rs",
        text,
        &["line 3: unsafe code outside of kernels/ and crates/weights/src/mmap.rs"],
    );
    bad("kernels/linear/cpu.rs", text, &[]);
    bad("crates/weights/src/mmap.rs", text, &[]);
    bad(
        "crates/engine/src/a.rs",
        "//! No unsafe.\nconst A: &str = \"unsafe\"; // unsafe\n#![deny(unsafe_code)]\n",
        &[],
    );
}

#[test]
fn devices_are_named_in_the_kernels_alone() {
    check(device_names);
    let bad = |path, text: &str, expected: &[&str]| finds(device_names, path, text, expected);
    bad(
        "crates/engine/src/a.rs",
        "//! Doc.\nlet a = Device::Cpu;\n",
        &["line 2: Cpu is a device's name, which only kernels/ knows"],
    );
    bad(
        "crates/cli/src/a.rs",
        "let a = Device::open(\"cuda:0\");\n",
        &["line 1: cuda is a device's name, which only kernels/ knows"],
    );
    bad(
        "crates/cli/src/a.rs",
        "fn is_metal() {}\n",
        &["line 1: metal is a device's name, which only kernels/ knows"],
    );
    bad(
        "crates/cli/src/a.rs",
        "//! On the CPU.\nfn f() {} // cuda\n#[cfg(test)]\nmod tests {\n    cpu();\n}\n",
        &[],
    );
    bad("crates/cli/src/a.rs", "fn cpus(occupied: bool) { metallic() }\n", &[]);
    bad("crates/cli/src/a/tests.rs", "cpu();\n", &[]);
    bad("crates/cli/tests/a.rs", "cpu();\n", &[]);
    bad("kernels/device.rs", "cpu();\n", &[]);
}

#[test]
fn every_source_file_opens_with_what_it_is_for() {
    check(opening);
    let bad = |text: &str, expected: &[&str]| finds(opening, "crates/engine/src/a.rs", text, expected);
    let fault = "opens without a `//!` that says what it is for";
    bad("use std::fs;\n//! Doc.\n", &[fault]);
    bad("//!\nuse std::fs;\n", &[fault]);
    bad("", &[fault]);
    bad("//! Doc.\n", &[]);
}

#[test]
fn every_script_opens_with_why() {
    check(script_opening);
    let bad = |path, text: &str, expected: &[&str]| finds(script_opening, path, text, expected);
    let fault = "opens without a line that says why it is there";
    bad("scripts/a", "#!/usr/bin/env bash\nset -e\n", &[fault]);
    bad("scripts/a", "#!/usr/bin/env bash\n#\n", &[fault]);
    bad("scripts/a/b.py", "#!/usr/bin/env python3\nimport os\n", &[fault]);
    bad(".ci/run", "", &[fault]);
    bad("scripts/a", "#!/usr/bin/env bash\n# Runs.\n", &[]);
    bad("scripts/a/b.py", "\"\"\"Runs.\"\"\"\n", &[]);
    bad("crates/a", "set -e\n", &[]);
}

#[test]
fn every_file_is_named_after_what_it_owns() {
    check(names);
    let bad = |path, expected: &[&str]| finds(names, path, "", expected);
    bad("crates/engine/src/utils.rs", &["utils is no name: it says nothing of what is inside"]);
    bad("crates/common/src/lib.rs", &["common is no name: it says nothing of what is inside"]);
    bad("scripts/misc.py", &["misc is no name: it says nothing of what is inside"]);
    bad("crates/engine/src/common_words.rs", &[]);
}

#[test]
fn nothing_is_left_undone_without_a_word() {
    check(undone);
    let bad = |text: &str, expected: &[&str]| finds(undone, "crates/engine/src/a.rs", text, expected);
    bad("fn f() {\n    todo!()\n}\n", &["line 2: todo! is not done"]);
    bad("unimplemented!(\"later\")\n", &["line 1: unimplemented! is not done"]);
    bad("#[ignore]\n#[test]\nfn f() {}\n", &["line 1: a test is ignored without a reason"]);
    bad("#[ ignore ]\n", &["line 1: a test is ignored without a reason"]);
    bad("#[ignore = \"needs a network\"]\n// todo!()\nconst A: &str = \"todo!()\";\n", &[]);
}

#[test]
fn dependencies_point_down() {
    check(manifests::dependencies_point_down);
    let bad =
        |path, text: &str, expected: &[&str]| finds(manifests::dependencies_point_down, path, text, expected);
    let manifest = |name: &str, rest: &str| format!("[package]\nname = \"{name}\"\n\n{rest}");
    bad(
        "crates/media/Cargo.toml",
        &manifest("ocellus-media", "[dependencies]\nocellus-decoder.workspace = true\nimage = \"1\"\n"),
        &["ocellus-media depends on ocellus-decoder, which does not lie under it"],
    );
    bad(
        "kernels/Cargo.toml",
        &manifest(
            "ocellus-kernels",
            "[target.'cfg(unix)'.dependencies]\nocellus-weights = { path = \"..\" }\n",
        ),
        &["ocellus-kernels depends on ocellus-weights, which does not lie under it"],
    );
    bad(
        "crates/server/Cargo.toml",
        &manifest("ocellus-server", "[dependencies.candle-core]\nversion = \"1\"\n"),
        &["ocellus-server depends on candle-core, which only ocellus-kernels may"],
    );
    bad(
        "crates/engine/Cargo.toml",
        &manifest("ocellus-engine", "[build-dependencies]\naxum = \"1\"\n"),
        &["ocellus-engine depends on axum, which only ocellus-server may"],
    );
    bad(
        "crates/new/Cargo.toml",
        &manifest("ocellus-new", "[dependencies]\n"),
        &["ocellus-new has no place in the house: give it one in this test and in ARCHITECTURE.md"],
    );
    bad(
        "crates/server/Cargo.toml",
        &manifest(
            "ocellus-server",
            "[dependencies]\nocellus-engine.workspace = true\n[dev-dependencies]\ncandle-core = \"1\"\n",
        ),
        &[],
    );
}

/// npm takes packages from where its user has them from; a lock file says which, by version and digest.
#[test]
fn lock_files_name_no_address() {
    check(lock_addresses);
    let bad = |path, text: &str, expected: &[&str]| finds(lock_addresses, path, text, expected);
    let text = "{\n  \"resolved\": \"https://packages.example/a.tgz\"\n}\n";
    bad("a/package-lock.json", text, &["line 2: a lock file names versions and digests, and no address"]);
    bad("a/package-lock.json", "{\n  \"integrity\": \"sha512-https\"\n}\n", &[]);
    bad("a/b.json", text, &[]);
}

/// The tree that the rules walk is the real one.
#[test]
fn the_walk_sees_the_house() {
    let files = files();
    for path in
        ["Cargo.toml", ".ci/run", "kernels/lib.rs", "crates/weights/src/mmap.rs", "tests/tests/tidy/main.rs"]
    {
        assert!(files.iter().any(|file| file.path == path), "{path}");
    }
    assert!(!files.iter().any(|file| file.path.starts_with("target/")));
}

/// Applies a rule to every file of the house.
#[track_caller]
fn check(rule: Rule) {
    let faults: Vec<String> = files()
        .iter()
        .flat_map(|file| rule(file).into_iter().map(move |fault| format!("{}: {fault}", file.path)))
        .collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// Applies a rule to a made-up file.
#[track_caller]
fn finds(rule: Rule, path: &str, text: &str, expected: &[&str]) {
    assert_eq!(rule(&File { path: path.to_owned(), text: text.to_owned() }), expected, "{path}:\n{text}");
}

fn unsafe_code(file: &File) -> Vec<String> {
    if !file.is_rust() || file.path.starts_with("kernels/") || file.path == "crates/weights/src/mmap.rs" {
        return Vec::new();
    }
    let code = Code::new(&file.text);
    let lines = code.bare().filter(|(_, line)| words(line).any(|word| word == "unsafe"));
    lines
        .map(|(number, _)| {
            format!("line {number}: unsafe code outside of kernels/ and crates/weights/src/mmap.rs")
        })
        .collect()
}

/// Strings count, since a device is asked for by name; comments and tests don't.
fn device_names(file: &File) -> Vec<String> {
    let is_test = file.path.contains("/tests/") || file.path.ends_with("/tests.rs");
    if !file.is_rust() || !file.path.starts_with("crates/") || is_test {
        return Vec::new();
    }
    let code = Code::new(&file.text);
    let shipped = code.with_strings().take_while(|(_, line)| !line.starts_with("mod tests {"));
    let mut faults = Vec::new();
    for (number, line) in shipped {
        for part in words(line).flat_map(name_parts) {
            if matches!(part.to_ascii_lowercase().as_str(), "cpu" | "cuda" | "metal") {
                faults.push(format!("line {number}: {part} is a device's name, which only kernels/ knows"));
            }
        }
    }
    faults
}

fn opening(file: &File) -> Vec<String> {
    let says = |line: &str| line.strip_prefix("//!").is_some_and(|rest| !rest.trim().is_empty());
    if !file.is_rust() || file.text.lines().next().is_some_and(says) {
        return Vec::new();
    }
    vec!["opens without a `//!` that says what it is for".to_owned()]
}

fn script_opening(file: &File) -> Vec<String> {
    if !file.path.starts_with("scripts/") && !file.path.starts_with(".ci/") {
        return Vec::new();
    }
    let first = file.text.lines().find(|line| !line.starts_with("#!")).unwrap_or_default();
    let words = first.strip_prefix('#').or_else(|| first.strip_prefix("\"\"\"")).unwrap_or_default();
    if words.trim().is_empty() {
        return vec!["opens without a line that says why it is there".to_owned()];
    }
    Vec::new()
}

fn names(file: &File) -> Vec<String> {
    let nothing = ["util", "utils", "common", "helper", "helpers", "misc"];
    let stems = file.path.split('/').map(|part| part.split('.').next().unwrap_or_default());
    stems
        .filter(|stem| nothing.contains(stem))
        .map(|stem| format!("{stem} is no name: it says nothing of what is inside"))
        .collect()
}

fn lock_addresses(file: &File) -> Vec<String> {
    if !file.path.ends_with("package-lock.json") {
        return Vec::new();
    }
    let lines = (1..).zip(file.text.lines()).filter(|(_, line)| line.contains("\"resolved\""));
    lines
        .map(|(number, _)| format!("line {number}: a lock file names versions and digests, and no address"))
        .collect()
}

fn undone(file: &File) -> Vec<String> {
    if !file.is_rust() {
        return Vec::new();
    }
    let code = Code::new(&file.text);
    let faults = code.bare().filter_map(|(number, line)| {
        let squeezed: String = line.split_whitespace().collect();
        let name = ["todo!", "unimplemented!"].into_iter().find(|name| squeezed.contains(name));
        match name {
            Some(name) => Some(format!("line {number}: {name} is not done")),
            None if squeezed.contains("#[ignore]") => {
                Some(format!("line {number}: a test is ignored without a reason"))
            }
            None => None,
        }
    });
    faults.collect()
}

/// Identifiers, keywords and the words of strings.
fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty())
}

/// The parts of a name: `is_metal` and `MetalDevice` both have a part `metal`.
fn name_parts(word: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    for part in word.split('_') {
        let mut start = 0;
        let mut before = None;
        for (at, c) in part.char_indices() {
            if c.is_uppercase() && before.is_some_and(char::is_lowercase) {
                parts.push(&part[start..at]);
                start = at;
            }
            before = Some(c);
        }
        parts.push(&part[start..]);
    }
    parts
}

impl File {
    fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }
}

/// Every file of the house that is text: no build products, and nothing hidden but the CI's folder.
fn files() -> Vec<File> {
    let root = workspace();
    let mut files = Vec::new();
    walk(&root, &root, &mut files);
    files
}

fn walk(root: &Path, folder: &Path, files: &mut Vec<File>) {
    let mut paths: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    for path in paths {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let hidden = name.starts_with('.') && name != ".ci";
        // Installed and built, and none of the house's own.
        let foreign = name == "__pycache__" || name == "node_modules" || path.ends_with("page/dist");
        if hidden || foreign || path == root.join("target") {
            continue;
        }
        if path.is_dir() {
            walk(root, &path, files);
            continue;
        }
        let parts = path.strip_prefix(root).unwrap().components();
        let parts: Vec<_> = parts.map(|part| part.as_os_str().to_string_lossy().into_owned()).collect();
        // Weights and pictures are no text.
        if let Ok(text) = String::from_utf8(fs::read(&path).unwrap()) {
            files.push(File { path: parts.join("/"), text });
        }
    }
}
