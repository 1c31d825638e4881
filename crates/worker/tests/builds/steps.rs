//! Steps and their mounts.

use kiln_llb::{
    CacheMount, CacheSharing, Constraints, CopyInfo, FileActions, LocalSource, MountInfo, MountKind, NetMode,
    RunInfo, SecretInfo, State,
};

use crate::bench::{Bench, Built, make_root, run_in, sh, shell};
use crate::run;

pub const TESTS: &[(&str, fn())] = &[
    ("steps::a_step_runs_once", || run(a_step_runs_once())),
    ("steps::a_failure_has_its_exit_code", || run(a_failure_has_its_exit_code())),
    ("steps::secrets_leave_no_trace", || run(secrets_leave_no_trace())),
    ("steps::cache_mounts_stay", || run(cache_mounts_stay())),
    ("steps::bind_mounts_count_by_content", || run(bind_mounts_count_by_content())),
    ("steps::mounts_give_results", || run(mounts_give_results())),
    ("steps::privileges_must_be_granted", || run(privileges_must_be_granted())),
    ("steps::cancelled_steps_end", || run(cancelled_steps_end())),
    ("steps::owners_by_name", || run(owners_by_name())),
];

/// A root file system, from the client's folder.
fn root(bench: &Bench) -> State {
    let dir = bench.dir.path().join("root");
    if !dir.exists() {
        make_root(&dir);
    }
    let options = LocalSource { session_id: Some(bench.session.to_string()), ..LocalSource::default() };
    let local = State::local("root", options, Constraints::new());
    let copy = FileActions::new().copy(
        &local,
        "/",
        "/",
        CopyInfo { copy_dir_contents_only: true, ..CopyInfo::default() },
    );
    State::scratch().file(copy, Constraints::new()).unwrap()
}

fn with_mount(state: &State, mount: MountInfo, line: &str) -> State {
    run_in(state, RunInfo { args: shell(line), mounts: vec![mount], ..RunInfo::default() })
}

async fn a_step_runs_once() {
    let bench = Bench::new().await;
    let state = |bench: &Bench| sh(&root(bench), "echo made > /made; echo said; echo warned >&2");
    let first = bench.build(&state(&bench)).await.ok();
    assert_eq!(bench.read(&first, "/made").await, "made\n");
    let log = first.log();
    assert!(log.contains("said\n") && log.contains("warned\n"), "{log}");
    let step = "/bin/sh -c echo made > /made; echo said; echo warned >&2".to_owned();
    assert!(first.ran().contains(&step), "{:?}", first.ran());
    drop(first);
    let bench = bench.restarted().await;
    let second = bench.build(&state(&bench)).await.ok();
    assert!(!second.ran().contains(&step));
    assert_eq!(bench.read(&second, "/made").await, "made\n");
}

async fn a_failure_has_its_exit_code() {
    let bench = Bench::new().await;
    let failed = bench.build(&sh(&root(&bench), "echo before; exit 42")).await;
    assert_eq!(
        failed.error(),
        "process \"/bin/sh -c echo before; exit 42\" did not complete successfully: exit code: 42"
    );
    assert!(failed.log().contains("before\n"));
    // It is tried again.
    let again = bench.build(&sh(&root(&bench), "echo before; exit 42")).await;
    assert!(again.log().contains("before\n"));
}

async fn secrets_leave_no_trace() {
    let bench = Bench::new().await;
    let secret = |id: &str, optional| SecretInfo {
        id: id.into(),
        target: Some("/run/secret".into()),
        mode: 0o400,
        uid: 1000,
        optional,
        ..SecretInfo::default()
    };
    let line = "grep -c 'the-[s]ecret-value' /run/secret; stat -c %a:%u /run/secret; test \"$VALUE\" = 'the-'secret-value";
    let env = SecretInfo { id: "known".into(), env: Some("VALUE".into()), ..SecretInfo::default() };
    let info =
        RunInfo { args: shell(line), secrets: vec![secret("known", false), env], ..RunInfo::default() };
    let built = bench.build(&run_in(&root(&bench), info)).await.ok();
    assert_eq!(built.log(), "1\n400:1000\n");
    let missing =
        RunInfo { args: shell("true"), secrets: vec![secret("unknown", false)], ..RunInfo::default() };
    let error = bench.build(&run_in(&root(&bench), missing)).await;
    assert_eq!(error.error(), "secret unknown: not found");
    let line = "test ! -e /run/secret";
    let optional =
        RunInfo { args: shell(line), secrets: vec![secret("unknown", true)], ..RunInfo::default() };
    bench.build(&run_in(&root(&bench), optional)).await.ok();
    // Nowhere on the disk, in no database, in no layer.
    let found = std::process::Command::new("grep")
        .args(["-rl", "the-secret-value"])
        .arg(bench.dir.path().join("store"))
        .arg(bench.dir.path().join("work"))
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&found.stdout), "");
}

async fn cache_mounts_stay() {
    let bench = Bench::new().await;
    let step = |bench: &Bench, line: &str, sharing| {
        let mount = MountInfo {
            kind: MountKind::Cache(CacheMount { id: "cache".into(), sharing }),
            no_output: true,
            ..MountInfo::bind("/cache", State::scratch())
        };
        with_mount(&root(bench), mount, line)
    };
    bench.build(&step(&bench, "echo one >> /cache/file", CacheSharing::Shared)).await.ok();
    let second = bench
        .build(&step(&bench, "echo two >> /cache/file; cat /cache/file", CacheSharing::Locked))
        .await
        .ok();
    assert_eq!(second.log(), "one\ntwo\n");
    drop(second);
    let bench = bench.restarted().await;
    let third =
        bench.build(&step(&bench, "cat /cache/file; ls /cache | wc -l", CacheSharing::Shared)).await.ok();
    assert_eq!(third.log(), "one\ntwo\n1\n");
    assert!(bench.worker.read_file(third.result.as_ref().unwrap(), "/cache/file", None).await.is_err());
}

async fn bind_mounts_count_by_content() {
    let bench = Bench::new().await;
    bench.write("used/file", "one");
    bench.write("other", "x");
    let state = || {
        let mount = MountInfo {
            selector: "/used".into(),
            readonly: true,
            no_output: true,
            ..MountInfo::bind("/in", bench.local())
        };
        with_mount(&root(&bench), mount, "cat /in/file > /out; ! touch /in/no 2> /dev/null")
    };
    let ran = |built: &Built| built.ran().iter().any(|name| name.starts_with("/bin/sh"));
    let first = bench.build(&state()).await.ok();
    assert_eq!(bench.read(&first, "/out").await, "one");
    assert!(ran(&first));
    bench.write("other", "y");
    assert!(!ran(&bench.build(&state()).await.ok()));
    bench.write("used/file", "two");
    let third = bench.build(&state()).await.ok();
    assert!(ran(&third));
    assert_eq!(bench.read(&third, "/out").await, "two");
}

async fn mounts_give_results() {
    let bench = Bench::new().await;
    bench.write("file", "one");
    let info = RunInfo {
        args: shell("echo more >> /work/file; echo new > /fresh/file; touch /tmp/t && test -e /tmp/t"),
        mounts: vec![
            MountInfo::bind("/work", bench.local()),
            MountInfo::bind("/fresh", State::scratch()),
            MountInfo {
                kind: MountKind::Tmpfs { size: 1 << 20 },
                ..MountInfo::bind("/tmp", State::scratch())
            },
        ],
        ..RunInfo::default()
    };
    let exec = root(&bench).run(info, Constraints::new()).unwrap();
    let (work, fresh) = (exec.mount("/work").unwrap().clone(), exec.mount("/fresh").unwrap().clone());
    let built = bench.build(&work).await.ok();
    assert_eq!(bench.read(&built, "/file").await, "onemore\n");
    let built = bench.build(&fresh).await.ok();
    assert_eq!(bench.read(&built, "/file").await, "new\n");
    let built = bench.build(exec.root()).await.ok();
    assert!(bench.worker.read_file(built.result.as_ref().unwrap(), "/tmp/t", None).await.is_err());
}

async fn privileges_must_be_granted() {
    let bench = Bench::new().await;
    let state = root(&bench).with(|settings| settings.network = NetMode::Host);
    let step = sh(&state, "true");
    let plain = kiln_worker::BuildContext::new(bench.build_context().sessions().clone());
    assert_eq!(bench.build_with(&step, plain).await.error(), "network.host is not allowed");
    bench.build(&step).await.ok();
}

async fn cancelled_steps_end() {
    let bench = Bench::new().await;
    bench.build(&root(&bench)).await.ok();
    let step = sh(&root(&bench), "echo $$ > /pid; sleep 1234");
    let waited = tokio::time::timeout(std::time::Duration::from_secs(2), bench.build(&step)).await;
    assert!(waited.is_err());
    for _ in 0..50 {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        let found = std::process::Command::new("pgrep").args(["-f", "^sleep 1234"]).output().unwrap();
        if found.stdout.is_empty() {
            bench.build(&sh(&root(&bench), "true")).await.ok();
            return;
        }
    }
    panic!("the step goes on although nobody waits for it");
}

async fn owners_by_name() {
    let bench = Bench::new().await;
    bench.write("file", "x");
    let info = CopyInfo { owner: Some(kiln_llb::Owner::parse("app:root")), ..CopyInfo::default() };
    let copy = FileActions::new().copy(&bench.local(), "/file", "/file", info);
    let state = sh(&root(&bench).file(copy, Constraints::new()).unwrap(), "stat -c %u:%g /file");
    assert_eq!(bench.build(&state).await.ok().log(), "1000:0\n");
}
