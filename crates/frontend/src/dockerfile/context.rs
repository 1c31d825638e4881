//! Finds the main build context and where the Dockerfile comes from.

use super::caps::is_true;
use super::opt;
use super::resolver::Service;
use crate::{Bridge, Error, FileRange, SolveRequest};
use kiln_dockerfile::git_ref;
use kiln_llb::{Constraints, CopyInfo, FileActions, FileInfo, HttpSource, State};

pub(super) const CONTEXT: &str = "context";
const DOCKERFILE: &str = "dockerfile";
const DEFAULT_FILENAME: &str = "Dockerfile";
/// How the download of a remote context is named.
const DOWNLOAD: &str = "context";
/// How much of a download is looked at to tell an archive.
const HEAD_BYTES: u64 = 1024;

/// What the options make of the context.
#[derive(Clone, Debug)]
pub(super) struct Context {
    /// Where it is, if not with the client.
    pub(super) state: Option<State>,
    /// Where the Dockerfile is, if not with the client.
    pub(super) dockerfile: Option<State>,
    /// Name of the client's directory that has the Dockerfile.
    pub(super) dockerfile_local: String,
    /// The Dockerfile's path there.
    pub(super) filename: String,
    /// The whole context is an archive that was downloaded as this.
    pub(super) archive: Option<State>,
}

impl<B: Bridge> Service<'_, B> {
    pub(super) async fn find_context(&self) -> Result<Context, Error> {
        let request = self.request;
        let key = opt(request, "contextkey").unwrap_or(CONTEXT);
        let forced = opt(request, "dockerfilekey");
        let mut context = Context {
            state: None,
            dockerfile: None,
            dockerfile_local: forced.unwrap_or(DOCKERFILE).to_owned(),
            filename: opt(request, "filename").unwrap_or(DEFAULT_FILENAME).to_owned(),
            archive: None,
        };
        let address = opt(request, key).unwrap_or_default();
        if let Some(git) = git_ref::parse(address).map_err(|error| Error::of(&error))? {
            let state = self.git_context(address, &git);
            context.dockerfile = Some(state.clone());
            context.state = Some(state);
        } else if address.starts_with("http://") || address.starts_with("https://") {
            self.http_context(address, &mut context).await?;
        } else {
            if forced.is_none() {
                context.dockerfile = self.input(&context.dockerfile_local)?;
            }
            context.state = self.input(CONTEXT)?;
        }
        if let (Some(state), Some(subdir)) = (&context.state, opt(request, "contextsubdir")) {
            let info = CopyInfo { copy_dir_contents_only: true, ..CopyInfo::default() };
            let copy = FileActions::new().copy(state, subdir, "/", info);
            context.state = Some(State::scratch().file(copy, Constraints::new())?);
        }
        if forced.is_some() {
            context.dockerfile = None;
        }
        Ok(context)
    }

    fn git_context(&self, address: &str, git: &git_ref::GitRef) -> State {
        let mut source = git.source();
        let keep = opt(self.request, "build-arg:BUILDKIT_CONTEXT_KEEP_GIT_DIR");
        source.keep_git_dir |= keep.is_some_and(is_true);
        let epoch = opt(self.request, "build-arg:SOURCE_DATE_EPOCH");
        if source.mtime.is_empty() && epoch.is_some_and(|epoch| !epoch.is_empty()) {
            source.mtime = "commit".to_owned();
        }
        State::git(&git.remote, source, internal(&format!("load git source {address}")))
    }

    /// A download is the context itself, or an archive of it, or the Dockerfile.
    async fn http_context(&self, url: &str, context: &mut Context) -> Result<(), Error> {
        let file = FileInfo { filename: DOWNLOAD.to_owned(), ..FileInfo::default() };
        let source = HttpSource { file, ..HttpSource::default() };
        let download = State::http(url, source, internal("load remote build context"));
        let request = SolveRequest { definition: Some(self.marshal(&download)?), ..SolveRequest::default() };
        let reference = self
            .solve_single(request)
            .await
            .map_err(|error| error.context("failed to resolve httpcontext"))?;
        let reference =
            reference.ok_or_else(|| Error::unknown("failed to resolve httpcontext: no result"))?;
        let head = FileRange { offset: 0, length: HEAD_BYTES };
        let head = self.bridge.read_file(&reference, DOWNLOAD, Some(head)).await;
        let head = head.map_err(|error| error.context("failed to read downloaded context"))?;
        if is_archive(&head) {
            let info = CopyInfo { attempt_unpack: true, ..CopyInfo::default() };
            let unpack = FileActions::new().copy(&download, format!("/{DOWNLOAD}"), "/", info);
            context.state = Some(State::scratch().file(unpack, Constraints::new())?);
            context.archive = Some(download);
        } else {
            DOWNLOAD.clone_into(&mut context.filename);
            context.state = Some(download);
        }
        context.dockerfile.clone_from(&context.state);
        Ok(())
    }

    /// The graph that the client gave for an input.
    pub(super) fn input(&self, name: &str) -> Result<Option<State>, Error> {
        let Some(definition) = self.request.inputs.get(name) else { return Ok(None) };
        if definition.metadata.is_empty() {
            return Err(Error::unknown("invalid nil input definition to definition op"));
        }
        Ok(Some(State::from_definition(definition)?))
    }
}

/// Steps that are not the user's.
pub(super) fn internal(what: &str) -> Constraints {
    Constraints::new().custom_name(format!("[internal] {what}"))
}

/// Whether these are the first bytes of an archive that can be unpacked.
fn is_archive(head: &[u8]) -> bool {
    const BZIP2: &[u8] = b"BZh";
    const GZIP: &[u8] = &[0x1f, 0x8b, 8];
    const XZ: &[u8] = &[0xfd, b'7', b'z', b'X', b'Z', 0];
    [BZIP2, GZIP, XZ].iter().any(|magic| head.starts_with(magic)) || is_tar(head)
}

/// Whether the first block is a header of a tar archive, by its checksum.
fn is_tar(head: &[u8]) -> bool {
    const BLOCK: usize = 512;
    const CHECKSUM: std::ops::Range<usize> = 148..156;
    let Some(block) = head.get(..BLOCK) else { return false };
    let text = String::from_utf8_lossy(&block[CHECKSUM]);
    let Ok(told) = u32::from_str_radix(text.trim_matches([' ', '\0']), 8) else { return false };
    let byte = |(index, byte): (usize, &u8)| if CHECKSUM.contains(&index) { b' ' } else { *byte };
    let sum: u32 = block.iter().enumerate().map(byte).map(u32::from).sum();
    sum == told
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archives_are_told_by_their_first_bytes() {
        assert!(is_archive(&[0x1f, 0x8b, 8, 0]) && is_archive(b"BZh9"));
        assert!(!is_archive(b"FROM scratch\n") && !is_archive(&[0; 1024]) && !is_archive(b""));
        let mut header = [0u8; 512];
        header[..5].copy_from_slice(b"hello");
        header[148..156].copy_from_slice(b"        ");
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        assert!(is_archive(&header));
        header[3] += 1;
        assert!(!is_archive(&header));
    }
}
