//! One shared computation: started by the first who wants it, kept for all who want it later, stopped when
//! the last one who waits for it goes away.

use crate::{Op, SolveError, SolveErrorKind};
use futures::FutureExt;
use pin_project_lite::pin_project;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};

/// See the module's text. `V` is what comes out; failures are kept too, for one epoch (see [`Stage::get`]).
pub(crate) struct Stage<O: Op, V> {
    state: Arc<Mutex<State<O, V>>>,
}

impl<O: Op, V> Default for Stage<O, V> {
    fn default() -> Self {
        Stage { state: Arc::new(Mutex::new(State::Idle)) }
    }
}

enum State<O: Op, V> {
    Idle,
    Running(Run),
    /// A failure is on the heap: there are many stages, and few fail.
    Done {
        epoch: u64,
        value: Result<V, Box<SolveError<O>>>,
    },
}

struct Run {
    waiters: usize,
    /// Fires when the last waiter has gone.
    cancel: CancellationToken,
    /// Fires when the computation has ended, whichever way.
    ended: CancellationToken,
}

enum Step<O: Op, V> {
    Ready(Result<V, SolveError<O>>),
    Wait(Waiter<O, V>, CancellationToken),
    WaitForEnd(CancellationToken),
}

impl<O: Op, V: Clone + Send + Sync + 'static> Stage<O, V> {
    /// The value, computed by `start` unless it is there or under way.
    ///
    /// A failure of an `epoch` before the caller's is forgotten and computed again; a cancelled computation is
    /// always forgotten. The token given to `start` fires when nobody waits any more; the computation is
    /// polled until it ends, so whatever should stop at once has to watch it (see [`or_cancelled`]).
    pub(crate) async fn get<F, Fut>(&self, epoch: u64, start: F) -> Result<V, SolveError<O>>
    where
        F: FnOnce(CancellationToken) -> Fut,
        Fut: Future<Output = Result<V, SolveError<O>>> + Send + 'static,
    {
        let mut start = Some(start);
        loop {
            match self.step(epoch, &mut start) {
                Step::Ready(value) => return value,
                Step::Wait(waiter, ended) => {
                    ended.cancelled().await;
                    drop(waiter);
                    // Read what came out; only a computation cancelled under our feet leaves nothing.
                    if let State::Done { value, .. } = &*lock(&self.state) {
                        return unboxed(value);
                    }
                    if start.is_none() {
                        return Err(SolveError::cancelled());
                    }
                }
                Step::WaitForEnd(ended) => ended.cancelled().await,
            }
        }
    }

    /// The value if it is there and no failure.
    pub(crate) fn peek(&self) -> Option<V> {
        match &*lock(&self.state) {
            State::Done { value: Ok(value), .. } => Some(value.clone()),
            _ => None,
        }
    }

    /// Forgets a failure, and a value that `lost` names. True if there was something to forget.
    pub(crate) fn forget(&self, lost: impl FnOnce(&V) -> bool) -> bool {
        let mut state = lock(&self.state);
        let forget = match &*state {
            State::Done { value: Ok(value), .. } => lost(value),
            State::Done { value: Err(_), .. } => true,
            State::Running(_) | State::Idle => false,
        };
        let old = forget.then(|| std::mem::replace(&mut *state, State::Idle));
        drop(state);
        old.is_some()
    }

    fn step<F, Fut>(&self, epoch: u64, start: &mut Option<F>) -> Step<O, V>
    where
        F: FnOnce(CancellationToken) -> Fut,
        Fut: Future<Output = Result<V, SolveError<O>>> + Send + 'static,
    {
        let mut state = lock(&self.state);
        match &mut *state {
            State::Done { value: Ok(value), .. } => return Step::Ready(Ok(value.clone())),
            State::Done { epoch: of, value } if *of >= epoch => return Step::Ready(unboxed(value)),
            State::Running(run) if run.cancel.is_cancelled() => return Step::WaitForEnd(run.ended.clone()),
            State::Running(run) => {
                run.waiters += 1;
                let waiter = Waiter { state: self.state.clone(), ended: run.ended.clone() };
                return Step::Wait(waiter, run.ended.clone());
            }
            State::Done { .. } | State::Idle => {}
        }
        let Some(start) = start.take() else {
            return Step::Ready(Err(SolveError::cancelled()));
        };
        let (cancel, ended) = (CancellationToken::new(), CancellationToken::new());
        *state = State::Running(Run { waiters: 1, cancel: cancel.clone(), ended: ended.clone() });
        drop(state);
        let computation = start(cancel);
        let (shared, fires) = (self.state.clone(), ended.clone());
        tokio::spawn(async move {
            // If the runtime drops this task, whoever waits must not wait for ever.
            let _ends = EndGuard { state: shared.clone(), ended: fires };
            let value = AssertUnwindSafe(computation).catch_unwind().await.unwrap_or_else(|panic| {
                let text = panic_text(&*panic);
                Err(SolveError::plain(SolveErrorKind::Panic(text)))
            });
            let forget = matches!(&value, Err(error) if error.is_cancelled());
            let new =
                if forget { State::Idle } else { State::Done { epoch, value: value.map_err(Box::new) } };
            let old = std::mem::replace(&mut *lock(&shared), new);
            drop(old);
        });
        Step::Wait(Waiter { state: self.state.clone(), ended: ended.clone() }, ended)
    }
}

/// Marks the end of a computation, however its task ends.
struct EndGuard<O: Op, V> {
    state: Arc<Mutex<State<O, V>>>,
    ended: CancellationToken,
}

impl<O: Op, V> Drop for EndGuard<O, V> {
    fn drop(&mut self) {
        let mut state = lock(&self.state);
        if matches!(&*state, State::Running(_)) {
            *state = State::Idle;
        }
        drop(state);
        self.ended.cancel();
    }
}

/// Interest of one caller in a run.
struct Waiter<O: Op, V> {
    state: Arc<Mutex<State<O, V>>>,
    ended: CancellationToken,
}

impl<O: Op, V> Drop for Waiter<O, V> {
    fn drop(&mut self) {
        if self.ended.is_cancelled() {
            return;
        }
        let mut state = lock(&self.state);
        // The run may have ended between the check and the lock; a new one cannot have begun before `ended`.
        if let State::Running(run) = &mut *state {
            run.waiters -= 1;
            if run.waiters == 0 {
                let cancel = run.cancel.clone();
                drop(state);
                cancel.cancel();
            }
        }
    }
}

fn unboxed<O: Op, V: Clone>(value: &Result<V, Box<SolveError<O>>>) -> Result<V, SolveError<O>> {
    match value {
        Ok(value) => Ok(value.clone()),
        Err(error) => Err((**error).clone()),
    }
}

/// `future`, dropped and turned into a cancellation as soon as `cancel` fires.
///
/// No async function: that would have room for `future` twice, as what it was given and as what it waits for, and thousands of them wait.
pub(crate) fn or_cancelled<O: Op, V, F>(
    cancel: &CancellationToken,
    future: F,
) -> impl Future<Output = Result<V, SolveError<O>>> + use<'_, O, V, F>
where
    F: Future<Output = Result<V, SolveError<O>>>,
{
    OrCancelled { cancelled: cancel.cancelled(), future }
}

pin_project! {
    struct OrCancelled<'a, F> {
        #[pin]
        cancelled: WaitForCancellationFuture<'a>,
        #[pin]
        future: F,
    }
}

impl<O: Op, V, F: Future<Output = Result<V, SolveError<O>>>> Future for OrCancelled<'_, F> {
    type Output = Result<V, SolveError<O>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        match this.cancelled.poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(SolveError::cancelled())),
            Poll::Pending => this.future.poll(cx),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No code that can panic runs under these locks; a poisoned one still holds a whole state.
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    if let Some(text) = panic.downcast_ref::<&str>() {
        (*text).to_string()
    } else if let Some(text) = panic.downcast_ref::<String>() {
        text.clone()
    } else {
        "no message".to_string()
    }
}
