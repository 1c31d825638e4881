//! Steps that are no vertices of a graph, such as looking up an image or exporting, shown like those that are.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use kiln_frontend::Error;
use kiln_solver::{Digest, Event, Job, Progress, VertexEvent};
use kiln_worker::VertexOp;

/// A step that is shown. What it reports goes to the build's own progress.
#[derive(Clone)]
pub struct Step {
    job: Job<VertexOp>,
    digest: Digest,
}

impl Step {
    /// What it is called in the build's progress.
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// Where the step reports.
    pub fn progress(&self) -> Progress {
        self.job.progress(self.digest.clone())
    }
}

/// Runs a piece of work as a step of this name.
///
/// # Errors
/// The work's own, which is shown with the step too.
pub async fn run<T, F>(job: &Job<VertexOp>, name: &str, work: impl FnOnce(Step) -> F) -> Result<T, Error>
where
    F: Future<Output = Result<T, Error>>,
{
    let step = Step { job: job.clone(), digest: unique(job, name) };
    run_as(job, step.digest.clone(), name, work(step)).await
}

/// The same for a step whose digest is known to others.
///
/// # Errors
/// The work's own, which is shown with the step too.
pub async fn run_as<T>(
    job: &Job<VertexOp>,
    digest: Digest,
    name: &str,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    let started = SystemTime::now();
    let shown = VertexEvent {
        digest,
        inputs: Arc::from([]),
        name: Arc::from(name),
        started: Some(started),
        completed: None,
        cached: false,
        error: None,
        progress_group: None,
    };
    job.event(Event::Vertex(shown.clone()));
    let done = work.await;
    let error = done.as_ref().err().map(|error| Arc::from(error.message()));
    job.event(Event::Vertex(VertexEvent { completed: Some(SystemTime::now()), error, ..shown }));
    done
}

/// A digest that no vertex of a graph and no other step has.
fn unique(job: &Job<VertexOp>, name: &str) -> Digest {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    Digest::of(format!("step\0{}\0{name}\0{count}", job.id()).as_bytes())
}
