//! Policies of the client on what a build may take from outside.

use kiln_proto::moby::buildkit::v1::sourcepolicy::policysession::policy_verifier_client::PolicyVerifierClient;
use kiln_proto::moby::buildkit::v1::sourcepolicy::policysession::{CheckPolicyRequest, CheckPolicyResponse};

use super::{Caller, Error};

const CHECK: &str = "/moby.buildkit.v1.sourcepolicy.policysession.PolicyVerifier/CheckPolicy";

impl Caller {
    /// Asks the client to judge a source. It decides, or says what it must know first.
    pub async fn check_policy(&self, request: CheckPolicyRequest) -> Result<CheckPolicyResponse, Error> {
        let mut client = PolicyVerifierClient::new(self.channel_for(CHECK)?);
        Ok(client.check_policy(request).await?.into_inner())
    }
}
