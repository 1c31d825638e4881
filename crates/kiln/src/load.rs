//! Images on their way into the Docker Engine, or into the embedded daemon's image store.

use bytes::Bytes;
use futures::StreamExt as _;
use kiln_oci::Digest;
use kiln_progress::{SolveStatus, Vertex, VertexLog};
use kiln_proto::images::images_client::ImagesClient;
use kiln_proto::images::load_images_request::Part;
use kiln_proto::images::{LoadImagesRequest, LoadOptions};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;

use crate::build::{ChannelSink, Export, Target, channel};
use crate::builder;
use crate::docker::engine::Engine;
use crate::error::{Context as _, Error, Result};
use crate::printer::{Reports, now};
use crate::random;
use crate::settings::Settings;

/// The loads of one build. Dropping it ends them.
#[derive(Debug)]
pub struct Loading {
    loads: Vec<Load>,
}

#[derive(Debug)]
struct Load {
    number: u32,
    sink: ChannelSink,
    task: Owned,
}

#[derive(Debug)]
struct Owned(JoinHandle<Result<()>>);

impl Drop for Owned {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Loading {
    /// Gets ready for each export that is to be loaded; a connection is made when the first bytes come.
    pub async fn start(
        exports: &[Export],
        engine: Option<Engine>,
        settings: &Settings,
        reports: &Reports,
    ) -> Result<Self> {
        let mut loads = Vec::new();
        for (number, export) in (0..).zip(exports) {
            let (sink, chunks) = channel();
            let reports = reports.clone();
            let task = match (&export.target, &engine) {
                (Target::Engine, Some(engine)) => tokio::spawn(into_engine(engine.clone(), chunks, reports)),
                (Target::Store, _) => {
                    // The store is the embedded daemon's, which may have to be started.
                    let store = builder::connect(settings, &builder::Choice::Embedded).await?;
                    tokio::spawn(into_store(store, chunks, reports))
                }
                _ => continue,
            };
            loads.push(Load { number, sink, task: Owned(task) });
        }
        Ok(Self { loads })
    }

    /// Where an export writes.
    pub fn sink(&self, number: u32) -> Option<ChannelSink> {
        self.loads.iter().find(|load| load.number == number).map(|load| load.sink.clone())
    }

    /// The build has succeeded: what was written is whole. Waits until it is taken.
    pub async fn finish(self) -> Result<()> {
        for load in self.loads {
            let Load { sink, mut task, .. } = load;
            // The archive ends with the last of its sinks.
            drop(sink);
            (&mut task.0)
                .await
                .map_err(|error| Error::ours("loading the image panicked").because(error))??;
        }
        Ok(())
    }
}

async fn into_engine(engine: Engine, mut chunks: mpsc::Receiver<Bytes>, reports: Reports) -> Result<()> {
    let Some(first) = chunks.recv().await else { return Ok(()) };
    let step = Step::begin("importing to docker", reports).await?;
    let archive = futures::stream::iter([first]).chain(ReceiverStream::new(chunks));
    let mut said = Vec::new();
    let result = engine.load(archive, |text| said.push(text.to_owned())).await;
    step.end(&said, result).await
}

async fn into_store(
    store: builder::Builder,
    mut chunks: mpsc::Receiver<Bytes>,
    reports: Reports,
) -> Result<()> {
    let Some(first) = chunks.recv().await else { return Ok(()) };
    let step = Step::begin("importing to the local image store", reports).await?;
    let parts = futures::stream::iter([first]).chain(ReceiverStream::new(chunks)).map(Part::Data);
    let options = futures::stream::iter([Part::Options(LoadOptions::default())]);
    let messages = options.chain(parts).map(|part| LoadImagesRequest { part: Some(part) });
    let result = async {
        let mut client = ImagesClient::new(store.client.channel());
        let mut answer =
            client.load(messages).await.when("load the image into the local image store")?.into_inner();
        while answer.message().await.when("load the image into the local image store")?.is_some() {}
        Ok(())
    };
    let result = result.await;
    step.end(&[], result).await
}

/// A step of this machine's, shown among those of the build.
struct Step {
    vertex: Vertex,
    reports: Reports,
}

impl Step {
    async fn begin(name: &str, reports: Reports) -> Result<Self> {
        let digest = Digest::sha256_of(random::build_id()?).to_string();
        let vertex = Vertex { digest, name: name.to_owned(), started: Some(now()), ..Vertex::default() };
        let step = Self { vertex, reports };
        step.tell(Vec::new()).await;
        Ok(step)
    }

    async fn end(mut self, said: &[String], result: Result<()>) -> Result<()> {
        self.vertex.completed = Some(now());
        if let Err(error) = &result {
            self.vertex.error = error.to_string();
        }
        let log = |text: &String| VertexLog {
            vertex: self.vertex.digest.clone(),
            stream: 1,
            data: format!("{text}\n").into(),
            timestamp: now(),
        };
        self.tell(said.iter().map(log).collect()).await;
        result
    }

    async fn tell(&self, logs: Vec<VertexLog>) {
        let status = SolveStatus { vertexes: vec![self.vertex.clone()], logs, ..SolveStatus::default() };
        // Without a display nobody needs to know.
        let _ = self.reports.send(status).await;
    }
}
