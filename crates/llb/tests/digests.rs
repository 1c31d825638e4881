//! Digests of vertices as BuildKit's own client gives them for the same steps (recorded from buildkit 73ed6825).

use kiln_llb::{
    CacheMount, CacheSharing, Constraints, CopyInfo, EnvList, ExtraHost, FileActions, FileInfo, GitSource,
    Graph, HttpSource, ImageSource, LocalDiffer, LocalSource, MarshalOptions, MkdirInfo, MkfileInfo,
    MountInfo, MountKind, NetMode, OciLayoutSource, OwnedInfo, Owner, PassthroughInput, ProxyEnv,
    ResolveMode, RmInfo, RunInfo, SecretInfo, SshInfo, State, Ulimit,
};
use kiln_oci::{Digest, Platform};

fn none() -> Constraints {
    Constraints::new()
}

/// The first digits of all vertices' digests, the terminal one included, in any order.
fn digests(state: &State) -> Vec<String> {
    let options = MarshalOptions::new(Platform::new("linux", "amd64"), "uniq");
    let definition = state.marshal(&options).expect("marshals");
    let graph = Graph::load(&definition).expect("loads what was written");
    assert_eq!(graph.vertices().len() + 1, definition.def.len());
    let mut list: Vec<String> =
        definition.def.iter().map(|bytes| Digest::sha256_of(bytes).hex()[..12].to_string()).collect();
    list.sort();
    list
}

fn expect(state: &State, expected: &str) {
    let mut expected: Vec<&str> = expected.split_whitespace().collect();
    expected.sort();
    assert_eq!(digests(state), expected);
}

fn image() -> State {
    State::image("alpine:3.20", ImageSource::default(), none()).expect("is a reference")
}

fn local() -> State {
    let options = LocalSource {
        exclude_patterns: vec!["*.o".into(), "!a<b".into()],
        follow_paths: vec!["x".into(), "y".into()],
        shared_key_hint: "k".into(),
        differ: Some((LocalDiffer::None, false)),
        ..Default::default()
    };
    State::local("context", options, none())
}

fn base() -> State {
    image().dir("/w").add_env("A", "1").add_env("B", "2").add_env("A", "3").user("u").with(|settings| {
        settings.hostname = "h".into();
        settings.network = NetMode::Host;
        settings.ulimits.push(Ulimit { name: "nofile".into(), soft: 1, hard: 2 });
    })
}

fn files() -> State {
    let copy = CopyInfo {
        allow_wildcard: true,
        create_dest_path: true,
        include_patterns: vec!["i".into()],
        exclude_patterns: vec!["e".into()],
        follow_symlinks: true,
        mode: Some(0o644),
        ..Default::default()
    };
    let unpack = CopyInfo {
        copy_dir_contents_only: true,
        attempt_unpack: true,
        mode_str: "u+x".into(),
        ..Default::default()
    };
    let mkdir =
        MkdirInfo { make_parents: true, owner: Some(Owner::parse("u:5")), created_time: Some(5_000_000_007) };
    let actions = FileActions::new()
        .mkdir("d", 0o755, mkdir)
        .mkfile("/d/f", 0o600, "hi", MkfileInfo { owner: Some(Owner::ids(3, 4)), created_time: None })
        .copy(&local(), "a/../b", "./", copy)
        .copy(&image(), "/etc", "/etc2/.", unpack)
        .rm("x*", RmInfo { allow_wildcard: true, allow_not_found: true })
        .symlink("t", "/l", OwnedInfo::default());
    base().file(actions, none()).expect("has actions")
}

fn copied_to_scratch() -> State {
    let actions = FileActions::new().copy(&local(), ".", "/", CopyInfo::default());
    State::scratch().file(actions, none()).expect("has actions")
}

#[test]
fn image_source() {
    expect(&image(), "52ad980af60e 04ac19a61120");
}

#[test]
fn image_source_with_options() {
    let options = ImageSource {
        resolve_mode: ResolveMode::ForcePull,
        record_type: "internal".into(),
        ..Default::default()
    };
    let arm = Platform { variant: "v7".into(), ..Platform::new("linux", "arm") };
    let state = State::image("busybox", options, none().platform(arm.clone())).expect("is a reference");
    assert_eq!(state.settings().platform, Some(arm));
    expect(&state, "3f44a1850b5c 3503a98fcb1b");
}

#[test]
fn local_source() {
    expect(&local(), "cf4ea49ae45e 7a29407b663c");
}

#[test]
fn git_sources() {
    let options = GitSource {
        reference: "main".into(),
        subdir: "sub".into(),
        keep_git_dir: true,
        checksum: "abc".into(),
        ..Default::default()
    };
    expect(&State::git("https://example.com/a/b.git", options, none()), "f5ed13cdbbc4 0af398a60602");
    let options = GitSource { known_ssh_hosts: "h k\n".into(), ..Default::default() };
    expect(&State::git("git@example.com:a/b.git", options, none()), "3fe16a02e9d1 2715662bc44c");
}

#[test]
fn http_source() {
    let file = FileInfo { filename: "f".into(), perm: 0o644, uid: 1, gid: 2 };
    let state = State::http("https://example.com/x", HttpSource { file, ..Default::default() }, none());
    expect(&state, "1eec1fad8e72 1e54a1ff609d");
}

#[test]
fn oci_layout_source() {
    let options = OciLayoutSource { session_id: "s".into(), store_id: "t".into(), layer_limit: Some(2) };
    let reference = format!("x/y@sha256:{}", "a".repeat(64));
    expect(&State::oci_layout(&reference, options, none()), "4a220cd6be30 0ed641ee3789");
}

#[test]
fn exec_with_every_kind_of_mount() {
    let run = RunInfo {
        args: ["sh", "-c", "true"].map(String::from).into(),
        mounts: vec![
            MountInfo { readonly: true, selector: "/p".into(), ..MountInfo::bind("/src", local()) },
            MountInfo {
                kind: MountKind::Cache(CacheMount { id: "cid".into(), sharing: CacheSharing::Locked }),
                ..MountInfo::bind("/cache", State::scratch())
            },
            MountInfo { kind: MountKind::Tmpfs { size: 100 }, ..MountInfo::bind("/tmp", State::scratch()) },
            MountInfo::bind("/out", State::scratch()),
            MountInfo::bind("/again", image()),
        ],
        secrets: vec![
            SecretInfo {
                id: "x".into(),
                target: Some("/run/secrets/x".into()),
                uid: 1,
                gid: 2,
                mode: 0o400,
                optional: true,
                ..Default::default()
            },
            SecretInfo { id: "y".into(), env: Some("ENVX".into()), mode: 0o400, ..Default::default() },
        ],
        ssh: vec![SshInfo { id: "default".into(), mode: 0o600, ..Default::default() }],
        proxy_env: Some(ProxyEnv { http_proxy: "p".into(), ..Default::default() }),
        ..Default::default()
    };
    let state = base().with(|settings| {
        settings.extra_hosts.push(ExtraHost { host: "a".into(), ip: "1.2.3.4".into() });
    });
    let exec = state.run(run, none()).expect("has arguments");
    expect(exec.root(), "52ad980af60e cf4ea49ae45e b9405073399f ea0b9affc18d");
    expect(exec.mount("/out").expect("is an output"), "52ad980af60e cf4ea49ae45e b9405073399f acd96a8dde8d");
    assert!(exec.mount("/tmp").is_none());
    assert_eq!(exec.mount("/src").and_then(State::output), local_output(&exec));
}

fn local_output(exec: &kiln_llb::ExecState) -> Option<&kiln_llb::Output> {
    exec.mount("/src").and_then(State::output)
}

#[test]
fn file_actions() {
    expect(&files(), "52ad980af60e cf4ea49ae45e 10ae693dd378 d026dc228144");
    expect(&copied_to_scratch(), "cf4ea49ae45e 693956f4e5a5 4b45c76bb65a");
}

#[test]
fn merge_and_diff() {
    let merged = State::merge(&[image(), State::scratch(), copied_to_scratch(), image()], none());
    expect(&merged, "52ad980af60e cf4ea49ae45e 693956f4e5a5 28f7fec6e4c3 fdc07724799e");
    expect(
        &State::diff(&image(), &files(), none()),
        "52ad980af60e cf4ea49ae45e 10ae693dd378 8f9534521882 bcb0836c7c47",
    );
    expect(&State::diff(&image(), &State::scratch(), none()), "52ad980af60e c9579c23ae92 6f8806bae62d");
}

#[test]
fn passthrough() {
    let inputs = [
        PassthroughInput { state: image(), output: false },
        PassthroughInput { state: copied_to_scratch(), output: true },
    ];
    let states = State::passthrough("id", &inputs, none()).expect("is complete");
    assert_eq!(states.len(), 1);
    expect(&states[0], "52ad980af60e cf4ea49ae45e 693956f4e5a5 b2e9c2ec36a9 687d14b76e10");
}

#[test]
fn a_variable_set_again_moves_to_the_end() {
    let mut env = EnvList::from_iter([("A", "1"), ("B", "2")]);
    env.set("A", "3");
    assert_eq!(env.to_vec(), ["B=2", "A=3"]);
}
