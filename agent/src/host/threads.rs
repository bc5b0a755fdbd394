//! Threads for work that blocks: made when they are first needed, and kept.
//!
//! A machine may have no thread to give, just when a release that forks without end must be left. Work then
//! waits for a thread that is there, or is done where it was asked for: late is better than not at all.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use tidegate_protocol::{Explained, Reason};

type Work = Box<dyn FnOnce() + Send>;

/// Upper bound on the threads: one for each driver of the process.
const MOST: usize = 2;

struct Pool {
    waiting: VecDeque<Work>,
    /// Threads that are there.
    threads: usize,
    /// Threads that do nothing.
    idle: usize,
}

static POOL: Mutex<Pool> = Mutex::new(Pool {
    waiting: VecDeque::new(),
    threads: 0,
    idle: 0,
});
static CHANGED: Condvar = Condvar::new();

fn pool() -> MutexGuard<'static, Pool> {
    POOL.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes a thread, so that one is there when there are none to be had any more.
pub(crate) fn keep_one() {
    let mut pool = pool();
    if pool.threads == 0 {
        add_thread(&mut pool);
    }
}

/// Runs work that may take long, off the event loop where there is a thread for it.
pub(crate) async fn run<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Explained> {
    let (done, answer) = tokio::sync::oneshot::channel();
    submit(Box::new(move || {
        let _ = done.send(work());
    }));
    // The sender is dropped without an answer if the work panics.
    answer
        .await
        .map_err(|_| Explained::new(Reason::StorageError, "the work was cut short"))
}

fn submit(work: Work) {
    let mut pool = pool();
    if pool.idle <= pool.waiting.len() && pool.threads < MOST {
        add_thread(&mut pool);
    }
    if pool.threads == 0 {
        drop(pool);
        return work();
    }
    pool.waiting.push_back(work);
    CHANGED.notify_one();
}

fn add_thread(pool: &mut Pool) {
    if std::thread::Builder::new().spawn(serve).is_ok() {
        pool.threads += 1;
    }
}

fn serve() {
    loop {
        let mut pool = pool();
        pool.idle += 1;
        while pool.waiting.is_empty() {
            pool = CHANGED.wait(pool).unwrap_or_else(PoisonError::into_inner);
        }
        pool.idle -= 1;
        let work = pool.waiting.pop_front();
        drop(pool);
        if let Some(work) = work {
            // A panic costs this work its answer, not the thread: the next one may not be to be had.
            let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_that_panics_costs_its_answer_and_neither_the_agent_nor_the_next_work() {
        for _ in 0..2 * MOST {
            let done: Result<(), _> = run(|| panic!("on purpose")).await;
            assert!(done.is_err());
        }
        for number in 0..8 {
            assert_eq!(run(move || number).await.unwrap(), number);
        }
        assert!(pool().threads <= MOST);
    }
}
