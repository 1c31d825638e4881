//! The file operation: changes to files without a process.

use bytes::Bytes;
use kiln_proto::pb;

use super::{NONE, output_from_wire, to_wire};
use crate::Error;

/// Changes, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FileOp {
    /// Not empty.
    pub actions: Vec<FileAction>,
}

/// What an action works on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum ActionInput {
    /// Nothing.
    #[default]
    Scratch,
    /// An input of the vertex.
    Input(usize),
    /// The result of an earlier action.
    Action(usize),
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileAction {
    /// What is changed.
    pub input: ActionInput,
    /// Where a copy takes from.
    pub secondary_input: ActionInput,
    /// Which output of the vertex the result becomes, if any.
    pub output: Option<usize>,
    /// The change.
    pub kind: FileActionKind,
}

/// A change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileActionKind {
    /// Copies from the secondary input.
    Copy(CopyAction),
    /// Makes a file.
    Mkfile(MkfileAction),
    /// Makes a directory.
    Mkdir(MkdirAction),
    /// Removes.
    Rm(RmAction),
    /// Makes a symbolic link.
    Symlink(SymlinkAction),
}

/// Copies from the secondary input. Times in nanoseconds since the epoch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CopyAction {
    /// Path in the secondary input.
    pub src: String,
    /// Path in the input; one that ends in `/` or `/.` is a directory.
    pub dest: String,
    /// Owner of what is made; none: root.
    pub owner: Option<ChownOpt>,
    /// Permissions of what is made; none: those of the source.
    pub mode: Option<u32>,
    /// Permissions as `chmod` takes them; not empty: instead of `mode`.
    pub mode_str: String,
    /// A source that is a link is followed.
    pub follow_symlink: bool,
    /// A directory's entries are copied, not itself.
    pub dir_copy_contents: bool,
    /// A source that is an archive is unpacked.
    pub attempt_unpack: bool,
    /// Missing parents of the destination are made.
    pub create_dest_path: bool,
    /// The source is a pattern.
    pub allow_wildcard: bool,
    /// A pattern that nothing matches is no error.
    pub allow_empty_wildcard: bool,
    /// Times of what is made; none: those of the source.
    pub timestamp: Option<i64>,
    /// Only what one of these matches, below the source.
    pub include_patterns: Vec<String>,
    /// Not what one of these matches, below the source.
    pub exclude_patterns: Vec<String>,
    /// A destination of another kind than the source is replaced.
    pub always_replace_existing_dest_paths: bool,
    /// Paths that must be there.
    pub required_paths: Vec<String>,
}

/// Makes a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MkfileAction {
    /// Its path.
    pub path: String,
    /// Its permissions.
    pub mode: u32,
    /// Its content.
    pub data: Bytes,
    /// Its owner; none: root.
    pub owner: Option<ChownOpt>,
    /// Its times in nanoseconds since the epoch; none: when it is made.
    pub timestamp: Option<i64>,
}

/// Makes a directory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MkdirAction {
    /// Its path.
    pub path: String,
    /// Its permissions.
    pub mode: u32,
    /// Missing parents are made and an existing directory is no error.
    pub make_parents: bool,
    /// Its owner; none: root.
    pub owner: Option<ChownOpt>,
    /// Its times in nanoseconds since the epoch; none: when it is made.
    pub timestamp: Option<i64>,
}

/// Removes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RmAction {
    /// A path, or a pattern with `allow_wildcard`.
    pub path: String,
    /// Nothing there is no error.
    pub allow_not_found: bool,
    /// The path is a pattern.
    pub allow_wildcard: bool,
}

/// Makes a symbolic link.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SymlinkAction {
    /// What it points to.
    pub target: String,
    /// Its path.
    pub path: String,
    /// Its owner; none: root.
    pub owner: Option<ChownOpt>,
    /// Its times in nanoseconds since the epoch; none: when it is made.
    pub timestamp: Option<i64>,
}

/// An owner.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ChownOpt {
    /// The user; none: root.
    pub user: Option<UserOpt>,
    /// The group; none: the user's.
    pub group: Option<UserOpt>,
}

/// A user or a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UserOpt {
    /// By number.
    Id(u32),
    /// By name, looked up in an input.
    Name {
        /// The name.
        name: String,
        /// Where the user database is.
        input: ActionInput,
    },
}

impl FileOp {
    pub(super) fn from_pb(op: pb::FileOp, inputs: usize) -> Result<Self, Error> {
        if op.actions.is_empty() {
            return Err(Error::Invalid("file op with no actions".into()));
        }
        let count = op.actions.len();
        let actions = op.actions.into_iter().enumerate().map(|(index, action)| {
            let numbers = Numbers { inputs, earlier: index };
            let kind = match action.action {
                None => return Err(Error::Invalid("file op with unknown action".into())),
                Some(pb::file_action::Action::Copy(copy)) => FileActionKind::Copy(CopyAction {
                    src: copy.src,
                    dest: copy.dest,
                    owner: numbers.owner(copy.owner)?,
                    mode: mode(copy.mode),
                    mode_str: copy.mode_str,
                    follow_symlink: copy.follow_symlink,
                    dir_copy_contents: copy.dir_copy_contents,
                    attempt_unpack: copy.attempt_unpack_docker_compatibility,
                    create_dest_path: copy.create_dest_path,
                    allow_wildcard: copy.allow_wildcard,
                    allow_empty_wildcard: copy.allow_empty_wildcard,
                    timestamp: timestamp(copy.timestamp),
                    include_patterns: copy.include_patterns,
                    exclude_patterns: copy.exclude_patterns,
                    always_replace_existing_dest_paths: copy.always_replace_existing_dest_paths,
                    required_paths: copy.required_paths,
                }),
                Some(pb::file_action::Action::Mkfile(file)) => FileActionKind::Mkfile(MkfileAction {
                    path: file.path,
                    mode: file.mode as u32,
                    data: file.data,
                    owner: numbers.owner(file.owner)?,
                    timestamp: timestamp(file.timestamp),
                }),
                Some(pb::file_action::Action::Mkdir(dir)) => FileActionKind::Mkdir(MkdirAction {
                    path: dir.path,
                    mode: dir.mode as u32,
                    make_parents: dir.make_parents,
                    owner: numbers.owner(dir.owner)?,
                    timestamp: timestamp(dir.timestamp),
                }),
                Some(pb::file_action::Action::Rm(rm)) => FileActionKind::Rm(RmAction {
                    path: rm.path,
                    allow_not_found: rm.allow_not_found,
                    allow_wildcard: rm.allow_wildcard,
                }),
                Some(pb::file_action::Action::Symlink(link)) => FileActionKind::Symlink(SymlinkAction {
                    target: link.oldpath,
                    path: link.newpath,
                    owner: numbers.owner(link.owner)?,
                    timestamp: timestamp(link.timestamp),
                }),
            };
            Ok(FileAction {
                input: numbers.input(action.input)?,
                secondary_input: match kind {
                    FileActionKind::Copy(_) => numbers.input(action.secondary_input)?,
                    _ => ActionInput::Scratch,
                },
                output: output_from_wire(action.output, count)?,
                kind,
            })
        });
        let mut actions = actions.collect::<Result<Vec<_>, _>>()?;
        // Most have one action, and a vector that grows begins with room for four.
        actions.shrink_to_fit();
        Ok(Self { actions })
    }

    /// The protobuf form, in which actions are numbered after the vertex's `inputs`.
    pub(super) fn to_pb(&self, inputs: usize) -> pb::FileOp {
        let wire = |input: ActionInput| match input {
            ActionInput::Scratch => NONE,
            ActionInput::Input(input) => input as i64,
            ActionInput::Action(action) => (inputs + action) as i64,
        };
        let owner = |owner: &Option<ChownOpt>| {
            owner.as_ref().map(|owner| pb::ChownOpt {
                user: owner.user.as_ref().map(|user| user_to_wire(user, &wire)),
                group: owner.group.as_ref().map(|group| user_to_wire(group, &wire)),
            })
        };
        let time = |timestamp: Option<i64>| timestamp.unwrap_or(NONE);
        let actions = self.actions.iter().map(|action| pb::FileAction {
            input: wire(action.input),
            secondary_input: wire(action.secondary_input),
            output: to_wire(action.output),
            action: Some(match &action.kind {
                FileActionKind::Copy(copy) => pb::file_action::Action::Copy(pb::FileActionCopy {
                    src: copy.src.clone(),
                    dest: copy.dest.clone(),
                    owner: owner(&copy.owner),
                    mode: match (&copy.mode_str, copy.mode) {
                        (text, _) if !text.is_empty() => 0,
                        (_, Some(mode)) => mode as i32,
                        (_, None) => -1,
                    },
                    follow_symlink: copy.follow_symlink,
                    dir_copy_contents: copy.dir_copy_contents,
                    attempt_unpack_docker_compatibility: copy.attempt_unpack,
                    create_dest_path: copy.create_dest_path,
                    allow_wildcard: copy.allow_wildcard,
                    allow_empty_wildcard: copy.allow_empty_wildcard,
                    timestamp: time(copy.timestamp),
                    include_patterns: copy.include_patterns.clone(),
                    exclude_patterns: copy.exclude_patterns.clone(),
                    always_replace_existing_dest_paths: copy.always_replace_existing_dest_paths,
                    mode_str: copy.mode_str.clone(),
                    required_paths: copy.required_paths.clone(),
                }),
                FileActionKind::Mkfile(file) => pb::file_action::Action::Mkfile(pb::FileActionMkFile {
                    path: file.path.clone(),
                    mode: file.mode as i32,
                    data: file.data.clone(),
                    owner: owner(&file.owner),
                    timestamp: time(file.timestamp),
                }),
                FileActionKind::Mkdir(dir) => pb::file_action::Action::Mkdir(pb::FileActionMkDir {
                    path: dir.path.clone(),
                    mode: dir.mode as i32,
                    make_parents: dir.make_parents,
                    owner: owner(&dir.owner),
                    timestamp: time(dir.timestamp),
                }),
                FileActionKind::Rm(rm) => pb::file_action::Action::Rm(pb::FileActionRm {
                    path: rm.path.clone(),
                    allow_not_found: rm.allow_not_found,
                    allow_wildcard: rm.allow_wildcard,
                }),
                FileActionKind::Symlink(link) => pb::file_action::Action::Symlink(pb::FileActionSymlink {
                    oldpath: link.target.clone(),
                    newpath: link.path.clone(),
                    owner: owner(&link.owner),
                    timestamp: time(link.timestamp),
                }),
            }),
        });
        pb::FileOp { actions: actions.collect() }
    }

    /// One more than the highest output that an action becomes.
    pub fn output_count(&self) -> usize {
        self.actions.iter().filter_map(|action| action.output).max().map_or(0, |highest| highest + 1)
    }

    pub(super) fn map_inputs(&mut self, at: &impl Fn(usize) -> Option<usize>) {
        let map = |input: &mut ActionInput| {
            if let ActionInput::Input(number) = *input {
                *input = at(number).map_or(ActionInput::Scratch, ActionInput::Input);
            }
        };
        for action in &mut self.actions {
            map(&mut action.input);
            map(&mut action.secondary_input);
            if let Some(owner) = action.owner_mut() {
                for user in [&mut owner.user, &mut owner.group].into_iter().flatten() {
                    if let UserOpt::Name { input, .. } = user {
                        map(input);
                    }
                }
            }
        }
    }
}

impl FileAction {
    /// The owner that the action gives.
    pub fn owner(&self) -> Option<&ChownOpt> {
        match &self.kind {
            FileActionKind::Copy(copy) => copy.owner.as_ref(),
            FileActionKind::Mkfile(file) => file.owner.as_ref(),
            FileActionKind::Mkdir(dir) => dir.owner.as_ref(),
            FileActionKind::Symlink(link) => link.owner.as_ref(),
            FileActionKind::Rm(_) => None,
        }
    }

    fn owner_mut(&mut self) -> Option<&mut ChownOpt> {
        match &mut self.kind {
            FileActionKind::Copy(copy) => copy.owner.as_mut(),
            FileActionKind::Mkfile(file) => file.owner.as_mut(),
            FileActionKind::Mkdir(dir) => dir.owner.as_mut(),
            FileActionKind::Symlink(link) => link.owner.as_mut(),
            FileActionKind::Rm(_) => None,
        }
    }
}

fn mode(mode: i32) -> Option<u32> {
    (mode != -1).then_some(mode as u32)
}

fn timestamp(time: i64) -> Option<i64> {
    (time != NONE).then_some(time)
}

fn user_to_wire(user: &UserOpt, wire: &impl Fn(ActionInput) -> i64) -> pb::UserOpt {
    pb::UserOpt {
        user: Some(match user {
            UserOpt::Id(id) => pb::user_opt::User::ById(*id),
            UserOpt::Name { name, input } => {
                pb::user_opt::User::ByName(pb::NamedUserOpt { name: name.clone(), input: wire(*input) })
            }
        }),
    }
}

/// What an action's numbers may refer to.
struct Numbers {
    inputs: usize,
    earlier: usize,
}

impl Numbers {
    fn input(&self, input: i64) -> Result<ActionInput, Error> {
        if input == NONE {
            return Ok(ActionInput::Scratch);
        }
        match usize::try_from(input) {
            Ok(number) if number < self.inputs => Ok(ActionInput::Input(number)),
            Ok(number) if number < self.inputs + self.earlier => {
                Ok(ActionInput::Action(number - self.inputs))
            }
            _ => Err(Error::InputIndex(input)),
        }
    }

    fn owner(&self, owner: Option<pb::ChownOpt>) -> Result<Option<ChownOpt>, Error> {
        let Some(owner) = owner else { return Ok(None) };
        Ok(Some(ChownOpt { user: self.user(owner.user)?, group: self.user(owner.group)? }))
    }

    fn user(&self, user: Option<pb::UserOpt>) -> Result<Option<UserOpt>, Error> {
        Ok(match user.and_then(|user| user.user) {
            None => None,
            Some(pb::user_opt::User::ById(id)) => Some(UserOpt::Id(id)),
            Some(pb::user_opt::User::ByName(named)) => {
                Some(UserOpt::Name { name: named.name, input: self.input(named.input)? })
            }
        })
    }
}
