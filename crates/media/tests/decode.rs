//! Tiny pictures of every kind against their RGB, every cut of each of them, and damaged ones.
//! `make-pictures.py` draws them and says what each is.

#![allow(clippy::unwrap_used)]

use std::io::Cursor;

use image::{ExtendedColorType, ImageEncoder, codecs::png::PngEncoder};
use ocellus_media::{Budget, Error, Format, decode_image};

#[test]
fn pictures_of_every_kind() {
    let pictures = pictures();
    assert_eq!(pictures.len(), 102);
    for Picture { name, size, tolerance, file, rgb } in pictures {
        let picture =
            decode_image(&file, &Budget::default()).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!((picture.height, picture.width), size, "{name}");
        assert_eq!(picture.rgb.len(), rgb.len(), "{name}");
        let worst = picture.rgb.iter().zip(&rgb).map(|(a, b)| a.abs_diff(*b)).max();
        assert!(worst <= Some(tolerance), "{name}: {worst:?} levels");
    }
}

#[test]
fn every_cut_is_refused() {
    for Picture { name, file, .. } in pictures() {
        for length in 0..file.len() {
            match decode_image(&file[..length], &Budget::default()) {
                Ok(_) => panic!("{name}: {length} of {} bytes were accepted", file.len()),
                Err(Error::Decoder { .. }) => panic!("{name}: the decoder panicked at {length} bytes"),
                Err(_) => {}
            }
        }
    }
}

#[test]
fn what_follows_the_picture_is_ignored() {
    for Picture { name, mut file, rgb, tolerance, .. } in pictures() {
        file.extend_from_slice(b"\xff\xd8 something else");
        let picture =
            decode_image(&file, &Budget::default()).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(picture.rgb.iter().zip(&rgb).all(|(a, b)| a.abs_diff(*b) <= tolerance), "{name}");
    }
}

#[test]
fn damage_never_panics() {
    let budget = Budget { max_pixels: 1 << 20, ..Budget::default() };
    let mut state = 1u64;
    let mut random = move |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    for Picture { name, file, .. } in pictures() {
        for _ in 0..100 {
            let mut damaged = file.clone();
            for _ in 0..3 {
                let place = random(damaged.len());
                damaged[place] = random(256) as u8;
            }
            // Any picture or error will do, as long as it is not a panic that had to be caught.
            let result = decode_image(&damaged, &budget);
            assert!(!matches!(result, Err(Error::Decoder { .. })), "{name}: {damaged:02x?}");
        }
    }
}

/// Headers that declare 65535 x 65535 pixels (or what comes close) in files of a few hundred bytes.
#[test]
fn huge_headers_are_refused_before_anything_is_allocated() {
    // Name, and the bytes that replace those at each place.
    type Replacement = (usize, &'static [u8]);
    let table: &[(&str, &[Replacement])] = &[
        ("rgb.PNG", &[(16, &[0, 0, 0xff, 0xff, 0, 0, 0xff, 0xff])]),
        ("rgb.BMP", &[(18, &[0xff, 0xff, 0, 0, 0xff, 0xff, 0, 0]), (30, &[1])]),
        ("lossy.WEBP", &[(26, &[0xff, 0x3f, 0xff, 0x3f])]),
        ("lossless.WEBP", &[(21, &[0xff, 0xff, 0xff, 0x0f])]),
    ];
    for (name, patches) in table {
        let mut file = find(name).file;
        for (place, bytes) in *patches {
            file[*place..place + bytes.len()].copy_from_slice(bytes);
        }
        let error = decode_image(&file, &Budget::default()).unwrap_err();
        assert!(matches!(error, Error::TooManyPixels { .. }), "{name}: {error}");
    }

    let mut file = find("baseline.JPEG").file;
    let frame = file.windows(4).position(|bytes| bytes == [0xff, 0xc0, 0, 17]).unwrap();
    file[frame + 5..frame + 9].fill(0xff);
    let error = decode_image(&file, &Budget::default()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the JPEG picture has 65535x65535 pixels (height x width), at most 200000000 in all are accepted"
    );
}

#[test]
fn every_part_of_the_budget_counts() {
    let Picture { file, size: (height, width), .. } = find("rgb.PNG");
    let exact = Budget { max_bytes: file.len(), max_pixels: height * width, ..Budget::default() };
    assert!(decode_image(&file, &exact).is_ok());
    let bytes = decode_image(&file, &Budget { max_bytes: file.len() - 1, ..exact });
    assert!(matches!(bytes, Err(Error::TooManyBytes { .. })));
    let pixels = decode_image(&file, &Budget { max_pixels: height * width - 1, ..exact });
    assert!(matches!(pixels, Err(Error::TooManyPixels { .. })));
    let memory = decode_image(&file, &Budget { max_memory_bytes: height * width * 3, ..exact });
    assert!(matches!(memory, Err(Error::TooMuchMemory { .. })));
}

/// A progressive picture keeps all coefficients, so it may cost what a baseline picture of its size may not.
#[test]
fn progressive_pictures_take_more_memory() {
    let budget = Budget { max_memory_bytes: 9 * 7 * 8, ..Budget::default() };
    assert!(decode_image(&find("baseline.JPEG").file, &budget).is_ok());
    let error = decode_image(&find("progressive.JPEG").file, &budget).unwrap_err();
    assert!(matches!(error, Error::TooMuchMemory { format: Format::Jpeg, .. }), "{error}");
}

#[test]
fn pictures_without_area_are_refused() {
    for (name, place) in [("rgb.PNG", 19), ("rgb.BMP", 18), ("lossy.WEBP", 26)] {
        let mut file = find(name).file;
        file[place] = 0;
        let error = decode_image(&file, &Budget::default()).unwrap_err();
        assert!(matches!(error, Error::ZeroSized { .. }), "{name}: {error}");
    }
}

/// One PNG large enough for several rows of filters and blocks, written here.
#[test]
fn a_larger_picture_comes_back_as_it_was() {
    let (height, width) = (301, 203);
    let rgb: Vec<u8> = (0..height * width * 3).map(|index| (index * index / 7) as u8).collect();
    let mut file = Cursor::new(Vec::new());
    let encoder = PngEncoder::new(&mut file);
    encoder.write_image(&rgb, width as u32, height as u32, ExtendedColorType::Rgb8).unwrap();
    let picture = decode_image(file.get_ref(), &Budget::default()).unwrap();
    assert_eq!((picture.height, picture.width), (height, width));
    assert!(*picture.rgb == *rgb);
}

struct Picture {
    name: &'static str,
    size: (usize, usize),
    tolerance: u8,
    file: Vec<u8>,
    rgb: Vec<u8>,
}

fn pictures() -> Vec<Picture> {
    let parse = |line: &'static str| {
        let [name, height, width, tolerance, file, rgb] = line.split(' ').collect::<Vec<_>>()[..] else {
            panic!("six fields: {line}");
        };
        let size = (height.parse().unwrap(), width.parse().unwrap());
        Picture { name, size, tolerance: tolerance.parse().unwrap(), file: hex(file), rgb: hex(rgb) }
    };
    include_str!("pictures.txt").lines().map(parse).collect()
}

fn find(name: &str) -> Picture {
    pictures().into_iter().find(|picture| picture.name == name).unwrap()
}

fn hex(digits: &str) -> Vec<u8> {
    digits
        .as_bytes()
        .as_chunks::<2>()
        .0
        .iter()
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}
