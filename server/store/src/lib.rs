#![doc = include_str!("../README.md")]
#![expect(
    clippy::disallowed_methods,
    reason = "the store is the one place where statements are run"
)]

pub mod aggregates;
pub mod artifacts;
pub mod budgets;
pub mod changes;
mod db;
pub mod deployments;
pub mod devices;
pub mod events;
mod headroom;
pub mod holds;
pub mod incidents;
pub mod jobs;
pub mod join;
mod migrations;
pub mod operators;
pub mod pages;
pub mod policy;
mod pool;
mod private;
pub mod products;
pub mod quarantine;
pub mod requests;
pub mod rollouts;
mod row;
pub mod settings_changes;
pub mod trust;
pub mod waiting;
pub mod waves;

pub use db::{Db, Listener, Tx};
pub use headroom::{HeadroomStanding, Space, ballast_of};
pub use private::claim;

/// Errors of the store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database cannot be opened.
    #[error("cannot open the database {what}")]
    Open {
        /// File, or address without its password.
        what: String,
        /// The engine's error.
        #[source]
        source: sqlx::Error,
    },
    /// The engine returned an error.
    #[error("could not {operation}")]
    Database {
        /// The operation that failed.
        operation: &'static str,
        /// The engine's error.
        #[source]
        source: sqlx::Error,
    },
    /// A column cannot be read.
    #[error("column {column} cannot be read")]
    Column {
        /// Name of the column.
        column: &'static str,
        /// The cause.
        #[source]
        source: sqlx::Error,
    },
    /// A row holds a value that no version of this program writes.
    #[error("column {column} holds an impossible value: {what}")]
    BadRow {
        /// Name of the column.
        column: &'static str,
        /// Problem with the value.
        what: String,
    },
    /// A value cannot be written as JSON. An empty column in its place could not be read again.
    #[error("cannot write column {column}")]
    Unwritable {
        /// Name of the column.
        column: &'static str,
        /// The cause.
        #[source]
        source: serde_json::Error,
    },
    /// A write changed an unexpected number of rows.
    #[error("could not {operation}: {count} rows changed")]
    RowCount {
        /// The operation that failed.
        operation: &'static str,
        /// Rows changed.
        count: u64,
    },
    /// The kind of database address is not supported.
    #[error("unsupported database address: it must begin with sqlite: or postgres://")]
    Url,
}

impl StoreError {
    fn op(operation: &'static str) -> impl FnOnce(sqlx::Error) -> Self {
        move |source| Self::Database { operation, source }
    }

    /// Returns whether a write failed for want of room on the disk.
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Database { source, .. } if headroom::is_full(source))
    }

    /// Returns whether a unique constraint refused a row: someone else was faster.
    pub fn is_duplicate(&self) -> bool {
        matches!(self, Self::Database { source: sqlx::Error::Database(e), .. } if e.is_unique_violation())
    }
}

/// Defines the statements of a module and lists them for the test that prepares each.
macro_rules! statements {
    ($($name:ident = $sql:expr;)*) => {
        $(const $name: &str = $sql;)*
        pub(crate) const STATEMENTS: &[(&str, &str)] = &[$((stringify!($name), $name)),*];
    };
}
pub(crate) use statements;

/// Reads a JSON column.
fn json<T: serde::de::DeserializeOwned>(column: &'static str, text: &str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|e| StoreError::BadRow {
        column,
        what: e.to_string(),
    })
}

/// Writes a JSON column.
pub fn to_json(column: &'static str, value: &impl serde::Serialize) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|source| StoreError::Unwritable { column, source })
}

/// Returns every statement of the store by name, for the test that prepares each on both engines.
pub fn all_statements() -> Vec<(&'static str, &'static str)> {
    [
        aggregates::STATEMENTS,
        artifacts::STATEMENTS,
        budgets::STATEMENTS,
        changes::STATEMENTS,
        holds::STATEMENTS,
        incidents::STATEMENTS,
        deployments::STATEMENTS,
        devices::STATEMENTS,
        events::STATEMENTS,
        jobs::STATEMENTS,
        join::STATEMENTS,
        operators::STATEMENTS,
        pages::STATEMENTS,
        products::STATEMENTS,
        quarantine::STATEMENTS,
        rollouts::STATEMENTS,
        settings_changes::STATEMENTS,
        trust::STATEMENTS,
        requests::STATEMENTS,
        waiting::STATEMENTS,
        waves::STATEMENTS,
    ]
    .concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A value that cannot be written as JSON.
    struct Never;

    impl serde::Serialize for Never {
        fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            Err(serde::ser::Error::custom("it cannot be written"))
        }
    }

    #[test]
    fn what_cannot_be_written_is_an_error_and_no_empty_column() {
        let error = to_json("reason", &Never).unwrap_err();
        assert_eq!(error.to_string(), "cannot write column reason");
        assert_eq!(to_json("reason", &[1, 2]).unwrap(), "[1,2]");
    }
}
