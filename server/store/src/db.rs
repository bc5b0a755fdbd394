//! One SQL text on two engines: a pool, a transaction and a row that are either SQLite's or
//! PostgreSQL's.

use std::str::FromStr as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{PgPool, Postgres, Sqlite, SqlitePool};

use super::headroom::{Headroom, HeadroomStanding};
use super::migrations::{Dialect, migrator};
use super::row::{Row, Value};
use super::{StoreError, pool, private};

/// The database: SQLite in a file, or PostgreSQL.
#[derive(Clone)]
pub struct Db {
    engine: Engine,
    statements: Arc<AtomicU64>,
    writes: Arc<AtomicU64>,
    room: Arc<Headroom>,
}

#[derive(Clone)]
enum Engine {
    Sqlite(SqlitePool),
    Postgres(PgPool),
}

/// A transaction. Dropped without [`Tx::commit`], it changes nothing.
pub struct Tx {
    inner: TxInner,
    statements: Arc<AtomicU64>,
    /// Headroom that its failures are noted with, if it writes.
    room: Option<Arc<Headroom>>,
}

enum TxInner {
    Sqlite(sqlx::Transaction<'static, Sqlite>),
    Postgres(sqlx::Transaction<'static, Postgres>),
}

/// Runs the same body on the transaction of either engine.
macro_rules! both {
    ($tx:expr, |$c:ident| $body:expr) => {
        match &mut $tx.inner {
            TxInner::Sqlite($c) => $body,
            TxInner::Postgres($c) => $body,
        }
    };
}

macro_rules! bind {
    ($sql:expr, $args:expr) => {{
        let mut query = sqlx::query($sql);
        for value in $args {
            query = match value {
                Value::Int(v) => query.bind(v),
                Value::Text(v) => query.bind(v),
                Value::Bytes(v) => query.bind(v),
            };
        }
        query
    }};
}

impl Db {
    /// Opens `sqlite:PATH` or `postgres://...` and brings its schema up to date.
    pub async fn open(url: &str) -> Result<Self, StoreError> {
        let db = Self::connect(url).await?;
        db.migrate().await?;
        Ok(db)
    }

    async fn connect(url: &str) -> Result<Self, StoreError> {
        let mut file = None;
        let engine = if let Some(path) = url.strip_prefix("sqlite:") {
            let failed = |source| StoreError::Open {
                what: path.to_owned(),
                source,
            };
            let options =
                SqliteConnectOptions::from_str(&format!("sqlite:{path}")).map_err(failed)?;
            private::prepare(options.get_filename()).map_err(|e| failed(sqlx::Error::Io(e)))?;
            file = Some(options.get_filename().to_path_buf())
                .filter(|path| path.as_os_str() != ":memory:");
            let options = options
                .create_if_missing(true)
                .journal_mode(SqliteJournalMode::Wal)
                .synchronous(SqliteSynchronous::Full)
                .foreign_keys(true)
                .busy_timeout(Duration::from_secs(10));
            let pool = pool::sqlite(options).await;
            Engine::Sqlite(pool.map_err(failed)?)
        } else if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            let pool = pool::postgres(url).await;
            Engine::Postgres(pool.map_err(|source| StoreError::Open {
                what: pool::without_password(url),
                source,
            })?)
        } else {
            return Err(StoreError::Url);
        };
        Ok(Self {
            engine,
            statements: Arc::default(),
            writes: Arc::default(),
            room: Arc::new(Headroom::new(file)),
        })
    }

    /// Makes room for an order where the disk of a SQLite database has none left.
    pub fn make_room(&self) {
        self.room.make();
    }

    /// Returns, once for each time, whether room was made since a write failed for want of it.
    pub fn has_made_room(&self) -> bool {
        self.room.has_made()
    }

    /// Makes the ballast beside a SQLite database, or what is missing of it, if the disk has room.
    pub fn keep_ballast(&self) {
        self.room.keep_ballast();
    }

    /// State of the database's room.
    pub fn room(&self) -> HeadroomStanding {
        self.room.standing()
    }

    /// Brings the schema up to date. Replicas that start together take turns.
    pub async fn migrate(&self) -> Result<(), StoreError> {
        let result = match &self.engine {
            Engine::Sqlite(pool) => migrator(Dialect::Sqlite).run(pool).await,
            Engine::Postgres(pool) => migrator(Dialect::Postgres).run(pool).await,
        };
        result.map_err(|e| StoreError::op("migrate the schema")(e.into()))
    }

    /// Refreshes SQLite's row statistics where tables have grown: without that it reads a whole
    /// table where an index would do. PostgreSQL does so by itself.
    pub async fn refresh_statistics(&self) -> Result<(), StoreError> {
        if let Engine::Sqlite(pool) = &self.engine {
            // 0x10000: all tables, also those that this connection has not used yet. The limit bounds
            // what one run reads.
            for sql in ["PRAGMA analysis_limit = 1000", "PRAGMA optimize = 0x10002"] {
                sqlx::query(sql)
                    .execute(pool)
                    .await
                    .map_err(StoreError::op("count the rows"))?;
            }
        }
        Ok(())
    }

    /// Returns whether several processes may share it.
    pub fn is_shared(&self) -> bool {
        matches!(self.engine, Engine::Postgres(_))
    }

    /// Begins a read-only transaction. All of its statements see the same snapshot.
    pub async fn read(&self) -> Result<Tx, StoreError> {
        let read_only = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
        let inner = self.begin("BEGIN", read_only).await;
        let inner = inner.map_err(StoreError::op("begin a transaction"))?;
        Ok(Tx {
            inner,
            statements: self.statements.clone(),
            room: None,
        })
    }

    /// Begins a write transaction. On SQLite it takes the write lock at once, so that it never
    /// fails half-way because it cannot get it.
    pub async fn begin_write(&self) -> Result<Tx, StoreError> {
        self.writes.fetch_add(1, Ordering::Relaxed);
        let inner = self.begin("BEGIN IMMEDIATE", "BEGIN").await;
        let inner = inner
            .inspect_err(|error| self.room.note_failure(error))
            .map_err(StoreError::op("begin a transaction"))?;
        Ok(Tx {
            inner,
            statements: self.statements.clone(),
            room: Some(self.room.clone()),
        })
    }

    async fn begin(
        &self,
        sqlite: &'static str,
        postgres: &'static str,
    ) -> Result<TxInner, sqlx::Error> {
        Ok(match &self.engine {
            Engine::Sqlite(pool) => TxInner::Sqlite(pool.begin_with(sqlite).await?),
            Engine::Postgres(pool) => TxInner::Postgres(pool.begin_with(postgres).await?),
        })
    }

    /// Number of statements run so far. The check-in path must not raise it when nothing changes.
    pub fn statements_run(&self) -> u64 {
        self.statements.load(Ordering::Relaxed)
    }

    /// Number of write transactions begun so far. What a stranger sends must not raise it.
    pub fn writes_begun(&self) -> u64 {
        self.writes.load(Ordering::Relaxed)
    }

    /// Prepares a statement without running it, to check its syntax, names and parameters.
    pub async fn prepare(&self, sql: &'static str) -> Result<(), StoreError> {
        use sqlx::Executor as _;
        match &self.engine {
            Engine::Sqlite(pool) => pool.prepare(sqlx::SqlStr::from_static(sql)).await.map(drop),
            Engine::Postgres(pool) => pool.prepare(sqlx::SqlStr::from_static(sql)).await.map(drop),
        }
        .map_err(StoreError::op("prepare a statement"))
    }

    /// Steps of SQLite's query plan for a statement. Empty on PostgreSQL, whose plans depend on the
    /// rows that are there.
    pub async fn plan_of(&self, sql: &'static str) -> Result<Vec<String>, StoreError> {
        let Engine::Sqlite(pool) = &self.engine else {
            return Ok(Vec::new());
        };
        let text = sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {sql}"));
        let rows = sqlx::query(text).fetch_all(pool).await;
        rows.map_err(StoreError::op("explain a statement"))?
            .into_iter()
            .map(|row| Row::Sqlite(row).get("detail"))
            .collect()
    }

    /// Opens a listener that wakes when another replica writes events; `None` on SQLite, which has
    /// no other replicas.
    pub async fn listener(&self) -> Result<Option<Listener>, StoreError> {
        let Engine::Postgres(pool) = &self.engine else {
            return Ok(None);
        };
        let mut listener = sqlx::postgres::PgListener::connect_with(pool)
            .await
            .map_err(StoreError::op("listen"))?;
        listener
            .listen(EVENT_CHANNEL)
            .await
            .map_err(StoreError::op("listen"))?;
        Ok(Some(Listener(listener)))
    }

    /// Closes the pool; running transactions end first.
    pub async fn close(&self) {
        match &self.engine {
            Engine::Sqlite(pool) => pool.close().await,
            Engine::Postgres(pool) => pool.close().await,
        }
    }
}

/// Connection that hears when another replica has written events.
pub struct Listener(sqlx::postgres::PgListener);

impl Listener {
    /// Waits for the next wake-up; `false` if the connection is lost.
    pub async fn heard(&mut self) -> bool {
        self.0.recv().await.is_ok()
    }
}

/// Name of the wake-up channel. It only wakes: the events table is the source of truth.
const EVENT_CHANNEL: &str = "tidegate_event";

impl Tx {
    /// Commits.
    pub async fn commit(self) -> Result<(), StoreError> {
        let result = match self.inner {
            TxInner::Sqlite(tx) => tx.commit().await,
            TxInner::Postgres(tx) => tx.commit().await,
        };
        if let Some(room) = &self.room {
            match &result {
                Ok(()) => room.note_written(),
                Err(error) => room.note_failure(error),
            }
        }
        result.map_err(StoreError::op("commit"))
    }

    /// Wakes the other replicas when this transaction commits.
    pub(crate) async fn notify(&mut self) -> Result<(), StoreError> {
        if let TxInner::Postgres(tx) = &mut self.inner {
            sqlx::query("NOTIFY tidegate_event")
                .execute(&mut **tx)
                .await
                .map_err(StoreError::op("notify"))?;
        }
        Ok(())
    }

    /// Picks the text for the engine in use, for the few statements that need a row lock.
    pub(crate) fn pick(&self, sqlite: &'static str, postgres: &'static str) -> &'static str {
        match self.inner {
            TxInner::Sqlite(_) => sqlite,
            TxInner::Postgres(_) => postgres,
        }
    }

    /// Runs a statement; returns the number of rows it changed.
    pub(crate) async fn run(
        &mut self,
        operation: &'static str,
        sql: &'static str,
        args: Vec<Value>,
    ) -> Result<u64, StoreError> {
        self.statements.fetch_add(1, Ordering::Relaxed);
        let result = both!(self, |tx| bind!(sql, args)
            .execute(&mut **tx)
            .await
            .map(|r| r.rows_affected()));
        if let (Err(error), Some(room)) = (&result, &self.room) {
            room.note_failure(error);
        }
        result.map_err(StoreError::op(operation))
    }

    /// Runs a statement that must change exactly one row.
    pub(crate) async fn run_one(
        &mut self,
        operation: &'static str,
        sql: &'static str,
        args: Vec<Value>,
    ) -> Result<(), StoreError> {
        match self.run(operation, sql, args).await? {
            1 => Ok(()),
            count => Err(StoreError::RowCount { operation, count }),
        }
    }

    /// Runs a query and reads every row.
    pub(crate) async fn all<T>(
        &mut self,
        operation: &'static str,
        sql: &'static str,
        args: Vec<Value>,
        read: impl Fn(&Row) -> Result<T, StoreError>,
    ) -> Result<Vec<T>, StoreError> {
        self.statements.fetch_add(1, Ordering::Relaxed);
        let rows: Vec<Row> = match &mut self.inner {
            TxInner::Sqlite(tx) => bind!(sql, args)
                .fetch_all(&mut **tx)
                .await
                .map(|rows| rows.into_iter().map(Row::Sqlite).collect()),
            TxInner::Postgres(tx) => bind!(sql, args)
                .fetch_all(&mut **tx)
                .await
                .map(|rows| rows.into_iter().map(Row::Postgres).collect()),
        }
        .map_err(StoreError::op(operation))?;
        rows.iter().map(read).collect()
    }

    /// Runs a query for at most one row.
    pub(crate) async fn optional<T>(
        &mut self,
        operation: &'static str,
        sql: &'static str,
        args: Vec<Value>,
        read: impl Fn(&Row) -> Result<T, StoreError>,
    ) -> Result<Option<T>, StoreError> {
        Ok(self
            .all(operation, sql, args, read)
            .await?
            .into_iter()
            .next())
    }
}

impl Db {
    /// Returns whether the database answers.
    pub async fn is_ready(&self) -> bool {
        // A transaction, as every request begins one: a connection alone says nothing.
        match &self.engine {
            Engine::Sqlite(_) => self.read().await.is_ok(),
            Engine::Postgres(pool) => match pool.acquire().await {
                Ok(mut connection) => sqlx::Connection::ping(&mut *connection).await.is_ok(),
                Err(_) => false,
            },
        }
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_database_that_cannot_be_opened_is_named_and_its_password_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("nowhere/tidegate.db");
        let url = format!("sqlite:{}", path.display());
        let error = Db::open(&url).await.err().unwrap().to_string();
        assert_eq!(
            error,
            format!("cannot open the database {}", path.display())
        );
        let shown = pool::without_password;
        let url = "postgres://tide:s3cr%40t@127.0.0.1:5432/fleet?password=other";
        assert_eq!(shown(url), "postgres://127.0.0.1:5432/fleet");
        let slip = shown("postgres://joe:s3c/r#et@h:5432/db");
        assert!(!slip.contains("joe") && !slip.contains("s3c"), "{slip}");
    }

    #[tokio::test]
    async fn what_is_no_database_keeps_its_mode_and_its_bytes() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("report.txt");
        std::fs::write(&path, "of somebody else ".repeat(400)).unwrap();
        let mode = |mode| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode));
        mode(0o644).unwrap();
        let url = format!("sqlite:{}", path.display());
        assert!(Db::open(&url).await.is_err());
        let after = std::fs::metadata(&path).unwrap();
        assert_eq!(
            (after.permissions().mode() & 0o777, after.len()),
            (0o644, 6_800)
        );
        let error = Db::open("sqlite:/dev/null").await.err().unwrap();
        let said = tidegate_protocol::error_chain(&error);
        assert!(said.contains("not a regular file"), "{said}");
    }
}
