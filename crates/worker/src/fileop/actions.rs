//! The actions as a definition has them.

use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use kiln_layer::FileKind;
use kiln_layer::threads::Budget;
use kiln_llb::{CopyAction, MkdirAction, MkfileAction, RmAction, SymlinkAction};
use rustix::io::Errno;

use super::chmod::ModeChange;
use super::copy::{ModeRule, Options, Source};
use super::error::FileError;
use super::owner::Owner;
use super::place::{Place, Time, make_dirs, meta_of, shown};
use super::target::{Attributes, Target, TargetDir, set_attributes};
use super::{unpack, wildcard};
use crate::error::PathError;
use crate::path;

fn time_of(nanos: Option<i64>) -> Option<Time> {
    nanos.map(|nanos| {
        let rest = u32::try_from(nanos.rem_euclid(1_000_000_000)).expect("a remainder of a billion fits");
        (nanos.div_euclid(1_000_000_000), rest)
    })
}

/// Makes a folder. One that is there already is fine.
///
/// # Errors
/// See [`FileError`]; so for the other actions.
pub fn mkdir(target: &Target, action: &MkdirAction, owner: Option<Owner>) -> Result<(), FileError> {
    let path = target.resolve(&action.path)?;
    let (mode, mtime) = (action.mode & 0o777, time_of(action.timestamp));
    if action.make_parents {
        make_dirs(target, &path, mode, owner, mtime)?;
        return Ok(());
    }
    let Place::In(dir, name) = Place::at(target, &path, "mkdir")? else { return Ok(()) };
    if meta_of(target, &dir, &name)?.is_some() {
        return Ok(());
    }
    make_dirs(target, &path, mode, owner, mtime)?;
    Ok(())
}

/// Makes a symbolic link.
pub fn symlink(target: &Target, action: &SymlinkAction, owner: Option<Owner>) -> Result<(), FileError> {
    let path = target.resolve(&path::rooted(&action.path))?;
    let fail = |errno| FileError::Symlink { target: action.target.clone(), path: shown(&path), errno };
    let Place::In(dir, name) = Place::at(target, &path, "symlink")? else { return Err(fail(Errno::EXIST)) };
    if meta_of(target, &dir, &name)?.is_some() {
        return Err(fail(Errno::EXIST));
    }
    dir.symlink(target, &name, action.target.as_bytes()).map_err(fail)?;
    let Owner { uid, gid } = owner.unwrap_or_default();
    let attributes = Attributes { uid, gid, mode: 0o777, mtime: time_of(action.timestamp) };
    dir.set_attributes_of(target, &name, FileKind::Symlink, &attributes, &[]).map_err(fail)
}

/// Writes a file. One that is there gets new content and keeps its owner and mode, as when it is written to.
pub fn mkfile(target: &Target, action: &MkfileAction, owner: Option<Owner>) -> Result<(), FileError> {
    let path = target.resolve(&path::rooted(&action.path))?;
    let fail = |errno| PathError::new("open", shown(&path), errno);
    let Place::In(dir, name) = Place::at(target, &path, "open")? else {
        return Err(fail(Errno::ISDIR).into());
    };
    let there = meta_of(target, &dir, &name)?;
    let mut attributes =
        Attributes { uid: 0, gid: 0, mode: action.mode & 0o777, mtime: time_of(action.timestamp) };
    if let Some(there) = there {
        if there.is_dir() {
            return Err(fail(Errno::ISDIR).into());
        }
        attributes = Attributes { mtime: attributes.mtime, ..Attributes::of(&there) };
        // Never written in place: what the layer has may be another name of a file in a layer below.
        dir.remove(target, &name).map_err(fail)?;
    }
    if let Some(Owner { uid, gid }) = owner {
        (attributes.uid, attributes.gid) = (uid, gid);
    }
    let file = dir.create_file(target, &name).map_err(fail)?;
    let mut rest = &action.data[..];
    while !rest.is_empty() {
        match rustix::io::write(&file, rest) {
            Ok(written) => rest = &rest[written..],
            Err(Errno::INTR) => {}
            Err(errno) => return Err(PathError::new("write", shown(&path), errno).into()),
        }
    }
    set_attributes(file.as_fd(), &attributes, target.format()).map_err(fail)?;
    Ok(())
}

/// Removes files and trees.
pub fn rm(target: &Target, action: &RmAction) -> Result<(), FileError> {
    if !action.allow_wildcard {
        return rm_path(target, &action.path, action.allow_not_found);
    }
    for path in wildcard::expand_target(target, &path::rooted_keeping_end(&action.path))? {
        rm_path(target, &path, action.allow_not_found)?;
    }
    Ok(())
}

fn rm_path(target: &Target, path: &str, allow_not_found: bool) -> Result<(), FileError> {
    let rooted = path::rooted(path);
    let name = OsStr::new(path::base(&rooted));
    if rooted == "/" {
        return Err(FileError::RemovesRoot);
    }
    let mut full = target.resolve(&path::dir(&rooted))?;
    let parent = target.dir(&full)?;
    full.push(name.to_owned());
    let fail = |errno| PathError::new("stat", shown(&full), errno);
    let remove = |dir: &TargetDir| {
        dir.remove(target, name).map_err(|errno| PathError::new("unlinkat", shown(&full), errno))
    };
    match parent {
        Some(dir) if meta_of(target, &dir, name)?.is_some() => Ok(remove(&dir)?),
        _ if allow_not_found => Ok(()),
        _ => Err(fail(Errno::NOENT).into()),
    }
}

/// What a copy needs besides its definition.
pub struct Copying<'a> {
    pub source: Source<'a>,
    /// Tells the copies into one layer apart; `None` where there is but one.
    pub round: Option<usize>,
    pub budget: &'a Budget,
    /// Set when nobody wants the result any more.
    pub cancel: &'a Arc<AtomicBool>,
}

/// Copies files and trees.
pub fn copy(
    target: &Target,
    action: &CopyAction,
    owner: Option<Owner>,
    with: &Copying<'_>,
) -> Result<(), FileError> {
    let (from, to) = (path::rooted_keeping_end(&action.src), path::rooted_keeping_end(&action.dest));
    if !action.create_dest_path {
        let dest = target.resolve(&path::rooted(&action.dest))?;
        let parent = dest.split_last().map_or(&dest[..], |(_, parents)| parents);
        if target.stat(parent)?.is_none() {
            let source = PathError::new("lstat", shown(parent), Errno::NOENT);
            return Err(FileError::Stat { path: action.dest.clone(), source });
        }
    }
    let mode = if !action.mode_str.is_empty() {
        ModeRule::Change(ModeChange::parse(&action.mode_str)?)
    } else {
        action.mode.map_or(ModeRule::Keep, ModeRule::Set)
    };
    let options = Options {
        owner,
        mode,
        mtime: time_of(action.timestamp),
        dir_contents: action.dir_copy_contents,
        follow_links: action.follow_symlink,
        include: action.include_patterns.clone(),
        exclude: action.exclude_patterns.clone(),
        always_replace: action.always_replace_existing_dest_paths,
        cancel: with.cancel.clone(),
    };
    let sources = if action.allow_wildcard {
        let found = wildcard::expand(with.source.union, &from, action.follow_symlink)?;
        if found.is_empty() {
            return if action.allow_empty_wildcard { Ok(()) } else { Err(FileError::NoMatch { path: from }) };
        }
        found
    } else {
        vec![from]
    };
    for from in sources {
        let unpacked = action.attempt_unpack
            && unpack::unpack(
                target,
                &with.source,
                &from,
                &to,
                owner,
                options.mtime,
                with.budget,
                with.cancel,
            )?;
        if !unpacked {
            super::copy::copy(target, &with.source, &from, &to, &options, with.round, with.budget)?;
        }
    }
    Ok(())
}
