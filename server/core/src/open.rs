//! Opening of a server's state: the stores, the first secrets, and everything into memory.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use tidegate_domain::access::Role;
use tidegate_protocol::ProblemCode;
use tidegate_store::operators::OperatorToken;
use tidegate_store::{Db, events};
use tokio::sync::{Mutex, Notify};
use tokio_util::sync::CancellationToken;

use crate::app::App;
use crate::blob::{BlobSettings, Blobs};
use crate::clock::Clock;
use crate::memory::access::Access;
use crate::memory::applied::Applied;
use crate::memory::fleet::Fleet;
use crate::memory::tokens::NewToken;
use crate::metrics::Metrics;
use crate::queue::{self, Queue};
use crate::settings::Settings;
use crate::{CoreError, commit, random};

/// Opened state of a server.
pub struct Opened {
    /// The state.
    pub app: Arc<App>,
    /// Queue for [`crate::run_writer`].
    pub queue: Queue,
    /// Token of the first administrator; `None` if it was created at an earlier start.
    pub first_token: Option<String>,
}

/// Opens the stores and loads the fleet. `keep` stores the first administrator's token before it is
/// committed: a token that nobody could read would lock everybody out.
pub async fn open(
    settings: Settings,
    database: &str,
    blobs: &BlobSettings,
    keep: impl FnOnce(&str) -> std::io::Result<()>,
) -> Result<Opened, CoreError> {
    let db = Db::open(database).await?;
    let blobs = Blobs::open(blobs)?;
    let now = settings.clock.now();
    let origin = format!("server-{}", hex::encode(random::bytes::<6>()));
    db.keep_ballast();
    let first_token = commit::first_token(&db, &origin, now, keep).await?;
    commit::first_secrets(&db, now).await?;
    let access = Access::default();
    access.reload(&db).await?;
    // Read the cursor first: events committed while the fleet loads are read twice, never missed.
    let cursor = events::head(&mut db.read().await?).await?;
    let fleet = Fleet::load(&db).await?;
    let (writer, queue) = queue::channel();
    let app = Arc::new(App {
        origin,
        applied: Applied::default(),
        settings,
        db,
        blobs,
        fleet,
        access,
        writer,
        metrics: Metrics::default(),
        stopping: CancellationToken::new(),
        cursor: Mutex::new(cursor),
        heartbeats_read: Mutex::new(now),
        watch: Mutex::default(),
        requests: AtomicUsize::new(0),
        joining: Mutex::default(),
        planner: Notify::new(),
        builder: Notify::new(),
    });
    Ok(Opened {
        app,
        queue,
        first_token,
    })
}

/// Makes a token on the server's host, straight in the database: the way back in when nobody has a
/// token that is good for it. Servers that run take it over within a second.
pub async fn rescue(
    database: &str,
    name: &str,
    role: Role,
    valid: Option<Duration>,
) -> Result<(OperatorToken, String), CoreError> {
    // Opening would make a database that is not there, and the token in it would open nothing.
    if let Some(path) = database.strip_prefix("sqlite:")
        && !std::path::Path::new(path).is_file()
    {
        let text = format!("there is no database at {path}");
        return Err(CoreError::refuse(ProblemCode::NotFound, text));
    }
    let now = Clock::System.now();
    let token = NewToken {
        name: name.to_owned(),
        role,
        valid,
        break_glass: false,
    };
    let (token, secret) = token.made(now, None)?;
    let db = Db::open(database).await?;
    let stored = commit::host_token(&db, &token, now).await;
    db.close().await;
    stored?;
    Ok((token, secret))
}

/// Claims a SQLite database for this server, until the returned file is dropped: two servers on one file
/// would each decide by what it remembers. PostgreSQL may have several.
pub fn claim(database: &str) -> Result<Option<std::fs::File>, CoreError> {
    let what = database.strip_prefix("sqlite:").unwrap_or_default();
    tidegate_store::claim(database).map_err(|error| match error.kind() {
        std::io::ErrorKind::WouldBlock => CoreError::refuse(
            ProblemCode::Conflict,
            format!(
                "another server uses {what}, and SQLite is for one: stop that one, or give both a PostgreSQL \
                 (--database postgres://...)"
            ),
        ),
        _ => CoreError::invalid(format!("{what}.lock: {error}")),
    })
}

/// Brings the schema of a database up to date.
pub async fn migrate(database: &str) -> Result<(), CoreError> {
    Db::open(database).await?.close().await;
    Ok(())
}
