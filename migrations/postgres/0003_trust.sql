-- Devices that prove who they are: numbered signed requests, isolation, a change of key, signed
-- results; and signed files that still wait for signatures.

-- Why a device is kept from everything but the way back; '' when it is not.
ALTER TABLE device ADD COLUMN isolated TEXT NOT NULL DEFAULT '';
-- The number and the nonce of the newest signed request.
ALTER TABLE device ADD COLUMN requests BIGINT NOT NULL DEFAULT 0;
ALTER TABLE device ADD COLUMN request_nonce TEXT NOT NULL DEFAULT '';
-- Whether it is to make itself a new key.
ALTER TABLE device ADD COLUMN new_key BIGINT NOT NULL DEFAULT 0;

-- The newest report of the device on it, as the device signed it.
ALTER TABLE deployment ADD COLUMN statement TEXT NOT NULL DEFAULT '';

-- The newest draft of each role; gone when it is complete.
CREATE TABLE metadata_draft (
    role TEXT NOT NULL PRIMARY KEY,
    version BIGINT NOT NULL,
    body BYTEA NOT NULL,
    purpose TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    created_by TEXT NOT NULL
);
