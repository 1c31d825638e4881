//! Streams, users, mounts, ends. Needs root.

mod common;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use common::{Bench, Output, bind, is_root, streams};
use kiln_exec::{
    Control, Error, ExecProcess, HostIp, MountSource, OverlayMount, OverlayUpper, Stdio, StepMount,
    TmpfsMount, WinSize,
};
use tokio_util::sync::CancellationToken;

macro_rules! need_root {
    () => {
        if !is_root() {
            eprintln!("skipped: needs root");
            return;
        }
    };
}

fn mount(source: MountSource, dest: &str) -> StepMount {
    StepMount { source, selector: String::new(), dest: dest.into(), readonly: false, options: Vec::new() }
}

fn tmpfs() -> MountSource {
    MountSource::Tmpfs(TmpfsMount::default())
}

#[tokio::test]
async fn exit_codes_and_streams() {
    need_root!();
    let bench = Bench::new().await;
    let out = bench.sh("echo out; echo err >&2; exit 7").await;
    assert_eq!((out.code(), out.stdout.as_str(), out.stderr.as_str()), (7, "out\n", "err\n"));
    assert_eq!(out.result.unwrap_err().to_string(), "exit code: 7");
    let mut step = bench.step("exit 7");
    step.valid_exit_codes = vec![3, 7];
    assert_eq!(bench.run(step).await.code(), 7);
    assert_eq!(bench.sh("kill -9 $$; true").await.code(), 0, "process 1 does not kill itself");
    let long = bench.sh("head -c 3000000 /dev/zero; head -c 100000 /dev/zero >&2").await;
    assert_eq!((long.stdout.len(), long.stderr.len()), (3_000_000, 100_000));
    let (mut stdio, sink, _) = streams();
    stdio.stdin = Some(Box::new(&b"from outside"[..]));
    let step = bench.step("cat; cat | wc -c");
    bench.executor.run(step, stdio, None, CancellationToken::new()).await.unwrap();
    assert_eq!(sink.text(), "from outside0\n");
}

#[tokio::test]
async fn what_cannot_be_executed() {
    need_root!();
    let bench = Bench::new().await;
    let run = async |args: &[&str]| {
        let mut step = bench.step("");
        step.process.args = args.iter().map(|a| (*a).to_owned()).collect();
        bench.run(step).await
    };
    let out = run(&["nope"]).await;
    assert!(out.stderr.contains("exec: \"nope\": executable file not found in $PATH"), "{out:?}");
    assert_eq!(out.code(), 1);
    let out = run(&["/no/such"]).await;
    assert!(out.stderr.contains("exec: \"/no/such\": stat /no/such: no such file or directory"), "{out:?}");
    let out = run(&["/etc/passwd"]).await;
    assert!(out.stderr.contains("exec: \"/etc/passwd\": permission denied"), "{out:?}");
    assert!(matches!(run(&[]).await.result, Err(Error::NoArguments)));
}

#[tokio::test]
async fn users_and_directories() {
    need_root!();
    let bench = Bench::new().await;
    let mut step = bench.step("id; pwd; stat -c %u:%g:%a . ; echo ok > /dev/stdout");
    step.process.user = "app".into();
    step.process.cwd = "/a/b".into();
    let out = bench.run(step).await.ok();
    assert_eq!(out, "uid=1000(app) gid=1001 groups=44(video),1001\n/a/b\n1000:1001:755\nok\n");
    let mut step = bench.step("id -u; id -g");
    step.process.user = "7:8".into();
    assert_eq!(bench.run(step).await.ok(), "7\n8\n");
    let mut step = bench.step("true");
    step.process.user = "ghost".into();
    let error = bench.run(step).await.result.unwrap_err();
    assert_eq!(error.to_string(), "unable to find user ghost: no matching entries in passwd file");
}

#[tokio::test]
async fn hosts_and_resolv_conf() {
    need_root!();
    let bench = Bench::new().await;
    let mut step = bench
        .step("cat /etc/hosts; hostname; cat /etc/resolv.conf | grep -c nameserver; echo x >> /etc/hosts");
    step.hostname = "testtest".into();
    step.extra_hosts = vec![HostIp { host: "myhost".into(), ip: "1.2.3.4".parse().unwrap() }];
    let out = bench.run(step).await;
    assert!(out.stdout.starts_with("127.0.0.1\tlocalhost testtest\n::1\tlocalhost ip6-localhost ip6-loopback\n1.2.3.4\tmyhost\ntesttest\n"), "{out:?}");
    assert!(out.stderr.contains("Read-only"), "{out:?}");
    assert!(!bench.root().join("etc/hosts").exists() && !bench.root().join("etc/resolv.conf").exists());
}

#[tokio::test]
async fn mount_stubs_go() {
    need_root!();
    let bench = Bench::new().await;
    fs::create_dir_all(bench.root().join("test/qux")).unwrap();
    let mut step = bench.step("touch /test/baz/keep");
    step.mounts =
        ["/test/foo", "/test/bar/x/y", "/test/baz/x", "/test/qux"].map(|d| mount(tmpfs(), d)).to_vec();
    bench.run(step).await.ok();
    let mut names: Vec<_> = fs::read_dir(bench.root().join("test"))
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["baz", "qux"]);
    assert_eq!(fs::read_dir(bench.root().join("test/baz")).unwrap().count(), 1);
    let mut step = bench.step("touch -d @1234567890 /bin /etc /var /tmp /tmp/foo2");
    fs::create_dir_all(bench.root().join("var")).unwrap();
    step.mounts = vec![mount(tmpfs(), "/var/foo"), mount(tmpfs(), "/tmp/foo2/bar")];
    bench.run(step).await.ok();
    for dir in ["bin", "etc", "var", "tmp"] {
        assert_eq!(fs::metadata(bench.root().join(dir)).unwrap().mtime(), 1_234_567_890, "{dir}");
    }
}

#[tokio::test]
async fn overlays_binds_and_parts() {
    need_root!();
    let bench = Bench::new().await;
    let at = |p: &str| bench.dir.path().join(p);
    for dir in ["up", "work", "l1/x", "l2", "src/sub/deep"] {
        fs::create_dir_all(at(dir)).unwrap();
    }
    fs::write(at("l1/x/one"), "1").unwrap();
    fs::write(at("l2/two"), "2").unwrap();
    fs::write(at("src/sub/file"), "f").unwrap();
    std::os::unix::fs::symlink("/../../sub", at("src/link")).unwrap();
    let overlay = |upper| OverlayMount {
        lower: vec![at("l1"), at("l2"), bench.root()],
        upper,
        userxattr: false,
        volatile: true,
    };
    let mut step = bench.step("cat /x/one /two; echo new > /made; rm /two; cat /m/file /f; ls /m; echo no > /m/file; echo w > /w/out");
    let upper = OverlayUpper { upper: at("up"), work: at("work") };
    step.rootfs.source = MountSource::Overlay(overlay(Some(upper)));
    let mut part = mount(bind(&at("src")), "/m");
    part.selector = "link".into();
    part.readonly = true;
    let mut file = mount(bind(&at("src")), "/f");
    file.selector = "/sub/file".into();
    step.mounts = vec![part.clone(), file, mount(bind(&at("l2")), "/w")];
    let out = bench.run(step).await;
    assert_eq!(out.stdout, "12ffdeep\nfile\n", "{out:?}");
    assert!(out.stderr.contains("/m/file: Read-only file system"), "{out:?}");
    assert_eq!(fs::read_to_string(at("up/made")).unwrap(), "new\n");
    assert_eq!(fs::read_to_string(at("l2/out")).unwrap(), "w\n");
    let mut left: Vec<_> = fs::read_dir(at("up")).unwrap().map(|e| e.unwrap().file_name()).collect();
    left.sort();
    // The whiteout of /two and the new file; no stub.
    assert_eq!(left, ["made", "two"]);
    // A part of an overlay, and one that is not there.
    let mut step = bench.step("cat /p/one");
    let mut of_overlay = mount(MountSource::Overlay(overlay(None)), "/p");
    of_overlay.selector = "/x".into();
    step.mounts = vec![of_overlay];
    assert_eq!(bench.run(step).await.ok(), "1");
    let mut step = bench.step("true");
    part.selector = "gone".into();
    step.mounts = vec![part];
    let error = bench.run(step).await.result.unwrap_err();
    assert!(error.to_string().contains("mount on /m: No such file or directory"), "{error}");
    let mut step = bench.step("true");
    step.mounts = vec![mount(tmpfs(), "/proc/self/attr")];
    assert!(bench.run(step).await.result.unwrap_err().to_string().contains("inside /proc"));
}

#[tokio::test]
async fn hundreds_of_layers() {
    need_root!();
    let bench = Bench::new().await;
    let mut lower = Vec::new();
    for i in 0..300 {
        let dir = bench.dir.path().join(format!("a-rather-long-name-for-a-layer-directory-{i:04}"));
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join(format!("file{i}")), "").unwrap();
        lower.push(dir);
    }
    lower.push(bench.root());
    let mut step = bench.step("ls / | grep -c file");
    step.rootfs.source =
        MountSource::Overlay(OverlayMount { lower, upper: None, userxattr: false, volatile: false });
    assert_eq!(bench.run(step).await.ok(), "300\n");
}

#[tokio::test]
async fn a_read_only_root_is_read_only() {
    need_root!();
    let bench = Bench::new().await;
    let mut step = bench.step("echo x > /made; echo y > /t/made && cat /t/made");
    step.rootfs.readonly = true;
    step.mounts = vec![mount(tmpfs(), "/t")];
    let out = bench.run(step).await;
    assert_eq!(out.stdout, "y\n");
    assert!(out.stderr.contains("Read-only file system"), "{out:?}");
    assert!(!bench.root().join("made").exists() && !bench.root().join("t").exists());
}

/// Cgroup directories of a step, in any hierarchy.
fn cgroups_left(id: &str) -> Vec<String> {
    let mut left = Vec::new();
    let mut walk = vec![std::path::PathBuf::from("/sys/fs/cgroup")];
    while let Some(dir) = walk.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            let path = entry.path();
            if entry.file_type().is_ok_and(|t| t.is_dir()) {
                if path.to_string_lossy().contains("/kiln/") && path.ends_with(id) {
                    left.push(path.display().to_string());
                }
                walk.push(path);
            }
        }
    }
    left
}

#[tokio::test]
async fn a_killed_step_leaves_nothing() {
    need_root!();
    let bench = Bench::new().await;
    let mut step = bench.step(
        "for i in 1 2 3; do (sleep 4321 & sleep 4321) & done; echo started; trap '' TERM INT; while :; do sleep 4321; done",
    );
    step.id = "killedstep".into();
    step.mounts = vec![mount(tmpfs(), "/t")];
    let cancel = CancellationToken::new();
    let (stdio, sink, _) = streams();
    let (sender, started) = tokio::sync::oneshot::channel();
    let run = tokio::spawn({
        let (executor, cancel) = (bench.executor.clone(), cancel.clone());
        async move { executor.run(step, stdio, Some(sender), cancel).await }
    });
    started.await.unwrap();
    while !sink.text().contains("started") {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(!cgroups_left("killedstep").is_empty(), "it runs in a cgroup");
    let begin = Instant::now();
    cancel.cancel();
    let error = run.await.unwrap().unwrap_err();
    assert!(begin.elapsed() < Duration::from_secs(2));
    assert_eq!(error.to_string(), "exit code: 137: context canceled");
    assert_nothing_left(&bench, "killedstep", "4321");
}

#[track_caller]
fn assert_nothing_left(bench: &Bench, id: &str, seconds: &str) {
    let processes = fs::read_dir("/proc").unwrap().flatten().filter(|entry| {
        fs::read(entry.path().join("cmdline"))
            .is_ok_and(|line| String::from_utf8_lossy(&line).contains(seconds))
    });
    assert_eq!(processes.count(), 0);
    assert_eq!(cgroups_left(id), Vec::<String>::new());
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(&*bench.dir.path().to_string_lossy()), "{mounts}");
    assert!(!bench.root().join("t").exists());
    assert!(
        fs::read_dir(bench.dir.path().join("state/files"))
            .unwrap()
            .flatten()
            .all(|e| { e.file_name().to_string_lossy().starts_with("resolv") })
    );
}

#[tokio::test]
async fn a_dropped_run_is_killed_too() {
    need_root!();
    let bench = Bench::new().await;
    let mut step = bench.step("sleep 5432");
    step.id = "droppedstep".into();
    let (sender, started) = tokio::sync::oneshot::channel();
    let run = tokio::spawn({
        let executor = bench.executor.clone();
        async move { executor.run(step, Stdio::default(), Some(sender), CancellationToken::new()).await }
    });
    started.await.unwrap();
    run.abort();
    let _ = run.await;
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let out = bench
            .exec("droppedstep", ExecProcess { args: vec!["true".into()], ..ExecProcess::default() })
            .await;
        match out.result {
            Err(Error::ContainerNotFound { .. }) => break,
            _ => assert!(Instant::now() < deadline, "still there"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_nothing_left(&bench, "droppedstep", "5432");
}

#[tokio::test]
async fn further_processes_in_a_container() {
    need_root!();
    let bench = Bench::new().await;
    let mut step = bench.step("sleep 1000; true");
    step.id = "box".into();
    step.process.env.push("FIRST=1".into());
    let cancel = CancellationToken::new();
    let run = tokio::spawn({
        let (executor, cancel) = (bench.executor.clone(), cancel.clone());
        async move { executor.run(step, Stdio::default(), None, cancel).await }
    });
    let sh = |line: &str| ExecProcess {
        args: vec!["sh".into(), "-c".into(), line.into()],
        ..ExecProcess::default()
    };
    // While it starts, exec waits for it.
    let mut first = Output { result: Err(Error::NoArguments), stdout: String::new(), stderr: String::new() };
    for _ in 0..100 {
        first = bench.exec("box", sh("cat /proc/1/comm; echo $FIRST; hostname; id -u; grep CapBnd /proc/self/status; grep Seccomp: /proc/self/status")).await;
        if !matches!(first.result, Err(Error::ContainerNotFound { .. })) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(first.ok(), "sh\n1\nbuildkitsandbox\n0\nCapBnd:\t00000000a80425fb\nSeccomp:\t2\n");
    let mut other = sh("id -u; pwd; env; exit 5");
    other.user = "app".into();
    other.cwd = "/tmp".into();
    other.env = vec![common::PATH.into(), "X=y".into()];
    let out = bench.exec("box", other).await;
    assert_eq!(out.code(), 5);
    assert!(
        out.stdout.starts_with("1000\n/tmp\n") && out.stdout.contains("X=y") && !out.stdout.contains("FIRST"),
        "{out:?}"
    );
    let background = tokio::spawn({
        let executor = bench.executor.clone();
        async move {
            executor
                .exec(
                    "box",
                    ExecProcess { args: vec!["sleep".into(), "6543".into()], ..ExecProcess::default() },
                    Stdio::default(),
                    CancellationToken::new(),
                )
                .await
        }
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    cancel.cancel();
    assert!(matches!(run.await.unwrap(), Err(Error::Cancelled { code: 137 })));
    assert!(matches!(background.await.unwrap(), Err(Error::Exit { code: 137 })));
    let gone = bench.exec("box", sh("true")).await.result.unwrap_err();
    assert_eq!(gone.to_string(), "container box not found");
}

#[tokio::test]
async fn terminals_and_signals() {
    need_root!();
    let bench = Bench::new().await;
    let mut step = bench.step("tty; ls -l /dev/console | sed 's/.*136/136/; s/ .*//'; trap 'echo resized; stty size; exit 4' WINCH; read x; echo got $x; while :; do sleep 0.1; done");
    step.process.tty = true;
    let (mut stdio, sink, _) = streams();
    let (mut keyboard, input) = tokio::io::duplex(100);
    let (control, receiver) = tokio::sync::mpsc::channel(4);
    stdio.stdin = Some(Box::new(input));
    stdio.control = Some(receiver);
    let run = tokio::spawn({
        let executor = bench.executor.clone();
        async move { executor.run(step, stdio, None, CancellationToken::new()).await }
    });
    tokio::io::AsyncWriteExt::write_all(&mut keyboard, b"hello\n").await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(5);
    while !sink.text().contains("got hello") {
        assert!(Instant::now() < deadline, "{}", sink.text());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    control.send(Control::Resize(WinSize { rows: 33, cols: 99 })).await.unwrap();
    let error = run.await.unwrap().unwrap_err();
    let text = sink.text();
    assert!(matches!(error, Error::Exit { code: 4 }), "{error:?} {text}");
    assert!(text.contains("/dev/pts/0\r\n") && text.contains("resized\r\n33 99\r\n"), "{text}");

    let step = bench.step("trap 'echo hup; exit 9' HUP; echo ready; while :; do sleep 0.1; done");
    let (mut stdio, sink, _) = streams();
    let (control, receiver) = tokio::sync::mpsc::channel(4);
    stdio.control = Some(receiver);
    let run = tokio::spawn({
        let executor = bench.executor.clone();
        async move { executor.run(step, stdio, None, CancellationToken::new()).await }
    });
    while !sink.text().contains("ready") {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    control.send(Control::Signal(libc::SIGHUP)).await.unwrap();
    assert!(matches!(run.await.unwrap(), Err(Error::Exit { code: 9 })));
    assert_eq!(sink.text(), "ready\nhup\n");
}

#[tokio::test]
async fn limits_of_the_cgroup() {
    need_root!();
    let bench = Bench::new().await;
    let mut step = bench.step("dd if=/dev/zero of=/dev/null bs=100M count=1");
    step.resources.memory_bytes = 16 << 20;
    step.resources.cpu_quota_us = 50_000;
    step.resources.cpu_period_us = 100_000;
    let out = bench.run(step).await;
    assert!(matches!(out.result, Err(Error::OutOfMemory { code: 137 })), "{out:?}");
}

#[tokio::test]
async fn ids_are_checked() {
    let bench_needs_root = is_root();
    if !bench_needs_root {
        return;
    }
    let bench = Bench::new().await;
    let mut step = bench.step("true");
    step.id = "a/../b".into();
    let error = bench.run(step).await.result.unwrap_err();
    assert_eq!(error.to_string(), "invalid container id \"a/../b\": only letters and numbers are allowed");
}
