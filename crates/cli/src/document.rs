//! `ocellus ask --html`: a page that was parsed into QwenVL HTML, shown beside its picture, in one file.
//!
//! The file needs nothing else and fetches nothing. What the model wrote is shown in a frame that runs no scripts, and a
//! policy for the whole file forbids them once more: a picture can say anything, and the model repeats it.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::located::{Located, Place};

/// Writes the page of an answer. `picture` is the file that was asked about, `seen` the size (height, width) that the
/// model saw it in, which the boxes are in.
///
/// # Errors
/// When the answer holds no HTML, or the file can't be written.
pub(crate) fn write(
    answer: &str,
    picture: &[u8],
    seen: (usize, usize),
    places: &[Located],
    path: &Path,
) -> anyhow::Result<()> {
    let Some(html) = html_of(answer) else {
        bail!(
            "{}: the answer holds no HTML to write; a document is parsed by the question \"QwenVL HTML\"",
            path.display()
        );
    };
    std::fs::write(path, page(html, picture, seen, places)).with_context(|| path.display().to_string())
}

/// The HTML of an answer: within a fence, or from its first tag on.
fn html_of(answer: &str) -> Option<&str> {
    let inside = match answer.split_once("```html") {
        Some((_, after)) => after.split_once("```").map_or(after, |(inside, _)| inside),
        None => answer,
    };
    let start = inside.find('<')?;
    inside[start..].contains('>').then(|| inside[start..].trim_end())
}

fn page(html: &str, picture: &[u8], (height, width): (usize, usize), places: &[Located]) -> String {
    let mut regions = String::new();
    for Located { place, label } in places {
        if let Place::Box { x1, y1, x2, y2 } = place {
            // Writing into a string can't fail.
            let _ = writeln!(
                regions,
                "<rect x=\"{x1}\" y=\"{y1}\" width=\"{}\" height=\"{}\"><title>{}</title></rect>",
                x2 - x1,
                y2 - y1,
                escaped(label)
            );
        }
    }
    let styled = format!("<style>body {{ font: 16px/1.5 sans-serif; margin: 1rem }}</style>{html}");
    format!(
        r#"<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>A parsed document</title>
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<style>
body {{ display: flex; flex-wrap: wrap; gap: 1rem; margin: 1rem; font-family: sans-serif }}
svg, iframe {{ flex: 1 1 24rem; min-width: 0; border: 1px solid #999 }}
iframe {{ min-height: 90vh; background: white }}
rect {{ fill: rgb(0 114 178 / 12%); stroke: #0072b2; stroke-width: 2; vector-effect: non-scaling-stroke }}
</style></head><body>
<svg viewBox="0 0 {width} {height}" role="img" aria-label="The picture with its regions">
<image href="data:{};base64,{}" width="{width}" height="{height}" preserveAspectRatio="none"/>
{regions}</svg>
<iframe sandbox="" title="What the picture says" srcdoc="{}"></iframe>
</body></html>
"#,
        media_type(picture),
        STANDARD.encode(picture),
        escaped(&styled),
    )
}

/// By the first bytes, as the engine knows pictures too.
fn media_type(picture: &[u8]) -> &'static str {
    match picture {
        [0x89, b'P', b'N', b'G', ..] => "image/png",
        [0xff, 0xd8, ..] => "image/jpeg",
        [b'R', b'I', b'F', b'F', ..] => "image/webp",
        [b'B', b'M', ..] => "image/bmp",
        _ => "image/tiff",
    }
}

/// Within an attribute in double quotes, or as text.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('"', "&quot;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn html_within_and_without_a_fence() {
        assert_eq!(html_of("Sure:\n```html\n<p>a</p>\n```\nDone."), Some("<p>a</p>"));
        assert_eq!(html_of("```html\n<p>cut"), Some("<p>cut"));
        assert_eq!(html_of("<h1>a</h1> b\n"), Some("<h1>a</h1> b"));
        assert_eq!(html_of("a < b"), None);
        assert_eq!(html_of("no page"), None);
    }

    #[test]
    fn what_the_model_wrote_stays_in_its_frame() {
        let html = "<p data-bbox=\"1 2 3 4\">\"></iframe><script>alert(1)</script>";
        let places = crate::located::located(html);
        let page = page(html, b"\x89PNG", (56, 84), &places);
        assert!(!page.contains("<script") && !page.contains("<p "), "{page}");
        assert_eq!(page.matches("</iframe>").count(), 1);
        assert!(page.contains("default-src 'none'") && page.contains("<iframe sandbox=\"\""));
        assert!(
            page.contains("viewBox=\"0 0 84 56\"")
                && page.contains("<rect x=\"1\" y=\"2\" width=\"2\" height=\"2\">")
        );
        assert!(page.contains("data:image/png;base64,iVBORw=="));
    }
}
