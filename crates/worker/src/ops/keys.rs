//! How operations enter cache keys: digests of what they do, and which part of each input they look at.
//!
//! A digest covers everything that can change the result and nothing else. Left out are addresses of extra hosts, proxies,
//! names and sharing of cache mounts (but for the default ones), limits of resources and everything in a vertex's
//! metadata. Ids of secrets and agents are in, their values never are.

use std::collections::BTreeMap;

use kiln_llb::{
    ActionInput, CacheSharing, ChownOpt, ContentCache, ExecOp, FileActionKind, FileOp, Mount, MountKind,
    NetMode, ROOT_MOUNT, SecurityMode, UserOpt,
};
use kiln_oci::Platform;

use crate::contenthash::{Selector, is_wildcard};
use crate::encode::{Encoder, Hash};
use crate::path;

/// How one input of an operation is looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InputKey {
    /// Which part of the input's definition counts.
    pub selector: Option<Hash>,
    /// The input's content may stand for its definition: the part that these pick, everything if there are none.
    pub content: Option<Vec<Selector>>,
}

/// A mount asks for content caching where that would be wrong.
#[derive(Debug, thiserror::Error)]
#[error("invalid mount cache content for {0}")]
pub struct UnsafeContentCache(String);

/// Digest of a command.
pub fn exec(op: &ExecOp, platform: &Platform) -> Hash {
    let mut encoder = Encoder::new("kiln.op.exec.v1");
    let meta = &op.meta;
    encoder.strs(&meta.args).strs(&meta.env).str(&meta.cwd).str(&meta.user).str(&meta.hostname);
    encoder.list(meta.extra_hosts.iter(), |encoder, host| {
        encoder.str(&host.host);
    });
    encoder.list(meta.ulimits.iter(), |encoder, limit| {
        encoder.str(&limit.name).i64(limit.soft).i64(limit.hard);
    });
    encoder.str(&meta.cgroup_parent).bool(meta.remove_mount_stubs_recursive);
    encoder.list(meta.valid_exit_codes.iter(), |encoder, code| {
        encoder.i64((*code).into());
    });
    encoder.list(op.mounts.iter(), exec_mount);
    encoder.u8(match op.network {
        NetMode::Sandbox => 0,
        NetMode::Host => 1,
        NetMode::None => 2,
    });
    encoder.bool(op.security == SecurityMode::Insecure);
    encoder.list(op.secret_env.iter(), |encoder, secret| {
        encoder.str(&secret.id).str(&secret.name).bool(secret.optional);
    });
    encoder.list(op.devices.iter(), |encoder, device| {
        encoder.str(&device.name).bool(device.optional);
    });
    self::platform(&mut encoder, platform);
    encoder.finish()
}

/// A mount without its selector, which belongs to the key of the input.
fn exec_mount(encoder: &mut Encoder, mount: &Mount) {
    index(encoder, mount.input);
    encoder.str(&mount.dest);
    index(encoder, mount.output);
    encoder.bool(mount.readonly).str(&mount.result_id);
    match &mount.kind {
        MountKind::Bind => encoder.u8(0),
        MountKind::Cache(cache) => {
            let (id, sharing) = if is_default_cache(mount, &cache.id, cache.sharing) {
                (cache.id.as_str(), cache.sharing)
            } else {
                ("", CacheSharing::Shared)
            };
            encoder.u8(1).str(id).u8(match sharing {
                CacheSharing::Shared => 0,
                CacheSharing::Private => 1,
                CacheSharing::Locked => 2,
            })
        }
        MountKind::Tmpfs { size } => encoder.u8(2).i64(*size),
        MountKind::Secret(secret) => encoder
            .u8(3)
            .str(&secret.id)
            .u32(secret.uid)
            .u32(secret.gid)
            .u32(secret.mode)
            .bool(secret.optional),
        MountKind::Ssh(ssh) => {
            encoder.u8(4).str(&ssh.id).u32(ssh.uid).u32(ssh.gid).u32(ssh.mode).bool(ssh.optional)
        }
    };
    encoder.u8(match mount.content_cache {
        ContentCache::Default => 0,
        ContentCache::On => 1,
        ContentCache::Off => 2,
    });
}

/// A cache mount as Dockerfiles have it by default: its id is its path, perhaps behind a namespace.
fn is_default_cache(mount: &Mount, id: &str, sharing: CacheSharing) -> bool {
    let bare = id.split_once('/').is_some_and(|(_, rest)| rest == mount.dest);
    sharing == CacheSharing::Shared && (id == mount.dest || bare)
}

fn index(encoder: &mut Encoder, index: Option<usize>) {
    encoder.i64(index.map_or(-1, |index| i64::try_from(index).unwrap_or(i64::MAX)));
}

pub(crate) fn platform(encoder: &mut Encoder, platform: &Platform) {
    encoder.str(&platform.os).str(&platform.architecture).str(&platform.variant).str(&platform.os_version);
    encoder.strs(&platform.os_features);
}

/// How a command looks at each of its `inputs`.
///
/// # Errors
/// A mount that insists on content caching although what it does not select could come out in its result.
pub fn exec_inputs(op: &ExecOp, inputs: usize) -> Result<Vec<InputKey>, UnsafeContentCache> {
    let mut paths: Vec<Vec<String>> = vec![Vec::new(); inputs];
    let mut by_content = vec![false; inputs];
    for mount in &op.mounts {
        if !matches!(mount.kind, MountKind::Bind | MountKind::Cache(_)) {
            continue;
        }
        let Some(input) = mount.input.filter(|input| *input < inputs) else { continue };
        let selected = path::rooted(&mount.selector);
        // Safe where nothing of the input but what is selected can be in a result: else a file beside the selected
        // ones, which changed, would still be the old one in the result that is found by content.
        let safe = mount.output.is_none() || mount.readonly || selected == "/";
        by_content[input] = match mount.content_cache {
            ContentCache::Off => false,
            ContentCache::On if !safe => return Err(UnsafeContentCache(mount.dest.clone())),
            ContentCache::On => true,
            // Hashing a whole root would cost much and seldom pay.
            ContentCache::Default => safe && mount.dest != ROOT_MOUNT,
        };
        paths[input].push(selected);
    }
    Ok(paths
        .into_iter()
        .zip(by_content)
        .map(|(paths, by_content)| {
            let selectors =
                paths.iter().map(|path| Selector { follow_links: true, ..Selector::path(path.clone()) });
            let everything = paths.iter().any(|path| path == "/");
            InputKey {
                selector: (!paths.is_empty()).then(|| paths_digest(&paths)),
                content: by_content.then(|| {
                    if everything {
                        Vec::new()
                    } else {
                        crate::contenthash::without_redundant(&selectors.collect::<Vec<_>>())
                    }
                }),
            }
        })
        .collect())
}

/// Digest of a list of paths.
fn paths_digest(paths: &[String]) -> Hash {
    let mut encoder = Encoder::new("kiln.selector.v1");
    encoder.strs(paths);
    encoder.finish()
}

/// Digest of file actions in a vertex with so many inputs.
pub fn file(op: &FileOp) -> Hash {
    let mut encoder = Encoder::new("kiln.op.file.v1");
    encoder.list(op.actions.iter(), |encoder, action| {
        action_input(encoder, action.input);
        action_input(encoder, action.secondary_input);
        index(encoder, action.output);
        match &action.kind {
            FileActionKind::Copy(copy) => {
                // Of a source path in an input only the last name counts: the rest is in the input's selector.
                let from_input = matches!(action.secondary_input, ActionInput::Input(_));
                encoder.u8(0).str(if from_input { path::base(&copy.src) } else { &copy.src }).str(&copy.dest);
                owner(encoder, copy.owner.as_ref());
                encoder.option(copy.mode, |encoder, mode| {
                    encoder.u32(mode);
                });
                encoder.str(&copy.mode_str);
                for flag in [
                    copy.follow_symlink,
                    copy.dir_copy_contents,
                    copy.attempt_unpack,
                    copy.create_dest_path,
                    copy.allow_wildcard,
                    copy.allow_empty_wildcard,
                    copy.always_replace_existing_dest_paths,
                ] {
                    encoder.bool(flag);
                }
                timestamp(encoder, copy.timestamp);
                encoder.strs(&copy.include_patterns).strs(&copy.exclude_patterns).strs(&copy.required_paths);
            }
            FileActionKind::Mkfile(file) => {
                encoder.u8(1).str(&file.path).u32(file.mode).bytes(&file.data);
                owner(encoder, file.owner.as_ref());
                timestamp(encoder, file.timestamp);
            }
            FileActionKind::Mkdir(dir) => {
                encoder.u8(2).str(&dir.path).u32(dir.mode).bool(dir.make_parents);
                owner(encoder, dir.owner.as_ref());
                timestamp(encoder, dir.timestamp);
            }
            FileActionKind::Rm(rm) => {
                encoder.u8(3).str(&rm.path).bool(rm.allow_not_found).bool(rm.allow_wildcard);
            }
            FileActionKind::Symlink(link) => {
                encoder.u8(4).str(&link.target).str(&link.path);
                owner(encoder, link.owner.as_ref());
                timestamp(encoder, link.timestamp);
            }
        }
    });
    encoder.finish()
}

fn action_input(encoder: &mut Encoder, input: ActionInput) {
    match input {
        ActionInput::Scratch => encoder.u8(0),
        ActionInput::Input(input) => encoder.u8(1).u64(input as u64),
        ActionInput::Action(action) => encoder.u8(2).u64(action as u64),
    };
}

fn owner(encoder: &mut Encoder, owner: Option<&ChownOpt>) {
    let each = |encoder: &mut Encoder, user: &UserOpt| {
        match user {
            UserOpt::Id(id) => encoder.u8(0).u32(*id),
            UserOpt::Name { name, input } => {
                encoder.u8(1).str(name);
                action_input(encoder, *input);
                encoder
            }
        };
    };
    encoder.option(owner, |encoder, owner| {
        encoder.option(owner.user.as_ref(), each);
        encoder.option(owner.group.as_ref(), each);
    });
}

fn timestamp(encoder: &mut Encoder, time: Option<i64>) {
    encoder.option(time, |encoder, time| {
        encoder.i64(time);
    });
}

/// How file actions look at each of the `inputs`.
pub fn file_inputs(op: &FileOp, inputs: usize) -> Vec<InputKey> {
    let mut selectors: BTreeMap<usize, Vec<Selector>> = BTreeMap::new();
    // An input that is changed is in the result as a whole: its content does not stand for it.
    let mut changed = vec![false; inputs];
    for action in &op.actions {
        if let ActionInput::Input(input) = action.input {
            changed[input] = true;
        }
        if let Some(owner) = action.owner() {
            for (user, database) in [(&owner.user, "/etc/passwd"), (&owner.group, "/etc/group")] {
                if let Some(UserOpt::Name { input: ActionInput::Input(input), .. }) = user {
                    let selector = Selector { follow_links: true, ..Selector::path(database) };
                    selectors.entry(*input).or_default().push(selector);
                }
            }
        }
        if let (FileActionKind::Copy(copy), ActionInput::Input(input)) =
            (&action.kind, action.secondary_input)
        {
            selectors.entry(input).or_default().push(Selector {
                path: copy.src.clone(),
                wildcard: is_wildcard(&copy.src, copy.allow_wildcard),
                follow_links: copy.follow_symlink,
                include: copy.include_patterns.clone(),
                exclude: copy.exclude_patterns.clone(),
                required: copy.required_paths.clone(),
            });
        }
    }
    (0..inputs)
        .map(|input| match selectors.get(&input) {
            Some(selectors) if !changed[input] => {
                let mut paths: Vec<String> = selectors.iter().map(|selector| selector.path.clone()).collect();
                paths.sort();
                InputKey {
                    selector: Some(paths_digest(&paths)),
                    content: Some(crate::contenthash::without_redundant(selectors)),
                }
            }
            _ => InputKey::default(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use kiln_llb::{CacheMount, CopyAction, ExtraHost, FileAction, Meta, ProxyEnv, SecretMount};

    use super::*;

    fn run(args: &[&str]) -> ExecOp {
        ExecOp {
            meta: Meta { args: args.iter().map(ToString::to_string).collect(), ..Meta::default() },
            mounts: vec![Mount { input: Some(0), dest: "/".into(), output: Some(0), ..Mount::default() }],
            ..ExecOp::default()
        }
    }

    fn key(op: &ExecOp) -> Hash {
        exec(op, &Platform::linux("amd64"))
    }

    #[test]
    fn what_changes_the_result_changes_the_key() {
        let base = run(&["sh", "-c", "true"]);
        let mut seen = vec![key(&base)];
        let mut differs = |change: &dyn Fn(&mut ExecOp)| {
            let mut op = base.clone();
            change(&mut op);
            let key = key(&op);
            assert!(!seen.contains(&key));
            seen.push(key);
        };
        differs(&|op| op.meta.args.push("x".into()));
        differs(&|op| op.meta.env.push("A=1".into()));
        differs(&|op| op.meta.cwd = "/x".into());
        differs(&|op| op.meta.user = "1".into());
        differs(&|op| op.network = NetMode::None);
        differs(&|op| op.security = SecurityMode::Insecure);
        differs(&|op| op.mounts[0].readonly = true);
        differs(&|op| op.meta.extra_hosts.push(ExtraHost { host: "h".into(), ip: "1.1.1.1".into() }));
        let secret = |id: &str| Mount {
            dest: "/s".into(),
            kind: MountKind::Secret(SecretMount { id: id.into(), ..SecretMount::default() }),
            ..Mount::default()
        };
        differs(&|op| op.mounts.push(secret("a")));
        differs(&|op| op.mounts.push(secret("b")));
        assert_ne!(exec(&base, &Platform::linux("arm64")), key(&base));
    }

    #[test]
    fn what_does_not_change_the_result_does_not_count() {
        let base = run(&["true"]);
        let mut op = base.clone();
        op.meta.proxy_env = Some(ProxyEnv { http_proxy: "http://p".into(), ..ProxyEnv::default() });
        op.mounts[0].selector = "/sub".into();
        assert_eq!(key(&op), key(&base));
        let host = |ip: &str| {
            let mut op = base.clone();
            op.meta.extra_hosts.push(ExtraHost { host: "h".into(), ip: ip.into() });
            key(&op)
        };
        assert_eq!(host("1.1.1.1"), host("2.2.2.2"));
        let cache = |id: &str, sharing| {
            let mut op = base.clone();
            let kind = MountKind::Cache(CacheMount { id: id.into(), sharing });
            op.mounts.push(Mount { dest: "/c".into(), kind, ..Mount::default() });
            key(&op)
        };
        assert_eq!(cache("one", CacheSharing::Locked), cache("two", CacheSharing::Private));
        assert_ne!(cache("/c", CacheSharing::Shared), cache("one", CacheSharing::Shared));
        assert_ne!(cache("ns//c", CacheSharing::Shared), cache("one", CacheSharing::Shared));
    }

    #[test]
    fn mounts_count_by_content_only_where_that_is_safe() {
        let mount = |input, dest: &str, selector: &str, output, readonly| Mount {
            input: Some(input),
            dest: dest.into(),
            selector: selector.into(),
            output,
            readonly,
            ..Mount::default()
        };
        let mut op = run(&["true"]);
        op.mounts.push(mount(1, "/a", "sub", None, false));
        op.mounts.push(mount(2, "/b", "sub", Some(1), false));
        op.mounts.push(mount(3, "/c", "", Some(2), true));
        let inputs = exec_inputs(&op, 4).unwrap();
        assert_eq!(inputs[0].content, None);
        let followed = Selector { follow_links: true, ..Selector::path("/sub") };
        assert_eq!(inputs[1].content, Some(vec![followed]));
        assert_eq!(inputs[2].content, None);
        assert_eq!(inputs[3].content, Some(Vec::new()));
        op.mounts[2].content_cache = ContentCache::On;
        assert!(exec_inputs(&op, 4).is_err());
    }

    fn copying(src: &str, input: usize) -> FileAction {
        FileAction {
            input: ActionInput::Input(0),
            secondary_input: ActionInput::Input(input),
            output: Some(0),
            kind: FileActionKind::Copy(CopyAction {
                src: src.into(),
                dest: "/".into(),
                ..CopyAction::default()
            }),
        }
    }

    #[test]
    fn copies_look_at_their_source_by_content() {
        let op = |src: &str| FileOp { actions: vec![copying(src, 1)] };
        let inputs = file_inputs(&op("/a/b"), 2);
        assert_eq!(inputs[0], InputKey::default());
        assert_eq!(inputs[1].content, Some(vec![Selector::path("/a/b")]));
        // Where the file lies does not matter as long as its name and content stay.
        assert_eq!(file(&op("/a/b")), file(&op("/c/b")));
        assert_ne!(file(&op("/a/b")), file(&op("/a/c")));
        assert_ne!(inputs[1].selector, file_inputs(&op("/c/b"), 2)[1].selector);
        // Copied from itself: what it holds is in the result.
        assert_eq!(file_inputs(&FileOp { actions: vec![copying("/a", 0)] }, 1), [InputKey::default()]);
    }
}
