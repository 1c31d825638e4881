//! Notices a client that is gone though its connection is not: it is asked now and then, and a session that does not answer ends.
//!
//! The times are BuildKit's (`session/grpc.go`): long, since a busy connection answers late.

use std::time::Duration;

use tokio::time::Instant;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use super::Caller;

/// Time between two checks.
const CHECK_EVERY: Duration = Duration::from_secs(5);
/// How long a check may take.
const CHECK_TIMEOUT: Duration = Duration::from_secs(15);
/// Checks that may fail one after the other before the session ends.
const FAILURES_MAX: u32 = 2;

/// A shorter wish of a client would take a slow machine for a dead one.
const WISH_MIN: Duration = Duration::from_secs(1);

/// When a session is given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Checks {
    every: Duration,
    timeout: Duration,
    failures_max: u32,
}

impl Checks {
    /// As the header of a client wishes: milliseconds between checks and for each, the first failure being the last. Anything else
    /// than a positive number: the usual.
    pub(super) fn from_header(text: &str) -> Self {
        match text.parse::<u64>() {
            Ok(ms) if ms > 0 => {
                let wish = Duration::from_millis(ms).max(WISH_MIN);
                Self { every: wish, timeout: wish, failures_max: 1 }
            }
            _ => Self { every: CHECK_EVERY, timeout: CHECK_TIMEOUT, failures_max: FAILURES_MAX },
        }
    }
}

/// Checks a session until it has ended, and ends it when it does not answer. The first check comes at once: a client waits for the
/// connection's first bytes, and not for long.
pub(super) fn watch(caller: Caller, checks: Checks) {
    tokio::spawn(async move {
        let (mut failures, mut last) = (0, Duration::ZERO);
        loop {
            let started = Instant::now();
            let mut client = HealthClient::new(caller.channel());
            let check = client.check(HealthCheckRequest { service: String::new() });
            // Much data on a slow line delays answers: a slow answer earns patience for the next.
            let patience = checks.timeout.max(last.mul_f64(1.5));
            let answer = tokio::select! {
                () = caller.closed() => return,
                answer = tokio::time::timeout(patience, check) => answer,
            };
            last = started.elapsed();
            match answer {
                // A client without the health service answers all the same.
                Ok(Ok(_)) => failures = 0,
                Ok(Err(status)) if status.code() == tonic::Code::Unimplemented => failures = 0,
                Ok(Err(_)) | Err(_) => failures += 1,
            }
            if failures >= checks.failures_max {
                tracing::warn!(session = %caller.id(), "a client does not answer any more: its session ends");
                caller.close();
                return;
            }
            tokio::select! {
                () = caller.closed() => return,
                () = tokio::time::sleep(checks.every) => {}
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clients_wish() {
        let usual = Checks { every: CHECK_EVERY, timeout: CHECK_TIMEOUT, failures_max: FAILURES_MAX };
        let wish = |every| Checks { every, timeout: every, failures_max: 1 };
        assert_eq!(Checks::from_header("2500"), wish(Duration::from_millis(2500)));
        assert_eq!(Checks::from_header("5"), wish(WISH_MIN));
        for none in ["", "0", "-1", "3s"] {
            assert_eq!(Checks::from_header(none), usual);
        }
    }
}
