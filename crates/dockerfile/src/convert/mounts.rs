//! The mounts of a `RUN`.

use super::Converter;
use super::dispatch::Current;
use super::error::ConvertError;
use crate::error::Error;
use crate::instruction::{Mount, MountKind, Sharing};
use crate::location::Range;
use crate::outline::{Capture, MountUse};
use crate::path::{base, clean, join};
use kiln_llb::{
    CacheMount, CacheSharing, Constraints, FileActions, MkdirInfo, MountInfo, MountKind as LlbMountKind,
    Owner, RunInfo, SecretInfo, SshInfo, State,
};

const SECRETS_DIR: &str = "/run/secrets/";
const SECRET_MODE: u32 = 0o400;
const SSH_MODE: u32 = 0o600;
const CACHE_MODE: u32 = 0o755;

/// The folder with the wanted owner and mode that a cache mount begins as.
const CACHE_DIR: &str = "/cache";

impl Converter<'_> {
    pub(super) fn add_mounts(
        &mut self,
        current: Current<'_>,
        mounts: &[Mount],
        info: &mut RunInfo,
    ) -> Result<(), Error> {
        for (at, mount) in mounts.iter().enumerate() {
            let location = &current.command.command.location;
            let source = current.command.sources.get(at).copied();
            let state = self.mount_source(source, mount)?;
            let capture = &mut self.stages[current.id].capture;
            match mount.kind {
                MountKind::Secret => {
                    info.secrets.push(secret(mount, capture, location)?);
                    continue;
                }
                MountKind::Ssh => {
                    info.ssh.push(ssh(mount, capture, location)?);
                    continue;
                }
                MountKind::Bind | MountKind::Cache | MountKind::Tmpfs => {}
            }
            let (state, selector) = selected(mount, state)?;
            info.mounts.push(MountInfo {
                selector,
                readonly: mount.read_only,
                no_output: !mount.read_only && mount.kind == MountKind::Bind,
                kind: self.llb_kind(mount),
                ..MountInfo::bind(self.mount_target(current, mount)?, state)
            });
            // Memory needs no files of anybody.
            if mount.kind == MountKind::Tmpfs {
                continue;
            }
            let used = join("/", &mount.source);
            match source.filter(|_| !from_of(mount).is_empty()) {
                Some(source) => self.stages[source].paths.add(used),
                None => {
                    self.stages[current.id].context_paths.insert(used);
                }
            }
        }
        Ok(())
    }

    /// What a mount shows.
    fn mount_source(&self, source: Option<usize>, mount: &Mount) -> Result<State, Error> {
        let from = from_of(mount);
        let state = match source.filter(|_| !from.is_empty()) {
            None => State::late(&self.main_context),
            Some(source) if self.stages[source].dispatched => self.stages[source].state.clone(),
            Some(_) => {
                let (from, target) = (from.to_owned(), mount.target.clone());
                return Err(ConvertError::MountBeforeStage { from, target }.into());
            }
        };
        Ok(if mount.kind == MountKind::Tmpfs { State::scratch() } else { state })
    }

    fn llb_kind(&self, mount: &Mount) -> LlbMountKind {
        match mount.kind {
            MountKind::Tmpfs => LlbMountKind::Tmpfs { size: mount.size_limit },
            MountKind::Cache => {
                let id = if mount.id.is_empty() { clean(&mount.target) } else { mount.id.clone() };
                LlbMountKind::Cache(CacheMount {
                    id: format!("{}/{id}", self.options.cache_id_namespace),
                    sharing: match mount.sharing {
                        None | Some(Sharing::Shared) => CacheSharing::Shared,
                        Some(Sharing::Private) => CacheSharing::Private,
                        Some(Sharing::Locked) => CacheSharing::Locked,
                    },
                })
            }
            MountKind::Bind | MountKind::Secret | MountKind::Ssh => LlbMountKind::Bind,
        }
    }

    fn mount_target(&self, current: Current<'_>, mount: &Mount) -> Result<String, Error> {
        let target = if clean(&mount.target).starts_with('/') {
            mount.target.clone()
        } else {
            let dir = &self.stages[current.id].state.settings().dir;
            join("/", &join(dir, &mount.target))
        };
        if target == "/" { Err(ConvertError::MountTarget(target).into()) } else { Ok(target) }
    }
}

/// The stage that a mount is from; a cache without one begins empty.
fn from_of(mount: &Mount) -> &str {
    match (mount.from.as_str(), mount.kind) {
        ("", MountKind::Cache) => super::stages::SCRATCH,
        (from, _) => from,
    }
}

/// The folder of the source that is mounted, made with owner and mode if those are given.
fn selected(mount: &Mount, state: State) -> Result<(State, String), Error> {
    let source = join("/", &mount.source);
    if source != "/" {
        return Ok((state, source));
    }
    if mount.uid.is_none() && mount.gid.is_none() && mount.mode.is_none() {
        return Ok((state, String::new()));
    }
    let owner = Owner::ids(mount.uid.unwrap_or(0), mount.gid.unwrap_or(0));
    let info = MkdirInfo { owner: Some(owner), ..MkdirInfo::default() };
    let actions = FileActions::new().mkdir(CACHE_DIR, mount.mode.unwrap_or(CACHE_MODE), info);
    let constraints = Constraints::new().custom_name("[internal] setting cache mount permissions");
    Ok((state.file(actions, constraints)?, CACHE_DIR.to_owned()))
}

fn secret(mount: &Mount, capture: &mut Capture, location: &[Range]) -> Result<SecretInfo, Error> {
    let id = match (mount.source.as_str(), mount.id.as_str(), mount.target.as_str()) {
        ("", "", "") => return Err(ConvertError::SecretTarget.into()),
        ("", "", target) => base(target).to_owned(),
        ("", id, _) => id.to_owned(),
        (source, _, _) => source.to_owned(),
    };
    let target = match (mount.target.as_str(), &mount.env) {
        ("", Some(_)) => None,
        ("", None) => Some(format!("{SECRETS_DIR}{}", base(&id))),
        (target, _) => Some(target.to_owned()),
    };
    capture.secrets.entry(id.clone()).or_insert_with(|| MountUse::new(mount.required, location));
    Ok(SecretInfo {
        id,
        target,
        env: mount.env.clone(),
        uid: mount.uid.unwrap_or(0),
        gid: mount.gid.unwrap_or(0),
        mode: mount.mode.unwrap_or(SECRET_MODE),
        optional: !mount.required,
    })
}

fn ssh(mount: &Mount, capture: &mut Capture, location: &[Range]) -> Result<SshInfo, Error> {
    if !mount.source.is_empty() {
        return Err(ConvertError::SshSource.into());
    }
    let id = if mount.id.is_empty() { "default" } else { &mount.id };
    capture.ssh.entry(id.to_owned()).or_insert_with(|| MountUse::new(mount.required, location));
    Ok(SshInfo {
        id: mount.id.clone(),
        target: (!mount.target.is_empty()).then(|| mount.target.clone()),
        uid: mount.uid.unwrap_or(0),
        gid: mount.gid.unwrap_or(0),
        mode: mount.mode.unwrap_or(SSH_MODE),
        optional: !mount.required,
    })
}
