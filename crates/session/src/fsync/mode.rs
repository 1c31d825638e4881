//! File modes as Go numbers them, which is what goes over the wire.

/// A mode in Go's `os.FileMode` bits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct GoMode(pub u32);

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FileKind {
    /// A regular file; also a hard link to one.
    Regular,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A named pipe.
    Fifo,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// Something else; sockets are sent as regular files by those who do not know better.
    Other,
}

const DIR: u32 = 1 << 31;
const SYMLINK: u32 = 1 << 27;
const DEVICE: u32 = 1 << 26;
const NAMED_PIPE: u32 = 1 << 25;
const SOCKET: u32 = 1 << 24;
const SETUID: u32 = 1 << 23;
const SETGID: u32 = 1 << 22;
const CHAR_DEVICE: u32 = 1 << 21;
const STICKY: u32 = 1 << 20;
const IRREGULAR: u32 = 1 << 19;
/// All bits that make a file something else than a regular one.
const TYPE: u32 = DIR | SYMLINK | DEVICE | NAMED_PIPE | SOCKET | CHAR_DEVICE | IRREGULAR;

impl GoMode {
    /// From a kind and POSIX permissions (`0o7777`).
    pub fn new(kind: FileKind, permissions: u32) -> Self {
        let kind = match kind {
            FileKind::Regular => 0,
            FileKind::Directory => DIR,
            FileKind::Symlink => SYMLINK,
            FileKind::Fifo => NAMED_PIPE,
            FileKind::CharDevice => DEVICE | CHAR_DEVICE,
            FileKind::BlockDevice => DEVICE,
            FileKind::Other => IRREGULAR,
        };
        let special = [(0o4000, SETUID), (0o2000, SETGID), (0o1000, STICKY)];
        let special = special.iter().filter(|(bit, _)| permissions & bit != 0).map(|(_, go)| go).sum::<u32>();
        Self(kind | special | permissions & 0o777)
    }

    /// From `st_mode`. Sockets have no kind of their own on the wire.
    pub fn from_posix(mode: u32) -> Self {
        let kind = match mode & 0o170000 {
            0o040000 => FileKind::Directory,
            0o120000 => FileKind::Symlink,
            0o010000 => FileKind::Fifo,
            0o020000 => FileKind::CharDevice,
            0o060000 => FileKind::BlockDevice,
            _ => FileKind::Regular,
        };
        Self::new(kind, mode & 0o7777)
    }

    /// What the file is.
    pub fn kind(self) -> FileKind {
        match self.0 & TYPE {
            0 => FileKind::Regular,
            DIR => FileKind::Directory,
            SYMLINK => FileKind::Symlink,
            NAMED_PIPE => FileKind::Fifo,
            DEVICE => FileKind::BlockDevice,
            bits if bits == DEVICE | CHAR_DEVICE => FileKind::CharDevice,
            _ => FileKind::Other,
        }
    }

    /// POSIX permissions (`0o7777`).
    pub fn permissions(self) -> u32 {
        let special = [(SETUID, 0o4000), (SETGID, 0o2000), (STICKY, 0o1000)];
        let special = special.iter().filter(|(go, _)| self.0 & go != 0).map(|(_, bit)| bit).sum::<u32>();
        special | self.0 & 0o777
    }

    /// Whether its contents may be asked for; both ends must agree on this.
    pub fn has_contents(self) -> bool {
        self.0 & TYPE == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bits_of_go() {
        assert_eq!(GoMode::from_posix(0o100644).0, 0o644);
        assert_eq!(GoMode::from_posix(0o040755).0, 0x8000_01ed);
        assert_eq!(GoMode::from_posix(0o120777).0, 0x0800_01ff);
        assert_eq!(GoMode::from_posix(0o104755).0, 0x0080_01ed);
        assert_eq!(GoMode::from_posix(0o041777).0, 0x8010_01ff);
        assert_eq!(GoMode::from_posix(0o020600).0, 0x0420_0180);
        assert_eq!(GoMode::from_posix(0o140600).kind(), FileKind::Regular);
        for mode in [0o100644, 0o042755, 0o120777, 0o010600, 0o020600, 0o060660] {
            let go = GoMode::from_posix(mode);
            assert_eq!(go.permissions(), mode & 0o7777);
            assert_eq!(GoMode::new(go.kind(), go.permissions()), go);
        }
        assert_eq!(GoMode(SOCKET | DIR).kind(), FileKind::Other);
    }
}
