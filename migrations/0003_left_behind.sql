-- Rollbacks that left devices on the release. The version before reads such a rollout as rolled back; where it
-- ends a rollout itself, the two times differ and this one counts for nothing.

ALTER TABLE rollout ADD COLUMN left_behind_at BIGINT;
