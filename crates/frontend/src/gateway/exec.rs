//! Processes in containers over one stream of messages each way.
//!
//! The caller starts a process with `Init`, writes to its input with `File`, and gets `Started`, the output as
//! `File`, `Exit` with the code, and `Done` when nothing more follows. Several processes share a stream.

use super::forwarder::Forwarder;
use super::service::EXEC_QUEUE;
use super::signals;
use crate::{Bridge, Error, Process, ProcessIo, ProcessRequest, WindowSize};
use bytes::{Bytes, BytesMut};
use kiln_proto::frontend as api;
use kiln_proto::frontend::exec_message::Input;
use kiln_proto::pb::SecurityMode;
use std::collections::HashMap;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::mpsc::Sender;
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

/// How much of a process' input or output waits in between.
const PIPE_BYTES: usize = 64 * 1024;
const CHUNK_BYTES: usize = 32 * 1024;
/// The code of a process whose end is not known.
const UNKNOWN_EXIT: u32 = 255;

const STDIN: u32 = 0;
const STDOUT: u32 = 1;
const STDERR: u32 = 2;

type Out = Sender<Result<api::ExecMessage, Status>>;

/// Serves one stream until it ends; its processes end with it.
pub(super) fn exec_process<B: Bridge>(
    forwarder: Arc<Forwarder<B>>,
    messages: Streaming<api::ExecMessage>,
) -> ReceiverStream<Result<api::ExecMessage, Status>> {
    let (out, stream) = tokio::sync::mpsc::channel(EXEC_QUEUE);
    tokio::spawn(async move {
        let mut session = Session { out: out.clone(), processes: HashMap::new(), tasks: JoinSet::new() };
        let served = tokio::select! {
            served = session.serve(&*forwarder, messages) => served,
            // Nobody listens any more.
            () = out.closed() => Ok(()),
        };
        if let Err(error) = served {
            let _ = out.send(Err(error.to_status())).await;
        }
        // The session's tasks, and with them the processes, end here.
    });
    ReceiverStream::new(stream)
}

struct Session {
    out: Out,
    processes: HashMap<String, Running>,
    tasks: JoinSet<()>,
}

struct Running {
    process: Arc<dyn Process>,
    stdin: Option<DuplexStream>,
}

fn message(id: &str, input: Input) -> Result<api::ExecMessage, Status> {
    Ok(api::ExecMessage { process_id: id.to_owned(), input: Some(input) })
}

impl Session {
    async fn serve<B: Bridge>(
        &mut self,
        forwarder: &Forwarder<B>,
        mut messages: Streaming<api::ExecMessage>,
    ) -> Result<(), Error> {
        while let Some(message) =
            messages.message().await.map_err(|status| Error::new(status.code(), status.message()))?
        {
            let id = message.process_id;
            if id.is_empty() {
                return Err(Error::invalid("ProcessID required"));
            }
            match message.input {
                Some(Input::Init(init)) => self.start(forwarder, &id, init).await?,
                Some(Input::File(file)) => self.write(&id, file).await?,
                Some(Input::Resize(size)) => {
                    let size = WindowSize { rows: size.rows, columns: size.cols };
                    self.running(&id)?.process.resize(size).await?;
                }
                Some(Input::Signal(signal)) => {
                    let running = self.running(&id)?;
                    let number = signals::number(&signal.name)
                        .ok_or_else(|| Error::invalid(format!("Unknown signal {}", signal.name)))?;
                    running.process.signal(number).await?;
                }
                _ => {}
            }
        }
        // The caller has nothing more to say; what runs goes on to its end.
        for running in self.processes.values_mut() {
            running.stdin = None;
        }
        while self.tasks.join_next().await.is_some() {}
        Ok(())
    }

    fn running(&mut self, id: &str) -> Result<&mut Running, Error> {
        let unknown = || Error::not_found(format!("IO for process {id:?} not found"));
        self.processes.get_mut(id).ok_or_else(unknown)
    }

    async fn write(&mut self, id: &str, file: api::FdMessage) -> Result<(), Error> {
        let running = self.running(id)?;
        let closed = || Error::new(Code::OutOfRange, format!("fd {} unavailable to write", file.fd));
        if file.fd != STDIN {
            return Err(closed());
        }
        let stdin = running.stdin.as_mut().ok_or_else(closed)?;
        // A process that does not read any more has ended or is about to; what it is told is lost then.
        let written = stdin.write_all(&file.data).await;
        if file.eof || written.is_err() {
            running.stdin = None;
        }
        Ok(())
    }

    async fn start<B: Bridge>(
        &mut self,
        forwarder: &Forwarder<B>,
        id: &str,
        init: api::InitMessage,
    ) -> Result<(), Error> {
        if self.processes.contains_key(id) {
            return Err(Error::new(Code::AlreadyExists, format!("Process {id} already exists")));
        }
        let container = &init.container_id;
        let container = forwarder.container(container).ok_or_else(|| {
            Error::not_found(format!("container {container:?} previously released or not created"))
        })?;
        let security = SecurityMode::try_from(init.security)
            .map_err(|_| Error::invalid(format!("invalid security mode {}", init.security)))?;
        let meta = init.meta.ok_or_else(|| Error::invalid("process metadata required"))?;
        let (mut io, mut stdin, mut outputs) = (ProcessIo::default(), None, Vec::new());
        for fd in init.fds {
            let (ours, theirs) = duplex(PIPE_BYTES);
            match fd {
                STDIN => {
                    io.stdin = Some(Box::new(theirs));
                    stdin = Some(ours);
                }
                STDOUT => {
                    io.stdout = Some(Box::new(theirs));
                    outputs.push((fd, ours));
                }
                STDERR => {
                    io.stderr = Some(Box::new(theirs));
                    outputs.push((fd, ours));
                }
                _ => {}
            }
        }
        let request = ProcessRequest {
            args: meta.args,
            env: meta.env,
            user: meta.user,
            cwd: meta.cwd,
            tty: init.tty,
            security,
            secret_env: init.secretenv,
            remove_mount_stubs_recursive: meta.remove_mount_stubs_recursive,
        };
        let process: Arc<dyn Process> = container.start(request, io).await?.into();
        // Before any output of it.
        let _ = self.out.send(message(id, Input::Started(api::StartedMessage {}))).await;
        self.processes.insert(id.to_owned(), Running { process: process.clone(), stdin });
        self.tasks.spawn(follow(id.to_owned(), process, outputs, self.out.clone()));
        Ok(())
    }
}

/// Hands on the output of a process and its end.
async fn follow(id: String, process: Arc<dyn Process>, outputs: Vec<(u32, DuplexStream)>, out: Out) {
    let copies = outputs.into_iter().map(|(fd, output)| copy(id.clone(), fd, output, out.clone()));
    let (ended, _) = futures::future::join(process.wait(), futures::future::join_all(copies)).await;
    let (code, error) = match ended {
        Ok(end) => (end.code, end.error.map(Error::unknown)),
        Err(error) => (UNKNOWN_EXIT, Some(error)),
    };
    let error = error.or_else(|| (code != 0).then(|| Error::unknown(format!("exit code: {code}"))));
    let exit = api::ExitMessage { code, error: error.map(|error| error.to_rpc()) };
    let _ = out.send(message(&id, Input::Exit(exit))).await;
    let _ = out.send(message(&id, Input::Done(api::DoneMessage {}))).await;
}

async fn copy(id: String, fd: u32, mut from: DuplexStream, out: Out) {
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(CHUNK_BYTES);
        match from.read_buf(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(_) => {
                let file = api::FdMessage { fd, eof: false, data: buffer.split().freeze() };
                if out.send(message(&id, Input::File(file))).await.is_err() {
                    return;
                }
            }
        }
    }
    let end = api::FdMessage { fd, eof: true, data: Bytes::new() };
    let _ = out.send(message(&id, Input::File(end))).await;
}
