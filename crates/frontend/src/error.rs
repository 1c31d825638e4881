//! The error of a frontend call, as it travels between frontends, the daemon and clients.

use crate::details;
use kiln_proto::sourcepolicy::policysession::DecisionResponse;
use kiln_proto::{errdefs, pb, rpc};
use std::fmt;
use std::sync::Arc;
use tonic::Code;

/// What is known about a failure besides its text.
#[derive(Clone, Debug, PartialEq)]
pub enum Detail {
    /// The vertex that failed.
    Vertex(errdefs::Vertex),
    /// Lines of a user's file that it is about.
    Source(errdefs::Source),
    /// The operation that failed, and the results to look at.
    Solve(Box<errdefs::Solve>),
    /// The frontend that failed.
    Frontend(errdefs::Frontend),
    /// A capability that the frontend does not have.
    FrontendCap(errdefs::FrontendCap),
    /// A subrequest that the frontend does not have.
    Subrequest(errdefs::Subrequest),
    /// What the user can do about it.
    Help(rpc::Help),
    /// Why a policy of the client's refused a source.
    Denied(DecisionResponse),
    /// One that is not looked into, handed on as it came.
    Other(kiln_proto::prost_types::Any),
}

/// A failure with its whole text (BuildKit's, where people and tools know it), its class, and what is known
/// about it. Cheap to clone, since all who wait for one result get it.
#[derive(Clone)]
pub struct Error(Arc<Inner>);

#[derive(Clone)]
struct Inner {
    code: Code,
    message: String,
    details: Vec<Detail>,
}

impl Error {
    /// A failure of the class that `code` names.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Error(Arc::new(Inner { code, message: message.into(), details: Vec::new() }))
    }

    /// A failure without a class.
    pub fn unknown(message: impl Into<String>) -> Self {
        Error::new(Code::Unknown, message)
    }

    /// What was asked for does not make sense.
    pub fn invalid(message: impl Into<String>) -> Self {
        Error::new(Code::InvalidArgument, message)
    }

    /// There is no such thing.
    pub fn not_found(message: impl Into<String>) -> Self {
        Error::new(Code::NotFound, message)
    }

    /// Nobody wants it any more.
    pub fn cancelled() -> Self {
        Error::new(Code::Cancelled, "context canceled")
    }

    /// Any error with its causes, as one text.
    pub fn of(error: &(dyn std::error::Error + 'static)) -> Self {
        if let Some(error) = error.downcast_ref::<Error>() {
            return error.clone();
        }
        let mut message = error.to_string();
        let mut next = error.source();
        while let Some(cause) = next {
            let text = match status_of(cause) {
                // Its own text repeats the message beside the name of its code.
                Some(status) => status.message().to_owned(),
                None => cause.to_string(),
            };
            // Some errors show their cause themselves.
            if !message.ends_with(&text) {
                message = format!("{message}: {text}");
            }
            next = cause.source();
        }
        Error::unknown(message)
    }

    /// The class.
    pub fn code(&self) -> Code {
        self.0.code
    }

    /// The whole text.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// What else is known, outermost first.
    pub fn details(&self) -> &[Detail] {
        &self.0.details
    }

    /// Whether there simply is no such thing.
    pub fn is_not_found(&self) -> bool {
        self.0.code == Code::NotFound
    }

    /// Whether it says which lines of which file it is about.
    pub fn has_source(&self) -> bool {
        self.0.details.iter().any(|detail| matches!(detail, Detail::Source(_)))
    }

    /// The same with words in front: `what: message`.
    #[must_use]
    pub fn context(mut self, what: impl fmt::Display) -> Self {
        let inner = Arc::make_mut(&mut self.0);
        inner.message = format!("{what}: {}", inner.message);
        self
    }

    /// The same of another class.
    #[must_use]
    pub fn with_code(mut self, code: Code) -> Self {
        Arc::make_mut(&mut self.0).code = code;
        self
    }

    /// The same with another text.
    #[must_use]
    pub fn with_message(mut self, message: impl Into<String>) -> Self {
        Arc::make_mut(&mut self.0).message = message.into();
        self
    }

    /// The same with a further detail, which is then the outermost.
    #[must_use]
    pub fn with(mut self, detail: Detail) -> Self {
        Arc::make_mut(&mut self.0).details.insert(0, detail);
        self
    }

    /// The same with what the user can do about it. Advice from deeper down, which knows more, stays the only one.
    #[must_use]
    pub fn hint(self, advice: Option<impl Into<String>>) -> Self {
        match advice {
            Some(advice) if !self.0.details.iter().any(|detail| matches!(detail, Detail::Help(_))) => {
                let link = rpc::help::Link { description: advice.into(), url: String::new() };
                self.with(Detail::Help(rpc::Help { links: vec![link] }))
            }
            _ => self,
        }
    }

    /// The same with the place of what failed.
    #[must_use]
    pub fn at(self, info: pb::SourceInfo, ranges: Vec<pb::Range>) -> Self {
        self.with(Detail::Source(errdefs::Source { info: Some(info), ranges }))
    }

    /// As gRPC has it, the details beside the text.
    pub fn to_status(&self) -> tonic::Status {
        use kiln_proto::prost::Message;
        let code = if self.0.code == Code::Ok { Code::Unknown } else { self.0.code };
        if self.0.details.is_empty() {
            return tonic::Status::new(code, &self.0.message);
        }
        let message = self.0.message.clone();
        let bytes = self.to_rpc().encode_to_vec();
        tonic::Status::with_details(code, message, bytes.into())
    }

    /// As `google.rpc.Status`, for messages that carry one.
    pub fn to_rpc(&self) -> rpc::Status {
        rpc::Status {
            code: self.0.code as i32,
            message: self.0.message.clone(),
            details: self.0.details.iter().map(details::encode).collect(),
        }
    }

    /// From a `google.rpc.Status`. Details that cannot be read are kept as they are.
    pub fn from_rpc(status: &rpc::Status) -> Self {
        Error(Arc::new(Inner {
            code: Code::from(status.code),
            message: status.message.clone(),
            details: status.details.iter().map(details::decode).collect(),
        }))
    }
}

fn status_of<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a tonic::Status> {
    error
        .downcast_ref::<tonic::Status>()
        .or_else(|| error.downcast_ref::<Box<tonic::Status>>().map(Box::as_ref))
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("code", &self.0.code)
            .field("message", &self.0.message)
            .field("details", &self.0.details.len())
            .finish()
    }
}

impl std::error::Error for Error {}

impl From<Error> for tonic::Status {
    fn from(error: Error) -> Self {
        error.to_status()
    }
}

impl From<kiln_llb::Error> for Error {
    fn from(error: kiln_llb::Error) -> Self {
        Error::of(&error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("failed to send files")]
    struct Sending(#[source] Box<tonic::Status>);

    #[test]
    fn a_status_among_the_causes_is_told_in_its_own_words() {
        let error = Sending(Box::new(tonic::Status::unknown("no such directory")));
        assert_eq!(Error::of(&error).message(), "failed to send files: no such directory");
    }
}
