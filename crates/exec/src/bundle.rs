//! Everything a runtime needs to run one step: the spec, and handles to what the spec can only name.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use oci_spec::runtime::Spec;

use self::step_file::StepFile;
use crate::beneath::Root;
use crate::cgroup::StepCgroup;
use crate::emulation::Emulation;
use crate::mount::Detached;
use crate::network::Namespace;
use crate::spec::{Environment, PreparedIndex};
use crate::stubs::Stubs;
use crate::{BindMount, Error, ExecutorConfig, MountSource, Result, SecurityMode, Step, user};

/// A step, ready to be run.
pub struct Bundle {
    pub id: String,
    pub spec: Spec,
    /// For each mount of the spec the step's own mount, where there is one behind it.
    pub mounts: Vec<Option<PreparedMount>>,
    pub root: OwnedFd,
    pub cgroup: Option<StepCgroup>,
    pub network: Namespace,
    pub binfmt_registration: Option<String>,
    /// An emulator to be mounted into the step and put in front of its process.
    pub emulator: Option<Detached>,
    pub rootless: bool,
    stubs: Stubs,
    /// Files mounted into the step, removed with it.
    _files: [StepFile; 2],
}

pub struct PreparedMount {
    pub detached: Detached,
    /// Only this path in it is mounted, unless empty.
    pub selector: String,
}

/// What of the executor goes into bundles.
pub struct Surroundings<'a> {
    pub config: &'a ExecutorConfig,
    pub cgroups: &'a crate::cgroup::Cgroups,
    /// An empty directory.
    pub scratch: &'a Path,
    pub files_dir: &'a Path,
    /// See [`make_stub_layer`].
    pub stub_layer: &'a Path,
    /// The runtime makes the cgroup itself.
    pub runtime_makes_cgroup: bool,
}

impl Bundle {
    /// Mounts, looks up and writes what the step needs. Blocks.
    pub fn prepare(
        step: &Step,
        surroundings: &Surroundings<'_>,
        network: Namespace,
        emulation: Option<Emulation>,
    ) -> Result<Self> {
        let config = surroundings.config;
        let insecure = step.security == SecurityMode::Insecure;
        let rootless = config.rootless.is_some();
        let mount = |source: &MountSource, dest: &str| {
            let failed = |source| Error::Mount { dest: dest.to_owned(), source };
            Detached::make(source, surroundings.scratch).map_err(failed)
        };
        let root_mount = mount(&with_stub_layer(&step.rootfs.source, surroundings.stub_layer), "/")?;
        let root = Root::new(root_mount.fd.as_fd());
        let destinations = step.mounts.iter().map(|m| m.dest.as_str());
        let stubs = Stubs::record(&root, destinations, step.remove_mount_stubs_recursive);
        let user = user::lookup(&root, &step.process.user)?;
        make_cwd(&root, &step.process.cwd, &user)?;
        let cgroup = if surroundings.runtime_makes_cgroup {
            None
        } else {
            surroundings.cgroups.create(&step.cgroup_parent, &step.id, insecure, &step.resources)?
        };
        let cgroup_path = surroundings.cgroups.step_path(&step.cgroup_parent, &step.id, insecure);
        let (own_uids, own_gids);
        let mut binfmt_registration = None;
        let mut emulator = None;
        let mut user_namespace = None;
        match emulation {
            Some(Emulation::UserNamespace { registration }) => {
                (own_uids, own_gids) = crate::userns::identity()?;
                user_namespace = Some((&own_uids[..], &own_gids[..]));
                binfmt_registration = Some(registration);
            }
            Some(Emulation::InFront { program }) => {
                let source = MountSource::Bind(BindMount { path: program, recursive: false });
                let mounted = mount(&source, crate::embedded::EMULATOR_PATH)?;
                mounted
                    .restrict(true, &[])
                    .map_err(|source| Error::Mount { dest: "emulator".into(), source })?;
                emulator = Some(mounted);
            }
            None => {}
        }
        let env = Environment {
            rootless: rootless || user_namespace.is_some(),
            cgroup_namespace: surroundings.cgroups.is_unified_only() && (cgroup.is_some() || !rootless),
            cgroup_path: (cgroup.is_some() || surroundings.runtime_makes_cgroup)
                .then_some(cgroup_path.as_str()),
            host_network: network.is_host(),
            network_namespace: network.path(),
            apparmor_profile: config.apparmor_profile.as_deref(),
            oom_score_adj: config.oom_score_adj,
            user_namespace,
        };
        let built = crate::spec::build(step, &user, &env)?;
        // Each step has files of its own: one that another step replaced could no longer be mounted.
        let file = |name, text: String| StepFile::write(surroundings.files_dir, name, &step.id, &text);
        let hosts = file("hosts", crate::hosts::text(&step.hostname, &step.extra_hosts))?;
        let resolv_conf = file("resolv", crate::resolv::text(&config.dns, step.network))?;
        let mut mounts = Vec::new();
        for index in &built.prepared {
            let prepared = match index {
                None => None,
                Some(PreparedIndex::ResolvConf) => Some(file_mount(surroundings, resolv_conf.path())?),
                Some(PreparedIndex::Hosts) => Some(file_mount(surroundings, hosts.path())?),
                Some(PreparedIndex::Step(i)) => {
                    let wanted = &step.mounts[*i];
                    let detached = mount(&wanted.source, &wanted.dest)?;
                    let failed = |source| Error::Mount { dest: wanted.dest.clone(), source };
                    detached.restrict(wanted.readonly, &wanted.options).map_err(failed)?;
                    Some(PreparedMount { detached, selector: wanted.selector.clone() })
                }
            };
            mounts.push(prepared);
        }
        Ok(Self {
            id: step.id.clone(),
            spec: built.spec,
            mounts,
            root: root_mount.fd,
            cgroup,
            network,
            binfmt_registration,
            emulator,
            rootless,
            stubs,
            _files: [hosts, resolv_conf],
        })
    }

    /// Cleans the root file system up once nothing runs in it. Blocks.
    pub fn finish(self) -> Option<StepCgroup> {
        self.stubs.remove(&Root::new(self.root.as_fd()));
        self.cgroup
    }
}

/// Makes a layer that goes below all others of a step's root: it has the files that every step gets mounted over, so that
/// these need not be made in the step's own layer. That saves a copy of `/etc` in each, and its traces in the image.
pub fn make_stub_layer(dir: &Path) -> std::io::Result<()> {
    let etc = dir.join("etc");
    std::fs::create_dir_all(&etc)?;
    for (path, mode) in [
        (dir.to_owned(), 0o755),
        (etc.clone(), 0o755),
        (etc.join("hosts"), 0o644),
        (etc.join("resolv.conf"), 0o644),
    ] {
        if !path.exists() {
            std::fs::write(&path, "")?;
        }
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(mode))?;
    }
    Ok(())
}

fn with_stub_layer(source: &MountSource, stub_layer: &Path) -> MountSource {
    let mut source = source.clone();
    if let MountSource::Overlay(overlay) = &mut source {
        overlay.lower.push(stub_layer.to_owned());
    }
    source
}

fn file_mount(surroundings: &Surroundings<'_>, path: &Path) -> Result<PreparedMount> {
    let source = MountSource::Bind(BindMount { path: path.to_owned(), recursive: false });
    let failed = |source| Error::Mount { dest: path.display().to_string(), source };
    let detached = Detached::make(&source, surroundings.scratch).map_err(failed)?;
    let options = ["nosuid", "noexec", "nodev"].map(str::to_owned);
    let failed = |source| Error::Mount { dest: path.display().to_string(), source };
    detached.restrict(true, &options).map_err(failed)?;
    Ok(PreparedMount { detached, selector: String::new() })
}

/// Makes the working directory where it is missing, for the step's user.
fn make_cwd(root: &Root<std::os::fd::BorrowedFd<'_>>, cwd: &str, user: &user::User) -> Result<()> {
    const MODE: u32 = 0o755;
    let failed = |source: std::io::Error| Error::Cwd { path: cwd.to_owned(), source };
    let path = root.resolve(Path::new(cwd)).map_err(failed)?;
    if root.exists(&path).map_err(|e| failed(e.into()))? {
        return Ok(());
    }
    root.make_dir_all(&path, MODE, Some((user.uid, user.gid))).map_err(|e| failed(e.into()))?;
    Ok(())
}

mod step_file {
    use std::path::{Path, PathBuf};

    use crate::error::at;

    /// A file that goes with its step.
    pub struct StepFile(PathBuf);

    impl StepFile {
        pub fn write(dir: &Path, name: &str, id: &str, text: &str) -> crate::Result<Self> {
            let path = dir.join(format!("{name}.{id}"));
            std::fs::write(&path, text).map_err(at("write", &path))?;
            Ok(Self(path))
        }

        pub fn path(&self) -> &Path {
            &self.0
        }
    }

    impl Drop for StepFile {
        fn drop(&mut self) {
            if let Err(error) = std::fs::remove_file(&self.0) {
                tracing::debug!(path = %self.0.display(), %error, "a step's file stays");
            }
        }
    }
}
