//! Requests to stop a process: the agent's and, since it is the same, the server's.

/// Completes on SIGINT, SIGTERM, or the end of standard input where a parent process asked for
/// that: when it dies, however it dies, its agents end as well.
pub async fn asked_to_stop(with_stdin: bool) {
    let parent_gone = async {
        if !with_stdin {
            return std::future::pending().await;
        }
        let (done, gone) = tokio::sync::oneshot::channel();
        let listens = std::thread::Builder::new().spawn(move || {
            let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
            let _ = done.send(());
        });
        // Without a thread to be had it lives on until a signal ends it.
        if listens.is_err() {
            return std::future::pending().await;
        }
        let _ = gone.await;
    };
    tokio::select! {
        () = parent_gone => {}
        _ = tokio::signal::ctrl_c() => {}
        () = terminated() => {}
    }
}

/// Catches SIGXFSZ: from here on a file that may not grow (`RLIMIT_FSIZE`) fails the write, with a
/// reason, and does not end the process.
pub(crate) fn outlives_large_files() {
    #[cfg(unix)]
    {
        let kind = rustix::process::Signal::XFSZ.as_raw();
        // The handler stays installed. If it cannot be installed, such a file ends the process.
        let _ = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::from_raw(kind));
    }
}

#[cfg(unix)]
async fn terminated() {
    match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
        Ok(mut signal) => {
            signal.recv().await;
        }
        Err(_) => std::future::pending().await,
    }
}

#[cfg(not(unix))]
async fn terminated() {
    std::future::pending().await
}
