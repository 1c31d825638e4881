//! Dialling: from an address to an HTTP/2 channel.

use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::Stdio;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper_util::rt::TokioIo;
use kiln_proto::SOCKET_READ_BYTES;
use tokio::io::{AsyncRead, AsyncWrite, BufReader, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

use crate::{Address, Error};

/// Certificates for a `tcp://` address.
#[derive(Debug, Clone, Default)]
pub struct TlsOptions {
    /// Name to expect in the daemon's certificate; the address's host when `None`.
    pub server_name: Option<String>,
    pub ca: Option<PathBuf>,
    /// Certificate and key to show to the daemon.
    pub identity: Option<(PathBuf, PathBuf)>,
}

pub(crate) async fn channel(address: &Address, tls: Option<&TlsOptions>) -> Result<Channel, Error> {
    let connector = match (address, tls) {
        (Address::Tcp { host, .. }, Some(options)) => Some(connector(options, host)?),
        _ => None,
    };
    // The authority has no meaning on a private connection, but HTTP/2 wants one.
    let endpoint = Endpoint::from_static("http://localhost")
        .initial_stream_window_size(kiln_proto::STREAM_WINDOW_BYTES)
        .initial_connection_window_size(kiln_proto::CONNECTION_WINDOW_BYTES)
        .user_agent(concat!("kiln/", env!("CARGO_PKG_VERSION")))
        .map_err(|error| Error::Connect { address: address.to_string(), source: error.into() })?;
    let dialled = address.clone();
    endpoint
        .connect_with_connector(service_fn(move |_| {
            let (address, connector) = (dialled.clone(), connector.clone());
            async move { dial(&address, connector).await.map(TokioIo::new) }
        }))
        .await
        .map_err(|error| Error::Connect { address: address.to_string(), source: error.into() })
}

type Connector = (TlsConnector, ServerName<'static>);

async fn dial(address: &Address, tls: Option<Connector>) -> io::Result<Box<dyn Stream>> {
    Ok(match (address, tls) {
        (Address::Unix(path), _) => {
            Box::new(BufReader::with_capacity(SOCKET_READ_BYTES, UnixStream::connect(path).await?))
        }
        (Address::Tcp { host, port }, tls) => {
            let stream = TcpStream::connect((host.as_str(), *port)).await?;
            stream.set_nodelay(true)?;
            match tls {
                None => Box::new(BufReader::with_capacity(SOCKET_READ_BYTES, stream)),
                Some((connector, name)) => Box::new(connector.connect(name, stream).await?),
            }
        }
        (Address::Command { program, arguments, .. }, _) => {
            let mut child = Command::new(program)
                .args(arguments)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .kill_on_drop(true)
                .spawn()
                .map_err(|error| {
                    io::Error::new(error.kind(), format!("cannot start `{program}`: {error}"))
                })?;
            let missing = || io::Error::other("a started program has no pipes");
            let input = child.stdin.take().ok_or_else(missing)?;
            let output = child.stdout.take().ok_or_else(missing)?;
            Box::new(Piped { input, output, _child: child })
        }
    })
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// The two pipes of a program as one stream; the program ends with it.
struct Piped {
    input: ChildStdin,
    output: ChildStdout,
    _child: Child,
}

impl AsyncRead for Piped {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.output).poll_read(cx, buf)
    }
}

impl AsyncWrite for Piped {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.input).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.input).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.input).poll_shutdown(cx)
    }
}

fn connector(options: &TlsOptions, host: &str) -> Result<Connector, Error> {
    let mut roots = RootCertStore::empty();
    let ca = options.ca.clone().unwrap_or_else(|| PathBuf::from("/etc/ssl/certs/ca-certificates.crt"));
    for certificate in certificates(&ca)? {
        // The machine's own collection may hold entries that this library does not take; a CA that was named must be taken.
        if let Err(error) = roots.add(certificate)
            && options.ca.is_some()
        {
            return Err(Error::TlsFile { path: ca, source: error.into() });
        }
    }
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::Tls(error.into()))?
        .with_root_certificates(roots);
    let mut config = match &options.identity {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let key = PrivateKeyDer::from_pem_file(key)
                .map_err(|error| Error::TlsFile { path: key.clone(), source: error.into() })?;
            builder
                .with_client_auth_cert(certificates(certificate)?, key)
                .map_err(|error| Error::Tls(error.into()))?
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    let name = options.server_name.clone().unwrap_or_else(|| host.to_owned());
    let name = ServerName::try_from(name).map_err(|error| Error::Tls(error.into()))?;
    Ok((TlsConnector::from(Arc::new(config)), name))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let wrong = |error: tokio_rustls::rustls::pki_types::pem::Error| Error::TlsFile {
        path: path.to_path_buf(),
        source: error.into(),
    };
    CertificateDer::pem_file_iter(path).map_err(wrong)?.collect::<Result<_, _>>().map_err(wrong)
}
