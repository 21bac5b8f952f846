//! Pictures as data URIs: small ones of every format, spoiled ones, and URLs that lead elsewhere.

use base64::{Engine, engine::general_purpose::STANDARD};

use super::random::Random;
use crate::picture;

const JPEG: &[u8] = include_bytes!("../../golden/images/turned.jpg");
const WEBP: &[u8] = include_bytes!("../../golden/images/photo.webp");

/// A picture that can be seen.
pub(crate) fn good(random: &mut Random) -> String {
    uri(kind(random), &file(random))
}

/// What is no good picture, or no picture at all.
pub(crate) fn odd(random: &mut Random) -> String {
    let mut file = file(random);
    let kind = kind(random);
    match random.below(12) {
        0 => uri(kind, &[]),
        1 => {
            file.truncate(random.below(file.len()));
            uri(kind, &file)
        }
        // Sizes and offsets are in the first bytes.
        2 | 3 => {
            for _ in 0..=random.below(6) {
                let at = random.below(file.len().min(64));
                file[at] = if random.percent(50) { 0xff } else { random.byte() };
            }
            uri(kind, &file)
        }
        4 | 5 => {
            random.spoil(&mut file);
            uri(kind, &file)
        }
        6 => {
            let sides = [0, 1, 10, 11, 27, 28, 2201, 65_535, 1 << 20, u32::MAX];
            uri(kind, &picture::png_start(sides[random.below(10)], sides[random.below(10)]))
        }
        7 => {
            let sides = [1, 10, 11, 12, 40];
            uri(kind, &picture::bmp(sides[random.below(5)], sides[random.below(5)]))
        }
        8 => {
            let mut text = uri(kind, &file).into_bytes();
            random.spoil(&mut text);
            String::from_utf8_lossy(&text).into_owned()
        }
        9 => {
            let noise: Vec<u8> = (0..random.below(3000)).map(|_| random.byte()).collect();
            uri(kind, &noise)
        }
        _ => random.pick(&URLS).to_owned(),
    }
}

/// The bytes of a file, for forms.
pub(crate) fn file(random: &mut Random) -> Vec<u8> {
    let side = |random: &mut Random| 11 + random.below(80) as u32;
    let (height, width) = (side(random), side(random));
    match random.below(8) {
        0 => JPEG.to_vec(),
        1 => WEBP.to_vec(),
        2 | 3 => picture::tiff(height, width),
        4 | 5 => picture::bmp(height, width),
        _ => picture::png(height, width),
    }
}

fn kind(random: &mut Random) -> &'static str {
    random.pick(&["image/png", "image/jpeg", "image/webp", "image/tiff", "image/bmp"])
}

fn uri(kind: &str, bytes: &[u8]) -> String {
    format!("data:{kind};base64,{}", STANDARD.encode(bytes))
}

/// The server runs without network: all of them are refused.
const URLS: [&str; 27] = [
    "",
    "data:",
    "data:,",
    "data:;base64,",
    "data:image/png,%00%ff%zz",
    "DATA:IMAGE/PNG;BASE64,AAAA",
    "data:image/png;base64,====",
    "data:image/png;base64,AAA",
    "data:image/png;charset=utf-8;base64, AA AA ",
    "http://",
    "http://127.0.0.1:1/x.png",
    "http://[::1]/x.png",
    "http://[::ffff:7f00:1]/",
    "http://2130706433/",
    "http://0x7f.1/",
    "http://user:secret@localhost/",
    "http://169.254.169.254/latest/meta-data",
    "https://example.com/x.png",
    "ftp://example.com/x.png",
    "file:///etc/passwd",
    "file://localhost/../../etc/passwd",
    "oss://",
    "oss://ocellus/../../etc/passwd",
    "javascript:alert(1)",
    "//example.com/x.png",
    "../../../etc/passwd",
    "http://example.com:99999/\u{0}",
];
