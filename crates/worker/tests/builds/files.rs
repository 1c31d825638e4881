//! Local directories, file actions and their caching.

use kiln_llb::{Constraints, CopyInfo, FileActions, LocalSource, MkdirInfo, RmInfo, State};

use crate::bench::Bench;
use crate::run;

pub const TESTS: &[(&str, fn())] = &[
    ("files::a_context_is_copied_and_found_again", || run(a_context_is_copied_and_found_again())),
    ("files::only_what_is_copied_counts", || run(only_what_is_copied_counts())),
    ("files::missing_sources_are_named", || run(missing_sources_are_named())),
    ("files::a_chain_of_actions_is_one_layer", || run(a_chain_of_actions_is_one_layer())),
    ("files::merge_and_diff_put_layers_together", || run(merge_and_diff_put_layers_together())),
    ("files::copies_of_one_file_stay_apart_across_layers", || {
        run(copies_of_one_file_stay_apart_across_layers())
    }),
    ("files::patterns_reach_the_client", || run(patterns_reach_the_client())),
];

fn copy(from: &State, src: &str, dest: &str) -> FileActions {
    let info = CopyInfo {
        create_dest_path: true,
        follow_symlinks: true,
        copy_dir_contents_only: true,
        allow_wildcard: true,
        allow_empty_wildcard: true,
        ..CopyInfo::default()
    };
    FileActions::new().copy(from, src, dest, info)
}

fn copied(bench: &Bench, src: &str, dest: &str) -> State {
    State::scratch().file(copy(&bench.local(), src, dest), Constraints::new()).unwrap()
}

async fn a_context_is_copied_and_found_again() {
    let bench = Bench::new().await;
    bench.write("a.txt", "one");
    bench.write("dir/b.txt", "two");
    let state = || copied(&bench, "/", "/app/");
    let first = bench.build(&state()).await.ok();
    assert_eq!(bench.read(&first, "/app/dir/b.txt").await, "two");
    assert_eq!(first.ran().len(), 2, "{:?}", first.ran());
    // Touched, but the same.
    std::fs::File::open(bench.context().join("a.txt")).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
    let second = bench.build(&state()).await.ok();
    assert_eq!(second.ran(), ["local://context"]);
    assert_eq!(second.result, first.result);
    bench.write("a.txt", "other");
    let third = bench.build(&state()).await.ok();
    assert_eq!(third.ran().len(), 2);
    assert_eq!(bench.read(&third, "/app/a.txt").await, "other");
    // What was is as it was: its files were linked, never written to.
    assert_eq!(bench.read(&first, "/app/a.txt").await, "one");
    bench.write("a.txt", "one");
    drop((first, second, third));
    let bench = bench.restarted().await;
    let fourth = bench.build(&copied(&bench, "/", "/app/")).await.ok();
    assert_eq!(fourth.ran(), ["local://context"]);
}

async fn only_what_is_copied_counts() {
    let bench = Bench::new().await;
    bench.write("src/a", "one");
    bench.write("README", "text");
    let state = || copied(&bench, "/src", "/src");
    bench.build(&state()).await.ok();
    bench.write("README", "other");
    assert_eq!(bench.build(&state()).await.ok().ran(), ["local://context"]);
    bench.write("src/b", "new");
    assert_eq!(bench.build(&state()).await.ok().ran().len(), 2);
}

async fn missing_sources_are_named() {
    let bench = Bench::new().await;
    bench.write("a", "one");
    let built = bench.build(&copied(&bench, "/no/such", "/x")).await;
    let error = built.error();
    assert!(
        error.starts_with("failed to compute cache key: failed to calculate checksum of ref "),
        "{error}"
    );
    assert!(error.ends_with(": \"/no/such\": not found"), "{error}");
    // The solver is as before.
    bench.build(&copied(&bench, "/a", "/x")).await.ok();
}

async fn a_chain_of_actions_is_one_layer() {
    let bench = Bench::new().await;
    bench.write("a", "one");
    let actions = FileActions::new()
        .mkdir("/dir", 0o750, MkdirInfo::default())
        .mkfile("/dir/file", 0o600, "content", kiln_llb::MkfileInfo::default())
        .copy(&bench.local(), "/a", "/dir/", CopyInfo::default())
        .rm("/dir/file", RmInfo::default());
    let state = State::scratch().file(actions, Constraints::new()).unwrap();
    let built = bench.build(&state).await.ok();
    let reference = built.result.as_ref().unwrap();
    assert_eq!(reference.depth(), 1);
    let names: Vec<String> = bench
        .worker
        .read_dir(reference, "/dir", "")
        .await
        .unwrap()
        .into_iter()
        .map(|stat| stat.path)
        .collect();
    assert_eq!(names, ["a"]);
    let stat = bench.worker.stat_file(reference, "/dir").await.unwrap();
    assert_eq!(stat.mode & 0o777, 0o750);
    let missing = bench.worker.read_file(reference, "/dir/file", None).await.unwrap_err();
    assert_eq!(missing.to_string(), "open /dir/file: no such file or directory");
}

async fn merge_and_diff_put_layers_together() {
    let bench = Bench::new().await;
    let file = |base: &State, path: &str, data: &'static str| {
        let actions = FileActions::new().mkfile(path, 0o644, data, kiln_llb::MkfileInfo::default());
        base.file(actions, Constraints::new()).unwrap()
    };
    let base = file(&State::scratch(), "/base", "0");
    let (one, two) = (file(&base, "/one", "1"), file(&base, "/two", "2"));
    let only_two = State::diff(&base, &two, Constraints::new());
    let merged = State::merge(&[one.clone(), only_two], Constraints::new());
    let built = bench.build(&merged).await.ok();
    for (path, content) in [("/base", "0"), ("/one", "1"), ("/two", "2")] {
        assert_eq!(bench.read(&built, path).await, content);
    }
    // Not one below the other: found by comparing.
    let changed = bench.build(&State::diff(&one, &two, Constraints::new())).await.ok();
    assert_eq!(bench.read(&changed, "/two").await, "2");
    assert!(bench.worker.read_file(changed.result.as_ref().unwrap(), "/base", None).await.is_err());
}

async fn copies_of_one_file_stay_apart_across_layers() {
    let bench = Bench::new().await;
    bench.write("a", "one");
    let first = copied(&bench, "/a", "/x");
    let second = first.file(copy(&bench.local(), "/a", "/y"), Constraints::new()).unwrap();
    let third = second.file(copy(&first, "/x", "/z"), Constraints::new()).unwrap();
    let built = bench.build(&third).await.ok();
    let union = bench.worker.store().union(built.result.as_ref().unwrap()).unwrap();
    let inode = |path: &str| union.lookup(path).unwrap().unwrap().meta.ino;
    assert!(inode("x") != inode("y") && inode("y") != inode("z") && inode("x") != inode("z"));
}

async fn patterns_reach_the_client() {
    let bench = Bench::new().await;
    for name in ["a.txt", "b.bin", "dir/c.txt", "dir/d.bin"] {
        bench.write(name, name);
    }
    let options = LocalSource {
        session_id: Some(bench.session.to_string()),
        exclude_patterns: vec!["**/*.bin".into()],
        ..LocalSource::default()
    };
    let local = State::local("context", options, Constraints::new());
    let state = State::scratch().file(copy(&local, "/", "/"), Constraints::new()).unwrap();
    let built = bench.build(&state).await.ok();
    let reference = built.result.as_ref().unwrap();
    let names = |dir: &'static str| {
        let worker = bench.worker.clone();
        let reference = reference.clone();
        async move {
            let stats = worker.read_dir(&reference, dir, "").await.unwrap();
            stats.into_iter().map(|stat| stat.path).collect::<Vec<_>>()
        }
    };
    assert_eq!(names("/").await, ["a.txt", "dir"]);
    assert_eq!(names("/dir").await, ["c.txt"]);
}
