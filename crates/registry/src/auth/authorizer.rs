//! Which header proves a request, from what was learned so far.
//!
//! Challenges and tokens are kept for all builds of the daemon, logins only for one build. A token is found
//! again by host, by *who* asks and by what it allows. Who asks is proven before anything is shared: by the
//! login itself, or by a signature of the client that keeps its login to itself.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{ED25519, UnparsedPublicKey};
use tokio::sync::OnceCell;
use tokio::time::Instant;

use super::challenge::Challenge;
use super::credentials::{Credentials, Login, TokenRequest};
use super::scope::Scopes;
use super::token::{self, CLIENT_ID, TokenQuery};
use crate::endpoint::Endpoint;
use crate::error::RegistryError;
use crate::settings::is_loopback_host;

/// Tokens kept before old ones are thrown away.
const TOKENS_MAX: usize = 1024;

/// What all builds share.
pub(crate) struct Authorizer {
    salt: [u8; 32],
    random: SystemRandom,
    challenges: Mutex<HashMap<String, Challenge>>,
    tokens: Mutex<HashMap<TokenKey, TokenSlot>>,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct TokenKey {
    origin: String,
    who: [u8; 32],
    scopes: Scopes,
}

/// Locked while its token is fetched, so that it is fetched once.
type TokenSlot = Arc<tokio::sync::Mutex<Option<HeldToken>>>;

struct HeldToken {
    header: String,
    until: Instant,
}

/// A host, and whether only a login will do there.
type IdentityKey = (String, bool);

/// What one build knows of itself.
pub(crate) struct SessionAuth {
    credentials: Arc<dyn Credentials>,
    identities: Mutex<HashMap<IdentityKey, Arc<OnceCell<Identity>>>>,
}

/// Who asks.
#[derive(Clone)]
enum Identity {
    Nobody,
    Login(Login),
    /// The client fetches tokens itself; the key under which they may be shared.
    Authority([u8; 32]),
}

/// A header for a request.
pub(crate) struct Authorization {
    pub(crate) header: String,
    /// It was made for this request and not found in the cache, so a refusal is final.
    pub(crate) fresh: bool,
    /// Whether anybody stands behind it.
    pub(crate) logged_in: bool,
}

impl SessionAuth {
    pub(crate) fn new(credentials: Arc<dyn Credentials>) -> Self {
        Self { credentials, identities: Mutex::default() }
    }
}

impl Authorizer {
    pub(crate) fn new() -> Result<Self, RegistryError> {
        let random = SystemRandom::new();
        let mut salt = [0; 32];
        random.fill(&mut salt).map_err(|_| RegistryError::Setup("no random numbers".to_owned()))?;
        Ok(Self { salt, random, challenges: Mutex::default(), tokens: Mutex::default() })
    }

    /// Remembers how `endpoint` wants to be asked.
    pub(crate) fn learn(&self, endpoint: &Endpoint, challenge: Challenge) {
        self.challenges.lock().expect("no panic while held").insert(endpoint.origin(), challenge);
    }

    /// The header for a request to `endpoint`, or none while it never asked for one. With `renew` a token from
    /// the cache is not good enough.
    pub(crate) async fn authorize(
        &self,
        session: &SessionAuth,
        endpoint: &Endpoint,
        scopes: &Scopes,
        renew: bool,
    ) -> Result<Option<Authorization>, RegistryError> {
        let challenge = self.challenges.lock().expect("no panic while held").get(&endpoint.origin()).cloned();
        match challenge {
            None => Ok(None),
            Some(Challenge::Basic) => match self.identity(session, &endpoint.host, true).await? {
                Identity::Login(login) => {
                    let pair = format!("{}:{}", login.username, login.secret.reveal());
                    let header = format!("Basic {}", STANDARD.encode(pair));
                    Ok(Some(Authorization { header, fresh: true, logged_in: true }))
                }
                Identity::Nobody | Identity::Authority(_) => Ok(None),
            },
            Some(Challenge::Bearer { realm, service, .. }) => {
                let scopes_wanted = scopes.to_strings();
                let query = TokenQuery {
                    host: &endpoint.host,
                    realm: &realm,
                    service: &service,
                    scopes: &scopes_wanted,
                };
                self.bearer(session, endpoint, &query, scopes, renew).await.map(Some)
            }
        }
    }

    async fn bearer(
        &self,
        session: &SessionAuth,
        endpoint: &Endpoint,
        query: &TokenQuery<'_>,
        scopes: &Scopes,
        renew: bool,
    ) -> Result<Authorization, RegistryError> {
        let identity = self.identity(session, &endpoint.host, false).await?;
        let logged_in = !matches!(identity, Identity::Nobody);
        let key = TokenKey { origin: endpoint.origin(), who: self.who(&identity), scopes: scopes.clone() };
        let slot = self.slot(key);
        let mut held = slot.lock().await;
        if let Some(token) = held.as_ref().filter(|token| !renew && token.until > Instant::now()) {
            return Ok(Authorization { header: token.header.clone(), fresh: false, logged_in });
        }
        *held = None;
        let token = match &identity {
            Identity::Authority(_) => {
                let request = TokenRequest {
                    client_id: CLIENT_ID.to_owned(),
                    host: query.host.to_owned(),
                    realm: query.realm.to_owned(),
                    service: query.service.to_owned(),
                    scopes: query.scopes.to_vec(),
                };
                session.credentials.fetch_token(&request).await.map_err(|error| RegistryError::Token {
                    host: query.host.to_owned(),
                    kind: "oauth",
                    detail: error.to_string(),
                    transient: false,
                    refused: error.message.contains("401"),
                })?
            }
            Identity::Login(login) => {
                check_realm(endpoint, query.realm)?;
                token::fetch(&endpoint.client, query, login).await?
            }
            Identity::Nobody => token::fetch(&endpoint.client, query, &Login::default()).await?,
        };
        let header = format!("Bearer {}", token.token.reveal());
        *held = Some(HeldToken { header: header.clone(), until: Instant::now() + token::usable_for(&token) });
        Ok(Authorization { header, fresh: true, logged_in })
    }

    fn slot(&self, key: TokenKey) -> TokenSlot {
        let mut tokens = self.tokens.lock().expect("no panic while held");
        if tokens.len() >= TOKENS_MAX {
            let now = Instant::now();
            tokens.retain(|_, slot| {
                slot.try_lock().map_or(true, |held| held.as_ref().is_some_and(|token| token.until > now))
            });
        }
        if tokens.len() >= TOKENS_MAX {
            tokens.clear();
        }
        tokens.entry(key).or_default().clone()
    }

    /// Asks the session once per host who it is.
    async fn identity(
        &self,
        session: &SessionAuth,
        host: &str,
        basic: bool,
    ) -> Result<Identity, RegistryError> {
        let cell = {
            let mut identities = session.identities.lock().expect("no panic while held");
            identities.entry((host.to_owned(), basic)).or_default().clone()
        };
        let identity = cell
            .get_or_try_init(|| async {
                if !basic && let Some(who) = self.authority(session, host).await? {
                    return Ok(Identity::Authority(who));
                }
                let login = session.credentials.login(host).await?;
                Ok(if login.secret.is_empty() { Identity::Nobody } else { Identity::Login(login) })
            })
            .await;
        identity.cloned().map_err(|source| RegistryError::Credentials { host: host.to_owned(), source })
    }

    /// The key under which the tokens of a client that fetches them itself may be shared: its public key if
    /// it proves to have the private one, else a key that nobody else gets.
    async fn authority(
        &self,
        session: &SessionAuth,
        host: &str,
    ) -> Result<Option<[u8; 32]>, crate::CredentialsError> {
        let Some(public) = session.credentials.token_authority(host, &self.salt).await? else {
            return Ok(None);
        };
        let mut payload = [0; 32];
        let no_random = || crate::CredentialsError::new("no random numbers");
        self.random.fill(&mut payload).map_err(|_| no_random())?;
        let signed =
            session.credentials.verify_token_authority(host, &self.salt, &payload).await.unwrap_or_else(
                |error| {
                    tracing::debug!(%error, host, "the client does not prove its token authority");
                    None
                },
            );
        if signed.is_some_and(|signed| proves(&public, &signed, &payload)) {
            return Ok(Some(public));
        }
        let mut own = [0; 32];
        self.random.fill(&mut own).map_err(|_| no_random())?;
        Ok(Some(own))
    }

    fn who(&self, identity: &Identity) -> [u8; 32] {
        let mut context = ring::digest::Context::new(&ring::digest::SHA256);
        context.update(&self.salt);
        match identity {
            Identity::Nobody => context.update(b"nobody"),
            Identity::Authority(key) => {
                context.update(b"authority");
                context.update(key);
            }
            Identity::Login(login) => {
                context.update(b"login");
                context.update(&(login.username.len() as u64).to_le_bytes());
                context.update(login.username.as_bytes());
                context.update(login.secret.reveal().as_bytes());
            }
        }
        let mut who = [0; 32];
        who.copy_from_slice(context.finish().as_ref());
        who
    }
}

/// Whether `signed` is a signature of `payload` followed by it.
fn proves(public: &[u8; 32], signed: &[u8], payload: &[u8]) -> bool {
    const SIGNATURE_BYTES: usize = 64;
    signed.len() == SIGNATURE_BYTES + payload.len() && {
        let (signature, message) = signed.split_at(SIGNATURE_BYTES);
        message == payload && UnparsedPublicKey::new(&ED25519, public).verify(message, signature).is_ok()
    }
}

/// A password goes to the address that the registry names. It must not go there in the clear when the
/// registry itself is asked over TLS.
fn check_realm(endpoint: &Endpoint, realm: &str) -> Result<(), RegistryError> {
    let malformed = |detail: &str| RegistryError::Malformed {
        method: "GET".to_owned(),
        url: endpoint.origin(),
        detail: detail.to_owned(),
    };
    let url = reqwest::Url::parse(realm).map_err(|_| malformed("the address of its token server is none"))?;
    let local = url.host_str().is_some_and(is_loopback_host);
    match url.scheme() {
        "https" => Ok(()),
        "http" if local || !endpoint.is_https() => Ok(()),
        _ => {
            Err(malformed("its token server is not reached over https, so that the login is not sent there"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn believes_signatures_only() {
        use ring::signature::{Ed25519KeyPair, KeyPair};
        let pair = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
        let public: [u8; 32] = pair.public_key().as_ref().try_into().unwrap();
        let payload = [1u8; 32];
        let mut signed = pair.sign(&payload).as_ref().to_vec();
        signed.extend(payload);
        assert!(proves(&public, &signed, &payload));
        assert!(!proves(&public, &signed, &[2; 32]));
        assert!(!proves(&[3; 32], &signed, &payload));
        assert!(!proves(&public, &signed[..90], &payload));
        signed[0] ^= 1;
        assert!(!proves(&public, &signed, &payload));
    }

    #[test]
    fn tells_identities_apart() {
        let authorizer = Authorizer::new().unwrap();
        let login = |user: &str, secret: &str| {
            Identity::Login(Login { username: user.into(), secret: super::super::Secret::new(secret) })
        };
        let all = [
            Identity::Nobody,
            login("a", "bc"),
            login("ab", "c"),
            login("", "abc"),
            Identity::Authority([0; 32]),
        ];
        for (i, one) in all.iter().enumerate() {
            for (j, other) in all.iter().enumerate() {
                assert_eq!(authorizer.who(one) == authorizer.who(other), i == j, "{i} {j}");
            }
        }
    }
}
