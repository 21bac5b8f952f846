//! The tokenizer over a vocabulary small enough to compute by hand, over broken files, and over texts that
//! hurt.

use tokenizers::{Normalizer, OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer};

use super::*;

/// Tokens 0 to 255 are the bytes themselves, the given merges follow, then the control tokens of
/// [`CONTROLS`].
pub(crate) fn byte_tokenizer(merges: &[(&str, &str)]) -> Tokenizer {
    Tokenizer::from_json(&byte_tokenizer_json(merges).to_string()).unwrap()
}

/// Name and whether it is special.
pub(crate) const CONTROLS: [(&str, bool); 9] = [
    ("<|endoftext|>", true),
    ("<|im_start|>", true),
    ("<|im_end|>", true),
    ("<|vision_start|>", true),
    ("<|vision_end|>", true),
    ("<|image_pad|>", true),
    ("<|video_pad|>", true),
    ("<tool_call>", false),
    ("</tool_call>", false),
];

fn byte_tokenizer_json(merges: &[(&str, &str)]) -> Value {
    let letters = ByteAlphabet::new().letters;
    let mut vocab: serde_json::Map<String, Value> =
        (0..).zip(letters).map(|(id, letter): (u32, _)| (letter.to_string(), json!(id))).collect();
    for (left, right) in merges {
        vocab.insert(format!("{left}{right}"), json!(vocab.len()));
    }
    let added: Vec<Value> = (vocab.len()..)
        .zip(CONTROLS)
        .map(|(id, (content, special))| json!({"id": id, "content": content, "special": special}))
        .collect();
    let merges: Vec<String> = merges.iter().map(|(left, right)| format!("{left} {right}")).collect();
    json!({
        "version": "1.0",
        "added_tokens": added,
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": QWEN_PATTERN}, "behavior": "Isolated", "invert": false},
            {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false},
        ]},
        "model": {"type": "BPE", "vocab": vocab, "merges": merges},
    })
}

/// The pieces that byte pairs are merged in.
fn pieces(tokenizer: &Tokenizer, text: &str) -> Vec<String> {
    let mut normalized = tokenizers::NormalizedString::from(text);
    tokenizer.plain.get_normalizer().unwrap().normalize(&mut normalized).unwrap();
    let mut split = PreTokenizedString::from(normalized.get());
    tokenizer.plain.get_pre_tokenizer().unwrap().pre_tokenize(&mut split).unwrap();
    let alphabet = ByteAlphabet::new();
    split
        .get_splits(OffsetReferential::Normalized, OffsetType::Byte)
        .iter()
        .map(|(piece, _, _)| String::from_utf8(alphabet.bytes(piece).unwrap()).unwrap())
        .collect()
}

#[test]
fn splits_as_the_pattern_says() {
    let tokenizer = byte_tokenizer(&[]);
    for (text, expected) in [
        ("", &[][..]),
        ("Hello, world!", &["Hello", ",", " world", "!"]),
        ("don't they'LL x'y", &["don", "'t", " they", "'LL", " x", "'y"]),
        ("12 345", &["1", "2", " ", "3", "4", "5"]),
        ("a  b   ", &["a", " ", " b", "   "]),
        ("x\n\n  y\r\n", &["x", "\n\n", " ", " y", "\r\n"]),
        ("end.\n\nNew", &["end", ".\n\n", "New"]),
        ("(a) [b]", &["(a", ")", " [", "b", "]"]),
        ("描述,图片。", &["描述", ",图片", "。"]),
        ("e\u{301}t\u{e9}", &["\u{e9}t\u{e9}"]), // Composed first, so the accent is part of the word.
        ("\u{a0}x\u{3000}", &["\u{a0}x", "\u{3000}"]),
    ] {
        assert_eq!(pieces(&tokenizer, text), expected, "{text:?}");
    }
}

#[test]
fn merges_inside_of_pieces_only() {
    let merges =
        [("h", "e"), ("l", "l"), ("he", "ll"), ("Ġ", "w"), ("1", "2"), ("'", "t"), ("t", "'"), ("Ġ", "Ġ")];
    let tokenizer = byte_tokenizer(&merges);
    let check =
        |text: &str, expected: &[u32]| assert_eq!(tokenizer.encode(text).unwrap(), expected, "{text:?}");
    check("hell", &[258]);
    check("hello", &[258, 111]);
    check("12", &[49, 50]);
    check("t't", &[116, 261]);
    check("  w", &[32, 259]);
    check("   ", &[263, 32]);
    check("e\u{301}", &[0xc3, 0xa9]);
    check("\0\u{ad}", &[0, 0xc2, 0xad]);
}

#[test]
fn text_never_becomes_a_control_token() {
    let tokenizer = byte_tokenizer(&[]);
    let spelled: String = CONTROLS.iter().map(|(name, _)| *name).collect();
    let ids = tokenizer.encode(&spelled).unwrap();
    assert_eq!(ids, spelled.bytes().map(u32::from).collect::<Vec<_>>());
    // Only a whole rendered prompt may spell them.
    assert_eq!(tokenizer.encode_rendered(&spelled).unwrap(), (256..265).collect::<Vec<u32>>());
    let ids = tokenizer.encode_rendered("é<|im_end|<|im_end|>").unwrap();
    assert_eq!(ids[ids.len() - 2..], [u32::from(b'|'), 258]);
    assert_eq!(ids.len(), 2 + "<|im_end|".len() + 1);
}

#[test]
fn knows_what_each_token_stands_for() {
    let tokenizer = byte_tokenizer(&[("Ġ", "w")]);
    assert_eq!(tokenizer.vocab_size(), 256 + 1 + CONTROLS.len());
    for byte in 0..=255u8 {
        assert_eq!(tokenizer.token_bytes(u32::from(byte)), Some(&[byte][..]));
    }
    assert_eq!(tokenizer.token_bytes(256), Some(&b" w"[..]));
    for (name, special) in CONTROLS {
        let id = tokenizer.control(name).unwrap();
        assert_eq!(tokenizer.token_bytes(id), Some(if special { &b""[..] } else { name.as_bytes() }));
    }
    assert_eq!(tokenizer.control("<|fim_pad|>"), None);
    assert_eq!(tokenizer.control("a"), None);
    assert_eq!(tokenizer.token_bytes(266), None);
    assert_eq!(tokenizer.token_bytes(u32::MAX), None);
}

#[test]
fn three_files_say_the_same_as_one() {
    let json = byte_tokenizer_json(&[("a", "b"), ("ab", "c")]);
    let decoder: serde_json::Map<String, Value> = json["added_tokens"]
        .as_array()
        .unwrap()
        .iter()
        .map(|token| {
            (token["id"].to_string(), json!({"content": token["content"], "special": token["special"]}))
        })
        .collect();
    let vocab = json["model"]["vocab"].to_string();
    let config = json!({"added_tokens_decoder": decoder}).to_string();
    let merges = "#version: 0.2\na b\r\nab c\n\n";
    let leak = |text: &str| -> &'static [u8] { text.to_owned().leak().as_bytes() };
    let files = [
        ("vocab.json", leak(&vocab)),
        ("merges.txt", leak(merges)),
        ("tokenizer_config.json", leak(&config)),
    ];
    let load = |files: &[(&'static str, &'static [u8])]| {
        Tokenizer::load(&ocellus_weights::Source::embedded(files.to_vec().leak()))
    };
    let tokenizer = load(&files).unwrap();
    assert_eq!(tokenizer.encode("abcab").unwrap(), [257, 256]);
    assert_eq!(tokenizer.control("<|im_end|>"), Some(260));
    assert_eq!(tokenizer.vocab_size(), Tokenizer::from_json(&json.to_string()).unwrap().vocab_size());
    // The one file is preferred, even where it is broken.
    let error = load(&[files[0], files[1], files[2], ("tokenizer.json", b"{")]).unwrap_err();
    assert!(error.to_string().starts_with("tokenizer.json: the content is not JSON (EOF"), "{error}");
    for missing in 0..3 {
        let rest: Vec<_> = files.iter().copied().filter(|file| file.0 != files[missing].0).collect();
        let error = load(&rest).unwrap_err().to_string();
        assert_eq!(
            error,
            format!("{}: the checkpoint has neither this file nor tokenizer.json", files[missing].0)
        );
    }
}

#[test]
fn refuses_broken_files() {
    /// Where the file is changed, to what, and the end of the message.
    type Fault = (&'static str, Value, &'static str);
    let table: [Fault; 23] = [
        ("/normalizer", json!(null), "normalizer is null, expected NFC"),
        ("/normalizer/type", json!("NFKC"), r#"normalizer is {"type":"NFKC"}, expected NFC"#),
        ("/pre_tokenizer", json!(7), "pre_tokenizer is 7, expected a sequence of Split and ByteLevel"),
        ("/pre_tokenizer/pretokenizers/0/pattern", json!({"Regex": "\\w+"}), "expected Qwen2.5's Split"),
        (
            "/pre_tokenizer/pretokenizers/1/use_regex",
            json!(true),
            "expected ByteLevel without prefix and regex",
        ),
        ("/model", json!([]), "model.type is null, expected \"BPE\""),
        ("/model/type", json!("Unigram"), "model.type is \"Unigram\", expected \"BPE\""),
        ("/model/dropout", json!(0.5), "model.dropout is 0.5, expected null"),
        ("/model/end_of_word_suffix", json!("é"), "model.end_of_word_suffix is \"é\", expected null"),
        ("/model/byte_fallback", json!(true), "model.byte_fallback is true, expected false"),
        ("/model/vocab", json!("a"), "model.vocab is not an object"),
        ("/model/vocab", json!({"a": 0}), "model.vocab has no token 'Ā': every byte needs one"),
        ("/model/vocab/a", json!(-1), "token \"a\" has id -1, expected a number up to 4194304"),
        (
            "/model/vocab/a",
            json!(4_000_000_000u32),
            "token \"a\" has id 4000000000, expected a number up to 4194304",
        ),
        ("/model/vocab/b", json!(97), "token \"b\" has id 97, which another one has too"),
        ("/model/merges", json!("a b"), "model.merges is \"a b\", expected a list"),
        (
            "/model/merges",
            json!(["x y"]),
            "is \"x y\", expected two tokens of the vocabulary that make a third",
        ),
        (
            "/model/merges",
            json!(["xy"]),
            "is \"xy\", expected two tokens of the vocabulary that make a third",
        ),
        (
            "/model/merges",
            json!([["x"]]),
            "is [\"x\"], expected two tokens of the vocabulary that make a third",
        ),
        (
            "/model/merges",
            json!([7]),
            "merge 0 is 7, expected two tokens of the vocabulary that make a third",
        ),
        ("/added_tokens", json!({}), "added_tokens is not a list"),
        ("/added_tokens/0/content", json!(""), r#"found {"id":256,"content":"","special":true}"#),
        ("/added_tokens/0/content", json!("<|im_start|>"), "added token \"<|im_start|>\" is there twice"),
    ];
    for (place, value, message) in table {
        let mut json = byte_tokenizer_json(&[]);
        let (parent, key) = place.rsplit_once('/').unwrap();
        let parent = json.pointer_mut(parent).unwrap();
        match key.parse::<usize>() {
            Ok(index) => parent[index] = value.clone(),
            Err(_) => parent[key] = value.clone(),
        }
        let error = Tokenizer::from_json(&json.to_string()).unwrap_err().to_string();
        assert!(
            error.starts_with("tokenizer.json: ") && error.ends_with(message),
            "{place} = {value}: {error}"
        );
    }
    for text in ["", "[]", "null", "{", "\u{feff}{}", &"[".repeat(100_000)] {
        assert!(Tokenizer::from_json(text).is_err(), "{}", &text[..text.len().min(9)]);
    }
}

#[test]
fn a_cut_text_has_the_same_pieces() {
    let tokenizer = byte_tokenizer(&[]);
    // Whatever composes, joins or depends on what follows.
    const ALPHABET: [&str; 24] = [
        "a", "Z", "s", "1", "9", "'", "!", "=", "\n", "\r", " ", "\t", "中", "é", "e", "\u{301}", "\u{338}",
        "\u{3000}", "。", "\u{1100}", "\u{1161}", "\u{958}", "\u{2028}", "😀",
    ];
    let picks = proptest::collection::vec(proptest::sample::select(&ALPHABET[..]), 0..40);
    proptest::proptest!(|(picks in picks, target in 0..20usize)| {
        let text = picks.concat();
        let mut cut = Vec::new();
        let mut rest = text.as_str();
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(piece_end(rest, target));
            cut.extend(pieces(&tokenizer, piece));
            rest = after;
        }
        assert_eq!(cut, pieces(&tokenizer, &text), "{text:?}");
    });
}

#[test]
fn cuts_long_texts() {
    for (text, longest) in [
        ("word ".repeat(20), 14),
        ("1".repeat(100), 10),
        ("base64/+=a7".repeat(10), 21),
        ("no break\n中文\n".repeat(10), 22),
        ("中".repeat(30), 90),
        (" ".repeat(100), 100),
    ] {
        let mut rest = text.as_str();
        while !rest.is_empty() {
            let end = piece_end(rest, 10);
            assert!((1..=longest).contains(&end), "{end} bytes of {text:?}");
            rest = &rest[end..];
        }
    }
    let tokenizer = byte_tokenizer(&[]);
    let text = "The quick brown fox.\n".repeat(10_000);
    assert_eq!(tokenizer.encode(&text).unwrap().len(), text.len());
}

#[test]
fn refuses_texts_that_cost_too_much() {
    let tokenizer = byte_tokenizer(&[]);
    let text = "1 ".repeat(4 * PIECE_BYTES);
    assert_eq!(tokenizer.encode_within("1 1 ", 4).unwrap().len(), 4);
    assert_eq!(tokenizer.encode_within("1 1 ", 3), Err(Error::ContextLength { tokens: 4, limit: 3 }));
    match tokenizer.encode_within(&text, 100) {
        Err(Error::ContextLength { tokens, limit: 100 }) => assert!(tokens < 2 * PIECE_BYTES, "{tokens}"),
        other => panic!("{other:?}"),
    }
    let spaces = format!("{}\n{}", "x".repeat(10), " ".repeat(WHITE_SPACE_RUN + 1));
    let error = tokenizer.encode(&spaces).unwrap_err().to_string();
    assert_eq!(error, "a text has more than 900000 white space characters in a row");
    let unbroken = "é".repeat(UNBROKEN_BYTES / 2 + 1);
    let error = tokenizer.encode(&unbroken).unwrap_err().to_string();
    assert_eq!(
        error,
        "a text has 4194306 bytes without a space, line end or digit, at most 4194304 can be encoded"
    );
}
