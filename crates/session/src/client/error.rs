//! Why a session could not be opened or kept.

/// Display leaves the cause out.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("this machine gives no random numbers")]
    Random,
    #[error("`{0}` cannot be sent: it is not ASCII")]
    NotAscii(String),
    #[error("the session with the builder broke")]
    Serve(#[source] hyper::Error),
}
