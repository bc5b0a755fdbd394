//! The schema's migrations: embedded text, one for both engines, run by the library's migrator.

use sqlx::SqlSafeStr as _;
use sqlx::migrate::{Migration, MigrationType, Migrator};

/// All migrations in order: number, name, text. The text of a released migration never changes.
const ALL: &[(i64, &str, &str)] = &[
    (
        1,
        "schema",
        include_str!("../../../migrations/0001_schema.sql"),
    ),
    (
        2,
        "admission",
        include_str!("../../../migrations/0002_admission.sql"),
    ),
    (
        3,
        "left behind",
        include_str!("../../../migrations/0003_left_behind.sql"),
    ),
    (
        4,
        "operators",
        include_str!("../../../migrations/0004_operators.sql"),
    ),
    (
        5,
        "contact",
        include_str!("../../../migrations/0005_contact.sql"),
    ),
    (
        6,
        "way back",
        include_str!("../../../migrations/0006_way_back.sql"),
    ),
    (
        7,
        "device budget",
        include_str!("../../../migrations/0007_device_budget.sql"),
    ),
    (
        8,
        "planned approvals",
        include_str!("../../../migrations/0008_planned_approvals.sql"),
    ),
];

/// SQL dialect of an engine, where the two differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    Sqlite,
    Postgres,
}

impl Dialect {
    /// The text of a migration for this engine.
    fn translate(self, text: &str) -> String {
        let bytes = match self {
            Self::Sqlite => "BLOB",
            Self::Postgres => "BYTEA",
        };
        text.replace("{bytes}", bytes)
    }
}

/// The migrator of an engine.
pub(super) fn migrator(dialect: Dialect) -> Migrator {
    let migrations = ALL.iter().map(|(number, name, text)| {
        let text = sqlx::AssertSqlSafe(dialect.translate(text)).into_sql_str();
        let kind = MigrationType::Simple;
        Migration::new(*number, (*name).into(), kind, text, false)
    });
    let mut migrator = Migrator::with_migrations(migrations.collect());
    // A newer version may have migrated the database already: this one runs beside it all the same.
    migrator.set_ignore_missing(true);
    migrator
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_placeholder_is_left_in_the_text_of_either_engine() {
        for (_, name, text) in ALL {
            for dialect in [Dialect::Sqlite, Dialect::Postgres] {
                let text = dialect.translate(text);
                assert!(!text.contains("{bytes}"), "{name}: {dialect:?}");
            }
        }
    }
}
