//! Proving to a registry who is asking: challenges, logins, tokens.

mod authorizer;
mod challenge;
mod credentials;
mod scope;
mod token;

pub(crate) use authorizer::{Authorizer, SessionAuth};
pub(crate) use challenge::{Challenge, parse_challenges};
pub use credentials::{
    AnonymousCredentials, Credentials, CredentialsError, Login, Secret, Token, TokenRequest,
};
pub(crate) use scope::Scopes;
