//! Who judges the sources of a build: the rules of its request and, after them, the client's session that it names.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use kiln_frontend::gateway::{meta_of_message, meta_to_message, platform_to_message};
use kiln_frontend::{Detail, Error};
use kiln_llb::SourceOp;
use kiln_llb::policy::SourcePolicies;
use kiln_oci::{Platform, Reference};
use kiln_proto::frontend::ResolveSourceMetaResponse;
use kiln_proto::sourcepolicy::policysession::check_policy_response::Result as Answer;
use kiln_proto::sourcepolicy::policysession::{CheckPolicyRequest, DecisionResponse};
use kiln_proto::sourcepolicy::{Policy, PolicyAction};
use kiln_session::daemon::{SessionId, SessionManager};
use kiln_solver::Progress;
use kiln_worker::{BoxError, BuildContext, SourcePolicy, Worker};

use crate::bridge::of_meta;

/// Questions that a session may ask, and sources that it may put in a source's place, before it decides.
const ROUNDS_MAX: usize = 10;
/// How long the session may take to appear.
const APPEAR_TIMEOUT: Duration = Duration::from_secs(5);

const IMAGE_SCHEME: &str = "docker-image";

/// The judges of one build.
#[derive(Clone)]
pub struct BuildPolicy {
    rules: SourcePolicies,
    session: Option<Verifier>,
}

/// A session that is asked about every source.
#[derive(Clone)]
struct Verifier {
    sessions: SessionManager,
    id: SessionId,
    worker: Worker,
    /// For what the session wants to know: judged by the rules alone.
    build: Arc<BuildContext>,
}

impl BuildPolicy {
    /// The rules of a request.
    ///
    /// # Errors
    /// A policy that cannot be read.
    pub fn new(policies: impl IntoIterator<Item = Policy>) -> Result<BuildPolicy, Error> {
        let rules = SourcePolicies::load(policies).map_err(|error| Error::of(&error))?;
        Ok(BuildPolicy { rules, session: None })
    }

    /// And then a session's judgement. `build` is the build without any policy.
    #[must_use]
    pub fn and_session(
        &self,
        sessions: SessionManager,
        id: &str,
        worker: &Worker,
        build: &BuildContext,
    ) -> BuildPolicy {
        let build = Arc::new(build.judged_by(Arc::new(self.clone())));
        let session = Verifier { sessions, id: SessionId::new(id), worker: worker.clone(), build };
        BuildPolicy { rules: self.rules.clone(), session: Some(session) }
    }

    /// With the rules of one request of a frontend's besides.
    ///
    /// # Errors
    /// A policy that cannot be read.
    pub fn and(&self, policies: Vec<Policy>) -> Result<BuildPolicy, Error> {
        let more = SourcePolicies::load(policies).map_err(|error| Error::of(&error))?;
        Ok(BuildPolicy { rules: self.rules.and(more), session: self.session.clone() })
    }

    async fn judge(&self, source: &mut SourceOp, platform: &Platform) -> Result<(), Error> {
        let mut rounds = ROUNDS_MAX;
        loop {
            normalize(source);
            self.rules.evaluate(source).map_err(|error| Error::of(&error))?;
            let Some(verifier) = &self.session else { return Ok(()) };
            match verifier.decide(source, platform, &mut rounds).await? {
                None => return Ok(()),
                Some(replaced) => *source = replaced,
            }
        }
    }
}

#[async_trait]
impl SourcePolicy for BuildPolicy {
    async fn evaluate(&self, source: &mut SourceOp, platform: &Platform) -> Result<(), BoxError> {
        Ok(self.judge(source, platform).await?)
    }
}

impl Verifier {
    /// `None` when the source may be used as it is, else what to use in its place.
    async fn decide(
        &self,
        source: &SourceOp,
        platform: &Platform,
        rounds: &mut usize,
    ) -> Result<Option<SourceOp>, Error> {
        let caller = self.sessions.get(&self.id, APPEAR_TIMEOUT).await.map_err(|error| Error::of(&error))?;
        let mut known = ResolveSourceMetaResponse { source: Some(source.to_pb()), ..Default::default() };
        loop {
            *rounds = rounds.checked_sub(1).ok_or_else(|| Error::unknown("too many policy requests"))?;
            let request = CheckPolicyRequest {
                platform: Some(platform_to_message(platform)),
                source: Some(known),
                ..CheckPolicyRequest::default()
            };
            let answer = caller.check_policy(request).await.map_err(|error| Error::of(&error))?;
            let request = match answer.result {
                Some(Answer::Request(request)) => request,
                Some(Answer::Decision(decision)) => return decided(source, decision),
                None => return Err(Error::unknown("no decision in policy response")),
            };
            let (asked, request) = meta_of_message(request)?;
            let asked = SourceOp::from(asked);
            if asked.identifier != source.identifier {
                return Err(Error::unknown(format!(
                    "policy requested different source identifier: {:?} != {:?}",
                    asked.identifier, source.identifier
                )));
            }
            if asked.attrs != source.attrs {
                return Err(Error::unknown("policy requested different source attrs"));
            }
            let unseen = Progress::unseen();
            let found = of_meta(&self.worker, &self.build, &asked, request, &unseen).await;
            known = meta_to_message(
                found
                    .map_err(|error| error.context("error resolving source metadata from policy request"))?,
            );
        }
    }
}

fn decided(source: &SourceOp, decision: DecisionResponse) -> Result<Option<SourceOp>, Error> {
    match PolicyAction::try_from(decision.action) {
        Ok(PolicyAction::Allow) => Ok(None),
        Ok(PolicyAction::Convert) => {
            let update = decision.update.map(SourceOp::from);
            update.map(Some).ok_or_else(|| Error::unknown("convert action requires updated source"))
        }
        action => {
            let action = action.map_or_else(|_| decision.action.to_string(), |a| a.as_str_name().to_owned());
            let error = Error::unknown(format!(
                "source {:?} not allowed by policy: action {action}",
                source.identifier
            ));
            Err(if decision.deny_messages.is_empty() {
                error
            } else {
                let reasons = decision.deny_messages;
                let action = PolicyAction::Deny as i32;
                error.with(Detail::Denied(DecisionResponse { action, deny_messages: reasons, update: None }))
            })
        }
    }
}

/// Rules name images in full: `alpine` is judged as `docker.io/library/alpine:latest`.
fn normalize(source: &mut SourceOp) {
    let Some((IMAGE_SCHEME, name)) = source.scheme() else { return };
    if let Ok(reference) = Reference::parse_for_fetch(name) {
        source.identifier = format!("{IMAGE_SCHEME}://{reference}");
    }
}
