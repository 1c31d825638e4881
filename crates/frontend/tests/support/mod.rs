//! A bridge to nothing: sources with files by identifier, images by reference, and a list of what was asked.
#![allow(dead_code)]

use async_trait::async_trait;
use bytes::Bytes;
use kiln_frontend::{
    Bridge, Container, ContainerRequest, Error, FileRange, FrontendRequest, HttpMeta, ImageMeta, MetaRequest,
    Process, ProcessEnd, ProcessIo, ProcessRequest, Solution, SolveRequest, SourceMeta, Warning, WindowSize,
    WorkerInfo,
};
use kiln_llb::{Graph, Op};
use kiln_oci::Platform;
use kiln_proto::{fsutil_types, pb};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{Notify, watch};

/// A result is the graph it is promised from.
#[derive(Clone, Debug, PartialEq)]
pub struct Promise(pub pb::Definition);

#[derive(Default)]
pub struct Fake {
    /// Files of sources, by identifier and path.
    pub files: BTreeMap<(String, String), Bytes>,
    /// Configs of images, by reference.
    pub images: BTreeMap<String, String>,
    pub http_modified: Option<i64>,
    /// Names of the vertices that were solved, in order.
    pub solved: Mutex<Vec<String>>,
    pub requests: Mutex<Vec<SolveRequest>>,
    pub looked_at: Mutex<Vec<(String, MetaRequest)>>,
    pub warnings: Mutex<Vec<Warning>>,
    pub fail_solve: Option<Error>,
    pub signalled: Arc<Notify>,
}

impl Fake {
    pub fn new() -> Self {
        Fake::default()
    }

    pub fn file(mut self, source: &str, path: &str, data: impl Into<Bytes>) -> Self {
        self.files.insert((source.into(), path.into()), data.into());
        self
    }

    pub fn dockerfile(self, text: &str) -> Self {
        self.file("local://dockerfile", "Dockerfile", text.to_owned())
    }

    pub fn image(mut self, reference: &str, config: &str) -> Self {
        self.images.insert(reference.into(), config.into());
        self
    }

    pub fn solved(&self) -> Vec<String> {
        self.solved.lock().expect("solved").clone()
    }
}

pub fn request(opts: &[(&str, &str)]) -> FrontendRequest {
    FrontendRequest {
        opts: opts.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        inputs: BTreeMap::new(),
        session_id: "session".into(),
        build_id: "build".into(),
    }
}

/// The sources of a graph.
pub fn sources(definition: &pb::Definition) -> Vec<(String, BTreeMap<String, String>)> {
    let graph = Graph::load(definition).expect("a graph");
    let source = |vertex: &kiln_llb::Vertex| match &vertex.op {
        Op::Source(source) => Some((source.identifier.clone(), source.attrs.clone())),
        _ => None,
    };
    graph.vertices().map(AsRef::as_ref).filter_map(source).collect()
}

#[async_trait]
impl Bridge for Fake {
    type Ref = Promise;

    fn workers(&self) -> Vec<WorkerInfo> {
        vec![WorkerInfo {
            id: "w".into(),
            labels: BTreeMap::new(),
            platforms: vec![Platform::linux("amd64")],
        }]
    }

    async fn solve(&self, request: SolveRequest) -> Result<Solution<Promise>, Error> {
        self.requests.lock().expect("requests").push(request.clone());
        if !request.frontend.is_empty() {
            return Err(Error::unknown(format!("no frontend {}", request.frontend)));
        }
        let Some(definition) = request.definition.filter(|graph| !graph.def.is_empty()) else {
            return Ok(Solution::single(None));
        };
        if let Some(error) = &self.fail_solve {
            return Err(error.clone());
        }
        let graph = Graph::load(&definition).map_err(|error| Error::of(&error))?;
        let names = graph.vertices().map(|vertex| vertex.name.clone());
        self.solved.lock().expect("solved").extend(names);
        Ok(Solution::single(Some(Promise(definition))))
    }

    fn definition(&self, reference: &Promise) -> pb::Definition {
        reference.0.clone()
    }

    async fn evaluate(&self, _: &Promise) -> Result<(), Error> {
        Ok(())
    }

    async fn resolve_source_meta(
        &self,
        source: pb::SourceOp,
        request: MetaRequest,
    ) -> Result<SourceMeta, Error> {
        let identifier = source.identifier.clone();
        self.looked_at.lock().expect("looked at").push((identifier.clone(), request));
        // Time for an equal request to come along.
        tokio::task::yield_now().await;
        if identifier.starts_with("http") {
            let last_modified = self.http_modified.and_then(kiln_oci::Timestamp::from_unix);
            let http = HttpMeta { filename: "context".into(), last_modified, ..HttpMeta::default() };
            return Ok(SourceMeta { source, http: Some(http), ..SourceMeta::default() });
        }
        let reference = identifier.strip_prefix("docker-image://").unwrap_or_default();
        let config =
            self.images.get(reference).ok_or_else(|| Error::not_found(format!("{reference}: not found")))?;
        let image = ImageMeta {
            digest: kiln_oci::Digest::sha256_of(config).to_string(),
            config: Bytes::from(config.clone()),
            attestation_chain: None,
        };
        Ok(SourceMeta { source, image: Some(image), ..SourceMeta::default() })
    }

    async fn read_file(
        &self,
        reference: &Promise,
        path: &str,
        range: Option<FileRange>,
    ) -> Result<Bytes, Error> {
        let source = sources(&reference.0).pop().expect("a source").0;
        let missing = || Error::not_found(format!("open /{path}: no such file or directory"));
        let data = self.files.get(&(source, path.to_owned())).ok_or_else(missing)?;
        let Some(range) = range else { return Ok(data.clone()) };
        let end = (range.offset + range.length).min(data.len() as u64) as usize;
        Ok(data.slice(range.offset as usize..end))
    }

    async fn read_dir(
        &self,
        reference: &Promise,
        path: &str,
        include_pattern: &str,
    ) -> Result<Vec<fsutil_types::Stat>, Error> {
        let source = sources(&reference.0).pop().expect("a source").0;
        let names =
            self.files.keys().filter(|(of, _)| *of == source).map(|(_, name)| format!("{path}{name}"));
        let fits = |name: &String| include_pattern.is_empty() || name.ends_with(include_pattern);
        Ok(names.filter(fits).map(|path| fsutil_types::Stat { path, ..Default::default() }).collect())
    }

    async fn stat_file(&self, reference: &Promise, path: &str) -> Result<fsutil_types::Stat, Error> {
        let data = self.read_file(reference, path, None).await?;
        Ok(fsutil_types::Stat { path: path.into(), size: data.len() as i64, ..Default::default() })
    }

    async fn warn(&self, warning: Warning) -> Result<(), Error> {
        self.warnings.lock().expect("warnings").push(warning);
        Ok(())
    }

    async fn new_container(&self, request: ContainerRequest<Promise>) -> Result<Box<dyn Container>, Error> {
        Ok(Box::new(FakeContainer { request, signalled: self.signalled.clone() }))
    }
}

struct FakeContainer {
    request: ContainerRequest<Promise>,
    signalled: Arc<Notify>,
}

/// A frontend: solves what its options name, and returns it.
async fn frontend(env: Vec<String>, io: ProcessIo, end: watch::Sender<Option<ProcessEnd>>) {
    use kiln_proto::frontend as api;
    let both = tokio::io::join(io.stdin.expect("stdin"), io.stdout.expect("stdout"));
    let mut both = Some(both);
    let channel = tonic::transport::Endpoint::from_static("http://daemon.invalid")
        .connect_with_connector(tower::service_fn(move |_: tonic::transport::Uri| {
            let both = both.take();
            async move { both.map(hyper_util::rt::TokioIo::new).ok_or_else(|| std::io::Error::other("once")) }
        }))
        .await
        .expect("connected");
    let mut client = api::llb_bridge_client::LlbBridgeClient::new(channel);
    client.ping(api::PingRequest {}).await.expect("pong");
    let target = env.iter().find_map(|one| one.split_once("=target=")).map(|(_, value)| value);
    if target == Some("crash") {
        let _ = end.send(Some(ProcessEnd { code: 3, error: None }));
        return;
    }
    let answer = match target {
        Some("fail") => api::ReturnRequest {
            error: Some(kiln_proto::rpc::Status { code: 3, message: "no good".into(), details: Vec::new() }),
            result: None,
        },
        _ => {
            let inputs = client.inputs(api::InputsRequest {}).await.expect("inputs").into_inner();
            let definition = inputs.definitions["in"].clone();
            let solve = api::SolveRequest {
                definition: Some(definition),
                allow_result_return: true,
                allow_result_array_ref: true,
                ..Default::default()
            };
            let solved = client.solve(solve).await.expect("solved").into_inner();
            api::ReturnRequest { result: solved.result, error: None }
        }
    };
    client.r#return(answer).await.expect("returned");
    let _ = end.send(Some(ProcessEnd { code: 0, error: None }));
}

/// `cat` copies its input, `exit N` ends with a code, `sleep` waits for a signal.
#[async_trait]
impl Container for FakeContainer {
    async fn start(&self, request: ProcessRequest, io: ProcessIo) -> Result<Box<dyn Process>, Error> {
        let (end, ended) = watch::channel(None);
        let (args, signalled) = (request.args, self.signalled.clone());
        tokio::spawn(async move {
            let mut io = io;
            let code = match args[0].as_str() {
                "cat" => {
                    let mut data = Vec::new();
                    if let Some(stdin) = &mut io.stdin {
                        stdin.read_to_end(&mut data).await.expect("read");
                    }
                    if let Some(stdout) = &mut io.stdout {
                        stdout.write_all(&data).await.expect("write");
                    }
                    0
                }
                "exit" => args[1].parse().expect("code"),
                "/frontend" => return frontend(request.env, io, end).await,
                "sleep" => {
                    signalled.notified().await;
                    143
                }
                other => panic!("no program {other}"),
            };
            drop(io);
            let _ = end.send(Some(ProcessEnd { code, error: None }));
        });
        Ok(Box::new(FakeProcess { ended, signalled: self.signalled.clone() }))
    }

    async fn read_file(&self, mount: usize, path: &str, _: Option<FileRange>) -> Result<Bytes, Error> {
        Ok(format!("{} {}{path}", self.request.id, self.request.mounts[mount].mount.dest).into())
    }

    async fn read_dir(&self, _: usize, _: &str, _: &str) -> Result<Vec<fsutil_types::Stat>, Error> {
        Ok(Vec::new())
    }

    async fn stat_file(&self, _: usize, path: &str) -> Result<fsutil_types::Stat, Error> {
        Ok(fsutil_types::Stat { path: path.into(), ..Default::default() })
    }

    async fn release(&self) -> Result<(), Error> {
        Ok(())
    }
}

struct FakeProcess {
    ended: watch::Receiver<Option<ProcessEnd>>,
    signalled: Arc<Notify>,
}

#[async_trait]
impl Process for FakeProcess {
    async fn wait(&self) -> Result<ProcessEnd, Error> {
        let mut ended = self.ended.clone();
        let end = ended.wait_for(Option::is_some).await.map_err(|_| Error::unknown("gone"))?;
        Ok(end.clone().expect("waited for"))
    }

    async fn signal(&self, signal: i32) -> Result<(), Error> {
        assert_eq!(signal, 15);
        self.signalled.notify_one();
        Ok(())
    }

    async fn resize(&self, _: WindowSize) -> Result<(), Error> {
        Ok(())
    }
}
