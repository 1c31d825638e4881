//! One build on the wire: the request, the session that answers for it, and its progress.

use std::time::Duration;

use kiln_client::{Client, Error as ClientError};
use kiln_proto::control::{SolveRequest, SolveResponse};
use kiln_session::client::{Error as SessionError, Session};
use tokio::task::JoinHandle;

use super::call::{self, Answer};
use crate::flags::Call;
use crate::interrupt::Interrupt;
use crate::printer::Reports;

/// After the end of a build its last reports may take this long, counted from the last one.
const LAST_REPORTS: Duration = Duration::from_secs(5);
/// After a cancellation people do not want to wait.
const LAST_REPORTS_CANCELED: Duration = Duration::from_secs(2);
/// When the session breaks, the daemon's own reason may come this much later.
const SESSION_GRACE: Duration = Duration::from_secs(2);
/// When the build that a question needs has ended, the answer may come this much later.
const ANSWER_GRACE: Duration = Duration::from_secs(2);

/// Why a build did not end well.
#[derive(Debug)]
pub enum Failure {
    /// The user stopped it.
    Canceled,
    /// The daemon's answer, or none.
    Daemon(ClientError),
    /// The session broke, and the daemon said nothing.
    Session(SessionError),
}

/// What a build gave.
#[derive(Debug)]
pub struct Solved {
    /// The exporters' answers.
    pub response: SolveResponse,
    /// The answer to a question.
    pub answer: Option<Answer>,
}

/// Ends a task with its owner.
struct Owned<T>(JoinHandle<T>);

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Builds, or asks. Returns when the build has ended and its reports are through.
pub async fn solve(
    client: &Client,
    mut request: SolveRequest,
    session: Session,
    question: Option<&Call>,
    reports: Reports,
    interrupt: &mut Interrupt,
) -> Result<Solved, Failure> {
    let build = request.r#ref.clone();
    let mut serving = Owned(tokio::spawn(session.serve(client.channel())));
    let mut following = Owned(tokio::spawn(follow(client.clone(), build.clone(), reports)));

    // The call ends with this block, which is how the daemon learns of a cancellation.
    let result = {
        let work = async {
            let Some(question) = question else {
                let response = client.solve(request).await.map_err(Failure::Daemon)?;
                return Ok(Solved { response, answer: None });
            };
            let (frontend, attrs) = (std::mem::take(&mut request.frontend), request.frontend_attrs.clone());
            let asked = call::ask(client, &build, frontend, attrs, question);
            both(client.solve(request), asked).await.map_err(Failure::Daemon)
        };
        tokio::pin!(work);
        tokio::select! {
            biased;
            result = &mut work => result,
            () = interrupt.requested() => Err(Failure::Canceled),
            ended = &mut serving.0 => match ended {
                Ok(Err(error)) => match tokio::time::timeout(SESSION_GRACE, &mut work).await {
                    Ok(result) => result,
                    Err(_) => Err(Failure::Session(error)),
                },
                // The daemon may close the session before it answers.
                _ => tokio::select! {
                    result = &mut work => result,
                    () = interrupt.requested() => Err(Failure::Canceled),
                },
            },
        }
    };
    let patience =
        if matches!(result, Err(Failure::Canceled)) { LAST_REPORTS_CANCELED } else { LAST_REPORTS };
    // What has not come by then is not shown.
    let _ = tokio::time::timeout(patience, &mut following.0).await;
    result
}

/// The build that a question needs, and the question. What the frontend says is nearer to a cause than what the daemon makes
/// of it.
async fn both(
    solving: impl Future<Output = Result<SolveResponse, ClientError>>,
    asking: impl Future<Output = Result<Answer, ClientError>>,
) -> Result<Solved, ClientError> {
    tokio::pin!(solving, asking);
    let (response, answer) = tokio::select! {
        answer = &mut asking => (None, answer?),
        response = &mut solving => {
            let answer = tokio::time::timeout(ANSWER_GRACE, &mut asking).await;
            match (answer, response) {
                (Ok(answer), response) => {
                    let answer = answer?;
                    (Some(response?), answer)
                }
                (Err(_), Err(error)) => return Err(error),
                (Err(_), Ok(response)) => (Some(response), asking.await?),
            }
        }
    };
    let response = match response {
        Some(response) => response,
        None => solving.await?,
    };
    Ok(Solved { response, answer: Some(answer) })
}

/// Passes the build's reports on until they end. Why they end early, the build itself tells better.
async fn follow(client: Client, build: String, reports: Reports) {
    let Ok(mut stream) = client.status(&build).await else { return };
    while let Ok(Some(message)) = stream.message().await {
        if reports.send(message.into()).await.is_err() {
            return;
        }
    }
}
