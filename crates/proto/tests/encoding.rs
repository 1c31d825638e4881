//! Encodings as BuildKit's peers write them, as hex; each also decodes to the value it came from.

use kiln_proto::prost::Message;
use kiln_proto::{control, filesync, frontend, fsutil_types as fsutil, pb, rpc};

fn both_ways<M: Message + Default + PartialEq + std::fmt::Debug>(message: M, expected: &str) {
    assert_eq!(hex::encode(message.encode_to_vec()), expected);
    assert_eq!(M::decode(hex::decode(expected).expect("hex literal").as_slice()).expect("decodes"), message);
}

#[test]
fn stat_packet() {
    let stat = fsutil::Stat { path: "a".into(), mode: 0o644, mod_time: -1, ..Default::default() };
    both_ways(
        fsutil::Packet { stat: Some(stat), ..Default::default() },
        "12110a016110a40330ffffffffffffffffff01",
    );
}

#[test]
fn data_packet() {
    both_ways(
        fsutil::Packet {
            r#type: fsutil::packet::PacketType::PacketData as i32,
            id: 7,
            data: "hi".into(),
            ..Default::default()
        },
        "0802180722026869",
    );
}

#[test]
fn source_vertex() {
    let source = pb::SourceOp { identifier: "local://c".into(), ..Default::default() };
    both_ways(
        pb::Op { op: Some(pb::op::Op::Source(source)), ..Default::default() },
        "1a0b0a096c6f63616c3a2f2f63",
    );
}

#[test]
fn terminal_vertex() {
    let input = pb::Input { digest: "sha256:00".into(), index: 0 };
    both_ways(pb::Op { inputs: vec![input], ..Default::default() }, "0a0b0a097368613235363a3030");
}

#[test]
fn scratch_mount_has_negative_indexes() {
    both_ways(
        pb::Mount {
            input: -1,
            dest: "/".into(),
            output: -1,
            tmpfs_opt: Some(pb::TmpfsOpt { size: 1 }),
            mount_type: pb::MountType::Tmpfs as i32,
            ..Default::default()
        },
        "08ffffffffffffffffff011a012f20ffffffffffffffffff0130049a01020801",
    );
}

#[test]
fn metadata_fields_above_gaps() {
    both_ways(
        pb::OpMetadata {
            export_cache: Some(pb::ExportCache { value: true }),
            caps: [("a".to_string(), true)].into(),
            linux_resources: Some(pb::LinuxResources { cpu_quota: 1, ..Default::default() }),
            ..Default::default()
        },
        "220208012a050a016110013a022801",
    );
}

#[test]
fn solve_request() {
    both_ways(
        control::SolveRequest {
            r#ref: "r".into(),
            session: "s".into(),
            frontend: "f".into(),
            exporters: vec![control::Exporter { r#type: "oci".into(), ..Default::default() }],
            proxy_network: true,
            ..Default::default()
        },
        "0a01722a01733201666a050a036f6369880101",
    );
}

#[test]
fn gateway_result() {
    both_ways(
        frontend::Result {
            result: Some(frontend::result::Result::Ref(frontend::Ref { id: "x".into(), def: None })),
            metadata: [("k".to_string(), "v".into())].into(),
            ..Default::default()
        },
        "1a030a017852060a016b120176",
    );
}

#[test]
fn token_response() {
    both_ways(filesync::FetchTokenResponse { token: "t".into(), expires_in: 60, issued_at: 0 }, "0a0174103c");
}

#[test]
fn status_with_detail() {
    both_ways(
        rpc::Status {
            code: 2,
            message: "m".into(),
            details: vec![kiln_proto::prost_types::Any { type_url: "u".into(), value: vec![1] }],
        },
        "080212016d1a060a0175120101",
    );
}

#[test]
fn maps_are_written_in_key_order() {
    let attrs = ["b", "a", "c"].map(|k| (k.to_string(), "1".to_string()));
    let op = pb::SourceOp { identifier: String::new(), attrs: attrs.into() };
    assert_eq!(hex::encode(op.encode_to_vec()), "12060a016112013112060a016212013112060a0163120131");
}
