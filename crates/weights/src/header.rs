//! The header of a safetensors file: 8 bytes with its length, then JSON that says for each tensor its type,
//! its shape and where its bytes lie.
//!
//! The types are those of the `safetensors` crate. Its own check of the offsets is not used: it names no
//! tensor, and it adds offsets up without looking for an overflow, which a hostile file can cause.

use std::{fmt, ops::Range};

use safetensors::{Dtype, tensor::TensorInfo};
use serde::de::{Deserialize, Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};

use crate::{Error, Result, error::shown};

/// The longest header that is read, as in the reference implementation. Official ones have some 100 kB.
const LONGEST_HEADER_BYTES: u64 = 100_000_000;

/// More dimensions than any weight has; a longer shape is nonsense, and would fill the message that says so.
const MOST_DIMENSIONS: usize = 8;

/// What the header says of one tensor, checked: `range` lies within the file and has the length that shape
/// and type ask for.
#[derive(Debug)]
pub(crate) struct HeaderEntry {
    pub(crate) tensor: String,
    pub(crate) dtype: Dtype,
    pub(crate) shape: Vec<usize>,
    pub(crate) range: Range<usize>,
}

/// Reads and checks the header of `file`, whose whole content is `bytes`. The entries are in file order,
/// without gap or overlap, and cover the file to its last byte.
pub(crate) fn read(file: &str, bytes: &[u8]) -> Result<Vec<HeaderEntry>> {
    let (json, data_start) = split(file, bytes)?;
    let Header(mut infos) = serde_json::from_slice(json).map_err(|e| Error::File {
        file: shown(file),
        found: format!("a header that can't be understood: {}", shown(&e.to_string())),
        expected: "a safetensors header".to_owned(),
    })?;
    infos.sort_by(|(a, _), (b, _)| a.cmp(b));
    if let Some([(twice, _), ..]) = infos.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        return Err(entry_error(file, twice, "two entries in the header".to_owned(), "one".to_owned()));
    }
    infos.sort_by_key(|(_, info)| info.data_offsets);

    let mut end = 0;
    let mut entries = Vec::with_capacity(infos.len());
    for (tensor, info) in infos {
        end = check_entry(file, &tensor, &info, end)?;
        let (from, to) = info.data_offsets;
        // An overflow here is a file far shorter than it says, which the check below the loop reports.
        let range = data_start.saturating_add(from)..data_start.saturating_add(to);
        entries.push(HeaderEntry { tensor, dtype: info.dtype, shape: info.shape, range });
    }
    match data_start.checked_add(end) {
        Some(expected) if expected == bytes.len() => Ok(entries),
        expected => {
            let expected = expected.map_or_else(|| format!("{data_start} + {end}"), |n| n.to_string());
            Err(Error::File {
                file: shown(file),
                found: format!("{} bytes", bytes.len()),
                expected: format!(
                    "{expected} bytes as its header says: it was cut, or something was appended"
                ),
            })
        }
    }
}

/// The JSON of the header, and where the data starts.
fn split<'a>(file: &str, bytes: &'a [u8]) -> Result<(&'a [u8], usize)> {
    let refuse = |found: String, expected: String| Error::File { file: shown(file), found, expected };
    let safetensors = || "a safetensors file".to_owned();
    if let Some(format) = other_format(bytes) {
        return Err(refuse(format.to_owned(), safetensors()));
    }
    let Some((length, rest)) = bytes.split_first_chunk::<8>() else {
        let found = if bytes.is_empty() { "empty".to_owned() } else { format!("{} bytes", bytes.len()) };
        return Err(refuse(found, safetensors()));
    };
    let length = u64::from_le_bytes(*length);
    if length > LONGEST_HEADER_BYTES {
        return Err(refuse(
            format!("a header of {length} bytes"),
            format!("a safetensors file, with a header of at most {LONGEST_HEADER_BYTES} bytes"),
        ));
    }
    // At most 100 million, so neither the cast nor the sum can overflow, not even with 32-bit addresses.
    let length = length as usize;
    match rest.get(..length) {
        Some(json) => Ok((json, 8 + length)),
        None => Err(refuse(
            format!("{} bytes", bytes.len()),
            format!("more than {} bytes, for its header alone has {length}: it was cut", 8 + length),
        )),
    }
}

/// Files of other formats under a safetensors name, by their first bytes.
fn other_format(bytes: &[u8]) -> Option<&'static str> {
    [
        (&b"version https://git-lfs"[..], "a Git LFS pointer (the file itself was never downloaded)"),
        (b"GGUF", "a GGUF file"),
        (b"PK\x03\x04", "a zip archive, perhaps a PyTorch checkpoint"),
        (b"<!DOCTYPE", "a web page"),
        (b"<html", "a web page"),
    ]
    .into_iter()
    .find(|(magic, _)| bytes.starts_with(magic))
    .map(|(_, format)| format)
}

/// Checks that a tensor starts where the last one ended, and that its length is what it should be; gives
/// the offset at which it ends.
fn check_entry(file: &str, tensor: &str, info: &TensorInfo, start: usize) -> Result<usize> {
    let refuse = |found: String, expected: String| entry_error(file, tensor, found, expected);
    let (from, to) = info.data_offsets;
    if info.shape.len() > MOST_DIMENSIONS {
        return Err(refuse(format!("{} dimensions", info.shape.len()), format!("at most {MOST_DIMENSIONS}")));
    }
    if from != start || to < from {
        return Err(refuse(
            format!("data offsets {from} to {to}"),
            format!("a start at {start}, without gap or overlap"),
        ));
    }
    let bits = info.shape.iter().try_fold(info.dtype.bitsize(), |bits, &dim| bits.checked_mul(dim));
    let length = bits.filter(|bits| bits % 8 == 0).map(|bits| bits / 8);
    if length != Some(to - from) {
        let expected = length.map_or_else(|| "a size that can exist".to_owned(), |n| n.to_string());
        return Err(refuse(
            format!("{} bytes", to - from),
            format!("{expected} for shape {:?} of {}", info.shape, info.dtype),
        ));
    }
    Ok(to)
}

fn entry_error(file: &str, tensor: &str, found: String, expected: String) -> Error {
    Error::Entry { tensor: shown(tensor), file: shown(file), found, expected }
}

/// The JSON object, entry by entry as it stands there, so that a name that occurs twice is seen.
struct Header(Vec<(String, TensorInfo)>);

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Header;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Header, A::Error> {
                let mut infos = Vec::new();
                while let Some(tensor) = map.next_key::<String>()? {
                    // Free text about the file, such as the library that wrote it.
                    if tensor == "__metadata__" {
                        map.next_value::<IgnoredAny>()?;
                        continue;
                    }
                    let info = map
                        .next_value::<TensorInfo>()
                        .map_err(|e| A::Error::custom(format!("{}: {e}", shown(&tensor))))?;
                    infos.push((tensor, info));
                }
                Ok(Header(infos))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}
