//! The name of a repository on a hub, and which of its revisions is meant: `owner/name` or `owner/name@revision`.

use std::{fmt, str::FromStr};

/// The longest name of a repository that a hub allows.
const LONGEST_NAME: usize = 96;
/// The longest name of a revision that is taken; git has no bound of its own.
const LONGEST_REVISION: usize = 200;
/// The revision that is meant when none is named.
const DEFAULT_REVISION: &str = "main";

/// A repository and a revision of it, both of them checked: they can be parts of paths and of URLs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepositoryName {
    owner: String,
    name: String,
    revision: String,
}

impl RepositoryName {
    /// `owner/name`, without the revision.
    pub fn repository(&self) -> String {
        format!("{}/{}", self.owner, self.name)
    }

    /// The part after the owner.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A branch, a tag, or a commit.
    pub fn revision(&self) -> &str {
        &self.revision
    }

    /// The same repository at another revision.
    ///
    /// # Errors
    /// What is wrong with the revision's name.
    pub fn at(self, revision: &str) -> Result<Self, String> {
        check_revision(revision)?;
        Ok(Self { revision: revision.to_owned(), ..self })
    }

    /// What the repository's folder in the cache is called.
    pub(crate) fn folder(&self) -> String {
        format!("models--{}--{}", self.owner, self.name)
    }
}

impl FromStr for RepositoryName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (repository, revision) = text.split_once('@').unwrap_or((text, DEFAULT_REVISION));
        let Some((owner, name)) = repository.split_once('/') else {
            return Err("expected owner/name, with @revision behind it if need be".to_owned());
        };
        if !is_part(owner) || !is_part(name) || repository.len() > LONGEST_NAME {
            return Err(format!(
                "expected owner/name of letters, digits and single `-`, `_` or `.` between them, at most {LONGEST_NAME} characters"
            ));
        }
        Self { owner: owner.to_owned(), name: name.to_owned(), revision: DEFAULT_REVISION.to_owned() }
            .at(revision)
    }
}

impl fmt::Display for RepositoryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.owner, self.name)?;
        if self.revision == DEFAULT_REVISION { Ok(()) } else { write!(f, "@{}", self.revision) }
    }
}

/// The hub's own rule. Two dashes stand between owner and name in the cache's folder, so no part may have them.
fn is_part(text: &str) -> bool {
    let inside = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let outside = |c: char| c == '-' || c == '.';
    !text.is_empty()
        && text.chars().all(inside)
        && !text.starts_with(outside)
        && !text.ends_with(outside)
        && !text.contains("--")
        && !text.contains("..")
}

/// Git allows more, but a revision becomes the path of a file below `refs`.
fn check_revision(text: &str) -> Result<(), String> {
    let is_step = |step: &str| {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '+');
        !step.is_empty()
            && !step.starts_with(['.', '-'])
            && !step.ends_with(".lock")
            && !step.contains("..")
            && step.chars().all(plain)
    };
    if text.len() <= LONGEST_REVISION && text.split('/').all(is_step) {
        return Ok(());
    }
    Err(format!(
        "expected a branch, a tag or a commit as revision: letters, digits, `-`, `_`, `.`, `+` and `/`, at most {LONGEST_REVISION} characters"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, repository: &str, revision: &str) {
        let name: RepositoryName = text.parse().unwrap();
        assert_eq!((name.repository().as_str(), name.revision()), (repository, revision), "{text}");
    }

    #[test]
    fn repositories_with_and_without_revision() {
        check("Qwen/Qwen2.5-VL-3B-Instruct", "Qwen/Qwen2.5-VL-3B-Instruct", "main");
        check("a/b@v1.0", "a/b", "v1.0");
        check("a/b@refs/pr/1", "a/b", "refs/pr/1");
        check(&format!("a/b@{}", "0".repeat(40)), "a/b", &"0".repeat(40));
        let name: RepositoryName = "a/b-c_d.e".parse().unwrap();
        assert_eq!(name.folder(), "models--a--b-c_d.e");
        assert_eq!(name.to_string(), "a/b-c_d.e");
        assert_eq!(name.at("x").unwrap().to_string(), "a/b-c_d.e@x");
    }

    #[test]
    fn what_could_leave_the_cache_is_refused() {
        let long = format!("a/{}", "b".repeat(95));
        for wrong in [
            "", "a", "/", "a/", "/b", "a/b/c", "../b", "a/..", "a/.b", "a/b.", "-a/b", "a--b/c", "a/b--c",
            "a/b..c", "a/b c", "a/b\\c", "a/b\0", "ä/b", "a/b?c", "a/b#c", "a/b%2f", &long,
        ] {
            assert!(wrong.parse::<RepositoryName>().is_err(), "{wrong:?}");
        }
        for wrong in [
            "", "/", "a/", "/a", "a//b", "..", "a/../b", ".git", "a/.b", "a..b", "-a", "a b", "a\nb",
            "a.lock",
        ] {
            assert!(format!("a/b@{wrong}").parse::<RepositoryName>().is_err(), "{wrong:?}");
        }
    }
}
