-- Who is let in. The version before reads and writes beside this one: a device that waits is inactive to it,
-- and a token that asks for more than it can check has a hash that it does not find.

ALTER TABLE join_token ADD COLUMN approve BIGINT NOT NULL DEFAULT 0;
-- SHA-256 of the keys that may join with it, with spaces between; '' for any key.
ALTER TABLE join_token ADD COLUMN keys TEXT NOT NULL DEFAULT '';
-- Devices that may join in all; NULL for tokens made before.
ALTER TABLE join_token ADD COLUMN uses BIGINT;
ALTER TABLE join_token ADD COLUMN revoked_at BIGINT;

-- A device that joined and waits for a person to accept it is not active.
ALTER TABLE device ADD COLUMN awaiting BIGINT NOT NULL DEFAULT 0;
CREATE INDEX device_by_awaiting ON device (id) WHERE awaiting = 1;
