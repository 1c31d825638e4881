//! The same steps on `crun` and `runc` look the same from inside. Needs root and the programs.

mod common;

use std::path::{Path, PathBuf};

use common::{Bench, is_root, process, streams};
use kiln_exec::{Control, ExecProcess, MountSource, Runtime, Stdio, StepMount, TmpfsMount};
use tokio_util::sync::CancellationToken;

fn runtimes() -> Vec<Runtime> {
    if !is_root() {
        eprintln!("skipped: needs root");
        return Vec::new();
    }
    let found = |name: &str| {
        ["/usr/bin", "/usr/sbin"].iter().map(|d| Path::new(d).join(name)).find(|p: &PathBuf| p.exists())
    };
    let mut runtimes = vec![Runtime::Embedded];
    // crun refuses machines where the unified hierarchy stands beside old ones and has controllers.
    let beside = std::fs::read_to_string("/sys/fs/cgroup/unified/cgroup.controllers").unwrap_or_default();
    if beside.trim().is_empty() {
        runtimes.extend(found("crun").map(Runtime::Crun));
    } else {
        eprintln!("crun is left out: the unified cgroup hierarchy has {}", beside.trim());
    }
    runtimes.extend(found("runc").map(Runtime::Runc));
    runtimes
}

/// Everything about the inside that does not name a runtime or a moment.
const LOOK: &str = "hostname; id; pwd; umask; ls /dev | grep -vE 'core|ptmx'; cat /etc/hosts; \
    grep -E 'Cap|NoNewPrivs|Seccomp:|Groups' /proc/self/status; \
    for f in /proc/kcore /proc/keys /proc/timer_list; do cat $f | wc -c; done; ls /sys/firmware; \
    echo x > /proc/sys/kernel/hostname; echo x > /etc/hosts; cat /m/f; echo x > /m/f; cat /proc/1/comm; \
    for p in /proc /dev /dev/pts /dev/shm /dev/mqueue /sys /etc/hosts /m; do grep \" $p \" /proc/mounts | \
    sed 's/ [^ ]* / /; s/,inode64//; s/^[^ ]* //; s/size=[0-9]*k/size/'  | cut -d' ' -f1 ; done; \
    ls /proc/self/fd | wc -l; ulimit -n; mount -t tmpfs x /tmp; unshare -U true; exit 3";

#[tokio::test]
async fn steps_look_the_same() {
    let mut seen: Vec<(Runtime, String, String)> = Vec::new();
    for runtime in runtimes() {
        let bench = Bench::with(|config| config.runtime = runtime.clone()).await;
        std::fs::write(bench.dir.path().join("f"), "content\n").unwrap();
        let mut step = bench.step("");
        step.process = process(LOOK);
        step.process.user = "app".into();
        step.process.cwd = "/made/here".into();
        step.ulimits = vec![kiln_exec::Ulimit { name: "nofile".into(), soft: 500, hard: 500 }];
        let source = common::bind(bench.dir.path());
        let selector = "f".to_owned();
        let file = StepMount {
            source,
            selector,
            dest: "/m/f".into(),
            readonly: true,
            options: vec!["nodev".into()],
        };
        let tmpfs = MountSource::Tmpfs(TmpfsMount { size_bytes: 4096, mode: None });
        let tmpfs = StepMount {
            source: tmpfs,
            selector: String::new(),
            dest: "/t".into(),
            readonly: false,
            options: vec![],
        };
        step.mounts = vec![file, tmpfs];
        let out = bench.run(step).await;
        assert_eq!(out.code(), 3, "{runtime:?} {out:?}");
        assert!(!bench.root().join("m").exists() && !bench.root().join("t").exists(), "{runtime:?}");
        seen.push((runtime, out.stdout, out.stderr));
    }
    for pair in seen.windows(2) {
        assert_eq!(pair[0].1, pair[1].1, "{:?} and {:?}", pair[0].0, pair[1].0);
        assert_eq!(pair[0].2, pair[1].2, "{:?} and {:?}", pair[0].0, pair[1].0);
    }
}

#[tokio::test]
async fn processes_are_added_killed_and_given_terminals() {
    for runtime in runtimes() {
        let bench = Bench::with(|config| config.runtime = runtime.clone()).await;
        let mut step = bench.step("echo up; sleep 1000; true");
        step.id = "box".into();
        let cancel = CancellationToken::new();
        let (stdio, sink, _) = streams();
        let run = tokio::spawn({
            let (executor, cancel) = (bench.executor.clone(), cancel.clone());
            async move { executor.run(step, stdio, None, cancel).await }
        });
        while !sink.text().contains("up") {
            assert!(!run.is_finished(), "{runtime:?}");
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        let sh = |line: &str| ExecProcess {
            args: vec!["/bin/sh".into(), "-c".into(), line.into()],
            ..ExecProcess::default()
        };
        let out = bench.exec("box", sh("cat /proc/1/comm; exit 4")).await;
        assert_eq!((out.code(), out.stdout.as_str()), (4, "sh\n"), "{runtime:?}");
        let mut with_terminal = sh("stty size; tty; exit 6");
        with_terminal.tty = true;
        let (mut stdio, sink, _) = streams();
        let (control, receiver) = tokio::sync::mpsc::channel(1);
        control.send(Control::Resize(kiln_exec::WinSize { rows: 11, cols: 22 })).await.unwrap();
        stdio.control = Some(receiver);
        let result = bench.executor.exec("box", with_terminal, stdio, CancellationToken::new()).await;
        assert!(
            matches!(result, Err(kiln_exec::Error::Exit { code: 6 })),
            "{runtime:?} {result:?} {}",
            sink.text()
        );
        assert!(sink.text().contains("/dev/pts/"), "{runtime:?} {}", sink.text());
        cancel.cancel();
        assert!(matches!(run.await.unwrap(), Err(kiln_exec::Error::Cancelled { code: 137 })), "{runtime:?}");
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(&*bench.dir.path().to_string_lossy()), "{runtime:?}");
        drop(Stdio::default());
    }
}
