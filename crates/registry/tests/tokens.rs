//! Token servers, and who gets whose token.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use kiln_oci::Reference;
use kiln_registry::{
    Access, Credentials, CredentialsError, Login, Registry, RegistryError, RepositoryOptions, Secret, Token,
    TokenRequest,
};
use ring::signature::{Ed25519KeyPair, KeyPair};
use support::{Reply, Request, Scripted, Setup};

/// A registry that takes the tokens `good-N`, with its token server, for as long as each is the latest.
async fn guarded(expires: u32) -> (Scripted, Scripted, Arc<AtomicUsize>) {
    let valid = Arc::new(AtomicUsize::new(0));
    let issued = valid.clone();
    let tokens = Scripted::start(move |_, request| match request.header("authorization") {
        Some("Basic bWU6d3Jvbmc=") => Reply::status(401),
        _ if request.body.ends_with(b"password=wrong") => Reply::status(401),
        _ => {
            let number = issued.fetch_add(1, Ordering::SeqCst) + 1;
            Reply::ok(format!(r#"{{"token":"good-{number}","expires_in":{expires}}}"#))
        }
    })
    .await;
    let realm = format!("http://{}/token", tokens.address);
    let latest = valid.clone();
    let registry = Scripted::start(move |_, request: &Request| {
        let wanted = format!("Bearer good-{}", latest.load(Ordering::SeqCst));
        let repository = request.path.trim_start_matches("/v2/").split('/').next().unwrap_or_default();
        if request.header("authorization") == Some(&wanted) {
            return Reply::status(404);
        }
        let error = if request.header("authorization").is_some() { r#",error="invalid_token""# } else { "" };
        let challenge =
            format!(r#"Bearer realm="{realm}",service="svc",scope="repository:{repository}:pull"{error}"#);
        Reply::status(401).header("WWW-Authenticate", challenge)
    })
    .await;
    (registry, tokens, valid)
}

#[tokio::test]
async fn fetches_and_keeps_a_token() {
    let (registry, tokens, valid) = guarded(300).await;
    let setup = Setup::login("me", "right");
    let repository = setup.repository(&format!("{}/a", registry.address), Access::Push);
    for _ in 0..3 {
        assert!(repository.resolve("t").await.unwrap_err().is_not_found());
    }
    assert_eq!(tokens.lines(), ["GET /token?service=svc&scope=repository%3Aa%3Apull%2Cpush"]);
    assert_eq!(tokens.seen()[0].header("authorization"), Some("Basic bWU6cmlnaHQ="));
    // One request to learn how to ask, then one each.
    assert_eq!(registry.seen().len(), 4);
    assert_eq!(*setup.logins.asked.lock().unwrap(), std::slice::from_ref(&registry.address));
    // The registry forgets the token: it is fetched anew.
    valid.store(7, Ordering::SeqCst);
    assert!(repository.resolve("t").await.unwrap_err().is_not_found());
    assert_eq!(tokens.seen().len(), 2);
}

#[tokio::test]
async fn refused_logins_are_told() {
    let (registry, tokens, _) = guarded(300).await;
    let setup = Setup::login("me", "wrong");
    let error =
        setup.repository(&format!("{}/a", registry.address), Access::Pull).resolve("t").await.unwrap_err();
    assert!(matches!(error, RegistryError::Token { refused: true, .. }), "{error}");
    assert!(
        error
            .to_string()
            .starts_with("failed to authorize: failed to fetch oauth token: unexpected status from POST")
    );
    assert!(error.hint().unwrap().contains("docker login"));
    // The newer way was tried too; the password went there in the body.
    assert_eq!(tokens.lines()[1], "POST /token");
    let body = String::from_utf8(tokens.seen()[1].body.clone()).unwrap();
    assert!(body.contains("grant_type=password&username=me&password=wrong"), "{body}");
}

#[tokio::test]
async fn insufficient_scope_is_final() {
    let tokens = Scripted::start(|_, _| Reply::ok(r#"{"access_token":"t"}"#)).await;
    let realm = tokens.address.clone();
    let registry = Scripted::start(move |_, request| {
        let error = request.header("authorization").map_or("", |_| r#",error="insufficient_scope""#);
        let challenge = format!(r#"Bearer realm="http://{realm}/token"{error}"#);
        Reply {
            status: 401,
            ..Reply::ok(r#"{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}"#)
        }
        .header("WWW-Authenticate", challenge)
    })
    .await;
    let setup = Setup::default();
    let error =
        setup.repository(&format!("{}/a", registry.address), Access::Push).resolve("t").await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "push access denied, repository does not exist or may require authorization: \
         server message: insufficient_scope: authorization failed"
    );
    assert_eq!(registry.seen().len(), 2);
}

/// A client that keeps its login to itself.
struct Authority {
    pair: Ed25519KeyPair,
    honest: bool,
    fetched: AtomicUsize,
}

impl Authority {
    fn new(seed: u8, honest: bool) -> Arc<Self> {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap();
        Arc::new(Self { pair, honest, fetched: AtomicUsize::new(0) })
    }
}

#[async_trait]
impl Credentials for Authority {
    async fn login(&self, _host: &str) -> Result<Login, CredentialsError> {
        panic!("it fetches tokens itself")
    }

    async fn token_authority(&self, _host: &str, salt: &[u8]) -> Result<Option<[u8; 32]>, CredentialsError> {
        assert_eq!(salt.len(), 32);
        Ok(Some(self.pair.public_key().as_ref().try_into().unwrap()))
    }

    async fn verify_token_authority(
        &self,
        _host: &str,
        _salt: &[u8],
        payload: &[u8],
    ) -> Result<Option<Vec<u8>>, CredentialsError> {
        let mut signed =
            self.pair.sign(if self.honest { payload } else { b"something else" }).as_ref().to_vec();
        signed.extend_from_slice(payload);
        Ok(Some(signed))
    }

    async fn fetch_token(&self, request: &TokenRequest) -> Result<Token, CredentialsError> {
        assert_eq!(request.scopes, ["repository:a:pull"]);
        self.fetched.fetch_add(1, Ordering::SeqCst);
        Ok(Token { token: Secret::new("good-0"), expires_in: 300 })
    }
}

#[tokio::test]
async fn tokens_are_shared_by_proof_only() {
    let (registry, tokens, _) = guarded(300).await;
    let reference = Reference::parse(&format!("{}/a", registry.address)).unwrap();
    let daemon = Registry::new(Setup::default().settings).unwrap();
    let ask = async |credentials: Arc<Authority>| {
        let repository =
            daemon.client(credentials).repository(&reference, RepositoryOptions::default()).unwrap();
        assert!(repository.resolve("t").await.unwrap_err().is_not_found());
    };
    let first = Authority::new(1, true);
    ask(first.clone()).await;
    // Another build of the same user: same key, proven, so no new token.
    let second = Authority::new(1, true);
    ask(second.clone()).await;
    // Somebody who claims the key without having it, and somebody else.
    let liar = Authority::new(1, false);
    ask(liar.clone()).await;
    let other = Authority::new(2, true);
    ask(other.clone()).await;
    let fetched: Vec<usize> =
        [first, second, liar, other].iter().map(|one| one.fetched.load(Ordering::SeqCst)).collect();
    assert_eq!(fetched, [1, 0, 1, 1]);
    assert!(tokens.seen().is_empty());
}
