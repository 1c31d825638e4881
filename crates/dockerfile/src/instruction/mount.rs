//! `RUN --mount`. Its record is checked when the Dockerfile is read, and read for good when the step is
//! converted, since its values may hold variables.

use super::InstructionError;
use crate::error::Error;
use crate::suggest::Case;
use crate::values::{fields, parse_bool, parse_size, parse_uint};

const KEYS: [&str; 19] = [
    "type",
    "from",
    "source",
    "target",
    "readonly",
    "id",
    "sharing",
    "required",
    "size",
    "mode",
    "uid",
    "gid",
    "src",
    "dst",
    "destination",
    "ro",
    "rw",
    "readwrite",
    "env",
];

/// What kind of mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MountKind {
    #[default]
    Bind,
    Cache,
    Tmpfs,
    Secret,
    Ssh,
}

impl MountKind {
    const ALL: [Self; 5] = [Self::Bind, Self::Cache, Self::Tmpfs, Self::Secret, Self::Ssh];

    /// The word in a Dockerfile.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bind => "bind",
            Self::Cache => "cache",
            Self::Tmpfs => "tmpfs",
            Self::Secret => "secret",
            Self::Ssh => "ssh",
        }
    }

    fn parse(word: &str) -> Result<Self, Error> {
        let lower = word.to_lowercase();
        Self::ALL.into_iter().find(|kind| kind.as_str() == lower).ok_or_else(|| {
            let error = Error::from(InstructionError::MountType(word.to_owned()));
            error.suggest(word, Self::ALL.map(Self::as_str), Case::Sensitive)
        })
    }

    fn takes_owner(self) -> bool {
        matches!(self, Self::Secret | Self::Ssh | Self::Cache)
    }
}

/// Who may use a cache mount at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sharing {
    Shared,
    Private,
    Locked,
}

impl Sharing {
    const ALL: [Self; 3] = [Self::Shared, Self::Private, Self::Locked];

    fn as_str(self) -> &'static str {
        match self {
            Self::Shared => "shared",
            Self::Private => "private",
            Self::Locked => "locked",
        }
    }

    fn parse(word: &str) -> Result<Self, Error> {
        let lower = word.to_lowercase();
        Self::ALL.into_iter().find(|sharing| sharing.as_str() == lower).ok_or_else(|| {
            let error = Error::from(InstructionError::Sharing(word.to_owned()));
            error.suggest(word, Self::ALL.map(Self::as_str), Case::Sensitive)
        })
    }
}

/// A mount of one step.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Mount {
    pub kind: MountKind,
    /// Stage, image or context; empty for the main context.
    pub from: String,
    pub source: String,
    pub target: String,
    pub read_only: bool,
    /// Bytes; 0 for no limit.
    pub size_limit: i64,
    /// Of a cache, a secret or an ssh agent.
    pub id: String,
    pub sharing: Option<Sharing>,
    /// Without the secret or agent the step cannot run.
    pub required: bool,
    /// The environment variable that a secret is given in.
    pub env: Option<String>,
    pub mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
}

/// Expands the variables of one value.
pub(crate) type Expander<'a> = &'a mut dyn FnMut(&str) -> Result<String, Error>;

/// What can be said about a record before its variables are known.
pub(super) fn check_mount(record: &str) -> Result<(), Error> {
    for field in fields(record).map_err(InstructionError::MountRecord)? {
        let Some((key, value)) = field.split_once('=') else { continue };
        let names_variable = value.find('$').is_some_and(|at| at + 1 < value.len());
        if key.to_lowercase() == "from" && names_variable {
            return Err(InstructionError::NoExpansion("from").into());
        }
    }
    Ok(())
}

/// The stage, image or context that a record mounts from, for finding dependencies.
pub(crate) fn mount_from(record: &str) -> String {
    let fields = fields(record).unwrap_or_default();
    let value = |field: &String| {
        let (key, value) = field.split_once('=')?;
        (key.to_lowercase() == "from").then(|| value.to_owned())
    };
    fields.iter().rev().find_map(value).unwrap_or_default()
}

/// Reads a record.
pub(crate) fn parse_mount(record: &str, expand: Expander<'_>) -> Result<Mount, Error> {
    let mut mount = Mount::default();
    let mut read_only = None;
    for field in fields(record).map_err(InstructionError::MountRecord)? {
        let (key, value) = match field.split_once('=') {
            Some((key, value)) => (key.to_lowercase(), Some(expand(value)?)),
            None => (field.to_lowercase(), None),
        };
        let key = key.as_str();
        match value {
            Some(value) => set_value(&mut mount, &mut read_only, key, value, &field)?,
            None => match key {
                "readonly" | "ro" => read_only = Some(true),
                "readwrite" | "rw" => read_only = Some(false),
                "required" => {
                    only_for(key, &mount, &[MountKind::Secret, MountKind::Ssh])?;
                    mount.required = true;
                }
                _ => return Err(InstructionError::NotKeyValue(field).into()),
            },
        }
    }
    let writable_by_default = matches!(mount.kind, MountKind::Cache | MountKind::Tmpfs);
    mount.read_only = read_only.unwrap_or(!writable_by_default);
    check_whole(&mount)?;
    Ok(mount)
}

fn set_value(
    mount: &mut Mount,
    read_only: &mut Option<bool>,
    key: &str,
    value: String,
    field: &str,
) -> Result<(), Error> {
    let invalid = || InstructionError::KeyValue { key: key.to_owned(), value: value.clone() };
    match key {
        "type" => mount.kind = MountKind::parse(&value)?,
        "from" => mount.from = value,
        "source" | "src" => mount.source = value,
        "target" | "dst" | "destination" => mount.target = value,
        "readonly" | "ro" => *read_only = Some(parse_bool(&value).ok_or_else(invalid)?),
        "readwrite" | "rw" => *read_only = Some(!parse_bool(&value).ok_or_else(invalid)?),
        "required" => {
            only_for(key, mount, &[MountKind::Secret, MountKind::Ssh])?;
            mount.required = parse_bool(&value).ok_or_else(invalid)?;
        }
        "size" => {
            only_for(key, mount, &[MountKind::Tmpfs])?;
            mount.size_limit = parse_size(&value).map_err(|_| invalid())?;
        }
        "id" => mount.id = value,
        "sharing" => mount.sharing = Some(Sharing::parse(&value)?),
        "mode" => mount.mode = Some(number("mode", &value, 8)?),
        "uid" => mount.uid = Some(number("uid", &value, 10)?),
        "gid" => mount.gid = Some(number("gid", &value, 10)?),
        "env" => mount.env = Some(value),
        _ => {
            let error = InstructionError::UnknownKey { key: key.to_owned(), field: field.to_owned() };
            return Err(Error::from(error).suggest(key, KEYS, Case::Sensitive));
        }
    }
    Ok(())
}

fn number(key: &'static str, value: &str, radix: u32) -> Result<u32, InstructionError> {
    let invalid = |_| InstructionError::NumberValue { key, value: value.to_owned() };
    parse_uint(value, radix, 32).map(|number| number as u32).map_err(invalid)
}

fn only_for(key: &str, mount: &Mount, kinds: &[MountKind]) -> Result<(), InstructionError> {
    if kinds.contains(&mount.kind) {
        return Ok(());
    }
    Err(InstructionError::KeyOfOtherMount { key: key.to_owned(), kind: mount.kind.as_str() })
}

fn check_whole(mount: &Mount) -> Result<(), InstructionError> {
    let kind = mount.kind;
    if !kind.takes_owner() {
        for (key, given) in [("mode", mount.mode), ("uid", mount.uid), ("gid", mount.gid)] {
            if given.is_some() {
                return Err(InstructionError::KeyNotAllowed { key, kind: kind.as_str() });
            }
        }
    }
    if kind == MountKind::Secret {
        if !mount.from.is_empty() {
            return Err(InstructionError::SecretFrom);
        }
        if mount.sharing.is_some() {
            return Err(InstructionError::SecretSharing);
        }
        if mount.source.is_empty() && mount.target.is_empty() && mount.id.is_empty() {
            return Err(InstructionError::SecretSource);
        }
        if !mount.source.is_empty() && !mount.id.is_empty() {
            return Err(InstructionError::SecretIds);
        }
    }
    if mount.sharing.is_some() && kind != MountKind::Cache {
        return Err(InstructionError::SharingOfOtherMount(kind.as_str()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(record: &str) -> Result<Mount, Error> {
        parse_mount(record, &mut |value| Ok(value.replace("$v", "x")))
    }

    #[test]
    fn mounts() {
        let mount = parse("type=cache,target=/c/$v,id=$v,sharing=LOCKED,uid=5,mode=0700").unwrap();
        assert_eq!((mount.target.as_str(), mount.id.as_str()), ("/c/x", "x"));
        assert_eq!((mount.sharing, mount.uid, mount.mode), (Some(Sharing::Locked), Some(5), Some(0o700)));
        assert!(!mount.read_only);
        assert!(parse("target=/a").unwrap().read_only);
        assert!(!parse("target=/a,rw").unwrap().read_only);
        assert!(!parse("target=/a,ro=false").unwrap().read_only);
        assert_eq!(parse("type=tmpfs,target=/t,size=1k").unwrap().size_limit, 1024);
        assert!(parse("type=ssh,required").unwrap().required);
    }

    #[test]
    fn bad_mounts() {
        for (record, text) in [
            ("type=bund", "unsupported mount type \"bund\" (did you mean bind?)"),
            ("tpe=bind", "unexpected key 'tpe' in 'tpe=bind' (did you mean type?)"),
            ("target", "invalid field 'target' must be a key=value pair"),
            ("type=bind,required", "unexpected key 'required' for mount type 'bind'"),
            ("type=cache,size=1", "unexpected key 'size' for mount type 'cache'"),
            ("uid=1", "uid not allowed for \"bind\" type mounts"),
            ("type=cache,uid=x", "invalid value x for uid"),
            ("type=tmpfs,size=x", "invalid value for size: x"),
            ("type=cache,sharing=share", "unsupported sharing value \"share\" (did you mean shared?)"),
            ("type=tmpfs,sharing=shared", "invalid cache sharing set for tmpfs mount"),
            ("type=secret", "invalid secret mount. one of source, target required"),
            ("type=secret,id=a,source=b", "both source and id can't be set"),
            ("type=secret,id=a,from=b", "secret mount should not have a from"),
            ("ro=maybe", "invalid value for ro: maybe"),
            (
                "a\"b",
                "failed to parse csv mounts: parse error on line 1, column 2: bare \" in non-quoted-field",
            ),
        ] {
            assert_eq!(parse(record).unwrap_err().to_string(), text);
        }
    }

    #[test]
    fn what_is_known_early() {
        assert!(check_mount("from=$x").unwrap_err().to_string().starts_with("'from' doesn't support"));
        assert!(check_mount("from=x$,target=$y").is_ok());
        assert_eq!(mount_from("from=a,target=/b,FROM=c"), "c");
    }
}
