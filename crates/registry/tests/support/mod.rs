//! A server that answers as a script says, and credentials that say what was asked of them.
#![allow(dead_code)]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use kiln_oci::Reference;
use kiln_registry::{
    Access, Client, Credentials, CredentialsError, Login, Observer, Registry, RegistrySettings, Repository,
    RepositoryOptions, Secret,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What came in.
#[derive(Clone, Debug, Default)]
pub struct Request {
    pub method: String,
    /// With its query.
    pub path: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// What goes out.
#[derive(Clone, Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Send only so much of the body, then break the connection.
    pub cut: Option<usize>,
}

impl Reply {
    pub fn status(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Vec::new(), cut: None }
    }

    pub fn ok(body: impl AsRef<[u8]>) -> Self {
        Self { body: body.as_ref().to_vec(), ..Self::status(200) }
    }

    pub fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    pub fn cut(mut self, after: usize) -> Self {
        self.cut = Some(after);
        self
    }
}

type Script = Box<dyn Fn(usize, &Request) -> Reply + Send + Sync>;

/// A running server; it ends with its runtime.
pub struct Scripted {
    pub address: String,
    seen: Arc<Mutex<Vec<Request>>>,
}

impl Scripted {
    /// Starts one. The script gets the number of the request, from 0.
    pub async fn start(script: impl Fn(usize, &Request) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let seen: Arc<Mutex<Vec<Request>>> = Arc::default();
        let (script, count, log): (Arc<Script>, _, _) =
            (Arc::new(Box::new(script)), Arc::new(AtomicUsize::new(0)), seen.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, script.clone(), count.clone(), log.clone()));
            }
        });
        Self { address, seen }
    }

    pub fn seen(&self) -> Vec<Request> {
        self.seen.lock().unwrap().clone()
    }

    /// Method and path of all that came in.
    pub fn lines(&self) -> Vec<String> {
        self.seen().iter().map(|request| format!("{} {}", request.method, request.path)).collect()
    }

    pub fn repository(&self, name: &str) -> Repository {
        Setup::default().repository(&format!("{}/{name}", self.address), Access::Pull)
    }
}

async fn serve(
    mut stream: TcpStream,
    script: Arc<Script>,
    count: Arc<AtomicUsize>,
    log: Arc<Mutex<Vec<Request>>>,
) {
    let mut buffer = Vec::new();
    while let Some(request) = read_request(&mut stream, &mut buffer).await {
        let number = count.fetch_add(1, Ordering::SeqCst);
        log.lock().unwrap().push(request.clone());
        let reply = script(number, &request);
        let mut head = format!("HTTP/1.1 {} Scripted\r\n", reply.status);
        for (name, value) in &reply.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if !reply.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-length")) {
            head.push_str(&format!("Content-Length: {}\r\n", reply.body.len()));
        }
        head.push_str("\r\n");
        let body =
            if request.method == "HEAD" { &[] } else { &reply.body[..reply.cut.unwrap_or(reply.body.len())] };
        if stream.write_all(head.as_bytes()).await.is_err() || stream.write_all(body).await.is_err() {
            return;
        }
        if reply.cut.is_some() {
            return;
        }
    }
}

async fn read_request(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<Request> {
    let end = loop {
        if let Some(at) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            break at;
        }
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8(buffer[..end].to_vec()).ok()?;
    buffer.drain(..end + 4);
    let mut lines = head.split("\r\n");
    let mut first = lines.next()?.split(' ');
    let mut request =
        Request { method: first.next()?.to_owned(), path: first.next()?.to_owned(), ..Request::default() };
    for line in lines {
        let (name, value) = line.split_once(':')?;
        request.headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let length: usize = request.header("content-length").and_then(|value| value.parse().ok()).unwrap_or(0);
    while buffer.len() < length {
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    }
    request.body = buffer.drain(..length).collect();
    Some(request)
}

/// Logins by host, and how often each was asked for.
#[derive(Default)]
pub struct Logins {
    pub login: Option<(String, String)>,
    pub asked: Mutex<Vec<String>>,
}

#[async_trait]
impl Credentials for Logins {
    async fn login(&self, host: &str) -> Result<Login, CredentialsError> {
        self.asked.lock().unwrap().push(host.to_owned());
        Ok(match &self.login {
            Some((user, secret)) => Login { username: user.clone(), secret: Secret::new(secret.clone()) },
            None => Login::default(),
        })
    }
}

/// Keeps what it is told.
#[derive(Default)]
pub struct Heard {
    pub messages: Mutex<Vec<String>>,
    pub progress: Mutex<Vec<(u64, u64)>>,
}

impl Observer for Heard {
    fn progress(&self, done: u64, total: u64) {
        self.progress.lock().unwrap().push((done, total));
    }

    fn message(&self, line: &str) {
        self.messages.lock().unwrap().push(line.to_owned());
    }
}

/// A client with everything around it.
pub struct Setup {
    pub settings: RegistrySettings,
    pub logins: Arc<Logins>,
    pub heard: Arc<Heard>,
}

impl Default for Setup {
    fn default() -> Self {
        let settings =
            RegistrySettings { retry_wait: Duration::from_millis(10), ..RegistrySettings::default() };
        Self { settings, logins: Arc::default(), heard: Arc::default() }
    }
}

impl Setup {
    pub fn login(user: &str, secret: &str) -> Self {
        let logins = Logins { login: Some((user.to_owned(), secret.to_owned())), ..Logins::default() };
        Self { logins: Arc::new(logins), ..Self::default() }
    }

    pub fn client(&self) -> Client {
        Registry::new(self.settings.clone()).unwrap().client(self.logins.clone())
    }

    pub fn repository(&self, name: &str, access: Access) -> Repository {
        let reference = Reference::parse(name).unwrap();
        let options = RepositoryOptions { access, observer: self.heard.clone(), insecure: false };
        self.client().repository(&reference, options).unwrap()
    }
}

/// Bytes that compress badly and are never twice the same.
pub fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    })
    .take(length)
    .collect()
}
