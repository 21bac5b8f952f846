//! What `--model` means: a folder, a repository on a hub, or a hosted model's name, and the folder that it comes to.
//!
//! A folder that is there wins. A repository whose snapshot is whole in the cache is served from there without any
//! request, so that a server starts the same with and without a network, and serves tomorrow what it served today;
//! `ocellus pull` looks for something newer. Only what is not there is fetched.

use std::{
    io::Write,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, anyhow, bail};
use ocellus_pull::{BeforeWeights, Error, Options, RepositoryName, Settings, Snapshot, cached, pull};

use crate::pull::Display;

/// The hosted service's names of the published models, and where their weights are.
const HOSTED: &str = include_str!("../../../models/repositories.json");

/// What was meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Meant {
    /// A folder, whether it is there or not.
    Folder(PathBuf),
    /// A repository.
    Repository(RepositoryName),
}

impl Meant {
    /// Tells a folder from a name.
    ///
    /// # Errors
    /// What is wrong with a name that is neither.
    pub(crate) fn new(model: &Path) -> anyhow::Result<Self> {
        let text = match model.to_str() {
            Some(text) if !model.exists() && !looks_like_a_path(text) => text,
            _ => return Ok(Self::Folder(model.to_owned())),
        };
        let (name, revision) =
            text.split_once('@').map_or((text, None), |(name, revision)| (name, Some(revision)));
        let hosted = hosted_names()?;
        if let Some((_, repository)) = hosted.iter().find(|(hosted, _)| hosted.eq_ignore_ascii_case(name)) {
            let text =
                revision.map_or_else(|| repository.clone(), |revision| format!("{repository}@{revision}"));
            return Ok(Self::Repository(text.parse().map_err(|reason| anyhow!("{text:?}: {reason}"))?));
        }
        if !name.contains('/') {
            let names: Vec<_> = hosted.iter().map(|(name, _)| name.as_str()).collect();
            bail!(
                "{text:?} is no folder here and no model's name: expected the folder of a checkpoint, owner/name of a repository, or one of {}",
                names.join(", ")
            );
        }
        match text.parse() {
            Ok(name) => Ok(Self::Repository(name)),
            Err(reason) => bail!("{text:?} is no folder here, and no repository: {reason}"),
        }
    }

    /// The folder with the files. What is in no cache is fetched, unless `forbidden` says what forbids that, or
    /// `before_weights` finds that it is of no use here.
    pub(crate) fn folder(
        &self,
        forbidden: Option<&str>,
        before_weights: Option<Arc<BeforeWeights>>,
    ) -> anyhow::Result<PathBuf> {
        let name = match self {
            Self::Folder(folder) => return Ok(folder.clone()),
            Self::Repository(name) => name,
        };
        let mut settings = Settings::from_environment()?;
        settings.offline = forbidden.map(str::to_owned).or(settings.offline);
        if let Some(Snapshot { folder, commit }) = cached(name, &settings) {
            tell(&format!(
                "model: {name} at commit {commit:.12}, from the cache; `ocellus pull {name}` looks for a newer one"
            ));
            return Ok(folder);
        }
        let display = Display::new(name);
        let options = Options { progress: display.clone().listener(), before_weights, ..Options::default() };
        let pulled = pull(name, &settings, &options);
        display.finish();
        match pulled {
            Ok(snapshot) => Ok(snapshot.folder),
            Err(error @ Error::Declined(_)) => {
                Err(anyhow::Error::from(error).context(format!("the weights of {name} are not fetched")))
            }
            Err(error) => Err(error)
                .with_context(|| format!("no folder is called {}; as a repository", name.repository())),
        }
    }
}

/// Writes a line for people. That nobody reads it is no reason to stop.
pub(crate) fn tell(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// A name has one slash at most, and neither begins nor ends like a path.
fn looks_like_a_path(text: &str) -> bool {
    text.is_empty()
        || text.starts_with(['.', '/', '~', '\\'])
        || text.ends_with('/')
        || text.contains('\\')
        || text.split('@').next().unwrap_or_default().matches('/').count() > 1
}

fn hosted_names() -> anyhow::Result<Vec<(String, String)>> {
    let table: serde_json::Map<String, serde_json::Value> =
        serde_json::from_str(HOSTED).context("models/repositories.json")?;
    let pairs = table.into_iter().map(|(name, repository)| {
        let repository = repository.as_str().map(str::to_owned);
        repository.map(|repository| (name, repository)).context("models/repositories.json: not a text")
    });
    pairs.collect()
}

/// The names under which a server answers: what was typed without the revision, and what else people may write.
pub(crate) fn names(model: &Path) -> Option<(String, Vec<String>)> {
    let Ok(Meant::Repository(name)) = Meant::new(model) else { return None };
    let typed = model.to_str()?.split('@').next()?.to_owned();
    let mut others = vec![name.repository(), name.name().to_owned()];
    others.retain(|other| *other != typed);
    Some((typed, others))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn repository(text: &str, expected: &str) {
        match Meant::new(Path::new(text)).unwrap() {
            Meant::Repository(name) => assert_eq!(name.to_string(), expected, "{text}"),
            Meant::Folder(folder) => panic!("{text}: {}", folder.display()),
        }
    }

    #[test]
    fn repositories_and_hosted_names() {
        repository("Qwen/Qwen2.5-VL-3B-Instruct", "Qwen/Qwen2.5-VL-3B-Instruct");
        repository("a/b@v1", "a/b@v1");
        repository("a/b@refs/pr/1", "a/b@refs/pr/1");
        repository("qwen2.5-vl-7b-instruct", "Qwen/Qwen2.5-VL-7B-Instruct");
        repository("Qwen2.5-VL-72B-Instruct@v2", "Qwen/Qwen2.5-VL-72B-Instruct@v2");
        assert_eq!(hosted_names().unwrap().len(), 4);
        let names = names(Path::new("qwen2.5-vl-3b-instruct@main")).unwrap();
        let others = ["Qwen/Qwen2.5-VL-3B-Instruct", "Qwen2.5-VL-3B-Instruct"].map(str::to_owned);
        assert_eq!(names, ("qwen2.5-vl-3b-instruct".to_owned(), others.to_vec()));
    }

    #[test]
    fn folders_win_and_paths_stay_paths() {
        // Tests run in the crate's folder.
        for text in
            ["src", "src/find.rs", "./nothing", "/nothing", "~/nothing", "a/b/c", "a/b/", "..", "a\\b", ""]
        {
            assert_eq!(Meant::new(Path::new(text)).unwrap(), Meant::Folder(text.into()), "{text}");
        }
    }

    #[test]
    fn what_is_neither_is_explained() {
        let refused = |text: &str, part: &str| {
            let message = Meant::new(Path::new(text)).unwrap_err().to_string();
            assert!(message.contains(part), "{text}: {message}");
        };
        refused("qwen2.5-vl-8b-instruct", "qwen2.5-vl-7b-instruct");
        refused("nothing", "is no folder here and no model's name");
        refused("a/..b", "no repository: expected owner/name");
        refused("a/b@", "as revision");
        refused("a/b c", "no repository");
    }
}
