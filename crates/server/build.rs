//! Lists what is served at `/`: the files of `page/dist` where the page has been bundled, and else the plain page, so
//! that nothing but Rust is needed for a build.

use std::env;
use std::fmt::Write;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Files that the page never has: something else was put there by mistake.
const MOST_BYTES: u64 = 8 << 20;

fn main() -> io::Result<()> {
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default()).join("page");
    // The folder is always there, so that a page that is bundled later is noticed.
    println!("cargo::rerun-if-changed=page/dist");
    println!("cargo::rerun-if-changed=page/plain.html");
    let bundled = root.join("dist");
    let mut files = Vec::new();
    if bundled.join("index.html").is_file() {
        gather(&bundled, "", &mut files)?;
    } else {
        files.push((String::from("index.html"), root.join("plain.html")));
    }
    files.sort();

    let mut code = String::from("&[\n");
    for (name, path) in &files {
        // Paths are written as literals are, with whatever they need escaped. Writing into a String can't fail.
        let _ = writeln!(
            code,
            "    File {{ name: {name:?}, bytes: include_bytes!({:?}) }},",
            path.display().to_string()
        );
    }
    code.push_str("]\n");
    fs::write(PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default()).join("page_files.rs"), code)
}

/// Every file below a folder, by its path there with `/` between folders.
fn gather(folder: &Path, prefix: &str, files: &mut Vec<(String, PathBuf)>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        if name.starts_with('.') {
            continue;
        }
        let name = format!("{prefix}{name}");
        if path.is_dir() {
            gather(&path, &format!("{name}/"), files)?;
        } else if fs::metadata(&path)?.len() <= MOST_BYTES {
            files.push((name, path));
        } else {
            let message = format!("{}: a file of the page has at most {MOST_BYTES} bytes", path.display());
            return Err(io::Error::other(message));
        }
    }
    Ok(())
}
