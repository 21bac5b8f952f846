//! Broken pictures, sent as data URIs: a client reads one sentence, the server decodes the next one.

use ocellus_tests::{house::workspace, picture};
use serde_json::json;

use super::{Refused, Server, data_uri, invalid};

/// What is sent.
enum Sent {
    /// A file.
    File(fn() -> Vec<u8>),
    /// Whatever stands where the data URI should.
    Url(fn() -> String),
}

use Sent::{File, Url};

#[tokio::test]
async fn each_broken_picture_is_refused_with_its_reason() {
    let server = Server::start();
    let mut wrong = String::new();
    for (name, sent, expected) in PICTURES {
        let url = match sent {
            File(file) => data_uri(&file()),
            Url(url) => url(),
        };
        let body = json!({"model": "eye", "max_tokens": 1, "messages": [{"role": "user", "content": [
            {"type": "image_url", "image_url": {"url": url}}, "What is it?"]}]});
        let sent = ("POST", "/v1/chat/completions", body.to_string().into_bytes());
        server.check(name, sent, *expected, &mut wrong).await;
    }
    assert!(wrong.is_empty(), "of {} pictures:\n{wrong}", PICTURES.len());
    server.still_answers().await;
}

/// The pictures that are cut and bent below are good ones.
#[tokio::test]
async fn the_whole_pictures_are_answered() {
    let server = Server::start();
    for (name, file) in [
        ("BMP", picture::bmp(30, 40)),
        ("PNG", picture::png(30, 40)),
        ("TIFF", picture::tiff(30, 40)),
        ("JPEG", example("turned.jpg")),
        ("WEBP", example("photo.webp")),
        ("the smallest", picture::png(11, 11)),
        ("the thinnest", picture::png(11, 2200)),
    ] {
        let body = json!({"model": "eye", "max_tokens": 1, "messages": [{"role": "user", "content": [
            {"type": "image_url", "image_url": {"url": data_uri(&file)}}]}]});
        let (status, text) = server.send("POST", "/v1/chat/completions", body.to_string()).await;
        assert_eq!(status, 200, "{name}: {text}");
    }
    server.still_answers().await;
}

fn example(name: &str) -> Vec<u8> {
    std::fs::read(workspace().join("tests/golden/images").join(name)).unwrap()
}

/// The first part of a file.
fn start(file: Vec<u8>, len: usize) -> Vec<u8> {
    file[..len].to_vec()
}

/// A file with other bytes at one place.
fn patched(mut file: Vec<u8>, at: usize, bytes: &[u8]) -> Vec<u8> {
    file[at..at + bytes.len()].copy_from_slice(bytes);
    file
}

/// A JPEG whose frame header tells another size.
fn jpeg_of(height: u16, width: u16) -> Vec<u8> {
    let file = example("turned.jpg");
    let header = file.windows(4).position(|window| window == b"\xff\xc0\0\x11").unwrap();
    patched(file, header + 5, &[height.to_be_bytes(), width.to_be_bytes()].concat())
}

const BROKEN: Refused = invalid("Failed to decode the image during the data inspection.");
const UNKNOWN: Refused = invalid("The file format is illegal and cannot be opened.");
const TOO_MANY_PIXELS: Refused = invalid("Multimodal file size is too large: the image has too many pixels.");
const NO_URL: Refused =
    invalid("The provided URL does not appear to be valid. Ensure it is correctly formatted.");

/// What is wrong, what is sent, and what the client reads.
#[rustfmt::skip]
const PICTURES: &[(&str, Sent, Refused)] = &[
    // Cut off.
    ("a JPEG cut in its pixels", File(|| start(example("turned.jpg"), 5000)), BROKEN),
    ("a JPEG cut in its header", File(|| start(example("turned.jpg"), 100)), BROKEN),
    ("a JPEG of three bytes", File(|| b"\xff\xd8\xff".to_vec()), BROKEN),
    ("a PNG cut in its pixels", File(|| start(picture::png(40, 40), 800)), BROKEN),
    ("a PNG without pixels", File(|| picture::png_start(40, 40)), BROKEN),
    ("a WEBP cut in its pixels", File(|| start(example("photo.webp"), 5000)), BROKEN),
    ("a TIFF cut in its pixels", File(|| start(picture::tiff(40, 40), 800)), BROKEN),
    ("a TIFF without its directory", File(|| start(picture::tiff(40, 40), 1608)), BROKEN),
    ("a BMP cut in its pixels", File(|| start(picture::bmp(40, 40), 2000)), BROKEN),
    ("a BMP cut in its header", File(|| start(picture::bmp(40, 40), 30)), BROKEN),
    // Bent.
    ("a PNG with a wrong checksum", File(|| patched(picture::png(40, 40), 29, &[0; 4])), BROKEN),
    ("a PNG without height", File(|| picture::png(0, 40)), BROKEN),
    ("a BMP without width", File(|| patched(picture::bmp(40, 40), 18, &[0; 4])), BROKEN),
    ("a JPEG without height", File(|| jpeg_of(0, 40)), BROKEN),
    ("a TIFF whose directory is far away", File(|| patched(picture::tiff(40, 40), 4, &[0xff; 4])), BROKEN),
    ("a TIFF without width", File(|| picture::tiff(40, 0)), BROKEN),
    // Larger than it looks.
    ("a PNG for giants", File(|| [&picture::png_start(65_535, 65_535), &picture::png(40, 40)[33..]].concat()), TOO_MANY_PIXELS),
    ("a JPEG for giants", File(|| jpeg_of(65_535, 65_535)), TOO_MANY_PIXELS),
    ("a TIFF for giants", File(|| patched(patched(picture::tiff(40, 40), 1618, &[0xff; 4]), 1630, &[0xff; 4])), BROKEN),
    ("a BMP for giants", File(|| patched(picture::bmp(40, 40), 18, &[0xff, 0xff, 0xff, 0x7f, 0xff, 0xff, 0xff, 0x7f])), TOO_MANY_PIXELS),
    // Not these formats.
    ("nothing", File(Vec::new), UNKNOWN),
    ("a GIF", File(|| b"GIF89a\x28\0\x28\0\x80\0\0".to_vec()), UNKNOWN),
    ("a HEIC picture", File(|| b"\0\0\0\x18ftypheic\0\0\0\0mif1heic".to_vec()), UNKNOWN),
    ("an MP4 video", File(|| b"\0\0\0\x18ftypisom\0\0\x02\0isomiso2".to_vec()), UNKNOWN),
    ("a PDF document", File(|| b"%PDF-1.7\n1 0 obj\n".to_vec()), UNKNOWN),
    ("a text", File(|| b"What a beautiful picture.".to_vec()), UNKNOWN),
    ("a web page", File(|| b"<!DOCTYPE html><html>Not found</html>".to_vec()), UNKNOWN),
    ("zeros", File(|| vec![0; 10_000]), UNKNOWN),
    // Too small, too thin.
    ("10 by 10", File(|| picture::png(10, 10)), invalid("The image length and width do not meet the model restrictions. [height:10 or width:10 must be larger than 10]")),
    ("10 by 100", File(|| picture::bmp(100, 10)), invalid("The image length and width do not meet the model restrictions. [height:100 or width:10 must be larger than 10]")),
    ("one pixel", File(|| picture::bmp(1, 1)), invalid("The image length and width do not meet the model restrictions. [height:1 or width:1 must be larger than 10]")),
    ("201 times as wide as high", File(|| picture::png(11, 2300)), invalid("The image length and width do not meet the model restrictions. [height:11 or width:2300 must be larger than 10] The aspect ratio must not exceed 200.")),
    ("201 times as high as wide", File(|| picture::png(2300, 11)), invalid("The image length and width do not meet the model restrictions. [height:2300 or width:11 must be larger than 10] The aspect ratio must not exceed 200.")),
    // No file at all.
    ("letters that are not base64", Url(|| "data:image/png;base64,####".into()), BROKEN),
    ("base64 of the other alphabet", Url(|| "data:image/png;base64,_-__".into()), BROKEN),
    ("a data URI without base64", Url(|| "data:image/png,%89PNG".into()), NO_URL),
    ("a data URI without content", Url(|| "data:image/png;base64".into()), NO_URL),
    ("more than 10 MiB of base64", Url(|| format!("data:image/png;base64,{}", "A".repeat(10_485_761))), invalid("Exceeded limit on max bytes per data-uri item : 10485760")),
    ("a picture over 10 MiB", File(|| picture::bmp(1800, 1500)), invalid("Exceeded limit on max bytes per data-uri item : 10485760")),
    ("a file URL", Url(|| "file:///etc/passwd".into()), NO_URL),
    ("a path", Url(|| "/etc/passwd".into()), NO_URL),
    ("a name", Url(|| "picture.png".into()), NO_URL),
    ("another scheme", Url(|| "ftp://example.org/picture.png".into()), NO_URL),
    ("a URL with a password", Url(|| "https://me:secret@example.org/picture.png".into()), NO_URL),
    ("an empty URL", Url(String::new), NO_URL),
    ("this very machine", Url(|| "http://127.0.0.1:1/picture.png".into()), invalid("Failed to download multimodal content. The URL's address is not one this server may fetch from; send the file as a data URI.")),
    ("this very machine as a number", Url(|| "http://2130706433/picture.png".into()), invalid("Failed to download multimodal content. The URL's address is not one this server may fetch from; send the file as a data URI.")),
    ("the cloud's own address", Url(|| "http://169.254.169.254/latest/meta-data/".into()), invalid("Failed to download multimodal content. The URL's address is not one this server may fetch from; send the file as a data URI.")),
];
