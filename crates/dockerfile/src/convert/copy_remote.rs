//! Sources of `ADD` that are somewhere else: repositories and downloads.

use super::base::DESCRIPTION_COMMAND;
use super::error::ConvertError;
use crate::error::Error;
use crate::git_ref;
use crate::path::base;
use kiln_llb::{Constraints, FileInfo, GitSource, HttpSource, State};
use kiln_oci::Digest;

/// The name of a download whose address has none.
const UNNAMED: &str = "__unnamed__";

/// One source that may be remote.
pub(super) struct Remote<'a> {
    pub(super) path: &'a str,
    pub(super) is_add: bool,
    /// Name and place of the step.
    pub(super) step: Constraints,
    pub(super) unpack: Option<bool>,
}

impl Remote<'_> {
    /// The state of a repository, if it is one. What the reference says must not contradict the flags,
    /// and holds for further sources.
    pub(super) fn git(
        &self,
        keep_git_dir: &mut Option<bool>,
        checksum: &mut String,
    ) -> Result<Option<State>, Error> {
        let git = match git_ref::parse(self.path)? {
            Some(git) if !git.indistinguishable_from_local => git,
            _ => return Ok(None),
        };
        if !self.is_add {
            return Err(ConvertError::GitForCopy.into());
        }
        match (*keep_git_dir, git.keep_git_dir) {
            (Some(flag), Some(reference)) if flag != reference => return Err(ConvertError::KeepGitDir.into()),
            (_, Some(reference)) => *keep_git_dir = Some(reference),
            _ => {}
        }
        if !git.checksum.is_empty() {
            if !checksum.is_empty() && *checksum != git.checksum {
                let (flag, reference) = (checksum.clone(), git.checksum);
                return Err(ConvertError::ChecksumMismatch { flag, reference }.into());
            }
            checksum.clone_from(&git.checksum);
        }
        let source = GitSource {
            keep_git_dir: *keep_git_dir == Some(true),
            checksum: checksum.clone(),
            // How times are set can be said for contexts only.
            mtime: String::new(),
            ..git.source()
        };
        Ok(Some(State::git(&git.remote, source, self.step.clone())))
    }

    /// The state of a download, the name of its file, and whether it is to be unpacked.
    pub(super) fn http(&self, checksum: &str) -> Result<(State, String, bool), Error> {
        if !self.is_add {
            return Err(ConvertError::UrlForCopy.into());
        }
        let filename = http_filename(self.path);
        let constraints = self.step.clone().description(DESCRIPTION_COMMAND, "");
        let state = State::http(self.path, http_source(&filename, checksum)?, constraints);
        Ok((state, filename, self.unpack.unwrap_or(false)))
    }
}

pub(super) fn http_source(filename: &str, checksum: &str) -> Result<HttpSource, Error> {
    let checksum = if checksum.is_empty() { None } else { Some(Digest::parse(checksum)?) };
    let file = FileInfo { filename: filename.to_owned(), ..FileInfo::default() };
    Ok(HttpSource { file, checksum, ..HttpSource::default() })
}

/// The name that a download gets: the last part of the address' path.
pub(super) fn http_filename(url: &str) -> String {
    let path = git_ref::url_path(url).unwrap_or_default();
    match base(&path) {
        "." | "/" => UNNAMED.to_owned(),
        name => name.to_owned(),
    }
}

pub(super) fn is_git(path: &str) -> bool {
    matches!(git_ref::parse(path), Ok(Some(_)))
}

/// An address that ends in `.git` is a repository, not a download.
pub(super) fn is_http(path: &str) -> bool {
    (path.starts_with("http://") || path.starts_with("https://")) && !is_git(path)
}
