//! Compiles every `.cu` file of the kernels as C++ for the processor, and a table of the kernels in them.

use std::{
    env,
    error::Error,
    fs,
    path::{Path, PathBuf},
};

fn main() -> Result<(), Box<dyn Error>> {
    let here = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    let kernels = here.join("../..").canonicalize()?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let mut sources = Vec::new();
    find_sources(&kernels, &mut sources)?;
    // Kernels that only the emulator's own tests launch.
    find_sources(&here.join("tests"), &mut sources)?;
    sources.sort();

    let mut build = cc::Build::new();
    build
        .cpp(true)
        .std("c++17")
        .opt_level(2)
        .debug(false)
        .warnings(false)
        .include(kernels.join("cuda"))
        .include(&kernels)
        .define("OCELLUS_EMULATOR", None)
        // Hopper's instructions are emulated as well.
        .define("__CUDA_ARCH__", "900")
        .define("__CUDA_ARCH_FEAT_SM90_ALL", None)
        .flag("-fno-strict-aliasing")
        .flag("-fno-exceptions")
        .flag("-ffp-contract=off")
        .flag("-fno-stack-protector")
        .flag("-U_FORTIFY_SOURCE")
        // Kernels and their calls are compiled together.
        .flag_if_supported("-Wno-psabi")
        .flag_if_supported("-Wno-unknown-pragmas");
    let mut scan = build.clone();
    scan.define("OCELLUS_EMULATOR_SCAN", None);
    let mut tables = String::from("#include \"device.cuh\"\n");
    let mut list = String::new();
    for source in &sources {
        println!("cargo::rerun-if-changed={}", source.display());
        let module = module_name(source, &kernels);
        let scanned = out.join(format!("{module}.scan.cpp"));
        fs::write(&scanned, format!("#include \"{}\"\n", source.display()))?;
        let text = scan.clone().file(scanned).try_expand()?;
        let found = find_kernels(&String::from_utf8(text)?);
        let mut entries = String::new();
        for kernel in &found {
            entries.push_str(&format!("    OCELLUS_KERNEL({}, ({})),\n", kernel.name, kernel.bounds));
        }
        let generated = format!(
            "#include \"device.cuh\"\nnamespace module_{module} {{\n#include \"{}\"\n\
             static const ::emulator::Entry entries[] = {{\n{entries}    {{nullptr, nullptr, nullptr, 0, 0}}}};\n\
             }}\nextern const ::emulator::Table table_{module} = {{module_{module}::entries, {}}};\n",
            source.display(),
            found.len()
        );
        let path = out.join(format!("{module}.cpp"));
        fs::write(&path, generated)?;
        build.file(path);
        tables.push_str(&format!("extern const ::emulator::Table table_{module};\n"));
        list.push_str(&format!("    table_{module},\n"));
    }
    tables.push_str(&format!(
        "extern \"C\" const unsigned ocellus_emulator_table_count = {};\n\
         extern \"C\" unsigned ocellus_emulator_table(unsigned i, const ::emulator::Entry** entries) {{\n\
         const ::emulator::Table tables[] = {{\n{list}    {{nullptr, 0}}}};\n\
         *entries = tables[i].entries;\nreturn tables[i].count;\n}}\n",
        sources.len()
    ));
    fs::write(out.join("tables.cpp"), tables)?;
    build.file(out.join("tables.cpp")).file(here.join("device/emulator.cpp"));
    for folder in [kernels.clone(), here.join("device"), here.join("tests")] {
        println!("cargo::rerun-if-changed={}", folder.display());
    }
    build.try_compile("ocellus_emulator")?;
    Ok(())
}

/// Every `.cu` file below `folder`, but for those of the emulator itself; headers are only watched.
fn find_sources(folder: &Path, found: &mut Vec<PathBuf>) -> Result<(), Box<dyn Error>> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let extension = path.extension().and_then(|extension| extension.to_str());
        if path.is_dir() && !path.ends_with("cuda/emulator") {
            find_sources(&path, found)?;
        } else if extension == Some("cu") {
            found.push(path);
        } else if extension == Some("cuh") {
            println!("cargo::rerun-if-changed={}", path.display());
        }
    }
    Ok(())
}

/// `rms_norm_rms_norm` for `rms_norm/rms_norm.cu`.
fn module_name(source: &Path, kernels: &Path) -> String {
    let relative = source.strip_prefix(kernels).unwrap_or(source).with_extension("");
    relative.to_string_lossy().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect()
}

struct Kernel {
    name: String,
    /// What its `__launch_bounds__` says.
    bounds: String,
}

/// The `extern "C" __global__` functions of a preprocessed file.
fn find_kernels(text: &str) -> Vec<Kernel> {
    let text: String = text.lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>().join("\n");
    let mut found = Vec::new();
    for (at, marker) in text.match_indices("__emulated_global__") {
        let before = &text[..at];
        let statement = before.rfind([';', '}']).map_or(before, |end| &before[end..]);
        if !statement.contains("extern \"C\"") {
            continue;
        }
        let mut bounds = bounds_in(statement).unwrap_or_default();
        let mut rest = &text[at + marker.len()..];
        let name = loop {
            let Some((head, tail)) = rest.split_once('(') else { break None };
            let name = head.split_whitespace().last().unwrap_or_default();
            if name != "__emulated_bounds__" {
                break Some(name);
            }
            let inside = until_closed(tail);
            bounds = inside.to_owned();
            rest = &tail[inside.len() + 1..];
        };
        if let Some(name) = name {
            found.push(Kernel { name: name.to_owned(), bounds });
        }
    }
    found
}

fn bounds_in(statement: &str) -> Option<String> {
    let (_, rest) = statement.split_once("__emulated_bounds__")?;
    let (_, tail) = rest.split_once('(')?;
    Some(until_closed(tail).to_owned())
}

/// The text up to the parenthesis that closes it.
fn until_closed(text: &str) -> &str {
    let mut depth = 1;
    for (i, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => continue,
        }
        if depth == 0 {
            return &text[..i];
        }
    }
    text
}
