-- Who made whom, and who may weaken a guard. The version before reads and writes beside this one: to it a token
-- has no maker, as all made until now, and settings have no approvals of their own.

-- Token that made this one; NULL for the first, for those made on the server's host and for all made before.
ALTER TABLE operator_token ADD COLUMN made_by TEXT;
-- Token of the administrator who vouched that it belongs to a person of its own.
ALTER TABLE operator_token ADD COLUMN confirmed_by TEXT;
-- For the safe: a responder without an expiry, whose every use is alarmed.
ALTER TABLE operator_token ADD COLUMN break_glass BIGINT NOT NULL DEFAULT 0;

-- Names that tokens have had, in small letters: none is ever given again, so that it means one token in every record.
CREATE TABLE operator_name (
    name TEXT NOT NULL PRIMARY KEY,
    token_id TEXT NOT NULL REFERENCES operator_token (id)
);

-- A change of a product's settings that lowers its approvals, and waits for them. body holds the settings.
CREATE TABLE settings_change (
    id TEXT NOT NULL PRIMARY KEY,
    product TEXT NOT NULL REFERENCES product (name),
    body TEXT NOT NULL,
    plan_sha256 TEXT NOT NULL,
    asked_by TEXT NOT NULL,
    asked_at BIGINT NOT NULL,
    state TEXT NOT NULL
);
CREATE INDEX settings_change_by_product ON settings_change (product, asked_at);

CREATE TABLE settings_approval (
    change_id TEXT NOT NULL REFERENCES settings_change (id),
    plan_sha256 TEXT NOT NULL,
    given_by TEXT NOT NULL,
    given_at BIGINT NOT NULL,
    PRIMARY KEY (change_id, plan_sha256, given_by)
);
