use crate::convert::*;
use crate::error::{Error, ResolveError};
use crate::ignore::parse_ignore;
use crate::lint::{Finding, Findings};
use async_trait::async_trait;
use kiln_llb::{ActionInput, Edge, FileActionKind, Graph, MountKind, Op, State};
use kiln_oci::{Digest, Platform, Timestamp};
use std::collections::BTreeMap;
use std::sync::Mutex;

const CONFIG: &str = r#"{
    "created": "2020-01-01T00:00:00Z", "architecture": "amd64", "os": "linux", "unknown": 1,
    "config": {"Env": ["PATH=/bin", "BASE=1"], "Cmd": ["sh"], "WorkingDir": "/w"},
    "rootfs": {"type": "layers", "diff_ids": ["sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"]},
    "history": [{"created_by": "base"}]
}"#;

/// Knows images, files and times; every image that nobody mentions has a plain config.
#[derive(Default)]
pub(super) struct Memory {
    pub(super) images: BTreeMap<String, Option<String>>,
    pub(super) redirects: BTreeMap<String, String>,
    pub(super) ignore: String,
    pub(super) context: Option<State>,
    pub(super) inputs: BTreeMap<String, State>,
    pub(super) time: Option<i64>,
    pub(super) asked: Mutex<Vec<String>>,
}

impl Memory {
    pub(super) fn with_image(name: &str, config: &str) -> Self {
        Self { images: BTreeMap::from([(name.to_owned(), Some(config.to_owned()))]), ..Self::default() }
    }

    fn note(&self, what: String) {
        self.asked.lock().unwrap().push(what);
    }
}

#[async_trait]
impl Resolver for Memory {
    async fn image_config(&self, request: ImageConfigRequest) -> Result<ImageAnswer, ResolveError> {
        self.note(request.log_name);
        let reference = request.reference;
        if let Some(identifier) = self.redirects.get(&reference) {
            let identifier = identifier.clone();
            return Ok(ImageAnswer::OtherSource { identifier, error: "not an image".into() });
        }
        let config = match self.images.get(&reference) {
            Some(None) => return Err("not found".into()),
            Some(Some(config)) => config.clone(),
            None => CONFIG.replace("amd64", &request.platform.architecture),
        };
        let digest = Some(Digest::sha256_of(&reference));
        Ok(ImageAnswer::Image(ResolvedImage { reference, digest, config: config.into_bytes() }))
    }

    async fn main_context(&self) -> Result<MainContext, ResolveError> {
        Ok(match &self.context {
            Some(state) => MainContext::State(state.clone()),
            None => MainContext::Local {
                name: "context".into(),
                session_id: "session".into(),
                ignore: parse_ignore(self.ignore.as_bytes())?,
            },
        })
    }

    fn is_ignored(&self, patterns: &[String], path: &str) -> bool {
        patterns.iter().any(|pattern| pattern == "*" || pattern == path)
    }

    async fn read_file(&self, _: &State, path: &str) -> Result<Option<Vec<u8>>, ResolveError> {
        self.note(format!("read {path}"));
        Ok(Some(self.ignore.clone().into_bytes()))
    }

    async fn input(&self, name: &str) -> Result<Option<State>, ResolveError> {
        Ok(self.inputs.get(name).cloned())
    }

    async fn source_time(
        &self,
        identifier: &str,
        _: &BTreeMap<String, String>,
        log_name: &str,
    ) -> Result<Option<Timestamp>, ResolveError> {
        self.note(format!("{log_name}: {identifier}"));
        Ok(self.time.and_then(Timestamp::from_unix))
    }
}

/// Options from attributes, for one platform.
pub(super) fn options(attrs: &[(&str, &str)]) -> ConvertOptions {
    let attrs = attrs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let mut options =
        FrontendOptions::parse(&attrs, Platform::linux("amd64")).unwrap().per_platform().remove(0);
    options.session_id = "session".into();
    options
}

/// Converts, with what the checks found.
pub(super) async fn run(
    text: &str,
    attrs: &[(&str, &str)],
    memory: &Memory,
) -> (Result<Converted, Error>, Vec<Finding>) {
    let findings = Findings::default();
    let result = convert(text.as_bytes(), &options(attrs), memory, Some(&findings)).await;
    (result, findings.take())
}

pub(super) async fn good(text: &str, attrs: &[(&str, &str)], memory: &Memory) -> Converted {
    run(text, attrs, memory).await.0.expect(text)
}

pub(super) async fn message(text: &str, attrs: &[(&str, &str)], memory: &Memory) -> String {
    run(text, attrs, memory).await.0.expect_err(text).to_string()
}

pub(super) async fn found(text: &str, attrs: &[(&str, &str)], memory: &Memory) -> Vec<String> {
    run(text, attrs, memory).await.1.iter().map(Finding::short).collect()
}

/// The graph of a conversion as text.
pub(super) async fn graph(text: &str, attrs: &[(&str, &str)]) -> String {
    show(&good(text, attrs, &Memory::default()).await)
}

/// Every step with its name, number, operation and inputs, and its lines if it tells them.
pub(super) fn show(converted: &Converted) -> String {
    let definition = converted.state.marshal(&converted.marshal_options("unique")).unwrap();
    if definition.def.is_empty() {
        return "(nothing)\n".to_owned();
    }
    let graph = Graph::load(&definition).unwrap();
    let numbers: BTreeMap<String, usize> =
        graph.vertices().enumerate().map(|(at, vertex)| (vertex.digest.to_string(), at)).collect();
    let number = |edge: &Edge| format!("#{}", numbers[&edge.vertex.to_string()]);
    let mut text = String::new();
    for vertex in graph.vertices() {
        let at = numbers[&vertex.digest.to_string()];
        let marks = if vertex.metadata.ignore_cache { " (ignores the cache)" } else { "" };
        let inputs: Vec<String> = vertex.inputs.iter().map(&number).collect();
        text.push_str(&format!("#{at} {}{marks}\n", vertex.name));
        for line in op(&vertex.op, &inputs) {
            text.push_str(&format!("     {line}\n"));
        }
    }
    text.push_str(&format!("result {}\n", number(graph.result())));
    text
}

fn op(op: &Op, inputs: &[String]) -> Vec<String> {
    let input = |input: &ActionInput| match input {
        ActionInput::Scratch => "scratch".to_owned(),
        ActionInput::Input(at) => inputs[*at].clone(),
        ActionInput::Action(at) => format!("action {at}"),
    };
    match op {
        Op::Source(source) => {
            let attrs = source.attrs.iter().map(|(key, value)| format!("  {key}={value}"));
            std::iter::once(source.identifier.clone()).chain(attrs).collect()
        }
        Op::Exec(exec) => {
            let mut lines =
                vec![format!("run {:?} in {} {:?}", exec.meta.args, exec.meta.cwd, exec.meta.env)];
            for mount in &exec.mounts {
                let from = mount.input.map_or("scratch".to_owned(), |at| inputs[at].clone());
                let kind =
                    if mount.kind == MountKind::Bind { String::new() } else { format!(" {:?}", mount.kind) };
                let readonly = if mount.readonly { " ro" } else { "" };
                lines.push(format!("  {} from {from}{}{readonly}{kind}", mount.dest, mount.selector));
            }
            lines
        }
        Op::File(file) => {
            let action = |action: &kiln_llb::FileAction| match &action.kind {
                FileActionKind::Copy(copy) => {
                    let from = input(&action.secondary_input);
                    format!("copy {} of {from} to {} on {}", copy.src, copy.dest, input(&action.input))
                }
                FileActionKind::Mkfile(file) => format!("file {} {:?}", file.path, file.data),
                other => format!("{other:?}"),
            };
            file.actions.iter().map(action).collect()
        }
        Op::Merge(_) => vec![format!("merge {inputs:?}")],
        other => vec![format!("{other:?}")],
    }
}
