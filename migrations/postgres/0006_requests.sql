-- The last signed requests of a device, `number:end of its nonce`, the highest first: what comes late
-- is told from what comes twice.
ALTER TABLE device ADD COLUMN recent_requests TEXT NOT NULL DEFAULT '';
UPDATE device SET recent_requests = CAST(requests AS TEXT) || ':' WHERE requests > 0;
ALTER TABLE device DROP COLUMN request_nonce;
-- Releases that a person lets the device have again though they failed there, with spaces between.
ALTER TABLE device ADD COLUMN lifted TEXT NOT NULL DEFAULT '';
