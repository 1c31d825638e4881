//! The gateway over a real gRPC connection in memory.

mod support;

use bytes::Bytes;
use kiln_frontend::gateway::image::{self, AllowedImages};
use kiln_frontend::gateway::{BUILD_ID_KEY, Forwarder, Gateway};
use kiln_frontend::{Detail, Error, Refs};
use kiln_llb::{Constraints, LocalSource, MarshalOptions, State};
use kiln_oci::Platform;
use kiln_proto::frontend as api;
use kiln_proto::frontend::exec_message::Input;
use kiln_proto::frontend::llb_bridge_client::LlbBridgeClient;
use kiln_proto::frontend::llb_bridge_server::LlbBridgeServer;
use kiln_proto::{pb, rpc};
use std::collections::BTreeMap;
use std::sync::Arc;
use support::Fake;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint, Server, Uri};
use tonic::{Code, Request};

type Client = LlbBridgeClient<Channel>;

/// Serves the gateway on one connection.
async fn connect(gateway: Gateway<Fake>) -> Client {
    let (near, far) = tokio::io::duplex(1 << 16);
    tokio::spawn(async move {
        let far = tokio_stream::iter([Ok::<_, std::io::Error>(far)]);
        // Ends with the connection.
        let _ = Server::builder().add_service(LlbBridgeServer::new(gateway)).serve_with_incoming(far).await;
    });
    let mut near = Some(near);
    let channel = Endpoint::from_static("http://gateway.invalid")
        .connect_with_connector(tower::service_fn(move |_: Uri| {
            let near = near.take();
            async move { near.map(hyper_util::rt::TokioIo::new).ok_or_else(|| std::io::Error::other("once")) }
        }))
        .await
        .expect("connected");
    LlbBridgeClient::new(channel)
}

fn forwarder(fake: Fake) -> Arc<Forwarder<Fake>> {
    Forwarder::new(Arc::new(fake), BTreeMap::new())
}

async fn client(fake: Fake) -> (Client, Arc<Forwarder<Fake>>) {
    let forwarder = forwarder(fake);
    (connect(Gateway::of(forwarder.clone())).await, forwarder)
}

fn definition() -> pb::Definition {
    let state = State::local("dir", LocalSource::default(), Constraints::new());
    state.marshal(&MarshalOptions::new(Platform::linux("amd64"), "x")).expect("a graph")
}

fn solve() -> api::SolveRequest {
    api::SolveRequest {
        definition: Some(definition()),
        allow_result_return: true,
        allow_result_array_ref: true,
        ..Default::default()
    }
}

async fn solved(client: &mut Client) -> api::Ref {
    let response = client.solve(solve()).await.expect("solved").into_inner();
    let Some(api::result::Result::Ref(reference)) = response.result.expect("result").result else {
        panic!("one")
    };
    reference
}

#[tokio::test]
async fn results_are_handed_out_read_and_returned() {
    let fake = Fake::new().file("local://dir", "a", "hello");
    let (mut client, forwarder) = client(fake).await;
    let reference = solved(&mut client).await;
    assert_eq!(reference.def, Some(definition()));
    let read = |range| api::ReadFileRequest {
        r#ref: reference.id.clone(),
        file_path: "a".into(),
        range,
        ..Default::default()
    };
    assert_eq!(client.read_file(read(None)).await.expect("read").into_inner().data, "hello");
    let part = client.read_file(read(Some(api::FileRange { offset: 1, length: 3 }))).await;
    assert_eq!(part.expect("read").into_inner().data, "ell");
    let bad =
        client.read_file(read(Some(api::FileRange { offset: -1, length: 3 }))).await.expect_err("negative");
    assert_eq!(bad.code(), Code::InvalidArgument);
    let stat = api::StatFileRequest { r#ref: reference.id.clone(), path: "a".into(), ..Default::default() };
    assert_eq!(client.stat_file(stat).await.expect("stat").into_inner().stat.expect("stat").size, 5);
    let missing =
        api::StatFileRequest { r#ref: reference.id.clone(), path: "b".into(), ..Default::default() };
    assert_eq!(client.stat_file(missing).await.expect_err("missing").code(), Code::NotFound);

    let attestation =
        api::Attestation { r#ref: Some(reference.clone()), path: "p".into(), ..Default::default() };
    let result = api::Result {
        result: Some(api::result::Result::Ref(reference)),
        metadata: BTreeMap::from([("k".to_owned(), Bytes::from_static(b"v"))]),
        attestations: BTreeMap::from([("".to_owned(), api::Attestations { attestation: vec![attestation] })]),
    };
    let answer = api::ReturnRequest { result: Some(result), error: None };
    client.r#return(answer.clone()).await.expect("returned");
    let solution = forwarder.answer().await.expect("answered");
    assert_eq!(solution.refs, Refs::Single(Some(support::Promise(definition()))));
    assert_eq!(&solution.metadata["k"][..], b"v");
    assert_eq!(solution.attestations[""][0].path, "p");
    let twice = client.r#return(answer).await.expect_err("once only");
    assert_eq!(twice.message(), "gateway result is already set");
}

#[tokio::test]
async fn unknown_results_are_refused() {
    let (mut client, forwarder) = client(Fake::new()).await;
    let read = api::ReadFileRequest { r#ref: "ref1".into(), file_path: "a".into(), ..Default::default() };
    assert_eq!(client.read_file(read).await.expect_err("unknown").message(), "no such ref: ref1");
    let reference = api::Ref { id: "ref9".into(), def: None };
    let refs = BTreeMap::from([("linux/amd64".to_owned(), reference)]);
    let result =
        api::Result { result: Some(api::result::Result::Refs(api::RefMap { refs })), ..Default::default() };
    let answer = api::ReturnRequest { result: Some(result), error: None };
    let refused = client.r#return(answer).await.expect_err("unknown");
    assert_eq!(refused.message(), "return reference ref9 not found");
    assert!(forwarder.take_answer().is_err());
    let empty = client.r#return(api::ReturnRequest::default()).await.expect_err("nothing");
    assert_eq!(empty.message(), "gateway return must be either result or err");
}

#[tokio::test]
async fn old_callers_get_old_forms() {
    let (mut client, forwarder) = client(Fake::new()).await;
    let old = api::SolveRequest {
        definition: Some(definition()),
        r#final: true,
        exporter_attr: Bytes::from_static(br#"{"k":"dg=="}"#),
        ..Default::default()
    };
    let response = client.solve(old).await.expect("solved").into_inner();
    assert!(!response.r#ref.is_empty());
    let answer = forwarder.take_answer().expect("the last solve is the answer");
    assert_eq!(&answer.metadata["k"][..], b"v");
}

#[tokio::test]
async fn errors_keep_their_details_both_ways() {
    let position = |line| Some(pb::Position { line, character: 0 });
    let ranges = vec![pb::Range { start: position(3), end: position(3) }];
    let info = pb::SourceInfo { filename: "Dockerfile".into(), ..Default::default() };
    let failed = Error::invalid("no good").at(info, ranges);
    let (mut client, forwarder) = client(Fake { fail_solve: Some(failed.clone()), ..Fake::new() }).await;
    let status = client.solve(solve()).await.expect_err("fails");
    assert_eq!((status.code(), status.message()), (Code::InvalidArgument, "no good"));
    let status: rpc::Status = kiln_proto::prost::Message::decode(status.details()).expect("details");
    assert_eq!(status.details[0].type_url, "github.com/moby/buildkit/errdefs.Source+json");
    client.r#return(api::ReturnRequest { result: None, error: Some(status) }).await.expect("returned");
    let error = forwarder.answer().await.expect_err("failed");
    assert_eq!((error.code(), error.message()), (Code::InvalidArgument, "no good"));
    assert!(matches!(error.details(), [Detail::Source(_)]));
    assert_eq!(error.details(), failed.details());
}

#[tokio::test]
async fn capabilities_and_workers() {
    let (mut client, _) = client(Fake::new()).await;
    let pong = client.ping(api::PingRequest {}).await.expect("pong").into_inner();
    let ids: Vec<&str> = pong.frontend_api_caps.iter().map(|cap| cap.id.as_str()).collect();
    assert_eq!(ids.len(), 27);
    assert!(ids.is_sorted() && ids.contains(&"gateway.exec") && ids.contains(&"proto.refarray"));
    assert!(pong.frontend_api_caps.iter().all(|cap| cap.enabled));
    assert!(pong.llb_caps.iter().any(|cap| cap.id == "file.base"));
    assert_eq!(pong.workers[0].platforms[0].architecture, "amd64");
}

#[tokio::test]
async fn image_configs_the_old_way() {
    let (mut client, _) = client(Fake::new().image("docker.io/library/x:latest", "{}")).await;
    let request = |name: &str| api::ResolveImageConfigRequest { r#ref: name.into(), ..Default::default() };
    let found =
        client.resolve_image_config(request("docker.io/library/x:latest")).await.expect("found").into_inner();
    assert_eq!((found.r#ref.as_str(), &found.config[..]), ("docker.io/library/x:latest", &b"{}"[..]));
    let missing =
        client.resolve_image_config(request("docker.io/library/y:latest")).await.expect_err("missing");
    assert_eq!(missing.code(), Code::NotFound);
    let none =
        client.resolve_source_meta(api::ResolveSourceMetaRequest::default()).await.expect_err("no source");
    assert_eq!(none.message(), "source is required");
}

#[tokio::test(start_paused = true)]
async fn builds_are_told_apart_and_waited_for() {
    let gateway = Gateway::default();
    let mut client = connect(gateway.clone()).await;
    let ping = |id: Option<&'static str>| {
        let mut request = Request::new(api::PingRequest {});
        if let Some(id) = id {
            request.metadata_mut().insert(BUILD_ID_KEY, id.parse().expect("ascii"));
        }
        request
    };
    let error = client.ping(ping(None)).await.expect_err("which build?");
    assert_eq!(error.message(), "forwarding Ping: no buildid found in context");
    let late = gateway.clone();
    let registered = tokio::spawn(async move {
        tokio::time::sleep(std::time::Duration::from_secs(2)).await;
        late.register("one", forwarder(Fake::new())).expect("registered")
    });
    client.ping(ping(Some("one"))).await.expect("waited for");
    let registration = registered.await.expect("task");
    assert!(gateway.register("one", forwarder(Fake::new())).is_err());
    client.ping(ping(Some("one"))).await.expect("known");
    drop(registration);
    let error = client.ping(ping(Some("one"))).await.expect_err("gone");
    assert_eq!((error.code(), error.message()), (Code::NotFound, "forwarding Ping: no such job one"));
}

fn message(id: &str, input: Input) -> api::ExecMessage {
    api::ExecMessage { process_id: id.into(), input: Some(input) }
}

fn init(container: &str, args: &[&str], fds: &[u32]) -> Input {
    let args = args.iter().map(|arg| (*arg).to_owned()).collect();
    Input::Init(api::InitMessage {
        container_id: container.into(),
        meta: Some(pb::Meta { args, ..Default::default() }),
        fds: fds.to_vec(),
        ..Default::default()
    })
}

#[tokio::test]
async fn processes_in_containers() {
    let (mut client, forwarder) = client(Fake::new()).await;
    let reference = solved(&mut client).await;
    let mount = pb::Mount { dest: "/".into(), result_id: reference.id, ..Default::default() };
    let container =
        api::NewContainerRequest { container_id: "c".into(), mounts: vec![mount], ..Default::default() };
    client.new_container(container.clone()).await.expect("made");
    assert_eq!(client.new_container(container).await.expect_err("twice").code(), Code::AlreadyExists);
    let file = api::ReadFileRequest { r#ref: "c".into(), file_path: "f".into(), ..Default::default() };
    assert_eq!(client.read_file_container(file.clone()).await.expect("read").into_inner().data, "c /f");

    let (say, said) = tokio::sync::mpsc::channel(8);
    let mut answers = client.exec_process(ReceiverStream::new(said)).await.expect("stream").into_inner();
    say.send(message("1", init("c", &["cat"], &[0, 1, 2]))).await.expect("sent");
    say.send(message("1", Input::File(api::FdMessage { fd: 0, eof: true, data: "hi".into() })))
        .await
        .expect("sent");
    let mut seen = Vec::new();
    let mut output = Vec::new();
    loop {
        let answer = answers.message().await.expect("stream").expect("message");
        match answer.input.expect("input") {
            Input::Started(_) => seen.push("started"),
            Input::File(file) if file.eof => seen.push(if file.fd == 1 { "eof1" } else { "eof2" }),
            Input::File(file) => output.extend_from_slice(&file.data),
            Input::Exit(exit) => {
                assert_eq!((exit.code, exit.error), (0, None));
                seen.push("exit");
            }
            Input::Done(_) => break,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((output.as_slice(), seen[0], seen[3]), (&b"hi"[..], "started", "exit"));

    // A code, and a signal, on the same stream.
    say.send(message("2", init("c", &["exit", "7"], &[]))).await.expect("sent");
    say.send(message("3", init("c", &["sleep"], &[]))).await.expect("sent");
    let signal = api::SignalMessage { name: "TERM".into() };
    say.send(message("3", Input::Signal(signal))).await.expect("sent");
    let mut codes = BTreeMap::new();
    while codes.len() < 2 {
        let answer = answers.message().await.expect("stream").expect("message");
        if let Some(Input::Exit(exit)) = answer.input {
            let error = exit.error.expect("not 0");
            assert_eq!(error.message, format!("exit code: {}", exit.code));
            codes.insert(answer.process_id, exit.code);
        }
    }
    assert_eq!(codes, BTreeMap::from([("2".to_owned(), 7), ("3".to_owned(), 143)]));
    say.send(message("9", Input::Resize(api::ResizeMessage::default()))).await.expect("sent");
    let error = loop {
        match answers.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("an error"),
            Err(error) => break error,
        }
    };
    assert_eq!((error.code(), error.message()), (Code::NotFound, "IO for process \"9\" not found"));

    let release = api::ReleaseContainerRequest { container_id: "c".into() };
    client.release_container(release.clone()).await.expect("released");
    client.release_container(release).await.expect_err("gone");
    client.read_file_container(file).await.expect_err("gone");
    forwarder.close().await;
}

#[tokio::test]
async fn frontends_from_images() {
    let config = r#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers"},
        "config":{"Entrypoint":["/frontend"],"Labels":{"moby.buildkit.frontend.caps":"moby.buildkit.frontend.inputs"}}}"#;
    let bridge = Arc::new(Fake::new().image("r.example/front:latest", config));
    let run = async |target: &str| {
        let mut request = support::request(&[("source", "r.example/front"), ("target", target)]);
        request.inputs.insert("in".into(), definition());
        image::run(&bridge, &request, &AllowedImages::default()).await
    };
    let solution = run("").await.expect("built");
    assert_eq!(solution.refs, Refs::Single(Some(support::Promise(definition()))));
    let error = run("fail").await.expect_err("returned an error");
    assert_eq!((error.code(), error.message()), (Code::InvalidArgument, "no good"));
    let error = run("crash").await.expect_err("ended without an answer");
    assert_eq!(error.message(), "exit code: 3");
    assert!(
        bridge.solved().iter().any(|name| name.contains("r.example/front:latest@sha256:")),
        "{:?}",
        bridge.solved()
    );
    let none = image::run(&bridge, &support::request(&[]), &AllowedImages::default()).await;
    assert_eq!(none.expect_err("no source").message(), "no source specified for gateway");
}
