//! Pools of connections.

use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions};
use sqlx::{Connection as _, PgPool, SqlitePool};

/// Opens a pool for SQLite.
pub(super) async fn sqlite(options: SqliteConnectOptions) -> Result<SqlitePool, sqlx::Error> {
    SqlitePoolOptions::new()
        .max_connections(4)
        // On a full disk SQLite rolls a transaction back by itself; the driver still counts it as
        // open, and would refuse every later one on this connection, also with the disk free again.
        .before_acquire(|connection, _| {
            let in_order = !connection.is_in_transaction();
            Box::pin(async move { Ok(in_order) })
        })
        .connect_with(options)
        .await
}

/// Opens a pool for PostgreSQL.
pub(super) async fn postgres(url: &str) -> Result<PgPool, sqlx::Error> {
    PgPoolOptions::new()
        .max_connections(12)
        .acquire_timeout(Duration::from_secs(10))
        .connect(url)
        .await
}

/// Address of a database as people may see it: host, port and name. Of an address that cannot be
/// parsed nothing is shown, as nobody knows which part of it is the password.
pub(super) fn without_password(url: &str) -> String {
    let Ok(options) = url.parse::<PgConnectOptions>() else {
        return "postgres://... (the address cannot be parsed; escape what is special in a password)"
            .into();
    };
    let database = options.get_database().unwrap_or_default();
    format!(
        "postgres://{}:{}/{database}",
        options.get_host(),
        options.get_port()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_database_that_was_full_serves_again() {
        let dir = tempfile::tempdir().unwrap();
        let options = SqliteConnectOptions::new()
            .filename(dir.path().join("full.db"))
            .create_if_missing(true)
            .journal_mode(sqlx::sqlite::SqliteJournalMode::Wal)
            // 256 KiB, whatever the disk has.
            .pragma("max_page_count", "64");
        let pool = sqlite(options).await.unwrap();
        let run = async |sql: &'static str| {
            let mut tx = pool.begin_with("BEGIN IMMEDIATE").await?;
            sqlx::query(sql).execute(&mut *tx).await?;
            tx.commit().await
        };
        run("CREATE TABLE filler (bytes BLOB)").await.unwrap();
        for _ in 0..3 {
            let full = run("INSERT INTO filler VALUES (randomblob(1000000))").await;
            assert!(full.unwrap_err().to_string().contains("full"));
        }
        for _ in 0..8 {
            run("INSERT INTO filler VALUES (x'00')").await.unwrap();
        }
    }
}
