-- Events that a device may cause in an hour. The version before writes each of them, and counts none.

CREATE TABLE device_budget (
    device_id TEXT NOT NULL PRIMARY KEY,
    since BIGINT NOT NULL,
    written BIGINT NOT NULL,
    -- Events that were counted and not kept; told in one row when the hour is over.
    withheld BIGINT NOT NULL
);
CREATE INDEX device_budget_by_withheld ON device_budget (since) WHERE withheld > 0;
