//! The one error of this crate. Each message names the thing, its file, what was found and what was expected.

/// Why a checkpoint can't be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The folder itself can't be used.
    #[error("{folder}: {found}, expected a folder that holds a checkpoint")]
    Folder {
        /// The folder, as it was given.
        folder: String,
        /// What was there instead.
        found: String,
    },
    /// The folder is there, but not in the layout that we read.
    #[error(
        "{folder}: found {found}, expected model.safetensors, or model.safetensors.index.json and its files"
    )]
    Layout {
        /// The folder, as it was given.
        folder: String,
        /// What was there instead: nothing, or another format by its name.
        found: String,
    },
    /// A file can't be read, or its content is not what its name promises.
    #[error("{file}: {found}, expected {expected}")]
    File {
        /// The name of the file.
        file: String,
        /// What was there.
        found: String,
        /// What should be there.
        expected: String,
    },
    /// What a file says of one tensor contradicts itself, the file, or another file.
    #[error("{tensor} in {file}: {found}, expected {expected}")]
    Entry {
        /// The name of the tensor.
        tensor: String,
        /// The file that says so.
        file: String,
        /// What it says.
        found: String,
        /// What it should say.
        expected: String,
    },
    /// A tensor that the model asks for is in no file.
    #[error("{tensor} in {file}: no such tensor, expected one of shape {expected:?}{}", in_brackets(.reason))]
    Missing {
        /// The name of the tensor.
        tensor: String,
        /// Where it was looked for: the index, or the only file.
        file: String,
        /// The shape that the model needs.
        expected: Vec<usize>,
        /// Why the model needs it, for instance `config.json says hidden_size 2048`.
        reason: Option<Box<str>>,
    },
    /// No tensor lies under any of the names that a part of the model is known by.
    #[error("{file}: no tensor is called {}", any_of(.tried))]
    MissingScope {
        /// Where it was looked for: the index, or the only file.
        file: String,
        /// The prefixes that were tried.
        tried: Vec<String>,
    },
    /// A tensor has another shape than the model asks for.
    #[error("{tensor} in {file}: shape {found:?}, expected {expected:?}{}", in_brackets(.reason))]
    Shape {
        /// The name of the tensor.
        tensor: String,
        /// The file that holds it.
        file: String,
        /// The shape that is stored.
        found: Vec<usize>,
        /// The shape that the model needs.
        expected: Vec<usize>,
        /// Why the model needs it, for instance `config.json says hidden_size 2048`.
        reason: Option<Box<str>>,
    },
    /// A tensor is stored in a type that the model can't compute with.
    #[error("{tensor} in {file}: dtype {found}, expected BF16, F16 or F32")]
    Dtype {
        /// The name of the tensor.
        tensor: String,
        /// The file that holds it.
        file: String,
        /// The type that is stored.
        found: String,
    },
    /// The files hold tensors that the model never asked for: they belong to another model.
    #[error("{}", surplus(*.count, .first))]
    Surplus {
        /// How many.
        count: usize,
        /// Some of them, each with its file.
        first: Vec<String>,
    },
    /// The tensor library refused.
    #[error(transparent)]
    Kernel(#[from] ocellus_kernels::Error),
}

/// What this crate returns.
pub type Result<T> = std::result::Result<T, Error>;

/// `text` as it may stand in a message: one line, no control or invisible characters, and not too long, for
/// it can come from a file that anyone may have written.
pub(crate) fn shown(text: &str) -> String {
    const LONGEST: usize = 240;
    let mut line = String::new();
    for (position, character) in text.chars().enumerate() {
        if position == LONGEST {
            line.push('…');
            break;
        }
        match character {
            '"' | '\'' | '\\' => line.push(character),
            _ => line.extend(character.escape_debug()),
        }
    }
    line
}

fn in_brackets(reason: &Option<Box<str>>) -> String {
    reason.as_ref().map(|reason| format!(" ({reason})")).unwrap_or_default()
}

fn any_of(prefixes: &[String]) -> String {
    let names: Vec<String> = prefixes.iter().map(|prefix| format!("{prefix}.*")).collect();
    names.join(" or ")
}

fn surplus(count: usize, first: &[String]) -> String {
    let names = first.join(", ");
    let more = match count.saturating_sub(first.len()) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let tensors = if count == 1 { "1 tensor" } else { &format!("{count} tensors") };
    format!("{tensors} that the model does not have: {names}{more}, expected no surplus tensor")
}
