//! A root file system with busybox, an executor, and a way to run a shell line in it.
#![allow(dead_code, reason = "each test program uses its part")]

use std::fs;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use kiln_exec::{
    Arch, BindMount, Error, ExecProcess, Executor, ExecutorConfig, ExitStatus, MountSource, NetMode, Process,
    Resources, Result, RootMount, SecurityMode, Stdio, Step,
};
use tokio_util::sync::CancellationToken;

pub const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

pub fn is_root() -> bool {
    rustix::process::getuid().is_root()
}

pub struct Bench {
    pub dir: tempfile::TempDir,
    pub executor: Executor,
}

/// Output of a run, as text.
#[derive(Debug)]
pub struct Output {
    pub result: Result<ExitStatus>,
    pub stdout: String,
    pub stderr: String,
}

impl Output {
    pub fn code(&self) -> u32 {
        match &self.result {
            Ok(status) => status.code,
            Err(Error::Exit { code }) => *code,
            Err(other) => panic!("no exit code: {other:?}"),
        }
    }

    #[track_caller]
    pub fn ok(self) -> String {
        assert!(self.result.is_ok(), "{self:?}");
        self.stdout
    }
}

/// Collects what is written to it.
#[derive(Clone, Default)]
pub struct Sink(pub Arc<Mutex<Vec<u8>>>);

impl Sink {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }
}

impl tokio::io::AsyncWrite for Sink {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

pub fn config(dir: &Path) -> ExecutorConfig {
    let mut config = ExecutorConfig::new(dir.join("state"));
    config.helper = Some(env!("CARGO_BIN_EXE_kiln-exec-helper").into());
    config
}

impl Bench {
    pub async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub async fn with(change: impl FnOnce(&mut ExecutorConfig)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut config = config(dir.path());
        change(&mut config);
        let executor = Executor::new(config).await.unwrap();
        make_root(&dir.path().join("root"), Path::new("/bin/busybox"));
        Self { dir, executor }
    }

    pub fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    pub fn step(&self, line: &str) -> Step {
        step(&self.root(), line)
    }

    pub async fn sh(&self, line: &str) -> Output {
        self.run(self.step(line)).await
    }

    pub async fn run(&self, step: Step) -> Output {
        self.run_until(step, CancellationToken::new()).await
    }

    pub async fn run_until(&self, step: Step, cancel: CancellationToken) -> Output {
        let (stdio, out, err) = streams();
        let result = self.executor.run(step, stdio, None, cancel).await;
        Output { result, stdout: out.text(), stderr: err.text() }
    }

    pub async fn exec(&self, id: &str, process: ExecProcess) -> Output {
        let (stdio, out, err) = streams();
        let result = self.executor.exec(id, process, stdio, CancellationToken::new()).await;
        Output { result, stdout: out.text(), stderr: err.text() }
    }
}

pub fn streams() -> (Stdio, Sink, Sink) {
    let (out, err) = (Sink::default(), Sink::default());
    let stdio = Stdio {
        stdout: Some(Box::new(out.clone())),
        stderr: Some(Box::new(err.clone())),
        ..Stdio::default()
    };
    (stdio, out, err)
}

pub fn make_root(root: &Path, busybox: &Path) {
    for dir in ["bin", "etc", "tmp", "proc", "sys", "dev"] {
        fs::create_dir_all(root.join(dir)).unwrap();
    }
    fs::copy(busybox, root.join("bin/busybox")).unwrap();
    let applets = "sh true false cat ls mount id touch mkdir mknod sleep ping hostname echo kill stat dd tty stty uname \
                   env pwd chmod chown readlink ps head wc grep sed test find umount unshare rm ulimit head nproc tee";
    for applet in applets.split_whitespace() {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(applet)).ok();
    }
    fs::write(root.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\napp:x:1000:1001::/:/bin/sh\n").unwrap();
    fs::write(root.join("etc/group"), "root:x:0:\nvideo:x:44:app\n").unwrap();
}

pub fn process(line: &str) -> Process {
    Process {
        args: vec!["/bin/sh".into(), "-c".into(), line.into()],
        env: vec![PATH.into()],
        ..Process::default()
    }
}

pub fn step(root: &Path, line: &str) -> Step {
    Step {
        id: String::new(),
        process: process(line),
        hostname: String::new(),
        rootfs: RootMount { source: bind(root), readonly: false },
        mounts: Vec::new(),
        network: NetMode::None,
        security: SecurityMode::Sandbox,
        extra_hosts: Vec::new(),
        ulimits: Vec::new(),
        shm_size_bytes: 0,
        cgroup_parent: String::new(),
        resources: Resources::default(),
        valid_exit_codes: Vec::new(),
        platform: None,
        remove_mount_stubs_recursive: true,
    }
}

pub fn bind(path: &Path) -> MountSource {
    MountSource::Bind(BindMount { path: path.to_owned(), recursive: false })
}

pub fn arm64() -> Arch {
    Arch::new("arm64", "")
}
