-- Latest check-in of a device: session, number, time and address. The version before leaves it as it is, and takes
-- a device that checks in from two machines for one until their sessions end.

ALTER TABLE device ADD COLUMN contact TEXT NOT NULL DEFAULT '';

-- Whether what a device runs is the word of a check-in alone. The version before does not say, and writes 0.
ALTER TABLE device ADD COLUMN claimed BIGINT NOT NULL DEFAULT 0;
