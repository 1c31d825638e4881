//! Credentials, secrets, agents, uploads and stores from one end to the other.

mod common;

use std::sync::Arc;

use async_trait::async_trait;
use common::session;
use futures::TryStreamExt;
use kiln_oci::Digest;
use kiln_registry::{Credentials, Login, Secret, Token, TokenRequest};
use kiln_session::client::{
    AgentSource, AgentSpec, CredentialSource, LayoutStore, SecretSource, SecretValue, TokenSeed, UploadSource,
};
use kiln_session::daemon::{Error, SessionCredentials, SessionGroup, SessionId};
use ring::signature::{ED25519, UnparsedPublicKey};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

struct Logins {
    tokens: bool,
}

#[async_trait]
impl CredentialSource for Logins {
    async fn login(&self, host: &str) -> Result<Login, String> {
        match host {
            "known.example" => Ok(Login { username: "u".into(), secret: Secret::new("p") }),
            "broken.example" => Err("the helper failed".into()),
            _ => Ok(Login::default()),
        }
    }

    fn fetches_tokens(&self) -> bool {
        self.tokens
    }

    async fn token_seed(&self, _: &str) -> Result<TokenSeed, String> {
        Ok(TokenSeed::new(*b"0123456789abcdef"))
    }

    async fn fetch_token(&self, request: TokenRequest) -> Result<Token, String> {
        Ok(Token {
            token: Secret::new(format!("{} {}", request.host, request.scopes.join(" "))),
            expires_in: 0,
        })
    }
}

fn request() -> TokenRequest {
    TokenRequest {
        client_id: "c".into(),
        host: "known.example".into(),
        realm: "https://token.example".into(),
        service: "s".into(),
        scopes: vec!["repository:a:pull".into()],
    }
}

#[tokio::test]
async fn logins_and_tokens() {
    let open = session(|session| session.credentials(Arc::new(Logins { tokens: true }))).await;
    let group = SessionGroup::new([open.caller.id().clone()]);
    let credentials = SessionCredentials::new(open.manager.clone(), group);
    let login = credentials.login("known.example").await.expect("answers");
    assert_eq!((login.username.as_str(), login.secret.reveal()), ("u", "p"));
    assert_eq!(credentials.login("other.example").await.expect("answers"), Login::default());
    let error = credentials.login("broken.example").await.expect_err("is broken");
    assert_eq!(error.to_string(), "the helper failed");

    let key = credentials.token_authority("known.example", b"salt").await.expect("answers").expect("has one");
    assert_eq!(credentials.token_authority("known.example", b"salt").await.expect("answers"), Some(key));
    assert_ne!(credentials.token_authority("other.example", b"salt").await.expect("answers"), Some(key));
    let signed = credentials.verify_token_authority("known.example", b"salt", b"payload").await;
    let signed = signed.expect("answers").expect("signs");
    let (signature, payload) = signed.split_at(64);
    assert_eq!(payload, b"payload");
    UnparsedPublicKey::new(&ED25519, key).verify(payload, signature).expect("is the key's signature");
    let token = credentials.fetch_token(&request()).await.expect("answers");
    assert_eq!((token.token.reveal(), token.expires_in), ("known.example repository:a:pull", 60));
}

#[tokio::test]
async fn clients_that_only_give_logins_and_none_at_all() {
    let open = session(|session| session.credentials(Arc::new(Logins { tokens: false }))).await;
    let group = SessionGroup::new([open.caller.id().clone()]);
    let credentials = SessionCredentials::new(open.manager.clone(), group);
    assert_eq!(credentials.token_authority("known.example", b"salt").await.expect("answers"), None);
    assert_eq!(credentials.login("known.example").await.expect("answers").username, "u");
    let nobody = SessionCredentials::new(open.manager.clone(), SessionGroup::default());
    assert_eq!(nobody.login("known.example").await.expect("answers"), Login::default());
}

struct Secrets;

#[async_trait]
impl SecretSource for Secrets {
    async fn secret(&self, id: &str) -> Result<Option<SecretValue>, String> {
        match id {
            "here" => Ok(Some(SecretValue("hush".into()))),
            "huge" => Ok(Some(SecretValue(vec![0; (500 << 10) + 1].into()))),
            _ => Ok(None),
        }
    }
}

#[tokio::test]
async fn secrets() {
    let open = session(|session| session.secrets(Arc::new(Secrets))).await;
    let secret = open.caller.secret("here").await.expect("is there");
    assert_eq!(secret.reveal(), b"hush");
    assert_eq!(format!("{secret:?}"), "Secret(…)");
    assert!(matches!(open.caller.secret("gone").await, Err(Error::SecretNotFound(id)) if id == "gone"));
    assert!(matches!(open.caller.secret("huge").await, Err(Error::SecretTooLarge { .. })));
}

#[tokio::test]
async fn the_first_session_that_answers_counts() {
    let with = session(|session| session.secrets(Arc::new(Secrets))).await;
    let missing = SessionId::new("missing");
    let started = tokio::time::Instant::now();
    tokio::time::pause();
    let group = SessionGroup::new([missing, with.caller.id().clone()]);
    let secret = group.any(&with.manager, |caller| async move { caller.secret("here").await }).await;
    assert_eq!(secret.expect("is there").reveal(), b"hush");
    assert!(started.elapsed() >= std::time::Duration::from_secs(5));
}

#[tokio::test]
async fn agents() {
    let dir = tempfile::tempdir().expect("makes a directory");
    let (agent, raw) = (dir.path().join("agent"), dir.path().join("raw"));
    for (path, answer) in [(&agent, &[0_u8, 0, 0, 1, 12][..]), (&raw, &b"anything"[..])] {
        let listener = UnixListener::bind(path).expect("binds");
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = [0; 5];
                if stream.read_exact(&mut request).await.is_ok() {
                    let _ = stream.write_all(answer).await;
                }
            }
        });
    }
    let agents = vec![
        AgentSpec { id: "default".into(), source: AgentSource::Socket(agent) },
        AgentSpec { id: "raw".into(), source: AgentSource::Raw(raw) },
    ];
    let open = session(|session| session.agents(agents)).await;
    open.caller.check_agent("").await.expect("is there");
    let error = open.caller.check_agent("other").await.expect_err("is not there");
    assert_eq!(error.to_string(), "unset ssh forward key other");

    let ask = async |id: &str, request: [u8; 5]| {
        let socket = dir.path().join(format!("forwarded-{id}"));
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let forwarded = open.caller.forward_agent(id, &socket, uid, gid, 0o600).expect("listens");
        let mut stream = UnixStream::connect(&socket).await.expect("connects");
        stream.write_all(&request).await.expect("is taken");
        stream.shutdown().await.expect("ends");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.expect("answers");
        drop(forwarded);
        assert!(!socket.exists());
        answer
    };
    assert_eq!(ask("default", [0, 0, 0, 1, 11]).await, [0, 0, 0, 1, 12]);
    // Removing all keys is refused before the agent hears of it.
    assert_eq!(ask("default", [0, 0, 0, 1, 19]).await, [0, 0, 0, 1, 5]);
    assert_eq!(ask("raw", *b"hello").await, b"anything");
}

#[tokio::test]
async fn uploads() {
    let uploads = Arc::new(UploadSource::default());
    let body: &[u8] = &[5; 300_000];
    let url = uploads.add(body).expect("has random numbers");
    let path = url.strip_prefix("http://buildkit-session").expect("is at that host").to_string();
    let source = uploads.clone();
    let open = session(|session| session.uploads(source)).await;
    let parts: Vec<bytes::Bytes> = open
        .caller
        .pull_upload("buildkit-session", &path)
        .await
        .expect("is there")
        .try_collect()
        .await
        .expect("comes whole");
    assert_eq!(parts.concat(), body);
    assert!(open.caller.pull_upload("buildkit-session", &path).await.is_err());
    assert!(open.caller.pull_upload("elsewhere", &path).await.is_err());
}

#[tokio::test]
async fn content_stores() {
    let dir = tempfile::tempdir().expect("makes a directory");
    let stores = vec![("local:cache".to_string(), LayoutStore::writable(dir.path().to_path_buf()))];
    let open = session(|session| session.stores(stores)).await;
    let store = open.caller.store("local:cache");
    let data = bytes::Bytes::from(vec![9; 3_000_000]);
    let digest = Digest::sha256_of(&data);
    assert_eq!(store.info(&digest).await.expect("answers"), None);
    let parts = futures::stream::iter([Ok(data.clone())]);
    store.write(&digest, data.len() as u64, parts).await.expect("is written");
    assert_eq!(store.info(&digest).await.expect("answers").expect("is there").size, data.len() as u64);
    let read: Vec<bytes::Bytes> =
        store.read(&digest, 1).await.expect("opens").try_collect().await.expect("reads");
    assert_eq!(read.concat(), data[1..]);

    let wrong = Digest::sha256_of("something else");
    let parts = futures::stream::iter([Ok(data.clone())]);
    assert!(store.write(&wrong, data.len() as u64, parts).await.is_err());
    assert_eq!(store.info(&wrong).await.expect("answers"), None);
    let other = open.caller.store("oci:other");
    assert!(matches!(other.info(&digest).await, Ok(None) | Err(Error::Status(_))));
}
