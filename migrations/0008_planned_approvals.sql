-- Approvals that a rollout was planned under, and who scheduled its start. The version before writes neither: what
-- it plans is under the rule of the moment, and it starts what is due without asking.

-- Most approvals that the product asked for when the rollout was created, scheduled or asked to start.
ALTER TABLE rollout ADD COLUMN approvals BIGINT NOT NULL DEFAULT 0;
-- Name of the token that scheduled the start; NULL where nobody did, or the version before.
ALTER TABLE rollout ADD COLUMN starts_by TEXT;
