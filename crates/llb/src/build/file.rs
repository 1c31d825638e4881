//! Changing files of a state.

use bytes::Bytes;

use crate::constraints::Constraints;
use crate::error::Error;
use crate::gopath;
use crate::node::{Node, Output};
use crate::op::{
    ActionInput, ChownOpt, CopyAction, FileAction, FileActionKind, FileOp, MkdirAction, MkfileAction, Op,
    RmAction, SymlinkAction, UserOpt,
};
use crate::{State, caps};

/// Changes to be made in order. Relative paths are below the state's working directory.
#[derive(Debug, Clone, Default)]
pub struct FileActions(Vec<Pending>);

#[derive(Debug, Clone)]
enum Pending {
    Copy { source: State, src: String, dest: String, info: CopyInfo },
    Mkfile { path: String, mode: u32, data: Bytes, info: MkfileInfo },
    Mkdir { path: String, mode: u32, info: MkdirInfo },
    Rm { path: String, info: RmInfo },
    Symlink { target: String, path: String, info: OwnedInfo },
}

/// An owner, by number or by name. Names are looked up in the state that is changed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Owner {
    user: Option<Named>,
    group: Option<Named>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Named {
    Id(u32),
    Name(String),
}

impl Owner {
    /// `user[:group]`, each by number or by name; `root` is 0.
    pub fn parse(text: &str) -> Self {
        let one = |part: &str| match part {
            "root" => Named::Id(0),
            part => match part.parse::<i32>() {
                Ok(id) => Named::Id(id as u32),
                Err(_) => Named::Name(part.to_string()),
            },
        };
        match text.split_once(':') {
            Some((user, group)) => Self { user: Some(one(user)), group: Some(one(group)) },
            None => Self { user: Some(one(text)), group: None },
        }
    }

    /// By numbers.
    pub fn ids(uid: u32, gid: u32) -> Self {
        Self { user: Some(Named::Id(uid)), group: Some(Named::Id(gid)) }
    }

    fn lower(&self, base: ActionInput) -> ChownOpt {
        let one = |named: &Option<Named>| {
            named.as_ref().map(|named| match named {
                // A name that is empty is what a missing number means on the wire.
                Named::Name(name) if name.is_empty() => UserOpt::Id(0),
                Named::Name(name) => UserOpt::Name { name: name.clone(), input: base },
                Named::Id(id) => UserOpt::Id(*id),
            })
        };
        ChownOpt { user: one(&self.user), group: one(&self.group) }
    }
}

/// Options of [`FileActions::copy`]; see [`CopyAction`].
#[derive(Debug, Clone, Default)]
pub struct CopyInfo {
    /// Permissions of what is made; none: those of the source.
    pub mode: Option<u32>,
    /// Permissions as `chmod` takes them; not empty: instead of `mode`.
    pub mode_str: String,
    /// Owner of what is made; none: root.
    pub owner: Option<Owner>,
    /// A source that is a link is followed.
    pub follow_symlinks: bool,
    /// A directory's entries are copied, not itself.
    pub copy_dir_contents_only: bool,
    /// Only what one of these matches.
    pub include_patterns: Vec<String>,
    /// Not what one of these matches.
    pub exclude_patterns: Vec<String>,
    /// Paths that must be there.
    pub required_paths: Vec<String>,
    /// A source that is an archive is unpacked.
    pub attempt_unpack: bool,
    /// Missing parents of the destination are made.
    pub create_dest_path: bool,
    /// The source is a pattern.
    pub allow_wildcard: bool,
    /// A pattern that nothing matches is no error.
    pub allow_empty_wildcard: bool,
    /// A destination of another kind than the source is replaced.
    pub always_replace_existing_dest_paths: bool,
    /// Times of what is made in nanoseconds since the epoch; none: those of the source.
    pub created_time: Option<i64>,
}

/// Options of [`FileActions::mkfile`].
pub type MkfileInfo = OwnedInfo;

/// Owner and times of what is made.
#[derive(Debug, Clone, Default)]
pub struct OwnedInfo {
    /// Its owner; none: root.
    pub owner: Option<Owner>,
    /// Its times in nanoseconds since the epoch; none: when it is made.
    pub created_time: Option<i64>,
}

/// Options of [`FileActions::mkdir`].
#[derive(Debug, Clone, Default)]
pub struct MkdirInfo {
    /// Missing parents are made and an existing directory is no error.
    pub make_parents: bool,
    /// Its owner; none: root.
    pub owner: Option<Owner>,
    /// Its times in nanoseconds since the epoch; none: when it is made.
    pub created_time: Option<i64>,
}

/// Options of [`FileActions::rm`].
#[derive(Debug, Clone, Copy, Default)]
pub struct RmInfo {
    /// Nothing there is no error.
    pub allow_not_found: bool,
    /// The path is a pattern.
    pub allow_wildcard: bool,
}

impl FileActions {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Copies `src` of `source` to `dest`. A relative `src` is below the source's working directory.
    pub fn copy(
        mut self,
        source: &State,
        src: impl Into<String>,
        dest: impl Into<String>,
        info: CopyInfo,
    ) -> Self {
        self.0.push(Pending::Copy { source: source.clone(), src: src.into(), dest: dest.into(), info });
        self
    }

    /// Makes a file.
    pub fn mkfile(
        mut self,
        path: impl Into<String>,
        mode: u32,
        data: impl Into<Bytes>,
        info: MkfileInfo,
    ) -> Self {
        self.0.push(Pending::Mkfile { path: path.into(), mode, data: data.into(), info });
        self
    }

    /// Makes a directory.
    pub fn mkdir(mut self, path: impl Into<String>, mode: u32, info: MkdirInfo) -> Self {
        self.0.push(Pending::Mkdir { path: path.into(), mode, info });
        self
    }

    /// Removes.
    pub fn rm(mut self, path: impl Into<String>, info: RmInfo) -> Self {
        self.0.push(Pending::Rm { path: path.into(), info });
        self
    }

    /// Makes a symbolic link at `path` (as it is, absolute) that points to `target`.
    pub fn symlink(mut self, target: impl Into<String>, path: impl Into<String>, info: OwnedInfo) -> Self {
        self.0.push(Pending::Symlink { target: target.into(), path: path.into(), info });
        self
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl State {
    /// Changes files.
    pub fn file(&self, actions: FileActions, mut constraints: Constraints) -> Result<State, Error> {
        if actions.is_empty() {
            return Err(Error::Incomplete("action is required"));
        }
        constraints.need(caps::FILE_BASE);
        if constraints.platform.is_none() {
            constraints.platform.clone_from(&self.settings().platform);
        }
        let mut deps: Vec<Output> = self.output().cloned().into_iter().collect();
        let base = if deps.is_empty() { ActionInput::Scratch } else { ActionInput::Input(0) };
        let last = actions.0.len() - 1;
        let mut lowered = Vec::with_capacity(actions.0.len());
        for (index, action) in actions.0.into_iter().enumerate() {
            let secondary_input = match &action {
                Pending::Copy { source, .. } => match source.output() {
                    None => ActionInput::Scratch,
                    Some(output) => {
                        deps.push(output.clone());
                        ActionInput::Input(deps.len() - 1)
                    }
                },
                _ => ActionInput::Scratch,
            };
            lowered.push(FileAction {
                input: if index == 0 { base } else { ActionInput::Action(index - 1) },
                secondary_input,
                output: (index == last).then_some(0),
                kind: action.lower(&self.settings().dir, base, &mut constraints),
            });
        }
        let op = Op::File(FileOp { actions: lowered });
        // The platform is only remembered here: the operation does not carry it.
        Ok(self.with_output(Some(Output::of(Node { op, deps, constraints }))))
    }
}

impl Pending {
    fn lower(self, dir: &str, base: ActionInput, constraints: &mut Constraints) -> FileActionKind {
        let owner = |owner: Option<Owner>| owner.map(|owner| owner.lower(base));
        match self {
            Self::Copy { source, src, dest, info } => {
                if !(info.include_patterns.is_empty() && info.exclude_patterns.is_empty()) {
                    constraints.need(caps::FILE_COPY_INCLUDEEXCLUDEPATTERNS);
                }
                if !info.required_paths.is_empty() {
                    constraints.need(caps::FILE_COPY_REQUIREDPATHS);
                }
                if info.always_replace_existing_dest_paths {
                    constraints.need(caps::FILE_COPY_ALWAYSREPLACEEXISTINGDESTPATHS);
                }
                FileActionKind::Copy(CopyAction {
                    src: source_path(&source, &src),
                    dest: gopath::normalize(dir, &dest, true),
                    owner: owner(info.owner),
                    mode: info.mode,
                    mode_str: info.mode_str,
                    follow_symlink: info.follow_symlinks,
                    dir_copy_contents: info.copy_dir_contents_only,
                    attempt_unpack: info.attempt_unpack,
                    create_dest_path: info.create_dest_path,
                    allow_wildcard: info.allow_wildcard,
                    allow_empty_wildcard: info.allow_empty_wildcard,
                    timestamp: info.created_time,
                    include_patterns: info.include_patterns,
                    exclude_patterns: info.exclude_patterns,
                    always_replace_existing_dest_paths: info.always_replace_existing_dest_paths,
                    required_paths: info.required_paths,
                })
            }
            Self::Mkfile { path, mode, data, info } => FileActionKind::Mkfile(MkfileAction {
                path: gopath::normalize(dir, &path, false),
                mode: mode & 0o777,
                data,
                owner: owner(info.owner),
                timestamp: info.created_time,
            }),
            Self::Mkdir { path, mode, info } => FileActionKind::Mkdir(MkdirAction {
                path: gopath::normalize(dir, &path, false),
                mode: mode & 0o777,
                make_parents: info.make_parents,
                owner: owner(info.owner),
                timestamp: info.created_time,
            }),
            Self::Rm { path, info } => FileActionKind::Rm(RmAction {
                path: gopath::normalize(dir, &path, false),
                allow_not_found: info.allow_not_found,
                allow_wildcard: info.allow_wildcard,
            }),
            Self::Symlink { target, path, info } => {
                constraints.need(caps::FILE_SYMLINK_CREATE);
                FileActionKind::Symlink(SymlinkAction {
                    target,
                    path,
                    owner: owner(info.owner),
                    timestamp: info.created_time,
                })
            }
        }
    }
}

/// The absolute path of a copy's source.
fn source_path(source: &State, src: &str) -> String {
    let cleaned = gopath::clean(src);
    let dir = if cleaned.starts_with('/') { "/" } else { source.settings().dir.as_str() };
    gopath::join(&[dir, cleaned.as_str()])
}
