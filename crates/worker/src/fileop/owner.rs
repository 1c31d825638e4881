//! Whom new files belong to: numbers, or names looked up in the user database of a ref.

use std::io::{BufRead, BufReader, Read};

use kiln_layer::union::Union;
use kiln_llb::{ActionInput, ChownOpt, UserOpt};

use super::error::FileError;

/// Largest `/etc/passwd` or `/etc/group` that is read: they come from images.
const USER_FILE_BYTES_MAX: u64 = 10 << 20;
/// Largest id the kernel takes; the one above means "leave it".
const ID_MAX: u32 = i32::MAX as u32;

/// Owner and group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    pub uid: u32,
    pub gid: u32,
}

/// What `option` says. `database` gives the ref that an input stands for. A name that is not in its database,
/// or whose database is missing, is root.
///
/// # Errors
/// A database that is not there to be looked at, too large or no file.
pub fn resolve(
    option: Option<&ChownOpt>,
    mut database: impl FnMut(ActionInput) -> Result<Option<Union>, FileError>,
) -> Result<Option<Owner>, FileError> {
    let Some(option) = option else { return Ok(None) };
    let mut owner = Owner::default();
    match &option.user {
        Some(UserOpt::Id(id)) => owner = Owner { uid: *id, gid: *id },
        Some(UserOpt::Name { name, input }) => {
            let union = database(*input)?.ok_or(FileError::NoUserDatabase { what: "user" })?;
            let fields = find(&union, "/etc/passwd", name)?;
            if let Some((uid, gid)) =
                fields.as_deref().and_then(|fields| Some((id(fields.get(2)?)?, id(fields.get(3)?)?)))
            {
                owner = Owner { uid, gid };
            }
        }
        None => {}
    }
    match &option.group {
        Some(UserOpt::Id(id)) => owner.gid = *id,
        Some(UserOpt::Name { name, input }) => {
            let union = database(*input)?.ok_or(FileError::NoUserDatabase { what: "group" })?;
            let fields = find(&union, "/etc/group", name)?;
            if let Some(gid) = fields.as_deref().and_then(|fields| id(fields.get(2)?)) {
                owner.gid = gid;
            }
        }
        None => {}
    }
    Ok(Some(owner))
}

/// An unreadable number counts as 0, as in the C library.
fn id(field: &str) -> Option<u32> {
    Some(field.parse::<u32>().ok().filter(|id| *id <= ID_MAX).unwrap_or(0))
}

/// The fields of the line that begins with `name`.
fn find(union: &Union, path: &'static str, name: &str) -> Result<Option<Vec<String>>, FileError> {
    let node = match union.resolve(path, true) {
        Ok(resolved) => resolved.node,
        Err(error) if super::target::errno_of(&error) == rustix::io::Errno::NOTDIR => None,
        Err(error) => return Err(error.into()),
    };
    let Some(node) = node else { return Ok(None) };
    if !node.meta.is_file() {
        return Err(FileError::NotRegular { path: path.to_owned() });
    }
    let mut lines = BufReader::new(node.open()?.take(USER_FILE_BYTES_MAX + 1));
    let mut read = 0;
    let mut line = Vec::new();
    loop {
        line.clear();
        let length = lines.read_until(b'\n', &mut line).map_err(|error| {
            crate::error::PathError::new("read", path, super::target::errno_of_io(&error))
        })?;
        read += length as u64;
        if read > USER_FILE_BYTES_MAX {
            return Err(FileError::UserFileSize { path, limit: USER_FILE_BYTES_MAX });
        }
        if length == 0 {
            return Ok(None);
        }
        let text = String::from_utf8_lossy(&line);
        let text = text.trim();
        if text.is_empty() || text.starts_with('#') {
            continue;
        }
        let mut fields = text.split(':');
        if fields.next() == Some(name) {
            return Ok(Some(text.split(':').map(str::to_owned).collect()));
        }
    }
}
