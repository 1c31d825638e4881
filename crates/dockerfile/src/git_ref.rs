//! References to git repositories, as `ADD` and build contexts take them: a URL or the scp form, with the
//! reference, subdirectory and options in the fragment (`#ref:dir`) or the query (`?ref=…&subdir=…`).

use crate::values::{parse_bool, quote};
use kiln_llb::GitSource;
use kiln_llb::git_url::{self, GitUrl};
use thiserror::Error;

/// Why a reference to a repository is no good.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum GitRefError {
    #[error("query {} has no value", quote(.0))]
    NoValue(String),
    #[error("query {} has multiple values", quote(.0))]
    SeveralValues(String),
    #[error("unexpected query {}", quote(.0))]
    Unknown(String),
    #[error("{key} conflicts: {} vs {}", quote(.first), quote(.second))]
    Conflict { key: &'static str, first: String, second: String },
    #[error("branch conflicts with tag")]
    BranchAndTag,
    #[error("invalid {key} value: {}", quote(.value))]
    NotBool { key: &'static str, value: String },
    #[error("invalid mtime value: {} (must be \"checkout\" or \"commit\")", quote(.0))]
    Mtime(String),
}

/// A reference to a repository.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GitRef {
    /// The address for git itself.
    pub remote: String,
    /// The last part of its path, without `.git`.
    pub short_name: String,
    /// Branch, tag or commit; empty for the default.
    pub reference: String,
    /// The commit that the reference must be; empty for any.
    pub checksum: String,
    /// Empty for the whole repository.
    pub subdir: String,
    /// It could be a path as well, as in `github.com/a/b`; only contexts may be written so.
    pub indistinguishable_from_local: bool,
    /// The way to it is not encrypted.
    pub unencrypted_tcp: bool,
    pub keep_git_dir: Option<bool>,
    pub submodules: Option<bool>,
    /// `checkout` or `commit`; empty for the default.
    pub mtime: String,
    /// The checksum is fetched without asking for the reference.
    pub fetch_by_commit: bool,
}

impl GitRef {
    /// The source that it stands for, with all that it says itself.
    pub fn source(&self) -> GitSource {
        GitSource {
            reference: self.reference.clone(),
            subdir: self.subdir.clone(),
            keep_git_dir: self.keep_git_dir == Some(true),
            checksum: self.checksum.clone(),
            skip_submodules: self.submodules == Some(false),
            mtime: self.mtime.clone(),
            fetch_by_commit: self.fetch_by_commit,
            ..GitSource::default()
        }
    }
}

/// Reads a reference; `None` if the text is none.
pub fn parse(text: &str) -> Result<Option<GitRef>, GitRefError> {
    if text.starts_with("./") || text.starts_with("../") {
        return Ok(None);
    }
    let local_like = text.starts_with("github.com/");
    let address = if local_like { format!("https://{text}") } else { text.to_owned() };
    let Ok(url) = git_url::parse(&address) else { return Ok(None) };
    let is_web = matches!(url.scheme.as_str(), "http" | "https");
    if !local_like && is_web && !url.path.ends_with(".git") {
        return Ok(None);
    }
    let remote = if local_like { url.remote["https://".len()..].to_owned() } else { url.remote.clone() };
    let last = remote.rsplit('/').next().unwrap_or_default();
    let mut git = GitRef {
        short_name: last.strip_suffix(".git").unwrap_or(last).to_owned(),
        indistinguishable_from_local: local_like,
        unencrypted_tcp: !local_like && matches!(url.scheme.as_str(), "http" | "git"),
        ..GitRef::default()
    };
    git.remote = remote;
    if let Some(fragment) = &url.fragment {
        git.reference.clone_from(&fragment.reference);
        git.subdir.clone_from(&fragment.subdir);
    }
    git.read_query(&url)?;
    Ok(Some(git))
}

/// The decoded path of an address, if it is one.
pub(crate) fn url_path(url: &str) -> Option<String> {
    git_url::parse(url).ok().map(|url| url.path)
}

impl GitRef {
    fn read_query(&mut self, url: &GitUrl) -> Result<(), GitRefError> {
        let (mut tag, mut branch) = (None, None);
        for (key, values) in &url.query {
            let value = match values.as_slice() {
                [value] if value.is_empty() => None,
                [value] => Some(value.as_str()),
                [] => None,
                _ => return Err(GitRefError::SeveralValues(key.clone())),
            };
            let switch = |key: &'static str| match value {
                None => Ok(true),
                Some(word) => {
                    parse_bool(word).ok_or_else(|| GitRefError::NotBool { key, value: word.to_owned() })
                }
            };
            match key.as_str() {
                "keep-git-dir" => self.keep_git_dir = Some(switch("keep-git-dir")?),
                "submodules" => self.submodules = Some(switch("submodules")?),
                "fetch-by-commit" => self.fetch_by_commit = switch("fetch-by-commit")?,
                _ => {
                    let value = value.ok_or_else(|| GitRefError::NoValue(key.clone()))?;
                    match key.as_str() {
                        "ref" => set("ref", &mut self.reference, value)?,
                        "subdir" => set("subdir", &mut self.subdir, value)?,
                        "checksum" | "commit" => value.clone_into(&mut self.checksum),
                        "mtime" if matches!(value, "checkout" | "commit") => {
                            value.clone_into(&mut self.mtime)
                        }
                        "mtime" => return Err(GitRefError::Mtime(value.to_owned())),
                        "tag" => tag = Some(full_name("refs/tags/", value)),
                        "branch" => branch = Some(full_name("refs/heads/", value)),
                        _ => return Err(GitRefError::Unknown(key.clone())),
                    }
                }
            }
        }
        if let Some(tag) = &tag {
            set("ref", &mut self.reference, tag)?;
        }
        match branch {
            Some(_) if tag.is_some() => Err(GitRefError::BranchAndTag),
            Some(branch) => set("ref", &mut self.reference, &branch),
            None => Ok(()),
        }
    }
}

/// Sets what must not be said in two ways.
fn set(key: &'static str, known: &mut String, value: &str) -> Result<(), GitRefError> {
    if !known.is_empty() && known != value {
        return Err(GitRefError::Conflict { key, first: known.clone(), second: value.to_owned() });
    }
    value.clone_into(known);
    Ok(())
}

fn full_name(prefix: &str, name: &str) -> String {
    if name.starts_with(prefix) { name.to_owned() } else { format!("{prefix}{name}") }
}

/// A shorter form of a reference, with everything in the fragment; `None` if the text is no reference.
pub fn fragment_form(text: &str, with_subdir: bool) -> Option<String> {
    let git = parse(text).ok().flatten()?;
    let subdir = if with_subdir { crate::path::join("/", &git.subdir) } else { String::new() };
    let subdir = subdir.trim_start_matches('/');
    Some(match (git.reference.as_str(), subdir) {
        ("", "") => git.remote,
        (reference, "") => format!("{}#{reference}", git.remote),
        (reference, subdir) => format!("{}#{reference}:{subdir}", git.remote),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good(text: &str) -> GitRef {
        parse(text).expect(text).expect(text)
    }

    #[test]
    fn what_is_a_repository() {
        for text in ["https://a.b/c.git", "git@a.b:c", "ssh://git@a.b/c", "git://a.b/c", "github.com/a/b"] {
            assert!(parse(text).unwrap().is_some(), "{text}");
        }
        for text in
            ["https://a.b/c", "https://a.b/c.git/", "./a.git", "a.b/c.git", "/x", "ftp://a/b.git", "x"]
        {
            assert_eq!(parse(text), Ok(None), "{text}");
        }
    }

    #[test]
    fn fragments_and_queries() {
        let git = good("https://a.b/c.git#v1:sub/dir");
        assert_eq!(
            (git.reference.as_str(), git.subdir.as_str(), git.short_name.as_str()),
            ("v1", "sub/dir", "c")
        );
        let git = good("https://a.b/c.git?tag=v1&checksum=abc&keep-git-dir&submodules=false&mtime=commit");
        assert_eq!((git.reference.as_str(), git.checksum.as_str()), ("refs/tags/v1", "abc"));
        assert_eq!((git.keep_git_dir, git.submodules), (Some(true), Some(false)));
        let git = good("github.com/a/b#main");
        assert_eq!((git.remote.as_str(), git.reference.as_str()), ("github.com/a/b", "main"));
        assert!(git.indistinguishable_from_local);
        assert_eq!(
            fragment_form("https://a.b/c.git?branch=x&subdir=d", true).as_deref(),
            Some("https://a.b/c.git#refs/heads/x:d")
        );
    }

    #[test]
    fn bad_queries() {
        for (query, text) in [
            ("x=1", "unexpected query \"x\""),
            ("ref=", "query \"ref\" has no value"),
            ("ref=a&ref=b", "query \"ref\" has multiple values"),
            ("tag=a&branch=b", "branch conflicts with tag"),
            ("ref=a&tag=b", "ref conflicts: \"a\" vs \"refs/tags/b\""),
            ("submodules=maybe", "invalid submodules value: \"maybe\""),
            ("mtime=x", "invalid mtime value: \"x\" (must be \"checkout\" or \"commit\")"),
        ] {
            assert_eq!(parse(&format!("https://a.b/c.git?{query}")).unwrap_err().to_string(), text);
        }
        let conflict = parse("https://a.b/c.git?subdir=x#:y").unwrap_err();
        assert_eq!(conflict.to_string(), "subdir conflicts: \"y\" vs \"x\"");
    }
}
