//! Who may depend on whom: the arrows of ARCHITECTURE.md, read from the manifests.

use super::File;

/// The crates of the house with those of them that they may use. Siblings never see each other.
const ROOMS: &[(&str, &[&str])] = &[
    ("ocellus-kernels", &[]),
    ("ocellus-weights", &["ocellus-kernels"]),
    ("ocellus-media", &[]),
    ("ocellus-vision-encoder", &["ocellus-weights", "ocellus-kernels"]),
    ("ocellus-decoder", &["ocellus-weights", "ocellus-kernels"]),
    (
        "ocellus-engine",
        &["ocellus-decoder", "ocellus-vision-encoder", "ocellus-media", "ocellus-weights", "ocellus-kernels"],
    ),
    ("ocellus-server", &["ocellus-engine"]),
    (
        "ocellus-bench",
        &[
            "ocellus-engine",
            "ocellus-decoder",
            "ocellus-vision-encoder",
            "ocellus-media",
            "ocellus-weights",
            "ocellus-kernels",
        ],
    ),
    ("ocellus-pull", &[]),
    ("ocellus-cli", &["ocellus-server", "ocellus-bench", "ocellus-engine", "ocellus-pull"]),
];

/// Crates of others that belong to one room alone, or to the few that are named.
const OWNED: &[(&str, &[&str])] = &[
    ("candle-core", &["ocellus-kernels"]),
    ("cudarc", &["ocellus-kernels"]),
    ("safetensors", &["ocellus-weights"]),
    ("image", &["ocellus-media"]),
    ("tiff", &["ocellus-media"]),
    ("tokenizers", &["ocellus-engine"]),
    ("axum", &["ocellus-server"]),
    ("reqwest", &["ocellus-server", "ocellus-pull"]),
    ("clap", &["ocellus-cli"]),
    ("indicatif", &["ocellus-cli"]),
];

/// Looks at the manifests of what ships. Tests and benches may use everything, and nothing may use them.
pub(crate) fn dependencies_point_down(file: &File) -> Vec<String> {
    let ships = file.path == "kernels/Cargo.toml" || file.path.starts_with("crates/");
    if !ships || !file.path.ends_with("/Cargo.toml") {
        return Vec::new();
    }
    let name = package_name(&file.text);
    let Some((_, below)) = ROOMS.iter().find(|(room, _)| *room == name) else {
        return vec![format!(
            "{name} has no place in the house: give it one in this test and in ARCHITECTURE.md"
        )];
    };
    let fault = |dependency: &str| {
        if dependency.starts_with("ocellus-") && !below.contains(&dependency) {
            return Some(format!("{name} depends on {dependency}, which does not lie under it"));
        }
        let owners = OWNED.iter().find(|(owned, _)| *owned == dependency).map(|(_, owners)| *owners);
        let owners = owners.filter(|owners| !owners.contains(&name.as_str()))?;
        Some(format!("{name} depends on {dependency}, which only {} may", owners.join(" and ")))
    };
    dependencies(&file.text).iter().filter_map(|dependency| fault(dependency)).collect()
}

fn package_name(manifest: &str) -> String {
    let value = manifest.lines().find_map(|line| line.strip_prefix("name = "));
    value.unwrap_or_default().trim().trim_matches('"').to_owned()
}

/// What a crate is built with, for tests alone excepted.
fn dependencies(manifest: &str) -> Vec<String> {
    const SECTIONS: [&str; 2] = ["dependencies", "build-dependencies"];
    let mut found = Vec::new();
    let mut lists = false;
    for line in manifest.lines().map(str::trim) {
        if let Some(section) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            let mut parts = section.rsplit('.');
            let (last, before) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
            lists = SECTIONS.contains(&last);
            // `[dependencies.NAME]`
            if SECTIONS.contains(&before) {
                found.push(last.to_owned());
            }
        } else if lists && !line.starts_with('#') && line.contains('=') {
            found.extend(line.split(['.', '=', ' ']).next().map(|name| name.trim_matches('"').to_owned()));
        }
    }
    found
}

#[test]
fn dependencies_of_every_spelling_are_read() {
    let manifest = "[package]\nname = \"a\"\nversion.workspace = true\n\n[dependencies]\nb.workspace = true\n# c = 1\n\
        d = { version = \"1\", features = [\"x\"] }\n\n[dependencies.e]\nversion = \"1\"\n\n\
        [target.'cfg(unix)'.dependencies]\n\"f\" = \"1\"\n\n[dev-dependencies]\ng = \"1\"\n\n[build-dependencies]\nh=\"1\"\n";
    assert_eq!(package_name(manifest), "a");
    assert_eq!(dependencies(manifest), ["b", "d", "e", "f", "h"]);
}
