//! The Docker Engine's API, as far as loading an image needs it.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use futures::StreamExt as _;
use http_body_util::{BodyExt as _, Empty, StreamBody, combinators::BoxBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http1;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::{TcpStream, UnixStream};

use super::context::Endpoint;
use crate::error::{Context as _, Error, Result};

/// An engine that does not answer within this time is not there.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);
/// An error text longer than this is cut.
const ERROR_BYTES_MAX: usize = 64 << 10;

/// An engine that answered.
#[derive(Clone, Debug)]
pub struct Engine {
    endpoint: Endpoint,
    /// It keeps images as containerd does, so it takes OCI archives with several platforms.
    pub takes_oci: bool,
}

type Body = BoxBody<Bytes, Infallible>;

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "PascalCase")]
struct Info {
    driver_status: Vec<(String, String)>,
}

/// A message of the stream that answers a load.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Message {
    /// Progress in words.
    pub stream: String,
    /// Why it failed.
    pub error: String,
}

impl Engine {
    /// Asks whether an engine answers there; `None` where none does.
    pub async fn probe(endpoint: &Endpoint) -> Option<Engine> {
        let asked = async {
            let answer = request(endpoint, Method::GET, "/info", empty()).await.ok()?;
            if answer.status() != StatusCode::OK {
                return None;
            }
            let body = answer.into_body().collect().await.ok()?.to_bytes();
            let info: Info = serde_json::from_slice(&body).unwrap_or_default();
            let takes_oci = info
                .driver_status
                .iter()
                .any(|(key, value)| key == "driver-type" && value == "io.containerd.snapshotter.v1");
            Some(Engine { endpoint: endpoint.clone(), takes_oci })
        };
        tokio::time::timeout(PROBE_TIMEOUT, asked).await.ok().flatten()
    }

    /// Sends an archive; `progress` gets what the engine says meanwhile.
    pub async fn load(
        &self,
        archive: impl Stream<Item = Bytes> + Send + Sync + 'static,
        mut progress: impl FnMut(&str),
    ) -> Result<()> {
        let body = StreamBody::new(archive.map(|chunk| Ok::<_, Infallible>(Frame::data(chunk))));
        let answer =
            request(&self.endpoint, Method::POST, "/images/load?quiet=1", BoxBody::new(body)).await?;
        let status = answer.status();
        let mut body = answer.into_body();
        let mut pending = Vec::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.when("read the answer of the Docker Engine")?;
            let Ok(data) = frame.into_data() else { continue };
            pending.extend_from_slice(&data);
            if status == StatusCode::OK {
                self.take_messages(&mut pending, &mut progress)?;
            }
            if pending.len() > ERROR_BYTES_MAX {
                break;
            }
        }
        if status == StatusCode::OK {
            return Ok(());
        }
        #[derive(Deserialize)]
        struct Refusal {
            message: String,
        }
        let said = serde_json::from_slice::<Refusal>(&pending).map(|refusal| refusal.message);
        let said = said.unwrap_or_else(|_| String::from_utf8_lossy(&pending).into_owned());
        Err(self.failed(&format!("{status}: {}", said.trim())))
    }

    fn take_messages(&self, pending: &mut Vec<u8>, progress: &mut impl FnMut(&str)) -> Result<()> {
        let mut messages = serde_json::Deserializer::from_slice(pending).into_iter::<Message>();
        let mut failed = None;
        while let Some(Ok(message)) = messages.next() {
            if !message.error.is_empty() {
                failed.get_or_insert(message.error);
            } else if !message.stream.trim().is_empty() {
                progress(message.stream.trim());
            }
        }
        let taken = messages.byte_offset();
        pending.drain(..taken);
        failed.map_or(Ok(()), |error| Err(self.failed(&error)))
    }

    fn failed(&self, why: &str) -> Error {
        Error::environment(format!("the Docker Engine at {} could not load the image: {why}", self.endpoint))
    }
}

fn empty() -> Body {
    BoxBody::new(Empty::new())
}

async fn request(endpoint: &Endpoint, method: Method, path: &str, body: Body) -> Result<Response<Incoming>> {
    let what = format!("talk to the Docker Engine at {endpoint}");
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("Host", "docker")
        .header("Content-Type", "application/x-tar")
        .body(body)
        .expect("the parts are constant");
    match endpoint {
        Endpoint::Unix(path) => {
            let stream = UnixStream::connect(path).await.when(&what)?;
            send(TokioIo::new(stream), request).await.when(&what)
        }
        Endpoint::Tcp(address) => {
            let stream = TcpStream::connect(address).await.when(&what)?;
            send(TokioIo::new(stream), request).await.when(&what)
        }
    }
}

async fn send<T>(io: T, request: Request<Body>) -> hyper::Result<Response<Incoming>>
where
    T: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(io).await?;
    // Ends with the connection, which ends when the answer has been read.
    tokio::spawn(connection);
    sender.send_request(request).await
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::UnixListener;

    use super::*;

    /// An engine that answers one request with this text and returns what it was sent.
    async fn engine(listener: UnixListener, status: &str, body: &str, until: &str) -> String {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut got = Vec::new();
        while !String::from_utf8_lossy(&got).contains(until) {
            let mut chunk = [0; 1024];
            let count = stream.read(&mut chunk).await.unwrap();
            assert!(count > 0, "the request ended early");
            got.extend_from_slice(&chunk[..count]);
        }
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        stream.write_all(answer.as_bytes()).await.unwrap();
        String::from_utf8_lossy(&got).into_owned()
    }

    async fn load(status: &str, body: &str) -> (Result<()>, Vec<String>, String) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("e.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let engine_side = engine(listener, status, body, "tar bytes");
        let client = Engine { endpoint: Endpoint::Unix(path), takes_oci: false };
        let mut heard = Vec::new();
        let archive = futures::stream::iter([Bytes::from("tar bytes")]);
        let (sent, got) = tokio::join!(client.load(archive, |text| heard.push(text.to_owned())), engine_side);
        (sent, heard, got)
    }

    #[tokio::test(flavor = "current_thread")]
    async fn loads_an_archive() {
        let (sent, heard, got) = load("200 OK", "{\"stream\":\"Loaded image: x\\n\"}\n").await;
        sent.unwrap();
        assert_eq!(heard, ["Loaded image: x"]);
        assert!(got.starts_with("POST /images/load?quiet=1 HTTP/1.1\r\n"), "{got}");
    }

    #[tokio::test(flavor = "current_thread")]
    async fn refusals_are_errors() {
        let (sent, _, _) = load("200 OK", "{\"stream\":\"a\"}{\"error\":\"no space\"}").await;
        assert!(sent.unwrap_err().to_string().contains("no space"));
        let (sent, _, _) = load("500 Internal Server Error", "{\"message\":\"broken archive\"}").await;
        assert!(sent.unwrap_err().to_string().contains("broken archive"));
    }

    #[tokio::test(flavor = "current_thread")]
    async fn nobody_there_is_no_engine() {
        assert!(Engine::probe(&Endpoint::Unix("/nonexistent/docker.sock".into())).await.is_none());
    }
}
