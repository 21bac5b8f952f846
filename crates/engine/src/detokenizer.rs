//! Bytes of tokens become text, whole characters only: a character may be spread over several tokens.

/// Takes bytes and gives characters as soon as they are complete. All the text together is what
/// [`String::from_utf8_lossy`] makes of all the bytes together: each invalid sequence is one U+FFFD.
#[derive(Debug, Default)]
pub(crate) struct Detokenizer {
    /// The start of a character whose end is still missing: at most three bytes.
    incomplete: Vec<u8>,
}

impl Detokenizer {
    /// Takes the bytes of the next token. Returns the characters that are complete now.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> String {
        let mut text = String::with_capacity(bytes.len());
        self.incomplete.extend_from_slice(bytes);
        let mut rest = self.incomplete.as_slice();
        loop {
            let (valid, error) = match std::str::from_utf8(rest) {
                Ok(valid) => (valid, None),
                Err(error) => {
                    let valid = rest.get(..error.valid_up_to()).unwrap_or_default();
                    (std::str::from_utf8(valid).unwrap_or_default(), Some(error))
                }
            };
            text.push_str(valid);
            rest = &rest[valid.len()..];
            // Without a length, the error is that the bytes end inside of a character.
            let Some(invalid) = error.and_then(|error| error.error_len()) else { break };
            text.push(char::REPLACEMENT_CHARACTER);
            rest = &rest[invalid..];
        }
        self.incomplete = rest.to_vec();
        text
    }

    /// What is left when no more bytes come: one U+FFFD for an incomplete character.
    pub(crate) fn finish(&mut self) -> String {
        let text = String::from_utf8_lossy(&self.incomplete).into_owned();
        self.incomplete.clear();
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds the chunks and compares with the whole; also with the rule that nothing complete is held back.
    fn check(chunks: &[&[u8]]) {
        let mut detokenizer = Detokenizer::default();
        let mut text = String::new();
        for chunk in chunks {
            text.push_str(&detokenizer.push(chunk));
            assert!(detokenizer.incomplete.len() <= 3, "{chunks:x?} keeps {:x?}", detokenizer.incomplete);
        }
        text.push_str(&detokenizer.finish());
        assert_eq!(text, String::from_utf8_lossy(&chunks.concat()), "{chunks:x?}");
        assert_eq!(detokenizer.finish(), "");
    }

    #[test]
    fn gives_characters_when_their_last_byte_comes() {
        let mut detokenizer = Detokenizer::default();
        let given: Vec<String> = "a中😀".as_bytes().chunks(1).map(|byte| detokenizer.push(byte)).collect();
        assert_eq!(given, ["a", "", "", "中", "", "", "", "😀"]);
        assert_eq!(detokenizer.finish(), "");
    }

    #[test]
    fn replaces_what_is_invalid() {
        let tables: [&[u8]; 12] = [
            b"",
            b"plain",
            b"\xff",
            b"\x80\x80",
            b"\xf0\x9f\x98",             // Cut after three of four bytes.
            b"\xf0\x9f\x98A",            // Interrupted.
            b"\xf0\x9f\xf0\x9f\x98\x80", // Interrupted by a whole one.
            b"\xc0\xaf",                 // An overlong slash.
            b"\xed\xa0\x80",             // A surrogate.
            b"\xf4\x90\x80\x80",         // Beyond U+10FFFF.
            b"\xe4\xb8\xad\xe4\xb8",
            b"ok\xe2\x82\xac\xe2\x28\xa1 end",
        ];
        for bytes in tables {
            check(&[bytes]);
            check(&bytes.chunks(1).collect::<Vec<_>>());
            for cut in 0..bytes.len() {
                check(&[&bytes[..cut], b"", &bytes[cut..]]);
            }
        }
    }

    #[test]
    fn equals_the_whole_for_any_cuts() {
        let alphabet: [u8; 12] = [b'a', 0x7f, 0x80, 0x9f, 0xbf, 0xc2, 0xe0, 0xed, 0xe4, 0xf0, 0xf4, 0xff];
        proptest::proptest!(|(picks: Vec<(proptest::sample::Index, bool)>)| {
            let mut chunks = vec![Vec::new()];
            for (pick, cut) in &picks {
                if *cut {
                    chunks.push(Vec::new());
                }
                chunks.last_mut().unwrap().push(*pick.get(&alphabet));
            }
            check(&chunks.iter().map(Vec::as_slice).collect::<Vec<_>>());
        });
    }
}
