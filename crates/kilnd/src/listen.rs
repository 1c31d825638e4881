//! The daemon's addresses: unix sockets, TCP with or without TLS, and a socket that the service manager passed.
//!
//! All of them feed one stream of connections, so that one gRPC server answers on all.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, BufReader, ReadBuf};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};
use tonic::transport::server::Connected;

use crate::idle::{Activity, Busy};
use crate::settings::{Address, TlsFiles};

/// Connections that were accepted and wait to be served.
const BACKLOG: usize = 64;
/// File descriptor of the first socket that a service manager passes (sd_listen_fds(3)).
const FIRST_PASSED_FD: RawFd = 3;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot listen on `{address}`")]
    Listen { address: String, source: io::Error },
    #[error("another daemon answers on `{}`: stop it, or give another --addr", .0.display())]
    Taken(PathBuf),
    #[error("no group `{0}` on this machine")]
    Group(String),
    #[error("the service manager passed no socket (LISTEN_FDS is not set for this process)")]
    NothingPassed,
    #[error("the TLS file `{}` cannot be used", path.display())]
    TlsFile { path: PathBuf, source: Box<dyn std::error::Error + Send + Sync> },
    #[error("the TLS certificate and key cannot be used")]
    Tls(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Who may use a unix socket besides its owner.
#[derive(Debug, Clone, Default)]
pub struct SocketOwner {
    pub uid: Option<u32>,
    pub group: Option<String>,
}

/// One accepted connection; the daemon counts as busy while it lives.
pub struct Connection {
    stream: Box<dyn Stream>,
    _busy: Busy,
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Listens on every address; the connections come out of the channel.
pub async fn listen(
    addresses: &[Address],
    owner: &SocketOwner,
    tls: Option<&TlsFiles>,
    activity: &Activity,
) -> Result<mpsc::Receiver<io::Result<Connection>>, Error> {
    let (send, receive) = mpsc::channel(BACKLOG);
    let acceptor = tls.map(tls_acceptor).transpose()?;
    for address in addresses {
        let activity = activity.clone();
        match address {
            Address::Unix(path) => tokio::spawn(accept_unix(bind_unix(path, owner)?, activity, send.clone())),
            Address::Fd => tokio::spawn(accept_unix(passed_socket()?, activity, send.clone())),
            Address::Tcp(address) => {
                let listener = TcpListener::bind(address)
                    .await
                    .map_err(|source| Error::Listen { address: address.clone(), source })?;
                if acceptor.is_none() {
                    tracing::warn!(
                        address,
                        "TLS is not set up for this address: whoever reaches it may build here"
                    );
                }
                tokio::spawn(accept_tcp(listener, acceptor.clone(), activity, send.clone()))
            }
        };
    }
    Ok(receive)
}

/// Binds a socket file that only its owner (and group) can use. A file that nobody answers on is a crashed daemon's: it goes.
fn bind_unix(path: &Path, owner: &SocketOwner) -> Result<UnixListener, Error> {
    let failed = |source| Error::Listen { address: path.display().to_string(), source };
    if let Some(folder) = path.parent() {
        // Who may write to it could put another socket in the place of ours.
        std::fs::DirBuilder::new().recursive(true).mode(0o755).create(folder).map_err(failed)?;
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => return Err(Error::Taken(path.to_path_buf())),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).map_err(failed)?;
        }
        Err(_) => {}
    }
    // Bound under another name and moved into place once it has its mode: nobody connects in between.
    let hidden = path.with_extension(format!("{}.new", std::process::id()));
    let _ = std::fs::remove_file(&hidden);
    let listener = std::os::unix::net::UnixListener::bind(&hidden).map_err(failed)?;
    let settle = || -> Result<UnixListener, Error> {
        let group = owner.group.as_deref().map(group_id).transpose()?;
        std::os::unix::fs::chown(&hidden, owner.uid, group).map_err(failed)?;
        std::fs::set_permissions(&hidden, std::fs::Permissions::from_mode(0o660)).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        std::fs::rename(&hidden, path).map_err(failed)?;
        UnixListener::from_std(listener).map_err(failed)
    };
    settle().inspect_err(|_| {
        let _ = std::fs::remove_file(&hidden);
    })
}

fn group_id(group: &str) -> Result<u32, Error> {
    if let Ok(id) = group.parse() {
        return Ok(id);
    }
    let table = std::fs::read_to_string("/etc/group").unwrap_or_default();
    table
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| *name == group)
        .and_then(|(_, rest)| rest.split(':').nth(1)?.parse().ok())
        .ok_or_else(|| Error::Group(group.to_owned()))
}

fn passed_socket() -> Result<UnixListener, Error> {
    let number = |name: &str| std::env::var(name).ok()?.parse::<u32>().ok();
    if number("LISTEN_PID") != Some(std::process::id()) || number("LISTEN_FDS").unwrap_or(0) == 0 {
        return Err(Error::NothingPassed);
    }
    let failed = |source| Error::Listen { address: "fd://".to_owned(), source };
    #[allow(unsafe_code)]
    // SAFETY: the service manager's protocol, checked above, says that descriptor 3 is ours to own, and nothing else here takes it.
    let descriptor = unsafe { OwnedFd::from_raw_fd(FIRST_PASSED_FD) };
    let listener = std::os::unix::net::UnixListener::from(descriptor);
    listener.set_nonblocking(true).map_err(failed)?;
    UnixListener::from_std(listener).map_err(failed)
}

fn buffered<S: AsyncRead>(stream: S) -> BufReader<S> {
    BufReader::with_capacity(kiln_proto::SOCKET_READ_BYTES, stream)
}

async fn accept_unix(listener: UnixListener, activity: Activity, send: mpsc::Sender<io::Result<Connection>>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let connection = Connection { stream: Box::new(buffered(stream)), _busy: activity.begin() };
                if send.send(Ok(connection)).await.is_err() {
                    return;
                }
            }
            Err(error) => pause_after(&error).await,
        }
    }
}

async fn accept_tcp(
    listener: TcpListener,
    acceptor: Option<TlsAcceptor>,
    activity: Activity,
    send: mpsc::Sender<io::Result<Connection>>,
) {
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                pause_after(&error).await;
                continue;
            }
        };
        let _ = stream.set_nodelay(true);
        let (acceptor, send, busy) = (acceptor.clone(), send.clone(), activity.begin());
        // A slow or hostile handshake holds up nobody else.
        tokio::spawn(async move {
            let stream: Box<dyn Stream> = match acceptor {
                None => Box::new(buffered(stream)),
                Some(acceptor) => match acceptor.accept(stream).await {
                    Ok(stream) => Box::new(stream),
                    Err(error) => {
                        tracing::debug!(%error, "a TLS handshake failed");
                        return;
                    }
                },
            };
            let _ = send.send(Ok(Connection { stream, _busy: busy })).await;
        });
    }
}

/// Out of descriptors, say: the connection is lost, the listener is not.
async fn pause_after(error: &io::Error) {
    tracing::warn!(%error, "a connection could not be accepted");
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
}

fn tls_acceptor(files: &TlsFiles) -> Result<TlsAcceptor, Error> {
    let wrong_file = |path: &Path| {
        let path = path.to_path_buf();
        move |error: tokio_rustls::rustls::pki_types::pem::Error| Error::TlsFile {
            path,
            source: error.into(),
        }
    };
    let certificates = |path: &Path| -> Result<Vec<CertificateDer<'static>>, Error> {
        CertificateDer::pem_file_iter(path)
            .map_err(wrong_file(path))?
            .collect::<Result<_, _>>()
            .map_err(wrong_file(path))
    };
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(wrong_file(&files.key))?;
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::Tls(error.into()))?;
    let builder = match &files.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(path)? {
                roots
                    .add(certificate)
                    .map_err(|error| Error::TlsFile { path: path.clone(), source: error.into() })?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                .build()
                .map_err(|error| Error::Tls(error.into()))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder
        .with_single_cert(certificates(&files.cert)?, key)
        .map_err(|error| Error::Tls(error.into()))?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

impl Connected for Connection {
    type ConnectInfo = ();

    fn connect_info(&self) -> Self::ConnectInfo {}
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run/kilnd.sock");
        std::fs::create_dir(folder.path().join("run")).unwrap();
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let addresses = [Address::Unix(path.clone())];
        let activity = Activity::default();
        let mut connections = listen(&addresses, &SocketOwner::default(), None, &activity).await.unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
        let client = tokio::net::UnixStream::connect(&path).await.unwrap();
        assert!(connections.recv().await.unwrap().is_ok());
        drop(client);
        let error = listen(&addresses, &SocketOwner::default(), None, &activity).await.unwrap_err();
        assert!(matches!(error, Error::Taken(_)), "{error}");
    }

    #[tokio::test]
    async fn an_unknown_group_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kilnd.sock");
        let owner = SocketOwner { group: Some("no-such-group".to_owned()), ..SocketOwner::default() };
        let error =
            listen(&[Address::Unix(path.clone())], &owner, None, &Activity::default()).await.unwrap_err();
        assert!(error.to_string().contains("no-such-group"));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
