//! Files inside of URLs: `data:image/png;base64,iVBORw0…`.

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};

use crate::Refusal;

/// The hosted bound: characters of base64 text in one item.
const LIMIT: usize = 10_485_760;

/// With or without `=` at the end; the last bits may be anything.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// Whether this text is meant as a data URI.
pub(crate) fn is_data_uri(text: &str) -> bool {
    text.get(..5).is_some_and(|scheme| scheme.eq_ignore_ascii_case("data:"))
}

/// The file's bytes. The declared type is not looked at: what a file is, its first bytes say.
pub(crate) fn decode(uri: &str) -> Result<Vec<u8>, Refusal> {
    let (head, text) = uri.split_once(',').ok_or(Refusal::UrlInvalid)?;
    let parameters = head.get(5..).unwrap_or_default();
    // The hosted service insists on the word; percent-encoded text is no base64.
    if !parameters.rsplit_once(';').is_some_and(|(_, last)| last.trim().eq_ignore_ascii_case("base64")) {
        return Err(Refusal::UrlInvalid);
    }
    // Some encoders break lines. Most texts have no white space and are decoded where they lie.
    let broken = text.bytes().any(|byte| byte.is_ascii_whitespace());
    let joined: Option<String> = broken.then(|| text.split_ascii_whitespace().collect());
    let text = joined.as_deref().unwrap_or(text);
    if text.len() > LIMIT {
        return Err(Refusal::DataUriTooLarge { limit: LIMIT });
    }
    BASE64.decode(text).map_err(|_| Refusal::ImageBroken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(uri: &str, expected: Result<&[u8], Refusal>) {
        assert!(is_data_uri(uri), "{uri}");
        assert_eq!(decode(uri), expected.map(<[u8]>::to_vec), "{uri}");
    }

    #[test]
    fn base64_in_its_spellings() {
        check("data:image/png;base64,aGk=", Ok(b"hi"));
        check("DATA:image/png;BASE64,aGk=", Ok(b"hi"));
        check("data:;base64,aGk", Ok(b"hi"));
        check("data:text/plain;charset=utf-8;base64,aGk=", Ok(b"hi"));
        check("data:image/png;base64,\r\n aG\nk=\n", Ok(b"hi"));
        check("data:image/png;base64,", Ok(b""));
        check("data:image/png,aGk=", Err(Refusal::UrlInvalid));
        check("data:base64,aGk=", Err(Refusal::UrlInvalid));
        check("data:image/png;base64", Err(Refusal::UrlInvalid));
        check("data:", Err(Refusal::UrlInvalid));
        check("data:image/png;base64,a*k=", Err(Refusal::ImageBroken));
        check("data:image/png;base64,aGk=aGk=", Err(Refusal::ImageBroken));
        check("data:image/png;base64,ä", Err(Refusal::ImageBroken));
        check("data:image/png;base64,a", Err(Refusal::ImageBroken));
        assert!(!is_data_uri("dat"));
        assert!(!is_data_uri("daä:x"));
    }

    #[test]
    fn the_bound_is_in_characters() {
        let head = "data:image/png;base64,";
        let text = "A".repeat(LIMIT);
        assert_eq!(decode(&format!("{head}{text}")).map(|bytes| bytes.len()), Ok(LIMIT / 4 * 3));
        assert_eq!(decode(&format!("{head}\n{text}\n")).map(|bytes| bytes.len()), Ok(LIMIT / 4 * 3));
        assert_eq!(decode(&format!("{head}{text}A")), Err(Refusal::DataUriTooLarge { limit: LIMIT }));
    }
}
