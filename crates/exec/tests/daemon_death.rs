//! A daemon that is killed takes its steps with it, and the next one finds nothing. Needs root.

mod common;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use kiln_exec::{Executor, Runtime};

/// Seconds that nothing else on the machine sleeps.
const SLEEP: &str = "98761";

fn start(dir: &Path) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kiln-exec-helper"));
    command.arg("run").args([dir.join("state"), dir.join("root")]);
    command.args(["", "", "/bin/sh", "-c", &format!("(sleep {SLEEP} &); trap '' TERM; sleep {SLEEP}; true")]);
    command.stdout(Stdio::null()).spawn().unwrap()
}

fn sleepers() -> Vec<PathBuf> {
    let all = std::fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    // Of processes in steps only: their command line is just that.
    all.filter(|path| {
        std::fs::read(path.join("cmdline")).is_ok_and(|line| line == format!("sleep\0{SLEEP}\0").as_bytes())
    })
    .collect()
}

fn wait_for(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Directory of a process's cgroup in the unified hierarchy.
fn cgroup(process: &Path) -> PathBuf {
    let text = std::fs::read_to_string(process.join("cgroup")).unwrap();
    let path = text.lines().find_map(|line| line.strip_prefix("0::/")).unwrap();
    let unified = Path::new("/sys/fs/cgroup/unified");
    if unified.exists() { unified.join(path) } else { Path::new("/sys/fs/cgroup").join(path) }
}

#[test]
fn steps_end_with_the_daemon() {
    if !common::is_root() {
        eprintln!("skipped: needs root");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    common::make_root(&dir.path().join("root"), Path::new("/bin/busybox"));
    let mut daemon = start(dir.path());
    wait_for("the step runs", || sleepers().len() == 2);
    let cgroup = cgroup(&sleepers()[0]);
    assert!(cgroup.to_string_lossy().contains("/kiln/"), "{}", cgroup.display());
    daemon.kill().unwrap();
    daemon.wait().unwrap();
    wait_for("the step has ended", || sleepers().is_empty());
    // The next daemon with this state directory sweeps the cgroup.
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut config = common::config(dir.path());
        config.runtime = Runtime::Embedded;
        let executor = Executor::new(config).await.unwrap();
        let step = common::step(&dir.path().join("root"), "true");
        executor.run(step, kiln_exec::Stdio::default(), None, Default::default()).await.unwrap();
    });
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(&*dir.path().to_string_lossy()));
    // Neither the step's directory nor the instance's above it.
    assert!(!cgroup.exists() && !cgroup.ancestors().nth(2).unwrap().exists());
}

#[test]
fn a_helper_that_dies_is_started_again() {
    if !common::is_root() {
        eprintln!("skipped: needs root");
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let bench = common::Bench::new().await;
        let own = std::process::id();
        let spawners = || {
            let children = std::fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| {
                let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
                let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
                let parent: u32 = stat.rsplit(')').next()?.split_whitespace().nth(1)?.parse().ok()?;
                (parent == own && stat.contains("(kiln-spawner)")).then_some(pid)
            });
            children.collect::<Vec<_>>()
        };
        assert_eq!(bench.sh("echo 1").await.ok(), "1\n");
        for pid in spawners() {
            rustix::process::kill_process(
                rustix::process::Pid::from_raw(pid).unwrap(),
                rustix::process::Signal::KILL,
            )
            .unwrap();
        }
        // The first call may still meet the dead one, and says so.
        let mut last = None;
        for _ in 0..100 {
            let out = bench.sh("echo 2").await;
            if out.result.is_ok() {
                assert_eq!(out.stdout, "2\n");
                return;
            }
            last = Some(out);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{last:?}");
    });
}
