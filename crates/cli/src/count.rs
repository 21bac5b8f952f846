//! `ocellus count`: how many tokens pictures take, without a model.

use std::io::Write;
use std::path::PathBuf;

use ocellus_engine::{Budget, MediaSize, PixelLimits, picture_size, picture_tokens};
use serde_json::json;

use crate::Failure;
use crate::ask::read_picture;

/// What was typed.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Pictures: BMP, JPEG, PNG, TIFF or WEBP.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Count as with the request parameter vl_high_resolution_images.
    #[arg(long)]
    high_resolution: bool,
    /// Write one JSON object for each file in place of a line.
    #[arg(long)]
    json: bool,
}

impl Arguments {
    /// Writes a line for each file, then the sum. A file that can't be counted is named at the end, so that the others
    /// are counted all the same.
    pub(crate) fn apply(self) -> Result<(), Failure> {
        let limits =
            if self.high_resolution { PixelLimits::HOSTED_HIGH_RESOLUTION } else { PixelLimits::HOSTED };
        let mut output = std::io::stdout();
        let mut sum = 0;
        let mut failed = Vec::new();
        for path in &self.files {
            let counted = read_picture(path).and_then(|bytes| {
                let (height, width) = picture_size(bytes.into(), &Budget::default())?;
                Ok(picture_tokens(height, width, &limits)?)
            });
            match counted {
                Ok(media) => {
                    sum += media.tokens;
                    writeln!(
                        output,
                        "{}",
                        if self.json { object(path, &media) } else { line(path, &media) }
                    )?;
                }
                Err(error) => failed.push(format!("{}: {error:#}", path.display())),
            }
        }
        if self.files.len() > 1 && !self.json {
            writeln!(output, "{sum} tokens in all")?;
        }
        if failed.is_empty() { Ok(()) } else { Err(anyhow::anyhow!(failed.join("; ")).into()) }
    }
}

/// Sizes as width x height, as people say them.
fn line(path: &std::path::Path, media: &MediaSize) -> String {
    let (original, seen) = (media.original, media.seen);
    format!(
        "{}: {}x{} pixels, seen as {}x{}, {} tokens ({} with the markers around it)",
        path.display(),
        original.1,
        original.0,
        seen.1,
        seen.0,
        media.tokens,
        media.tokens + 2
    )
}

fn object(path: &std::path::Path, media: &MediaSize) -> String {
    let size = |(height, width): (usize, usize)| json!({"height": height, "width": width});
    json!({
        "file": path.to_string_lossy(),
        "original": size(media.original),
        "seen": size(media.seen),
        "tokens": media.tokens,
        "tokens_with_markers": media.tokens + 2,
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written() {
        let media = picture_tokens(1365, 2048, &PixelLimits::HOSTED).unwrap();
        assert_eq!(
            line("dog.png".as_ref(), &media),
            "dog.png: 2048x1365 pixels, seen as 1204x812, 1247 tokens (1249 with the markers around it)"
        );
        let object: serde_json::Value = serde_json::from_str(&object("dog.png".as_ref(), &media)).unwrap();
        assert_eq!((&object["tokens"], &object["seen"]["width"]), (&json!(1247), &json!(1204)));
    }

    #[test]
    fn files_that_can_t_be_counted_are_named() {
        let files =
            vec!["/no/such/file.png".into(), concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml").into()];
        let failure = Arguments { files, high_resolution: false, json: false }.apply().err();
        let Some(Failure::Failed(error)) = failure else { panic!("expected a failure") };
        let text = format!("{error:#}");
        assert!(text.contains("/no/such/file.png: ") && text.contains("Cargo.toml: "), "{text}");
    }
}
