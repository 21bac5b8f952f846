//! Where the hub and the cache are, and as whom it is asked: the variables that Python's library reads, with the same
//! meanings and the same defaults.

use std::{
    fmt, fs,
    io::Read,
    path::{Path, PathBuf},
    time::Duration,
};

use reqwest::Url;

use crate::Error;

/// The hub that is asked when `HF_ENDPOINT` names none.
const DEFAULT_ENDPOINT: &str = "https://huggingface.co";
/// Seconds without a byte after which a connection counts as broken.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);
/// No token is nearly as long.
const LONGEST_TOKEN: u64 = 4096;

/// What the environment says.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The hub, without a slash at the end.
    pub(crate) endpoint: Url,
    /// The folder of all repositories.
    pub cache: PathBuf,
    /// As whom to ask.
    pub(crate) token: Option<Token>,
    /// What forbids every request, if anything.
    pub offline: Option<String>,
    /// Whether snapshots may be links.
    pub(crate) links: bool,
    /// How long a connection may be silent.
    pub(crate) timeout: Duration,
}

/// A secret that no message shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    pub(crate) fn secret(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

impl Settings {
    /// Reads the process's environment and the file of the token.
    ///
    /// # Errors
    /// [`Error::Setting`] for an endpoint that is no URL, or a token that can't be sent.
    pub fn from_environment() -> Result<Self, Error> {
        Self::from_variables(&|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
    }

    /// The same from anywhere: `variable` gives the value of a name, never an empty one.
    ///
    /// # Errors
    /// As [`Settings::from_environment`].
    pub fn from_variables(variable: &dyn Fn(&str) -> Option<String>) -> Result<Self, Error> {
        let path = |name: &str| variable(name).map(|text| expanded(&text, variable));
        let home = path("HF_HOME").unwrap_or_else(|| {
            let cache = path("XDG_CACHE_HOME").or_else(|| Some(home_folder(variable)?.join(".cache")));
            cache.unwrap_or_else(std::env::temp_dir).join("huggingface")
        });
        let cache = path("HF_HUB_CACHE").or_else(|| path("HUGGINGFACE_HUB_CACHE"));
        let is_true = |name: &str| variable(name).is_some_and(|value| is_true(&value));
        // As in Python, the second one counts where the first is not set.
        let offline =
            ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"].into_iter().find(|name| variable(name).is_some());
        let offline = offline.filter(|name| is_true(name));
        let timeout = variable("HF_HUB_DOWNLOAD_TIMEOUT").and_then(|text| text.parse::<u64>().ok());
        let token = if is_true("HF_HUB_DISABLE_IMPLICIT_TOKEN") {
            None
        } else {
            token(variable, &path("HF_TOKEN_PATH").unwrap_or_else(|| home.join("token")))?
        };
        Ok(Self {
            endpoint: endpoint(variable("HF_ENDPOINT").as_deref().unwrap_or(DEFAULT_ENDPOINT))?,
            cache: cache.unwrap_or_else(|| home.join("hub")),
            token,
            offline: offline.map(|name| format!("{name}={}", variable(name).unwrap_or_default())),
            links: !is_true("HF_HUB_DISABLE_SYMLINKS"),
            timeout: timeout.map_or(DEFAULT_TIMEOUT, |seconds| Duration::from_secs(seconds.clamp(1, 3600))),
        })
    }

    /// The hub as a text without a slash at the end.
    pub fn endpoint(&self) -> &str {
        self.endpoint.as_str().trim_end_matches('/')
    }
}

fn endpoint(text: &str) -> Result<Url, Error> {
    let wrong = || Error::Setting {
        variable: "HF_ENDPOINT",
        // An address with a password in it must not be repeated.
        found: if text.contains('@') { "…".to_owned() } else { crate::error::shown(text) },
        expected: "the address of a hub, such as https://hub.example.org, without name or password",
    };
    let url = Url::parse(text.trim_end_matches('/')).map_err(|_| wrong())?;
    let plain = matches!(url.scheme(), "http" | "https")
        && url.has_host()
        && url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none();
    if plain { Ok(url) } else { Err(wrong()) }
}

/// The environment's token, or that of the file that Python's login writes.
fn token(variable: &dyn Fn(&str) -> Option<String>, file: &Path) -> Result<Option<Token>, Error> {
    let (name, text) = match variable("HF_TOKEN").or_else(|| variable("HUGGING_FACE_HUB_TOKEN")) {
        Some(text) => ("HF_TOKEN", text),
        None => {
            let mut text = String::new();
            // A file that is not there, or not ours to read, is no login.
            let read =
                fs::File::open(file).and_then(|file| file.take(LONGEST_TOKEN + 1).read_to_string(&mut text));
            if read.is_err() {
                return Ok(None);
            }
            ("HF_TOKEN_PATH", text)
        }
    };
    let text = text.trim();
    if text.is_empty() {
        return Ok(None);
    }
    if text.len() as u64 > LONGEST_TOKEN || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Error::Setting {
            variable: name,
            found: "…".to_owned(),
            expected: "a token of visible ASCII characters",
        });
    }
    Ok(Some(Token(text.to_owned())))
}

fn is_true(value: &str) -> bool {
    ["1", "ON", "YES", "TRUE"].contains(&value.to_uppercase().as_str())
}

fn home_folder(variable: &dyn Fn(&str) -> Option<String>) -> Option<PathBuf> {
    variable("HOME").or_else(|| variable("USERPROFILE")).map(PathBuf::from)
}

/// `~` at the start is the user's own folder.
fn expanded(text: &str, variable: &dyn Fn(&str) -> Option<String>) -> PathBuf {
    match (text.strip_prefix('~'), home_folder(variable)) {
        (Some(""), Some(home)) => home,
        (Some(rest), Some(home)) if rest.starts_with('/') => home.join(rest.trim_start_matches('/')),
        _ => PathBuf::from(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(variables: &[(&str, &str)]) -> Result<Settings, Error> {
        Settings::from_variables(&|name| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn the_cache_is_where_python_looks() {
        let cache = |variables: &[(&str, &str)]| settings(variables).unwrap().cache;
        assert_eq!(cache(&[("HOME", "/h")]), Path::new("/h/.cache/huggingface/hub"));
        assert_eq!(cache(&[("HOME", "/h"), ("XDG_CACHE_HOME", "/x")]), Path::new("/x/huggingface/hub"));
        assert_eq!(
            cache(&[("HOME", "/h"), ("HF_HOME", "~/hf"), ("XDG_CACHE_HOME", "/x")]),
            Path::new("/h/hf/hub")
        );
        let all = [("HOME", "/h"), ("HF_HOME", "/hf"), ("HUGGINGFACE_HUB_CACHE", "/old")];
        assert_eq!(cache(&all), Path::new("/old"));
        assert_eq!(cache(&[all[0], all[1], all[2], ("HF_HUB_CACHE", "/new")]), Path::new("/new"));
    }

    #[test]
    fn switches_have_pythons_spellings() {
        let offline = |variables: &[(&str, &str)]| settings(variables).unwrap().offline;
        assert_eq!(offline(&[]), None);
        assert_eq!(offline(&[("HF_HUB_OFFLINE", "0")]), None);
        assert_eq!(offline(&[("HF_HUB_OFFLINE", "yes")]).unwrap(), "HF_HUB_OFFLINE=yes");
        assert_eq!(offline(&[("TRANSFORMERS_OFFLINE", "1")]).unwrap(), "TRANSFORMERS_OFFLINE=1");
        assert_eq!(offline(&[("HF_HUB_OFFLINE", "0"), ("TRANSFORMERS_OFFLINE", "1")]), None);
        assert!(!settings(&[("HF_HUB_DISABLE_SYMLINKS", "true")]).unwrap().links);
    }

    #[test]
    fn endpoints() {
        let endpoint =
            |text: &str| settings(&[("HF_ENDPOINT", text)]).map(|settings| settings.endpoint().to_owned());
        assert_eq!(settings(&[]).unwrap().endpoint(), DEFAULT_ENDPOINT);
        assert_eq!(endpoint("http://127.0.0.1:8080/").unwrap(), "http://127.0.0.1:8080");
        assert_eq!(endpoint("https://mirror.example/hub/").unwrap(), "https://mirror.example/hub");
        for wrong in ["hub.example", "ftp://a", "https://", "https://u:secret@a", "https://a?b=c", "x"] {
            let message = endpoint(wrong).unwrap_err().to_string();
            assert!(message.starts_with("HF_ENDPOINT is ") && !message.contains("secret"), "{message}");
        }
    }

    #[test]
    fn tokens_come_from_the_environment_or_the_file_and_are_never_shown() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        fs::write(&file, "hf_file\n").unwrap();
        let path = file.to_str().unwrap();
        let token = |variables: &[(&str, &str)]| settings(variables).map(|settings| settings.token);
        let secret =
            |variables: &[(&str, &str)]| token(variables).unwrap().map(|token| token.secret().to_owned());
        assert_eq!(secret(&[("HF_TOKEN_PATH", path)]).unwrap(), "hf_file");
        assert_eq!(secret(&[("HF_TOKEN_PATH", path), ("HF_TOKEN", " hf_env ")]).unwrap(), "hf_env");
        assert_eq!(secret(&[("HF_HOME", folder.path().to_str().unwrap())]).unwrap(), "hf_file");
        assert_eq!(secret(&[("HF_HOME", "/nowhere")]), None);
        assert_eq!(secret(&[("HF_TOKEN", "hf_env"), ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")]), None);
        let message = token(&[("HF_TOKEN", "hf_a b")]).unwrap_err().to_string();
        assert!(message.contains("HF_TOKEN") && !message.contains("hf_a"), "{message}");
        let all = format!("{:?}", settings(&[("HF_TOKEN", "hf_secret")]).unwrap());
        assert!(!all.contains("hf_secret"), "{all}");
    }
}
