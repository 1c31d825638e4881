//! Who a step runs as: `USER` of an image looked up in the image's own `/etc/passwd` and `/etc/group`.
//!
//! Those files are whatever the image holds: they are opened beneath the root, must be regular, and are read up to a limit.

use std::io::Read;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{FileType, OFlags};

use crate::beneath::Root;

/// As much as is read of a user file.
const USER_FILE_BYTES_MAX: u64 = 10 << 20;
const ID_MAX: u32 = (1 << 31) - 1;

/// Ids of a process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
    /// Supplementary groups, from `/etc/group`.
    pub groups: Vec<u32>,
}

/// A user that cannot be found. The texts are BuildKit's.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum UserError {
    #[error("unable to find user {name}: no matching entries in passwd file")]
    NoUser { name: String },
    #[error("unable to find group {name}: no matching entries in group file")]
    NoGroup { name: String },
    #[error("uids and gids must be in range 0-{ID_MAX}")]
    Range,
    #[error("unable to find user {name}: \"{path}\" exceeds {USER_FILE_BYTES_MAX} bytes")]
    FileTooLong { name: String, path: &'static str },
}

struct PasswdEntry {
    name: String,
    uid: i64,
    gid: i64,
}

struct GroupEntry {
    name: String,
    gid: i64,
    members: Vec<String>,
}

/// Looks up `user`, `uid`, `user:group` and so on; an empty one is root.
pub fn lookup<Fd: AsFd>(root: &Root<Fd>, spec: &str) -> Result<User, UserError> {
    if let Some((user, group)) = spec.split_once(':')
        && let (Some(uid), Some(gid)) = (direct_id(user), direct_id(group))
    {
        return Ok(User { uid, gid, groups: Vec::new() });
    }
    let name = if spec.is_empty() { "0" } else { spec };
    let found = read(root, "/etc/passwd", name)
        .and_then(|passwd| Ok((passwd, read(root, "/etc/group", name)?)))
        .and_then(|(passwd, group)| find(name, passwd.as_deref(), group.as_deref()));
    if spec.is_empty() { Ok(found.unwrap_or_default()) } else { found }
}

/// An id that needs no look-up. More than the 31 bits of looked-up ids are allowed here.
fn direct_id(text: &str) -> Option<u32> {
    if text == "root" {
        return Some(0);
    }
    // Go's ParseUint, unlike Rust's parse, takes no sign.
    if text.starts_with('+') { None } else { text.parse().ok() }
}

/// `None` when there is no such regular file.
fn read<Fd: AsFd>(root: &Root<Fd>, path: &'static str, name: &str) -> Result<Option<String>, UserError> {
    let Ok(fd) = root.open(Path::new(path), OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY) else {
        return Ok(None);
    };
    if !rustix::fs::fstat(&fd)
        .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile)
    {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    if std::fs::File::from(fd).take(USER_FILE_BYTES_MAX + 1).read_to_end(&mut bytes).is_err() {
        return Ok(None);
    }
    if bytes.len() as u64 > USER_FILE_BYTES_MAX {
        return Err(UserError::FileTooLong { name: name.to_owned(), path });
    }
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}

fn find(spec: &str, passwd: Option<&str>, group: Option<&str>) -> Result<User, UserError> {
    let (user_arg, group_arg) = match spec.split_once(':') {
        // What follows a second colon is ignored.
        Some((user, group)) => (user, group.split(':').next().unwrap_or_default()),
        None => (spec, ""),
    };
    let uid_arg = numeric(user_arg)?;
    let gid_arg = numeric(group_arg)?;
    let entry = passwd.into_iter().flat_map(parse_passwd).find(|entry| match uid_arg {
        _ if user_arg.is_empty() => entry.uid == 0,
        Some(uid) => entry.uid == i64::from(uid),
        None => entry.name == user_arg,
    });
    let mut user = User::default();
    let mut user_name = String::new();
    if let Some(entry) = entry {
        user.uid = checked(entry.uid)?;
        user.gid = checked(entry.gid)?;
        user_name = entry.name;
    } else if let Some(uid) = uid_arg {
        user.uid = uid;
    } else if !user_arg.is_empty() {
        return Err(UserError::NoUser { name: user_arg.to_owned() });
    }
    let mut groups = group.into_iter().flat_map(parse_group);
    if !group_arg.is_empty() {
        let entry = groups.find(|entry| match gid_arg {
            Some(gid) => entry.gid == i64::from(gid),
            None => entry.name == group_arg,
        });
        user.gid = match (entry, gid_arg) {
            (Some(entry), _) => checked(entry.gid)?,
            (None, Some(gid)) => gid,
            (None, None) => return Err(UserError::NoGroup { name: group_arg.to_owned() }),
        };
    } else if !user_name.is_empty() {
        let member_of = groups.filter(|entry| entry.members.contains(&user_name));
        user.groups = member_of.map(|entry| checked(entry.gid)).collect::<Result<_, _>>()?;
    }
    Ok(user)
}

/// `Ok(None)` for what is no number, so that it may be a name.
fn numeric(text: &str) -> Result<Option<u32>, UserError> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Ok(None);
    }
    match text.parse::<i64>() {
        Ok(id) if (0..=i64::from(ID_MAX)).contains(&id) => Ok(Some(id as u32)),
        _ => Err(UserError::Range),
    }
}

fn checked(id: i64) -> Result<u32, UserError> {
    u32::try_from(id).map_err(|_| UserError::Range)
}

fn parse_passwd(text: &str) -> impl Iterator<Item = PasswdEntry> {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().unwrap_or_default().to_owned();
        let mut ids = fields.skip(1).map(|field| field.parse().unwrap_or(0));
        PasswdEntry { name, uid: ids.next().unwrap_or(0), gid: ids.next().unwrap_or(0) }
    })
}

fn parse_group(text: &str) -> impl Iterator<Item = GroupEntry> {
    text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')).map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().unwrap_or_default().to_owned();
        let gid = fields.nth(1).and_then(|field| field.parse().ok()).unwrap_or(0);
        let members = fields.next().unwrap_or_default();
        let members =
            if members.is_empty() { Vec::new() } else { members.split(',').map(str::to_owned).collect() };
        GroupEntry { name, gid, members }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/sh\n\n  app:x:1000:1001::/:/bin/sh\napp:x:7:7::/:\nbad:x:zz\n";
    const GROUP: &str = "root:x:0:\n# a:x:9:app\nvideo:x:44:app,root\naudio:x:63:app\nstaff:x:50:\n";

    fn found(spec: &str) -> Result<(u32, u32, Vec<u32>), String> {
        find(spec, Some(PASSWD), Some(GROUP)).map(|u| (u.uid, u.gid, u.groups)).map_err(|e| e.to_string())
    }

    #[test]
    fn forms() {
        assert_eq!(found("app"), Ok((1000, 1001, vec![44, 63])));
        assert_eq!(found("1000"), Ok((1000, 1001, vec![44, 63])));
        assert_eq!(found("app:staff"), Ok((1000, 50, vec![])));
        assert_eq!(found("app:77"), Ok((1000, 77, vec![])));
        assert_eq!(found("5:staff"), Ok((5, 50, vec![])));
        assert_eq!(found("4000"), Ok((4000, 0, vec![])));
        assert_eq!(found(":staff"), Ok((0, 50, vec![])));
        assert_eq!(found("bad"), Ok((0, 0, vec![])));
    }

    #[test]
    fn errors_are_the_known_ones() {
        let text = |spec| found(spec).unwrap_err();
        assert_eq!(text("nobody"), "unable to find user nobody: no matching entries in passwd file");
        assert_eq!(text("app:none"), "unable to find group none: no matching entries in group file");
        assert_eq!(text("3000000000"), "uids and gids must be in range 0-2147483647");
        assert_eq!(text("-1"), "uids and gids must be in range 0-2147483647");
    }

    #[test]
    fn hostile_files() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open_path(dir.path()).unwrap();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        assert_eq!(lookup(&root, "12:13"), Ok(User { uid: 12, gid: 13, groups: vec![] }));
        assert_eq!(lookup(&root, "4294967295:root"), Ok(User { uid: u32::MAX, gid: 0, groups: vec![] }));
        assert_eq!(lookup(&root, ""), Ok(User::default()));
        // The host's file is not reached through a link.
        std::os::unix::fs::symlink("/../../etc/hosts", dir.path().join("etc/passwd")).unwrap();
        assert!(lookup(&root, "daemon").is_err());
        std::fs::remove_file(dir.path().join("etc/passwd")).unwrap();
        // A pipe does not block.
        let fifo = dir.path().join("etc/passwd");
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, FileType::Fifo, 0o600.into(), 0).unwrap();
        assert!(lookup(&root, "daemon").is_err());
        std::fs::remove_file(&fifo).unwrap();
        let long = std::fs::File::create(&fifo).unwrap();
        long.set_len(USER_FILE_BYTES_MAX + 1).unwrap();
        assert!(matches!(lookup(&root, "daemon"), Err(UserError::FileTooLong { .. })));
    }
}
