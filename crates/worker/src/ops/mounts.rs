//! The file systems of a step: from mounts as a definition has them to mounts that the executor makes, and back to results.

use std::any::Any;
use std::collections::HashMap;
use std::path::Path;

use kiln_exec::{BindMount, MountSource, OverlayMount, OverlayUpper, RootMount, StepMount, TmpfsMount};
use kiln_llb::{CacheSharing, Mount, MountKind, ROOT_MOUNT, SecretMount, SshMount};
use kiln_session::daemon::{self, SessionGroup};
use kiln_store::{CommitInfo, LayerMeta, MutableLayer, NamedSpec, RecordType, Ref, Sharing};

use super::private::Access;
use crate::Worker;
use crate::error::{Error, Result};
use crate::path;

/// Before the ids of cache mounts in the names of their directories.
const CACHE_KEY: &str = "cache-dir:";

/// Everything a step sees of files, ready to be mounted. Dropping it lets go of what is not committed.
pub struct Prepared {
    pub root: RootMount,
    pub mounts: Vec<StepMount>,
    outputs: Vec<Output>,
    /// For each mount of the definition what it came to.
    pub views: Vec<View>,
    /// Layers that are thrown away, cache directories, secrets, sockets: they stay while the step runs.
    keep: Vec<Box<dyn Any + Send>>,
}

struct Output {
    index: usize,
    result: Pending,
}

enum Pending {
    /// Becomes a layer.
    New(MutableLayer),
    /// Stays what it was.
    Same(Ref),
}

/// What can be looked at of a mount from outside.
#[derive(Clone, Debug)]
pub enum View {
    /// A mount to be made from this.
    Mountable(MountSource),
    /// Memory or sockets.
    None,
}

/// Where mounts come from, and on whose behalf.
pub struct Request<'a> {
    pub mounts: &'a [Mount],
    pub inputs: &'a [Ref],
    /// Relative destinations are below it.
    pub cwd: &'a str,
    pub sessions: &'a SessionGroup,
    /// What made the layers, for people.
    pub origin: &'a str,
}

impl Worker {
    /// Prepares the mounts of a step. All inputs must be unpacked.
    ///
    /// # Errors
    /// A secret or agent that is not there, and what the store says.
    pub(crate) async fn prepare_mounts(&self, request: &Request<'_>) -> Result<Prepared> {
        let mut root = None;
        let mut mounts = Vec::new();
        let (mut outputs, mut views, mut keep) = (Vec::new(), Vec::new(), Vec::<Box<dyn Any + Send>>::new());
        let mut caches: HashMap<String, kiln_store::NamedLayer> = HashMap::new();
        for mount in request.mounts {
            let is_root = mount.dest == ROOT_MOUNT;
            if is_root && mount.kind != MountKind::Bind {
                return Err(Error::Text(format!("invalid mount type for {}", mount.dest)));
            }
            let input = match mount.input {
                Some(input) => Some(
                    request.inputs.get(input).ok_or_else(|| Error::Text(format!("missing input {input}")))?,
                ),
                None => None,
            };
            let mut options = Vec::new();
            let source = match &mount.kind {
                MountKind::Bind => {
                    let bind = self.bind(mount, input, request.origin).await?;
                    let source = bind.source;
                    keep.push(bind.keep);
                    match (mount.output, bind.layer) {
                        (Some(index), Some(layer)) => {
                            outputs.push(Output { index, result: Pending::New(layer) })
                        }
                        (Some(index), None) => {
                            let same = input.cloned().unwrap_or_else(Ref::scratch);
                            outputs.push(Output { index, result: Pending::Same(same) });
                        }
                        (None, layer) => keep.push(Box::new(layer)),
                    }
                    Some(source)
                }
                MountKind::Cache(cache) => {
                    // A step that has a cache at two places must not wait for itself.
                    let key = cache_key(&cache.id, input);
                    let named = match caches.get(&key) {
                        Some(named) => named.clone(),
                        None => self.cache_mount(mount, cache, input, request.origin).await?,
                    };
                    caches.insert(key, named.clone());
                    let source = named.mount_source()?;
                    let exec = exec_source(&source);
                    keep.push(Box::new((named, source)));
                    if let (Some(index), Some(input)) = (mount.output, input) {
                        outputs.push(Output { index, result: Pending::Same(input.clone()) });
                    }
                    Some(exec)
                }
                MountKind::Tmpfs { size } => {
                    options.push("nosuid".to_owned());
                    let size_bytes = u64::try_from(*size).unwrap_or(0);
                    Some(MountSource::Tmpfs(TmpfsMount { size_bytes, mode: None }))
                }
                MountKind::Secret(secret) => {
                    options.extend(["nodev".to_owned(), "nosuid".to_owned()]);
                    if secret.mode & 0o111 == 0 {
                        options.push("noexec".to_owned());
                    }
                    self.secret_mount(secret, request.sessions, &mut keep).await?
                }
                MountKind::Ssh(ssh) => self.ssh_mount(ssh, request.sessions, &mut keep).await?,
            };
            // An optional secret or agent that nobody has.
            let Some(source) = source else {
                views.push(View::None);
                continue;
            };
            views.push(match mount.kind {
                MountKind::Bind | MountKind::Cache(_) => View::Mountable(source.clone()),
                _ => View::None,
            });
            if is_root {
                root = Some(RootMount { source, readonly: mount.readonly });
            } else {
                let absolute = mount.dest.starts_with('/');
                let dest = if absolute {
                    mount.dest.clone()
                } else {
                    path::rooted(&format!("{}/{}", request.cwd, mount.dest))
                };
                let readonly = mount.readonly || matches!(mount.kind, MountKind::Secret(_));
                mounts.push(StepMount { source, selector: mount.selector.clone(), dest, readonly, options });
            }
        }
        // Parents before what is mounted in them.
        mounts.sort_by(|a, b| a.dest.cmp(&b.dest));
        let root = root.ok_or_else(|| Error::Text("invalid exec op with no rootfs".into()))?;
        Ok(Prepared { root, mounts, outputs, views, keep })
    }

    async fn bind(&self, mount: &Mount, input: Option<&Ref>, origin: &str) -> Result<Bind> {
        // Read-only without a result of its own: the input as it is. A root has its mount points made in it all the same.
        if let (true, Some(input), false) = (mount.readonly, input, mount.dest == ROOT_MOUNT) {
            let (store, input) = (self.store().clone(), input.clone());
            let source = self.blocking(move || store.readable_source(&input)).await??;
            return Ok(Bind { source: exec_source(&source), layer: None, keep: Box::new(source) });
        }
        let parent = input.cloned().unwrap_or_else(Ref::scratch);
        let meta = LayerMeta::regular(format!("mount {} from exec {origin}", mount.dest));
        let store = self.store().clone();
        let (layer, source) = self
            .blocking(move || -> Result<_> {
                let layer = store.new_layer(&parent, meta)?;
                inherit_root(&layer)?;
                let source = layer.mount_source()?;
                Ok((layer, source))
            })
            .await??;
        Ok(Bind { source: exec_source(&source), layer: Some(layer), keep: Box::new(source) })
    }

    /// Steps that run without cache find their cache mounts empty.
    ///
    /// # Errors
    /// What the store says.
    pub(crate) fn forget_caches(&self, mounts: &[Mount]) -> Result<()> {
        let caches: Vec<(&str, bool)> = mounts
            .iter()
            .filter_map(|mount| match &mount.kind {
                MountKind::Cache(cache) => Some((cache.id.as_str(), mount.input.is_some())),
                _ => None,
            })
            .collect();
        if caches.is_empty() {
            return Ok(());
        }
        let unwanted = |key: &str| caches.iter().any(|(id, on_a_base)| is_cache_key(key, id, *on_a_base));
        Ok(self.store().forget_named(unwanted)?)
    }

    async fn cache_mount(
        &self,
        mount: &Mount,
        cache: &kiln_llb::CacheMount,
        input: Option<&Ref>,
        origin: &str,
    ) -> Result<kiln_store::NamedLayer> {
        let mut description = format!("cached mount {} from exec {origin}", mount.dest);
        if cache.id != mount.dest {
            description.push_str(&format!(" with id {}", crate::error::quoted(&cache.id)));
        }
        let spec = NamedSpec {
            key: cache_key(&cache.id, input),
            base: input.cloned().unwrap_or_else(Ref::scratch),
            meta: LayerMeta { description, record_type: RecordType::ExecCacheMount, created_ms: None },
            sharing: match cache.sharing {
                CacheSharing::Shared => Sharing::Shared,
                CacheSharing::Private => Sharing::Private,
                CacheSharing::Locked => Sharing::Locked,
            },
        };
        Ok(self.store().named(&spec).await?)
    }

    async fn secret_mount(
        &self,
        mount: &SecretMount,
        sessions: &SessionGroup,
        keep: &mut Vec<Box<dyn Any + Send>>,
    ) -> Result<Option<MountSource>> {
        if mount.id.is_empty() {
            return Err(Error::Text("secret ID missing from mount options".into()));
        }
        let Some(secret) = self.secret(&mount.id, mount.optional, sessions).await? else { return Ok(None) };
        let access = Access { uid: mount.uid, gid: mount.gid, mode: mount.mode };
        let file = self.private().secret(&secret, access)?;
        let source = bind_path(file.path());
        keep.push(Box::new(file));
        Ok(Some(source))
    }

    /// A secret of the build's; `None` for an optional one that nobody has.
    pub(crate) async fn secret(
        &self,
        id: &str,
        optional: bool,
        sessions: &SessionGroup,
    ) -> Result<Option<daemon::Secret>> {
        match sessions.any(self.sessions(), |caller| async move { caller.secret(id).await }).await {
            Ok(secret) => Ok(Some(secret)),
            // A client that serves no secrets has none.
            Err(error) if matches!(error, daemon::Error::SecretNotFound(_)) || error.is_unsupported() => {
                if optional {
                    Ok(None)
                } else {
                    Err(Error::Text(format!("secret {id}: not found")))
                }
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn ssh_mount(
        &self,
        mount: &SshMount,
        sessions: &SessionGroup,
        keep: &mut Vec<Box<dyn Any + Send>>,
    ) -> Result<Option<MountSource>> {
        let agent = self
            .agent(&mount.id, sessions, Access { uid: mount.uid, gid: mount.gid, mode: mount.mode })
            .await;
        match agent {
            Ok(agent) => {
                let source = bind_path(agent.path());
                keep.push(Box::new(agent));
                Ok(Some(source))
            }
            Err(_) if mount.optional => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// A socket that leads to an ssh agent of the build's.
    pub(crate) async fn agent(
        &self,
        id: &str,
        sessions: &SessionGroup,
        access: Access,
    ) -> Result<daemon::ForwardedAgent> {
        let found = sessions
            .any(self.sessions(), |caller| async move {
                caller.check_agent(id).await?;
                Ok(caller)
            })
            .await;
        let caller = match found {
            Ok(caller) => caller,
            Err(error) if error.is_unsupported() => {
                return Err(Error::Text(format!(
                    "no SSH key {} forwarded from the client",
                    crate::error::quoted(id)
                )));
            }
            Err(error) => return Err(error.into()),
        };
        Ok(caller.forward_agent(
            id,
            &self.private().fresh_path(),
            access.uid,
            access.gid,
            access.mode & 0o777,
        )?)
    }
}

/// Name of a cache mount's directory. Steps that start from different bases don't share.
fn cache_key(id: &str, input: Option<&Ref>) -> String {
    match input.and_then(Ref::id) {
        Some(base) => format!("{CACHE_KEY}{id}:{base}"),
        None => format!("{CACHE_KEY}{id}"),
    }
}

/// Whether that is the name of such a directory.
fn is_cache_key(key: &str, id: &str, on_a_base: bool) -> bool {
    let rest = key.strip_prefix(CACHE_KEY).and_then(|key| key.strip_prefix(id));
    rest.is_some_and(|rest| if on_a_base { rest.starts_with(':') } else { rest.is_empty() })
}

struct Bind {
    source: MountSource,
    layer: Option<MutableLayer>,
    keep: Box<dyn Any + Send>,
}

impl Prepared {
    /// Makes the results: what the step wrote becomes layers. `count` is the number of the vertex's outputs.
    ///
    /// # Errors
    /// What the store says.
    pub async fn commit(self, worker: &Worker, count: usize) -> Result<Vec<Ref>> {
        let Prepared { outputs, keep, .. } = self;
        let work = move || -> Result<Vec<Ref>> {
            let mut results = vec![Ref::scratch(); count];
            for output in outputs {
                let result = match output.result {
                    Pending::New(layer) => layer.commit(CommitInfo::default())?,
                    Pending::Same(same) => same,
                };
                if let Some(slot) = results.get_mut(output.index) {
                    *slot = result;
                }
            }
            drop(keep);
            Ok(results)
        };
        worker.blocking(work).await?
    }
}

/// The layer's root looks like the one below it: overlayfs shows the topmost.
pub(crate) fn inherit_root(layer: &MutableLayer) -> Result<()> {
    use std::os::unix::fs::{PermissionsExt, chown};
    let Some(below) = layer.lower_root()? else { return Ok(()) };
    let (dir, meta) = (layer.dir(), &below.meta);
    let _ = chown(dir, Some(meta.uid), Some(meta.gid));
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(meta.mode))
        .map_err(Error::io("change mode of", dir))
}

fn bind_path(path: &Path) -> MountSource {
    MountSource::Bind(BindMount { path: path.to_owned(), recursive: false })
}

/// What the store would mount, for the executor to mount.
pub(crate) fn exec_source(source: &kiln_store::MountSource) -> MountSource {
    match (source.overlay(), source.directory()) {
        (Some(spec), _) => MountSource::Overlay(OverlayMount {
            lower: spec.lower.clone(),
            upper: spec.upper.clone().map(|(upper, work)| OverlayUpper { upper, work }),
            userxattr: spec.userxattr,
            volatile: spec.volatile,
        }),
        (None, Some((path, _))) => bind_path(path),
        (None, None) => unreachable!("a mount source is either of the two"),
    }
}

#[cfg(test)]
mod tests {
    use super::{cache_key, is_cache_key};

    #[test]
    fn caches_are_told_apart() {
        let plain = cache_key("a", None);
        assert!(is_cache_key(&plain, "a", false) && !is_cache_key(&plain, "a", true));
        assert!(is_cache_key("cache-dir:a:base", "a", true) && !is_cache_key("cache-dir:a:base", "a", false));
        assert!(!is_cache_key("cache-dir:ab", "a", false) && !is_cache_key("local:a", "a", false));
    }
}
