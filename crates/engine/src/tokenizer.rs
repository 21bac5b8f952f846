//! Text to token ids and token ids to bytes, from the checkpoint's own files: byte-level byte-pair encoding,
//! with control tokens found by name alone and never by reading text.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use crate::Error;

/// Byte-level byte-pair encoding with the checkpoint's vocabulary.
///
/// Control tokens are not part of [`Tokenizer::encode`]: a text that spells `<|im_end|>` becomes the tokens
/// of those ten characters, so that a user's words can neither end a turn nor count as a picture. Whoever
/// wants a control token asks for it with [`Tokenizer::control`].
#[derive(Debug)]
pub struct Tokenizer {
    /// Normalizer, pre-tokenizer and merges, without the added tokens.
    plain: tokenizers::Tokenizer,
    /// Ids of the added tokens by name.
    controls: HashMap<String, u32>,
    /// What each id stands for.
    tokens: Vec<Option<Box<[u8]>>>,
}

/// The pre-tokenizer of Qwen2.5: contractions, words with one leading sign, digits one by one, signs with
/// their line ends, and white space, of which the last piece before a word stays with the word. (Hugging Face
/// Transformers, `tokenization_qwen2.py`, `PRETOKENIZE_REGEX`.)
const QWEN_PATTERN: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*",
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
);

/// Longer texts are encoded in pieces of about this many bytes, because one call takes some hundred bytes of
/// memory for each character.
const PIECE_BYTES: usize = 64 * 1024;

/// A text without any place to cut it may have this many bytes.
const UNBROKEN_BYTES: usize = 4 * 1024 * 1024;

/// White space in a row, in characters. The regex engine gives up after a million steps back and would then
/// return the rest of the text as a single word.
const WHITE_SPACE_RUN: usize = 900_000;

/// Ids above this are nonsense; the largest real one is 151664.
const MAX_ID: u32 = 1 << 22;

impl Tokenizer {
    /// Reads `tokenizer.json`, or `vocab.json`, `merges.txt` and `tokenizer_config.json` where that is
    /// absent.
    pub fn load(source: &ocellus_weights::Source) -> Result<Self, Error> {
        let read = |file: &str| {
            source.read_text(file).map_err(|error| match error {
                ocellus_weights::Error::File { file, found, expected } => {
                    fault(&file, format!("{found}, expected {expected}"))
                }
                other => fault(file, other),
            })
        };
        if let Some(json) = read("tokenizer.json")? {
            return Self::from_json(&json);
        }
        let need = |file: &str| {
            read(file)?.ok_or_else(|| fault(file, "the checkpoint has neither this file nor tokenizer.json"))
        };
        Self::from_parts(&need("vocab.json")?, &need("merges.txt")?, &need("tokenizer_config.json")?)
    }

    /// The content of a `tokenizer.json`. Its pipeline has to be Qwen2.5's: NFC, the split by
    /// its own pattern, then bytes; anything else is refused rather than approximated.
    pub fn from_json(json: &str) -> Result<Self, Error> {
        let file = "tokenizer.json";
        let json = parse(file, json)?;
        check_pipeline(file, &json)?;
        let added = match &json["added_tokens"] {
            Value::Null => Vec::new(),
            Value::Array(entries) => entries
                .iter()
                .map(|entry| AddedToken::read(file, entry, &entry["id"]))
                .collect::<Result<_, _>>()?,
            _ => return Err(fault(file, "added_tokens is not a list")),
        };
        Self::build(file, &json["model"], &added)
    }

    /// The content of `vocab.json`, `merges.txt` and `tokenizer_config.json`, which together say the same as
    /// a `tokenizer.json` except for the pipeline: that one is Qwen2.5's.
    fn from_parts(vocab: &str, merges: &str, config: &str) -> Result<Self, Error> {
        let file = "tokenizer_config.json";
        let config = parse(file, config)?;
        let Some(Value::Object(decoder)) = config.get("added_tokens_decoder") else {
            return Err(fault(file, "added_tokens_decoder is not an object"));
        };
        let added: Vec<AddedToken> = decoder
            .iter()
            .map(|(id, entry)| AddedToken::read(file, entry, &json!(id.parse::<u64>().ok())))
            .collect::<Result<_, _>>()?;
        let merges: Vec<&str> =
            merges.lines().filter(|line| !line.trim().is_empty() && !line.starts_with("#version")).collect();
        let model = json!({"type": "BPE", "vocab": parse("vocab.json", vocab)?, "merges": merges});
        Self::build("vocab.json and merges.txt", &model, &added)
    }

    fn build(file: &str, model: &Value, added: &[AddedToken]) -> Result<Self, Error> {
        check_model(file, model)?;
        let Value::Object(vocab) = &model["vocab"] else {
            return Err(fault(file, "model.vocab is not an object"));
        };
        let alphabet = ByteAlphabet::new();
        if let Some(letter) = alphabet.letters.iter().find(|letter| !vocab.contains_key(&letter.to_string()))
        {
            return Err(fault(file, format!("model.vocab has no token {letter:?}: every byte needs one")));
        }
        let mut tokens = TokenTable::default();
        for (token, id) in vocab {
            let bytes = alphabet.bytes(token).ok_or_else(|| {
                fault(file, format!("token {token:?} has a character outside the byte-level alphabet"))
            })?;
            tokens.insert(file, token, id, bytes)?;
        }
        let merges = merges(file, &model["merges"], vocab)?;
        let mut controls = HashMap::with_capacity(added.len());
        for AddedToken { id, content, special } in added {
            // A special token is never shown in an answer.
            let shown = if *special { "" } else { content };
            let id = match vocab.get(content) {
                // Some files list a token in both places; they have to agree.
                Some(in_vocab) if in_vocab != id => {
                    return Err(fault(file, format!("token {content:?} has two ids, {in_vocab} and {id}")));
                }
                Some(_) => token_id(file, content, id)?,
                None => tokens.insert(file, content, id, shown.as_bytes().to_vec())?,
            };
            if controls.insert(content.clone(), id).is_some() {
                return Err(fault(file, format!("added token {content:?} is there twice")));
            }
        }
        let plain = json!({
            "version": "1.0",
            "truncation": null,
            "padding": null,
            // Without the added tokens, so that text can't spell them.
            "added_tokens": [],
            "normalizer": {"type": "NFC"},
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
                {
                    "type": "Split",
                    "pattern": {"Regex": QWEN_PATTERN},
                    "behavior": "Isolated",
                    "invert": false,
                },
                {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false},
            ]},
            "post_processor": null,
            "decoder": null,
            "model": {
                "type": "BPE",
                "ignore_merges": model["ignore_merges"] == true,
                "vocab": vocab,
                "merges": merges,
            },
        });
        let plain = serde_json::from_value(plain).map_err(|error| fault(file, error))?;
        Ok(Self { plain, controls, tokens: tokens.0 })
    }

    /// Ids of plain text. Control tokens spelled in it stay text. Refused is a text that can't be encoded in
    /// bounded memory: four megabytes without a place to cut, or 900,000 white spaces in a row.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, Error> {
        self.encode_within(text, usize::MAX)
    }

    /// Like [`Tokenizer::encode`], but gives up with [`Error::ContextLength`] soon after `limit` tokens are
    /// passed, so that an absurdly long text costs no more than one that just fits.
    pub fn encode_within(&self, text: &str, limit: usize) -> Result<Vec<u32>, Error> {
        check_white_space(text)?;
        let mut ids = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let end = piece_end(rest, PIECE_BYTES);
            if end > UNBROKEN_BYTES {
                return Err(Error::InvalidRequest(format!(
                    "a text has {end} bytes without a space, line end or digit, at most {UNBROKEN_BYTES} can be \
                     encoded"
                )));
            }
            let (piece, after) = rest.split_at(end);
            let encoding = self.plain.encode_fast(piece, false).map_err(|error| {
                Error::Internal(format!("the tokenizer failed on {end} bytes of text: {error}"))
            })?;
            ids.extend_from_slice(encoding.get_ids());
            if ids.len() > limit {
                return Err(Error::ContextLength { tokens: ids.len(), limit });
            }
            rest = after;
        }
        Ok(ids)
    }

    /// Ids of a text that is a whole rendered prompt: control tokens spelled in it become control tokens.
    /// Never for a user's words.
    pub fn encode_rendered(&self, text: &str) -> Result<Vec<u32>, Error> {
        let mut ids = Vec::new();
        let mut plain_from = 0;
        let mut at = 0;
        while at < text.len() {
            let names = self.controls.iter().filter(|(name, _)| text[at..].starts_with(name.as_str()));
            match names.max_by_key(|(name, _)| name.len()) {
                Some((name, id)) => {
                    ids.extend(self.encode(&text[plain_from..at])?);
                    ids.push(*id);
                    at += name.len();
                    plain_from = at;
                }
                None => at += text[at..].chars().next().map_or(1, char::len_utf8),
            }
        }
        ids.extend(self.encode(&text[plain_from..])?);
        Ok(ids)
    }

    /// The id of an added token such as `<|im_start|>` or `<tool_call>`.
    pub fn control(&self, name: &str) -> Option<u32> {
        self.controls.get(name).copied()
    }

    /// The bytes that a token stands for in an answer; they may be a part of a character. Empty for special
    /// tokens, which are never shown; `<tool_call>` and its like are not special. `None` for an id without a
    /// token.
    pub fn token_bytes(&self, id: u32) -> Option<&[u8]> {
        self.tokens.get(id as usize)?.as_deref()
    }

    /// One more than the largest id. Models have more rows than that.
    pub fn vocab_size(&self) -> usize {
        self.tokens.len()
    }
}

/// Where to cut a text, at `target` bytes or as soon as possible after it, so that both sides together have
/// the same tokens as the whole.
fn piece_end(text: &str, target: usize) -> usize {
    if text.len() <= target {
        return text.len();
    }
    let from = text.floor_char_boundary(target);
    let mut before = text[..from].chars().next_back();
    for (offset, after) in text[from..].char_indices() {
        if before.is_some_and(|before| is_break(before, after)) {
            return from + offset;
        }
        before = Some(after);
    }
    text.len()
}

/// Whether a match of [`QWEN_PATTERN`] always ends between these two characters, whatever is around them, and
/// nothing composes across them: a word ends where its letters end, a digit stands alone, and line ends
/// belong to what is before them. ASCII characters neither start a composition nor change by one.
fn is_break(before: char, after: char) -> bool {
    match before {
        '\n' => !after.is_whitespace(),
        '0'..='9' => after.is_ascii(),
        'a'..='z' | 'A'..='Z' | '\u{4e00}'..='\u{9fff}' => after.is_ascii() && !after.is_ascii_alphabetic(),
        _ => false,
    }
}

fn check_white_space(text: &str) -> Result<(), Error> {
    if text.len() <= WHITE_SPACE_RUN {
        return Ok(());
    }
    let mut run = 0;
    for character in text.chars() {
        run = if character.is_whitespace() { run + 1 } else { 0 };
        if run > WHITE_SPACE_RUN {
            return Err(Error::InvalidRequest(format!(
                "a text has more than {WHITE_SPACE_RUN} white space characters in a row"
            )));
        }
    }
    Ok(())
}

/// An entry of `added_tokens` or `added_tokens_decoder`.
struct AddedToken {
    id: Value,
    content: String,
    special: bool,
}

impl AddedToken {
    fn read(file: &str, entry: &Value, id: &Value) -> Result<Self, Error> {
        match (&entry["content"], &entry["special"]) {
            (Value::String(content), Value::Bool(special)) if !content.is_empty() => {
                Ok(Self { id: id.clone(), content: content.clone(), special: *special })
            }
            _ => Err(fault(
                file,
                format!("an added token needs content and special, found {}", excerpt(entry)),
            )),
        }
    }
}

/// What each id stands for, filled in any order.
#[derive(Default)]
struct TokenTable(Vec<Option<Box<[u8]>>>);

impl TokenTable {
    fn insert(&mut self, file: &str, token: &str, id: &Value, bytes: Vec<u8>) -> Result<u32, Error> {
        let id = token_id(file, token, id)?;
        let index = id as usize;
        if index >= self.0.len() {
            self.0.resize(index + 1, None);
        }
        if self.0[index].is_some() {
            return Err(fault(file, format!("token {token:?} has id {index}, which another one has too")));
        }
        self.0[index] = Some(bytes.into_boxed_slice());
        Ok(id)
    }
}

fn token_id(file: &str, token: &str, id: &Value) -> Result<u32, Error> {
    id.as_u64().and_then(|id| u32::try_from(id).ok()).filter(|id| *id <= MAX_ID).ok_or_else(|| {
        fault(file, format!("token {token:?} has id {}, expected a number up to {MAX_ID}", excerpt(id)))
    })
}

/// The printable stand-ins for the 256 bytes in a byte-level vocabulary: visible Latin-1 characters stand for
/// themselves, the others follow from U+0100 on. (Radford et al., GPT-2, `bytes_to_unicode` in `encoder.py`.)
struct ByteAlphabet {
    /// Letter of each byte.
    letters: [char; 256],
    /// Byte of each letter, by code point.
    bytes: [Option<u8>; 0x144],
}

impl ByteAlphabet {
    fn new() -> Self {
        let mut letters = ['\0'; 256];
        let mut bytes = [None; 0x144];
        let mut next = 0x100;
        for byte in 0..=255u8 {
            let code = match byte {
                b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff => u32::from(byte),
                _ => {
                    next += 1;
                    next - 1
                }
            };
            letters[usize::from(byte)] = char::from_u32(code).unwrap_or('\0');
            bytes[code as usize] = Some(byte);
        }
        Self { letters, bytes }
    }

    /// The bytes a vocabulary entry stands for, or `None` when a letter is not of the alphabet.
    fn bytes(&self, token: &str) -> Option<Vec<u8>> {
        token.chars().map(|letter| self.bytes.get(letter as usize).copied().flatten()).collect()
    }
}

/// Refuses a `tokenizer.json` whose text would be normalized or split in another way than Qwen2.5's.
fn check_pipeline(file: &str, json: &Value) -> Result<(), Error> {
    let normalizer = &json["normalizer"];
    if normalizer["type"] != "NFC" {
        return Err(fault(file, format!("normalizer is {}, expected NFC", excerpt(normalizer))));
    }
    let pre_tokenizer = &json["pre_tokenizer"];
    let [split, byte_level] = pre_tokenizer["pretokenizers"].as_array().map_or(&[][..], Vec::as_slice) else {
        let found = excerpt(pre_tokenizer);
        return Err(fault(
            file,
            format!("pre_tokenizer is {found}, expected a sequence of Split and ByteLevel"),
        ));
    };
    let splits_as_qwen = split["type"] == "Split"
        && split["pattern"]["Regex"] == QWEN_PATTERN
        && split["behavior"] == "Isolated"
        && split["invert"] != true;
    if !splits_as_qwen {
        return Err(fault(file, format!("pre_tokenizer has {}, expected Qwen2.5's Split", excerpt(split))));
    }
    let keeps_pieces = byte_level["type"] == "ByteLevel"
        && byte_level["add_prefix_space"] == false
        && byte_level["use_regex"] == false;
    if !keeps_pieces {
        let found = excerpt(byte_level);
        return Err(fault(
            file,
            format!("pre_tokenizer has {found}, expected ByteLevel without prefix and regex"),
        ));
    }
    Ok(())
}

/// Refuses variants of byte-pair encoding that Qwen2.5 doesn't use.
fn check_model(file: &str, model: &Value) -> Result<(), Error> {
    if model["type"] != "BPE" {
        return Err(fault(file, format!("model.type is {}, expected \"BPE\"", excerpt(&model["type"]))));
    }
    for key in ["dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix"] {
        if !model[key].is_null() && model[key] != "" {
            return Err(fault(file, format!("model.{key} is {}, expected null", excerpt(&model[key]))));
        }
    }
    if model["byte_fallback"] == true {
        return Err(fault(file, "model.byte_fallback is true, expected false"));
    }
    Ok(())
}

/// The pairs of tokens that become one, first come, first served. Files of two ages spell them as `"a b"` and as
/// `["a", "b"]`.
fn merges<'a>(file: &str, merges: &'a Value, vocab: &Map<String, Value>) -> Result<Vec<[&'a str; 2]>, Error> {
    let Value::Array(entries) = merges else {
        return Err(fault(file, format!("model.merges is {}, expected a list", excerpt(merges))));
    };
    let pair = |entry: &'a Value| match entry {
        Value::String(text) => text.split_once(' ').map(|(left, right)| [left, right]),
        Value::Array(tokens) => match &tokens[..] {
            [Value::String(left), Value::String(right)] => Some([left.as_str(), right.as_str()]),
            _ => None,
        },
        _ => None,
    };
    let known = |[left, right]: &[&str; 2]| {
        vocab.contains_key(*left)
            && vocab.contains_key(*right)
            && vocab.contains_key(&[*left, *right].concat())
    };
    let checked = entries.iter().enumerate().map(|(index, entry)| {
        pair(entry).filter(known).ok_or_else(|| {
            let found = excerpt(entry);
            fault(
                file,
                format!("merge {index} is {found}, expected two tokens of the vocabulary that make a third"),
            )
        })
    });
    checked.collect()
}

/// The start of a JSON value, for messages.
fn excerpt(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(200) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

fn parse(file: &str, json: &str) -> Result<Value, Error> {
    serde_json::from_str(json).map_err(|error| fault(file, format!("the content is not JSON ({error})")))
}

fn fault(file: &str, reason: impl ToString) -> Error {
    Error::Tokenizer { file: file.to_owned(), reason: reason.to_string() }
}

#[cfg(test)]
pub(crate) mod tests;
