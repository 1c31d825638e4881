//! `COPY` and `ADD`.

use super::Converter;
use super::copy_remote::{Remote, is_git, is_http};
use super::dispatch::Current;
use super::error::ConvertError;
use super::history::{Layer, commit};
use super::names::{shown_code, step_name};
use super::stages::StageId;
use crate::error::Error;
use crate::instruction::{Add, Copy, Sources};
use crate::lint::check_copy_source;
use crate::mode::{Mode, parse_mode};
use crate::path::{is_absolute, join, normalize, to_slash, without_drive};
use kiln_llb::{Constraints, CopyInfo, FileActions, MkfileInfo, Owner, State};
use kiln_oci::{Digest, Platform};

/// What a path error on Windows is said to come from.
const REMOVING_DRIVE: &str = "removing drive letter";

const INLINE_MODE: u32 = 0o644;

/// What `COPY` and `ADD` have in common, and how they differ.
struct Transfer {
    sources: Sources,
    /// Where local paths are.
    from: State,
    /// Local paths are in the main context, where they may be ignored.
    from_context: bool,
    is_add: bool,
    chown: String,
    chmod: String,
    link: bool,
    parents: bool,
    exclude: Vec<String>,
    keep_git_dir: Option<bool>,
    checksum: String,
    unpack: Option<bool>,
}

impl Converter<'_> {
    pub(super) fn add(&mut self, current: Current<'_>, add: Add) -> Result<(), Error> {
        let used: Vec<String> = add.sources.paths.clone();
        self.transfer(
            current,
            Transfer {
                sources: add.sources,
                from: State::late(&self.main_context),
                from_context: true,
                is_add: true,
                chown: add.chown,
                chmod: add.chmod,
                link: add.link,
                parents: false,
                exclude: add.exclude,
                keep_git_dir: add.keep_git_dir,
                checksum: add.checksum,
                unpack: add.unpack,
            },
        )?;
        let is_local = |path: &&String| !path.starts_with("http://") && !path.starts_with("https://");
        let used = used.iter().filter(is_local).map(|path| join("/", path));
        self.stages[current.id].context_paths.extend(used);
        Ok(())
    }

    pub(super) fn copy(&mut self, current: Current<'_>, copy: Copy) -> Result<(), Error> {
        let source = current.command.sources.first().copied();
        let from = match source {
            None => State::late(&self.main_context),
            Some(source) if self.stages[source].dispatched => self.stages[source].state.clone(),
            Some(_) => {
                let stage = self.stages[current.id].shown_name.clone();
                return Err(ConvertError::CopyBeforeStage { from: copy.from, stage }.into());
            }
        };
        let used: Vec<String> = copy.sources.paths.iter().map(|path| join("/", path)).collect();
        self.transfer(
            current,
            Transfer {
                sources: copy.sources,
                from,
                from_context: source.is_none(),
                is_add: false,
                chown: copy.chown,
                chmod: copy.chmod,
                link: copy.link,
                parents: copy.parents,
                exclude: copy.exclude,
                keep_git_dir: None,
                checksum: String::new(),
                unpack: None,
            },
        )?;
        match source {
            Some(source) => used.into_iter().for_each(|path| self.stages[source].paths.add(path)),
            None => self.stages[current.id].context_paths.extend(used),
        }
        Ok(())
    }

    fn transfer(&mut self, current: Current<'_>, mut transfer: Transfer) -> Result<(), Error> {
        let id = current.id;
        let command = &current.command.command;
        let platform = self.stages[id].platform.clone().unwrap_or_else(|| self.platforms.target.clone());
        let state = self.stages[id].state.clone();
        let env = &state.settings().env;
        let dest = destination(&state, &transfer.sources.destination, &platform.os)?;
        let template = transfer.template()?;
        transfer.check_checksum()?;
        let message = transfer.message();
        let shown = shown_code(&self.lexer, &command.code, env);
        let multi_platform = self.options.multi_platform;
        let name = step_name(&mut self.stages[id], &shown, multi_platform, Some(&platform), env);

        let mut actions = FileActions::new();
        for path in transfer.sources.paths.clone() {
            let step = self.at(Constraints::new().custom_name(&name), &command.location);
            let remote = Remote { path: &path, is_add: transfer.is_add, step, unpack: transfer.unpack };
            if let Some(source) = remote.git(&mut transfer.keep_git_dir, &mut transfer.checksum)? {
                actions = actions.copy(
                    &source,
                    "/",
                    &dest,
                    CopyInfo { create_dest_path: true, ..template.clone() },
                );
            } else if is_http(&path) {
                let (source, file, unpack) = remote.http(&transfer.checksum)?;
                let info = CopyInfo { create_dest_path: true, attempt_unpack: unpack, ..template.clone() };
                actions = actions.copy(&source, file, &dest, info);
            } else {
                self.check_ignored(current, &transfer, &path);
                actions = transfer.copy_local(actions, &path, &dest, &template, &platform)?;
            }
        }
        for file in &transfer.sources.inline {
            let path = without_drive(&file.path, &platform.os, false).map_err(removing_drive)?;
            let constraints = Constraints::new()
                .custom_name("[internal] preparing inline document")
                .platform(platform.clone());
            let made = FileActions::new().mkfile(
                &path,
                INLINE_MODE,
                file.data.clone().into_bytes(),
                MkfileInfo::default(),
            );
            let source = State::scratch().file(made, constraints)?;
            let info = CopyInfo { create_dest_path: true, ..template.clone() };
            actions = actions.copy(&source, to_slash(&path, &platform.os), &dest, info);
        }

        let ignore_cache = self.stages[id].ignore_cache;
        let constraints =
            self.at(Constraints::new().custom_name(&name), &command.location).ignore_cache(ignore_cache);
        let next = if transfer.link && transfer.chmod.is_empty() {
            self.linked(id, &state, actions, constraints, &name, &shown, &platform)?
        } else {
            state.file(actions, constraints)?
        };
        let stage = &mut self.stages[id];
        stage.state = next;
        commit(&mut stage.image, &message, Layer::Built, self.epoch);
        Ok(())
    }

    /// Copies onto nothing, then puts the result on top of the stage: what is below may change freely.
    /// Progress shows both as one.
    #[expect(clippy::too_many_arguments, reason = "one use, and each of them is needed")]
    fn linked(
        &mut self,
        id: StageId,
        state: &State,
        actions: FileActions,
        constraints: Constraints,
        name: &str,
        shown: &str,
        platform: &Platform,
    ) -> Result<State, Error> {
        let multi_platform = self.options.multi_platform;
        let stage = &mut self.stages[id];
        stage.step_index = stage.step_index.saturating_sub(1);
        let env = &state.settings().env;
        let merge_name = step_name(stage, &format!("LINK {shown}"), multi_platform, Some(platform), env);
        let group = Digest::sha256_of(format!("{id}\0{}\0{name}", stage.image.history.len()));
        let group = group.short();
        let copy = constraints.clone().platform(platform.clone()).progress_group(group, name, true);
        let copied = State::scratch().file(actions, copy)?;
        let merge = constraints.progress_group(group, name, false).custom_name(merge_name);
        let merged = State::merge(&[state.clone(), copied], merge);
        Ok(state.with_output(merged.output().cloned()))
    }

    fn check_ignored(&self, current: Current<'_>, transfer: &Transfer, path: &str) {
        if transfer.from_context {
            let verb = if transfer.is_add { "Add" } else { "Copy" };
            let is_ignored = |path: &str| self.resolver.is_ignored(&self.ignore, path);
            let location = &current.command.command.location;
            check_copy_source(verb, path, &self.ignore, &is_ignored, location, current.lint);
        }
    }
}

impl Transfer {
    /// What holds for every source.
    fn template(&self) -> Result<CopyInfo, Error> {
        let mut info = CopyInfo { exclude_patterns: self.exclude.clone(), ..CopyInfo::default() };
        if !self.chown.is_empty() {
            info.owner = Some(Owner::parse(&self.chown));
        }
        if !self.chmod.is_empty() {
            match parse_mode(&self.chmod)? {
                Mode::Octal(mode) => info.mode = Some(mode),
                Mode::Symbolic(mode) => info.mode_str = mode,
            }
        }
        Ok(info)
    }

    fn check_checksum(&self) -> Result<(), ConvertError> {
        if self.checksum.is_empty() {
            return Ok(());
        }
        match self.sources.paths.as_slice() {
            _ if !self.is_add => Err(ConvertError::ChecksumForCopy),
            [path] if is_http(path) || is_git(path) => Ok(()),
            [_] => Err(ConvertError::ChecksumForLocal),
            _ => Err(ConvertError::ChecksumForSeveral),
        }
    }

    /// The entry in the history.
    fn message(&self) -> String {
        let mut message = if self.is_add { "ADD".to_owned() } else { "COPY".to_owned() };
        if self.parents {
            message.push_str(" --parents");
        }
        for (flag, value) in [("chown", &self.chown), ("chmod", &self.chmod)] {
            if !value.is_empty() {
                message.push_str(&format!(" --{flag}={value}"));
            }
        }
        for path in &self.sources.paths {
            message.push_str(&format!(" {path}"));
        }
        for file in &self.sources.inline {
            message.push_str(&format!(" <<{}", file.path));
        }
        message.push_str(&format!(" {}", self.sources.destination));
        message
    }

    fn copy_local(
        &self,
        actions: FileActions,
        path: &str,
        dest: &str,
        template: &CopyInfo,
        platform: &Platform,
    ) -> Result<FileActions, Error> {
        let rooted = |path: &str| {
            normalize("/", path, &platform.os, false)
                .map_err(|error| removing_drive(error).within(REMOVING_DRIVE))
        };
        let mut info = CopyInfo {
            follow_symlinks: true,
            copy_dir_contents_only: true,
            attempt_unpack: self.unpack.unwrap_or(self.is_add),
            create_dest_path: true,
            allow_wildcard: true,
            allow_empty_wildcard: true,
            ..template.clone()
        };
        let mut root = path;
        if self.parents {
            // What is kept of the path begins at `/./`, if there is one.
            let pattern;
            (root, pattern) = path.split_once("/./").unwrap_or(("/", path));
            let pattern = rooted(pattern)?;
            if !has_wildcards(root) && !has_wildcards(&pattern) {
                info.required_paths = vec![rooted(&join(root, &pattern))?];
            }
            info.include_patterns = vec![pattern.strip_prefix('/').unwrap_or(&pattern).to_owned()];
        }
        Ok(actions.copy(&self.from, rooted(root)?, dest, info))
    }
}

fn removing_drive(error: crate::path::PathError) -> Error {
    Error::from(error).within(REMOVING_DRIVE)
}

/// The destination as an absolute path; a trailing slash tells that it is a folder, so it stays.
fn destination(state: &State, path: &str, os: &str) -> Result<String, Error> {
    let path = without_drive(path, os, true).map_err(removing_drive)?;
    if is_absolute(&path, os) {
        return Ok(normalize("/", &path, os, true)?);
    }
    // The working directory itself is a folder for certain.
    let path = if path.is_empty() || path == "." { "./" } else { &path };
    Ok(normalize(&state.settings().dir, path, os, true)?)
}

fn has_wildcards(path: &str) -> bool {
    let mut chars = path.chars();
    while let Some(character) = chars.next() {
        match character {
            '*' | '?' | '[' => return true,
            '\\' => {
                chars.next();
            }
            _ => {}
        }
    }
    false
}
