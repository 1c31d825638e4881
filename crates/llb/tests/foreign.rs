//! Definitions that others wrote: what is refused, and what survives.

use std::collections::HashMap;

use kiln_llb::{
    Constraints, Error, Graph, LateOutput, MarshalOptions, RunInfo, SourceLocation, SourceMap, SourceOp,
    State, VERTICES_MAX, caps,
};
use kiln_oci::{Digest, Platform};
use kiln_proto::pb;
use kiln_proto::prost::Message;
use proptest::prelude::*;

fn options() -> MarshalOptions {
    MarshalOptions::new(Platform::new("linux", "amd64"), "u")
}

fn encode(op: pb::Op) -> bytes::Bytes {
    op.encode_to_vec().into()
}

fn source(identifier: &str) -> pb::Op {
    let source = pb::SourceOp { identifier: identifier.into(), ..Default::default() };
    pb::Op { op: Some(pb::op::Op::Source(source)), ..Default::default() }
}

fn input(digest: &Digest, index: i64) -> pb::Input {
    pb::Input { digest: digest.to_string(), index }
}

/// A definition of `ops` with a terminal vertex that asks for output `index` of the last one.
fn definition(ops: Vec<pb::Op>, index: i64) -> pb::Definition {
    let mut def: Vec<bytes::Bytes> = ops.into_iter().map(encode).collect();
    let last = Digest::sha256_of(def.last().expect("not empty"));
    def.push(encode(pb::Op { inputs: vec![input(&last, index)], ..Default::default() }));
    pb::Definition { def, ..Default::default() }
}

fn refused(definition: &pb::Definition) -> String {
    Graph::load(definition).expect_err("is refused").to_string()
}

#[test]
fn empty_and_broken_definitions() {
    assert_eq!(refused(&pb::Definition::default()), "invalid empty definition");
    let one = pb::Definition { def: vec![encode(source("local://a"))], ..Default::default() };
    assert_eq!(refused(&one), "invalid LLB with 1 vertexes");
    let garbage = pb::Definition { def: vec![vec![0xff; 9].into()], ..Default::default() };
    assert_eq!(refused(&garbage), "failed to parse llb proto op");
    let no_result = pb::Definition {
        def: vec![encode(source("local://a")), encode(source("local://b"))],
        ..Default::default()
    };
    assert_eq!(refused(&no_result), "invalid LLB with no inputs on last vertex");
}

#[test]
fn definitions_larger_than_memory_has_room_for() {
    let of = |vertices| definition(vec![source("local://a"); vertices - 1], 0);
    assert_eq!(Graph::load(&of(VERTICES_MAX)).expect("loads").vertices().count(), 1);
    assert_eq!(
        refused(&of(VERTICES_MAX + 1)),
        "definition of 65537 vertices, at most 65536 are taken: split the build into several"
    );
}

#[test]
fn edges_that_lead_nowhere() {
    let missing = Digest::sha256_of(b"nothing");
    let op = pb::Op { inputs: vec![input(&missing, 0)], ..source("local://a") };
    assert_eq!(refused(&definition(vec![op], 0)), format!("invalid missing input digest {missing}"));
    assert_eq!(refused(&definition(vec![source("local://a")], -1)), "invalid input 0 output index -1");
    assert_eq!(refused(&definition(vec![source("local://a")], 1)), "invalid input 0 output index 1");
    let text =
        pb::Op { inputs: vec![pb::Input { digest: "sha256:x".into(), index: 0 }], ..Default::default() };
    let def = vec![encode(source("local://a")), encode(text)];
    assert_eq!(
        refused(&pb::Definition { def, ..Default::default() }),
        "invalid missing input digest sha256:x"
    );
}

#[test]
fn operations_that_contradict_themselves() {
    let exec = |exec: pb::ExecOp| {
        let op = pb::Op { op: Some(pb::op::Op::Exec(exec)), ..Default::default() };
        refused(&definition(vec![op], 0))
    };
    let meta = || Some(pb::Meta { args: vec!["true".into()], ..Default::default() });
    let mount = |dest: &str, input: i64, output: i64| pb::Mount {
        dest: dest.into(),
        input,
        output,
        ..Default::default()
    };
    assert_eq!(exec(pb::ExecOp::default()), "invalid exec op with no meta");
    assert_eq!(
        exec(pb::ExecOp { meta: Some(pb::Meta::default()), ..Default::default() }),
        "invalid exec op with no args"
    );
    assert_eq!(exec(pb::ExecOp { meta: meta(), ..Default::default() }), "invalid exec op with no mounts");
    let with = |mounts| pb::ExecOp { meta: meta(), mounts, ..Default::default() };
    assert_eq!(exec(with(vec![mount("/a", -1, -1)])), "invalid exec op with no rootfs");
    assert_eq!(exec(with(vec![mount("/", 3, 0)])), "missing input 3");
    assert_eq!(exec(with(vec![mount("/", -1, 1 << 40)])), "invalid output index 1099511627776");
    let strange = pb::Mount { mount_type: 77, ..mount("/", -1, 0) };
    assert_eq!(exec(with(vec![strange])), "invalid mount type 77");

    let file = |actions| {
        let op = pb::Op { op: Some(pb::op::Op::File(pb::FileOp { actions })), ..Default::default() };
        refused(&definition(vec![op], 0))
    };
    assert_eq!(file(vec![]), "invalid file op with no actions");
    let rm = |input| pb::FileAction {
        input,
        action: Some(pb::file_action::Action::Rm(pb::FileActionRm::default())),
        ..Default::default()
    };
    // An action's own result is not there yet.
    assert_eq!(file(vec![rm(-1), rm(1)]), "missing input 1");
}

#[test]
fn unknown_capabilities_are_refused() {
    let mut definition = definition(vec![source("local://a")], 0);
    let digest = Digest::sha256_of(&definition.def[0]);
    for (cap, refused_with) in [
        ("exec.new", Some("unknown API capability exec.new")),
        (caps::FILE_COPY_MODESTRING, Some("unknown API capability file.copy.modestring")),
        (caps::SOURCE_HTTP_UIDGID, None),
    ] {
        let metadata = pb::OpMetadata { caps: [(cap.to_string(), true)].into(), ..Default::default() };
        definition.metadata = [(digest.to_string(), metadata)].into();
        assert_eq!(Graph::load(&definition).err().map(|error| error.to_string()).as_deref(), refused_with);
    }
}

#[test]
fn peers_without_a_capability() {
    let error = caps::LLB.supports(&[], caps::MERGEOP).expect_err("not listed");
    assert_eq!(
        error.to_string(),
        "requested experimental feature mergeop  is not supported by build server, please update buildkit"
    );
    assert!(caps::LLB.supports(&caps::LLB.advertise(), caps::MERGEOP).is_ok());
    assert_eq!(caps::LLB.advertise().len(), 88);
}

#[test]
fn a_foreign_graph_keeps_its_bytes_inside_another() {
    // An encoder of another mind: unknown field 15 with an empty value.
    let mut odd = source("local://a").encode_to_vec();
    odd.extend([0x7a, 0x00]);
    let odd = bytes::Bytes::from(odd);
    let digest = Digest::sha256_of(&odd);
    let terminal = encode(pb::Op { inputs: vec![input(&digest, 0)], ..Default::default() });
    let foreign = pb::Definition { def: vec![odd.clone(), terminal], ..Default::default() };
    let state = State::from_definition(&foreign).expect("loads");
    let run = RunInfo { args: vec!["true".into()], ..Default::default() };
    let root = state.run(run, Constraints::new()).expect("runs").root().clone();
    let written = root.marshal(&options()).expect("marshals");
    assert!(written.def.contains(&odd));
}

#[test]
fn replacing_a_source_renames_what_needs_it() {
    let base = State::local("a", Default::default(), Constraints::new());
    let run = RunInfo { args: vec!["true".into()], ..Default::default() };
    let root = base.run(run, Constraints::new().custom_name("step")).expect("runs").root().clone();
    let graph = Graph::load(&root.marshal(&options()).expect("marshals")).expect("loads");
    let source = graph.vertices().next().expect("has a source").digest.clone();
    let replaced = graph
        .replace_sources(&HashMap::from([(source.clone(), SourceOp::new("local://b"))]))
        .expect("is a graph still");
    assert!(replaced.vertex(&source).is_none());
    assert_ne!(replaced.result(), graph.result());
    let names: Vec<&str> = replaced.vertices().map(|vertex| vertex.name.as_str()).collect();
    assert_eq!(names, ["local://b", "step"]);
    assert_eq!(graph.replace_sources(&HashMap::new()).expect("is the same"), graph);
}

#[test]
fn late_outputs() {
    let late = LateOutput::new("context", None);
    let state = State::late(&late);
    assert_eq!(state.marshal(&options()), Err(Error::LateOutput("context".into())));
    let local = State::local("a", Default::default(), Constraints::new());
    assert!(late.set(local.output().cloned()).is_ok());
    assert_eq!(state.marshal(&options()), local.marshal(&options()));
    assert!(late.set(None).is_err());
}

#[test]
fn a_late_output_that_needs_itself() {
    let late = LateOutput::new("context", None);
    let run = RunInfo { args: vec!["true".into()], ..Default::default() };
    let root = State::late(&late).run(run, Constraints::new()).expect("runs").root().clone();
    assert!(late.set(root.output().cloned()).is_ok());
    assert!(matches!(root.marshal(&options()), Err(Error::Cycle(_))));
    // Taking the circle apart is not tried: it is a mistake of the program that made it.
    std::mem::forget(root);
}

#[test]
fn equal_steps_on_two_lines_are_one_vertex_with_two_places() {
    let map = std::sync::Arc::new(SourceMap {
        filename: "Dockerfile".into(),
        data: "x".into(),
        ..Default::default()
    });
    let local = |line| {
        let location = SourceLocation::lines(&map, [(line, line)]);
        State::local("a", Default::default(), Constraints::new().location(location))
    };
    let merged = State::merge(&[local(1), local(2)], Constraints::new());
    let written = merged.marshal(&options()).expect("marshals");
    assert_eq!(written.source.as_ref().map(|source| source.infos.len()), Some(1));
    let graph = Graph::load(&written).expect("loads");
    let first = graph.vertices().next().expect("has a source");
    assert_eq!(first.locations.len(), 2);
    assert_eq!(graph.to_definition().source, written.source);
}

#[test]
fn a_chain_of_many_steps() {
    let mut state = State::local("a", Default::default(), Constraints::new());
    for step in 0..20_000 {
        let run = RunInfo { args: vec![step.to_string()], ..Default::default() };
        state = state.run(run, Constraints::new()).expect("runs").root().clone();
    }
    let written = state.marshal(&options()).expect("marshals");
    assert_eq!(Graph::load(&written).expect("loads").vertices().len(), 20_001);
}

#[test]
fn names_of_nested_merges_stay_short() {
    let mut ops = vec![source(&format!("local://{}", "x".repeat(100)))];
    for depth in 0..60 {
        let previous = Digest::sha256_of(encode(ops[depth].clone()));
        let inputs = vec![input(&previous, 0), input(&previous, 0)];
        let merge = pb::MergeOp { inputs: vec![pb::MergeInput { input: 0 }, pb::MergeInput { input: 1 }] };
        ops.push(pb::Op { inputs, op: Some(pb::op::Op::Merge(merge)), ..Default::default() });
    }
    let graph = Graph::load(&definition(ops, 0)).expect("loads");
    assert!(graph.vertices().all(|vertex| vertex.name.len() < 5000));
}

proptest! {
    #[test]
    fn any_bytes_are_judged_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let bytes = bytes::Bytes::from(bytes);
        let digest = Digest::sha256_of(&bytes);
        let terminal = encode(pb::Op { inputs: vec![input(&digest, 0)], ..Default::default() });
        let _ = Graph::load(&pb::Definition { def: vec![bytes, terminal], ..Default::default() });
    }
}
