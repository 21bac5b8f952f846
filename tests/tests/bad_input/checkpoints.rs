//! Broken checkpoints: the nano model with one thing wrong, loaded as every command loads it.

use std::{fmt::Write, fs, path::Path};

use ocellus_engine::{Model, Source};
use ocellus_kernels::Device;
use ocellus_tests::house::workspace;
use serde_json::Value;

use super::Server;

/// What is done to the folder.
enum Damage {
    /// In this file, the value at this JSON pointer becomes this JSON text.
    Set(&'static str, &'static str, &'static str),
    /// In this file, the field at this JSON pointer goes.
    Drop(&'static str, &'static str),
    /// This file's content becomes this.
    Write(&'static str, &'static [u8]),
    /// This file goes.
    Delete(&'static str),
    /// Anything else.
    Other(fn(&Path)),
}

use Damage::{Delete, Drop, Other, Set, Write as Put};

const CONFIG: &str = "config.json";
const GENERATION: &str = "generation_config.json";
const PREPROCESSOR: &str = "preprocessor_config.json";
const TOKENIZER: &str = "tokenizer.json";
const INDEX: &str = "model.safetensors.index.json";
const FIRST: &str = "model-00001-of-00002.safetensors";
const SECOND: &str = "model-00002-of-00002.safetensors";

#[tokio::test]
async fn each_broken_checkpoint_says_what_is_wrong() {
    let server = Server::start();
    let mut wrong = String::new();
    for (name, damage, expected) in CHECKPOINTS {
        let folder = nano_copy();
        damage.apply(folder.path());
        let device = Device::open("auto").unwrap();
        let found = match Model::load(&Source::folder(folder.path()), &device, &|_| {}) {
            Ok(_) => "it loads".to_owned(),
            Err(error) => error.to_string().replace(&folder.path().display().to_string(), "FOLDER"),
        };
        if found != *expected || found.contains('\n') {
            let _ = writeln!(wrong, "{name}\n   found: {found}\nexpected: {expected}");
        }
    }
    assert!(wrong.is_empty(), "of {} checkpoints:\n{wrong}", CHECKPOINTS.len());
    server.still_answers().await;
}

/// Weights can be noise of any kind: what they say means nothing then, but it is said without a fault.
#[tokio::test]
async fn weights_that_are_no_numbers_give_an_answer_all_the_same() {
    let folder = nano_copy();
    for file in [FIRST, SECOND] {
        let mut bytes = fs::read(folder.path().join(file)).unwrap();
        let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        // Every bf16 becomes NaN.
        bytes[header..].fill(0xff);
        fs::write(folder.path().join(file), bytes).unwrap();
    }
    let device = Device::open("auto").unwrap();
    let model = Model::load(&Source::folder(folder.path()), &device, &|_| {}).unwrap();
    Server::with(model).still_answers().await;
}

fn nano_copy() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(workspace().join("models/nano")).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
    }
    folder
}

impl Damage {
    fn apply(&self, folder: &Path) {
        match self {
            Set(file, pointer, json) => edit(folder, file, |root| {
                let (parent, key) = pointer.rsplit_once('/').unwrap();
                let parent = root.pointer_mut(parent).unwrap();
                let value = serde_json::from_str(json).unwrap();
                match parent {
                    Value::Array(items) => items[key.parse::<usize>().unwrap()] = value,
                    _ => parent[key] = value,
                }
            }),
            Drop(file, pointer) => edit(folder, file, |root| {
                let (parent, key) = pointer.rsplit_once('/').unwrap();
                let parent = root.pointer_mut(parent).unwrap();
                parent.as_object_mut().unwrap().shift_remove(key).unwrap();
            }),
            Put(file, bytes) => fs::write(folder.join(file), bytes).unwrap(),
            Delete(file) => fs::remove_file(folder.join(file)).unwrap(),
            Other(damage) => damage(folder),
        }
    }
}

fn edit(folder: &Path, file: &str, change: impl FnOnce(&mut Value)) {
    let path = folder.join(file);
    let mut json = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    change(&mut json);
    fs::write(path, json.to_string()).unwrap();
}

/// Replaces bytes in a weight file's header, which keeps its length.
fn rewrite(folder: &Path, file: &str, from: &str, to: &str) {
    assert_eq!(from.len(), to.len());
    let mut bytes = fs::read(folder.join(file)).unwrap();
    let at = bytes.windows(from.len()).position(|window| window == from.as_bytes()).unwrap();
    bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
    fs::write(folder.join(file), bytes).unwrap();
}

/// Keeps only the start of a file.
fn cut(folder: &Path, file: &str, len: usize) {
    let bytes = fs::read(folder.join(file)).unwrap();
    fs::write(folder.join(file), &bytes[..len]).unwrap();
}

/// What is wrong, how it became so, and what the user reads.
#[rustfmt::skip]
const CHECKPOINTS: &[(&str, Damage, &str)] = &[
    // config.json as a file.
    ("no config", Delete(CONFIG), "config.json is missing in FOLDER"),
    ("a folder in place of the config", Other(|f| { fs::remove_file(f.join(CONFIG)).unwrap(); fs::create_dir(f.join(CONFIG)).unwrap(); }), "config.json: a folder, expected a file"),
    ("an empty config", Put(CONFIG, b""), "config.json: the content is not JSON (EOF while parsing a value at line 1 column 0), expected a JSON object"),
    ("a config that is not JSON", Put(CONFIG, b"hidden_size: 64"), "config.json: the content is not JSON (expected value at line 1 column 1), expected a JSON object"),
    ("a config that is a list", Put(CONFIG, b"[64]"), "config.json: the content is [64], expected a JSON object"),
    ("a config that is not text", Put(CONFIG, b"\xff\xfe{\0}\0"), "config.json: invalid UTF-8 after byte 0, expected text"),
    ("a config as deep as the sea", Other(|f| fs::write(f.join(CONFIG), "[".repeat(200_000)).unwrap()), "config.json: the content is not JSON (recursion limit exceeded at line 1 column 128), expected a JSON object"),
    // The decoder's sizes.
    ("another model", Set(CONFIG, "/model_type", r#""qwen2_vl""#), r#"config.json: model_type is "qwen2_vl", expected "qwen2_5_vl""#),
    ("no size", Drop(CONFIG, "/hidden_size"), "config.json: hidden_size is missing, expected an integer from 1 to 65536"),
    ("a size in quotes", Set(CONFIG, "/hidden_size", r#""64""#), r#"config.json: hidden_size is "64", expected an integer from 1 to 65536"#),
    ("a size of zero", Set(CONFIG, "/hidden_size", "0"), "config.json: hidden_size is 0, expected an integer from 1 to 65536"),
    ("a negative size", Set(CONFIG, "/intermediate_size", "-152"), "config.json: intermediate_size is -152, expected an integer from 1 to 1048576"),
    ("half a size", Set(CONFIG, "/intermediate_size", "152.5"), "config.json: intermediate_size is 152.5, expected an integer from 1 to 1048576"),
    ("a size for giants", Set(CONFIG, "/hidden_size", "18446744073709551615"), "config.json: hidden_size is 18446744073709551615, expected an integer from 1 to 65536"),
    ("no layers", Set(CONFIG, "/num_hidden_layers", "0"), "config.json: num_hidden_layers is 0, expected an integer from 1 to 1024"),
    ("a list for a number", Set(CONFIG, "/num_hidden_layers", "[3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3]"), "config.json: num_hidden_layers is [3,3,3,3,3,3,3,3,3,3,3,3,3,3,3,3,3,3,3,3,3,3,3,3,3,3,3,3,3,3…, expected an integer from 1 to 1024"),
    ("heads that do not divide", Set(CONFIG, "/num_attention_heads", "5"), "config.json: num_attention_heads is 5, expected a divisor of hidden_size 64"),
    ("groups that do not divide", Set(CONFIG, "/num_key_value_heads", "3"), "config.json: num_key_value_heads is 3, expected a divisor of num_attention_heads 4"),
    ("sections that do not sum up", Set(CONFIG, "/rope_scaling/mrope_section", "[2, 3, 4]"), "config.json: rope_scaling.mrope_section is [2,3,4], expected three numbers with sum 8, half of head_dim 16"),
    ("two sections", Set(CONFIG, "/rope_scaling/mrope_section", "[4, 4]"), "config.json: rope_scaling.mrope_section is [4,4], expected three numbers with sum 8, half of head_dim 16"),
    ("no sections", Set(CONFIG, "/rope_scaling", "null"), "config.json: rope_scaling is missing, expected an object with mrope_section"),
    ("another rotary scaling", Set(CONFIG, "/rope_scaling/type", r#""yarn""#), r#"config.json: rope_scaling.type is "yarn", expected "mrope" or "default": no other rotary scaling is supported"#),
    ("a rotary base of zero", Set(CONFIG, "/rope_theta", "0"), "config.json: rope_theta is 0, expected a number from 1 to 1000000000000"),
    ("an epsilon of zero", Set(CONFIG, "/rms_norm_eps", "0"), "config.json: rms_norm_eps is 0, expected a number from 0.000000000001 to 1"),
    ("another activation", Set(CONFIG, "/hidden_act", r#""gelu""#), r#"config.json: hidden_act is "gelu", expected "silu""#),
    ("a sliding window", Set(CONFIG, "/use_sliding_window", "true"), "config.json: use_sliding_window is true, expected false: sliding windows are not supported"),
    ("neither tied nor untied", Set(CONFIG, "/tie_word_embeddings", r#""yes""#), r#"config.json: tie_word_embeddings is "yes", expected true or false"#),
    ("a vocabulary for giants", Set(CONFIG, "/vocab_size", "4294967296"), "config.json: vocab_size is 4294967296, expected an integer from 1 to 4194304"),
    ("a vocabulary smaller than the tokenizer's", Set(CONFIG, "/vocab_size", "2069"), "the tokenizer has ids up to 2069, expected less than 2069 (vocab_size in config.json)"),
    ("a context of one token", Set(CONFIG, "/max_position_embeddings", "1"), "config.json: max_position_embeddings is 1, expected an integer from 2 to 16777216"),
    ("a context for giants", Set(CONFIG, "/max_position_embeddings", "1000000000000"), "config.json: max_position_embeddings is 1000000000000, expected an integer from 2 to 16777216"),
    // The tower's sizes.
    ("no tower", Drop(CONFIG, "/vision_config"), "config.json: vision_config is missing, expected an object"),
    ("a tower that is a word", Set(CONFIG, "/vision_config", r#""big""#), r#"config.json: vision_config is "big", expected an object"#),
    ("a tower without blocks", Set(CONFIG, "/vision_config/depth", "0"), "config.json: vision_config.depth is 0, expected an integer from 1 to 1024"),
    ("a tower's heads that do not divide", Set(CONFIG, "/vision_config/num_heads", "5"), "config.json: vision_config.num_heads is 5, expected to divide hidden_size 48 into heads of a multiple of 4"),
    ("a tower's heads that can't be rotated", Set(CONFIG, "/vision_config/num_heads", "8"), "config.json: vision_config.num_heads is 8, expected to divide hidden_size 48 into heads of a multiple of 4"),
    ("patches without area", Set(CONFIG, "/vision_config/patch_size", "0"), "config.json: vision_config.patch_size is 0, expected an integer from 1 to 256"),
    ("patches for giants", Set(CONFIG, "/vision_config/patch_size", "65536"), "config.json: vision_config.patch_size is 65536, expected an integer from 1 to 256"),
    ("tokens as large as pictures", Set(CONFIG, "/vision_config/spatial_merge_size", "17"), "config.json: vision_config.spatial_merge_size is 17, expected an integer from 1 to 16"),
    ("a window smaller than a token", Set(CONFIG, "/vision_config/window_size", "27"), "config.json: vision_config.window_size is 27, expected at least 28 pixels"),
    ("a window for giants", Set(CONFIG, "/vision_config/window_size", "18446744073709551615"), "config.json: vision_config.window_size is 18446744073709551615, expected an integer from 1 to 65536"),
    ("a full block behind the last", Set(CONFIG, "/vision_config/fullatt_block_indexes", "[1, 4]"), "config.json: vision_config.fullatt_block_indexes is [1,4], expected a list of integers from 0 to 3"),
    ("a full block before the first", Set(CONFIG, "/vision_config/fullatt_block_indexes", "[-1]"), "config.json: vision_config.fullatt_block_indexes is [-1], expected a list of integers from 0 to 3"),
    ("no full blocks", Drop(CONFIG, "/vision_config/fullatt_block_indexes"), "config.json: vision_config.fullatt_block_indexes is missing, expected a list of block numbers"),
    ("a tower of another width", Set(CONFIG, "/vision_config/out_hidden_size", "128"), "config.json: vision_config.out_hidden_size is 128, expected the decoder's hidden_size 64"),
    ("grey pictures", Set(CONFIG, "/vision_config/in_chans", "1"), "config.json: vision_config.in_chans is 1, expected 3"),
    ("a clip without time", Set(CONFIG, "/vision_config/tokens_per_second", "0"), "config.json: vision_config.tokens_per_second is 0, expected an integer from 1 to 1000"),
    // Token ids.
    ("no picture token", Drop(CONFIG, "/image_token_id"), "config.json: image_token_id is missing, expected an integer from 0 to 2175"),
    ("another picture token", Set(CONFIG, "/image_token_id", "5"), "config.json: image_token_id is 5, expected the tokenizer's <|image_pad|>, which has id 2060"),
    ("a picture token outside", Set(CONFIG, "/image_token_id", "151655"), "config.json: image_token_id is 151655, expected an integer from 0 to 2175"),
    ("the picture's token for clips", Set(CONFIG, "/video_token_id", "2060"), "config.json: video_token_id is 2060, expected the tokenizer's <|video_pad|>, which has id 2061"),
    ("no end token", Other(|f| { edit(f, CONFIG, |c| c["eos_token_id"] = Value::Null); fs::remove_file(f.join(GENERATION)).unwrap(); }), "generation_config.json: eos_token_id is missing, expected the ids of the tokens that end an answer"),
    ("an empty list of end tokens", Set(GENERATION, "/eos_token_id", "[]"), "generation_config.json: eos_token_id is [], expected an integer from 0 to 2175, or a list of such"),
    ("an end token outside", Set(GENERATION, "/eos_token_id", "[2050, 2176]"), "generation_config.json: eos_token_id is [2050,2176], expected an integer from 0 to 2175, or a list of such"),
    ("an end token in words", Set(GENERATION, "/eos_token_id", r#""<|im_end|>""#), r#"generation_config.json: eos_token_id is "<|im_end|>", expected an integer from 0 to 2175, or a list of such"#),
    // Sampling and preprocessing.
    ("a generation config that is not JSON", Put(GENERATION, b"{"), "generation_config.json: the content is not JSON (EOF while parsing an object at line 1 column 1), expected a JSON object"),
    ("a temperature below zero", Set(GENERATION, "/temperature", "-1"), "generation_config.json: temperature is -1, expected a number from 0 to 1000"),
    ("no probability at all", Set(GENERATION, "/top_p", "0"), "generation_config.json: top_p is 0, expected a number from 0.000001 to 1"),
    ("a penalty of zero", Set(GENERATION, "/repetition_penalty", "0"), "generation_config.json: repetition_penalty is 0, expected a number from 0.001 to 1000"),
    ("sampling perhaps", Set(GENERATION, "/do_sample", r#""perhaps""#), r#"generation_config.json: do_sample is "perhaps", expected true or false"#),
    ("a preprocessor that is a list", Put(PREPROCESSOR, b"[]"), "preprocessor_config.json: the content is [], expected a JSON object"),
    ("a deviation of zero", Set(PREPROCESSOR, "/image_std/1", "0"), "preprocessor_config.json: image_std is [0.26862954,0,0.27577711], expected three numbers from 0.000001 to 1000"),
    ("a mean of two colours", Set(PREPROCESSOR, "/image_mean", "[0.5, 0.5]"), "preprocessor_config.json: image_mean is [0.5,0.5], expected three numbers from -1000 to 1000"),
    ("patches of another size", Set(PREPROCESSOR, "/patch_size", "16"), "preprocessor_config.json: patch_size is 16, expected 14 as vision_config in config.json says"),
    // The tokenizer.
    ("a tokenizer that is not JSON", Put(TOKENIZER, b"{\"version\": \"1.0\""), "tokenizer.json: the content is not JSON (EOF while parsing an object at line 1 column 17)"),
    ("a tokenizer as deep as the sea", Other(|f| fs::write(f.join(TOKENIZER), "{\"a\":".repeat(200_000)).unwrap()), "tokenizer.json: the content is not JSON (recursion limit exceeded at line 1 column 636)"),
    ("a tokenizer with another normalizer", Set(TOKENIZER, "/normalizer/type", r#""NFKC""#), r#"tokenizer.json: normalizer is {"type":"NFKC"}, expected NFC"#),
    ("a tokenizer that splits otherwise", Set(TOKENIZER, "/pre_tokenizer/pretokenizers/0/pattern/Regex", r#""\\s+""#), r#"tokenizer.json: pre_tokenizer has {"type":"Split","pattern":{"Regex":"\\s+"},"behavior":"Isolated","invert":false}, expected Qwen2.5's Split"#),
    ("a tokenizer that puts a space before", Set(TOKENIZER, "/pre_tokenizer/pretokenizers/1/add_prefix_space", "true"), r#"tokenizer.json: pre_tokenizer has {"type":"ByteLevel","add_prefix_space":true,"trim_offsets":false,"use_regex":false}, expected ByteLevel without prefix and regex"#),
    ("a tokenizer of words", Set(TOKENIZER, "/model/type", r#""WordPiece""#), r#"tokenizer.json: model.type is "WordPiece", expected "BPE""#),
    ("a tokenizer without a byte", Drop(TOKENIZER, "/model/vocab/!"), "tokenizer.json: model.vocab has no token '!': every byte needs one"),
    ("two tokens of one id", Set(TOKENIZER, "/model/vocab/a", "1"), r#"tokenizer.json: token "a" has id 1, which another one has too"#),
    ("an id for giants", Set(TOKENIZER, "/model/vocab/a", "4294967295"), r#"tokenizer.json: token "a" has id 4294967295, expected a number up to 4194304"#),
    ("a merge of nothing", Set(TOKENIZER, "/model/merges/0", r#""qqq zzz""#), r#"tokenizer.json: merge 0 is "qqq zzz", expected two tokens of the vocabulary that make a third"#),
    ("a merge of three", Set(TOKENIZER, "/model/merges/1", r#"["a", "b", "c"]"#), r#"tokenizer.json: merge 1 is ["a","b","c"], expected two tokens of the vocabulary that make a third"#),
    ("merges that are an object", Set(TOKENIZER, "/model/merges", "{}"), "tokenizer.json: model.merges is {}, expected a list"),
    ("added tokens that are a text", Set(TOKENIZER, "/added_tokens", r#""<|im_end|>""#), "tokenizer.json: added_tokens is not a list"),
    ("an added token without a name", Drop(TOKENIZER, "/added_tokens/0/content"), r#"tokenizer.json: an added token needs content and special, found {"id":2048,"single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":true}"#),
    ("a tokenizer without turns", Set(TOKENIZER, "/added_tokens/1/content", r#""<|turn|>""#), "the tokenizer has no added token <|im_start|>, which the chat template needs"),
    ("a tokenizer without pictures", Set(TOKENIZER, "/added_tokens/12/content", r#""<|picture|>""#), "config.json: image_token_id is 2060, expected the tokenizer's <|image_pad|>, which has no id"),
    ("no tokenizer", Other(|f| for file in [TOKENIZER, "vocab.json"] { fs::remove_file(f.join(file)).unwrap() }), "vocab.json: the checkpoint has neither this file nor tokenizer.json"),
    ("a folder in place of the tokenizer", Other(|f| { fs::remove_file(f.join(TOKENIZER)).unwrap(); fs::create_dir(f.join(TOKENIZER)).unwrap(); }), "tokenizer.json: a folder, expected a file"),
    ("merges that are none", Other(|f| { fs::remove_file(f.join(TOKENIZER)).unwrap(); fs::write(f.join("merges.txt"), "abc").unwrap(); }), r#"vocab.json and merges.txt: merge 0 is "abc", expected two tokens of the vocabulary that make a third"#),
    // The weights. `crates/weights/tests` knows many more.
    ("no folder", Other(|f| fs::remove_dir_all(f).unwrap()), "FOLDER: does not exist, expected a folder that holds a checkpoint"),
    ("no weights", Other(|f| for file in [INDEX, FIRST, SECOND] { fs::remove_file(f.join(file)).unwrap() }), "FOLDER: found no weights, expected model.safetensors, or model.safetensors.index.json and its files"),
    ("no index", Delete(INDEX), "FOLDER: found a safetensors file without its index (model-00001-of-00002.safetensors), expected model.safetensors, or model.safetensors.index.json and its files"),
    ("an index that is not JSON", Put(INDEX, b"model.safetensors"), "model.safetensors.index.json: expected value at line 1 column 1, expected a JSON object with a weight_map from tensor names to file names"),
    ("an index that leaves the folder", Set(INDEX, "/weight_map/lm_head.weight", r#""../../../etc/passwd""#), r#"lm_head.weight in model.safetensors.index.json: file "../../../etc/passwd", expected the name of a file in the same folder"#),
    ("an index of another model", Set(INDEX, "/weight_map", r#"{"transformer.wte.weight": "model-00001-of-00002.safetensors"}"#), "transformer.wte.weight in model-00001-of-00002.safetensors: no such tensor, expected one, as model.safetensors.index.json says"),
    ("a file too few", Delete(SECOND), "model-00002-of-00002.safetensors: no such file, expected the file that model.safetensors.index.json names for lm_head.weight"),
    ("an empty file", Put(SECOND, b""), "model-00002-of-00002.safetensors: empty, expected a safetensors file"),
    ("a file that is a web page", Put(SECOND, b"<!DOCTYPE html><html>Not found</html>"), "model-00002-of-00002.safetensors: a web page, expected a safetensors file"),
    ("a cut file", Other(|f| cut(f, SECOND, 100_000)), "model-00002-of-00002.safetensors: 100000 bytes, expected 506896 bytes as its header says: it was cut, or something was appended"),
    ("a file cut in its header", Other(|f| cut(f, FIRST, 100)), "model-00001-of-00002.safetensors: 100 bytes, expected more than 6320 bytes, for its header alone has 6312: it was cut"),
    ("a tensor of integers", Other(|f| rewrite(f, SECOND, r#""dtype":"BF16""#, r#""dtype":"I16" "#)), "model.layers.0.mlp.gate_proj.weight in model-00002-of-00002.safetensors: dtype I16, expected BF16, F16 or F32"),
    ("more layers than there are", Set(CONFIG, "/num_hidden_layers", "4"), "model.layers.3.input_layernorm.weight in model.safetensors.index.json: no such tensor, expected one of shape [64] (config.json says num_hidden_layers 4 and hidden_size 64)"),
    ("fewer layers than there are", Set(CONFIG, "/num_hidden_layers", "2"), "12 tensors that the model does not have: model.layers.2.input_layernorm.weight in model-00002-of-00002.safetensors, model.layers.2.mlp.down_proj.weight in model-00002-of-00002.safetensors, model.layers.2.mlp.gate_proj.weight in model-00002-of-00002.safetensors and 9 more, expected no surplus tensor"),
    ("a vocabulary larger than the table", Set(CONFIG, "/vocab_size", "4194304"), "model.embed_tokens.weight in model-00001-of-00002.safetensors: shape [2176, 64], expected [4194304, 64] (config.json says vocab_size 4194304 and hidden_size 64)"),
    ("a wider decoder", Set(CONFIG, "/intermediate_size", "1048576"), "model.layers.0.mlp.gate_proj.weight in model-00002-of-00002.safetensors: shape [152, 64], expected [1048576, 64] (config.json says hidden_size 64 and intermediate_size 1048576)"),
    ("a deeper tower", Set(CONFIG, "/vision_config/depth", "1024"), "visual.blocks.4.norm1.weight in model.safetensors.index.json: no such tensor, expected one of shape [48] (config.json says vision depth 1024 and hidden_size 48)"),
    ("larger patches", Other(|f| { edit(f, CONFIG, |c| c["vision_config"]["patch_size"] = 16.into()); fs::remove_file(f.join(PREPROCESSOR)).unwrap(); }), "visual.patch_embed.proj.weight in model-00001-of-00002.safetensors: shape [48, 3, 2, 14, 14], expected [48, 3, 2, 16, 16] (config.json says vision hidden_size 48, patch_size 16 and temporal_patch_size 2)"),
];
