-- Devices without a way back that the start of a rollout accepted; NULL where there were none.
ALTER TABLE rollout ADD COLUMN accepted_no_way_back BIGINT;
-- How a completed rollout ended, where it is not simply complete: 'completed_partly' or 'nothing_to_do'. It
-- counts while its time is that of the end: the version before reads all of them as completed, and where it
-- ends a rollout itself the two times differ.
ALTER TABLE rollout ADD COLUMN completed_as TEXT;
ALTER TABLE rollout ADD COLUMN completed_as_at BIGINT;
