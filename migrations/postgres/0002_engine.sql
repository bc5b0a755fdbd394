-- The rollout engine on aggregates: what is counted is kept counted, an offer is checked against
-- a grant, and holds, incidents, changes and approvals have their rows.

ALTER TABLE product ADD COLUMN settings TEXT NOT NULL DEFAULT '{}';

ALTER TABLE release ADD COLUMN eol_at BIGINT;
ALTER TABLE release ADD COLUMN eol_notice TEXT NOT NULL DEFAULT '';

ALTER TABLE device ADD COLUMN metered BIGINT NOT NULL DEFAULT 0;
ALTER TABLE device ADD COLUMN low_since BIGINT;
ALTER TABLE device ADD COLUMN unhealthy_at BIGINT;
CREATE INDEX device_by_ring ON device (product, ring);
CREATE INDEX device_by_unhealthy ON device (product, unhealthy_at) WHERE unhealthy_at IS NOT NULL;

ALTER TABLE rollout ADD COLUMN policy TEXT NOT NULL DEFAULT '{}';
ALTER TABLE rollout ADD COLUMN released BIGINT NOT NULL DEFAULT 0;
ALTER TABLE rollout ADD COLUMN extended_s BIGINT NOT NULL DEFAULT 0;
ALTER TABLE rollout ADD COLUMN frozen BIGINT NOT NULL DEFAULT 0;
ALTER TABLE rollout ADD COLUMN starts_at BIGINT;
-- Failed and silent devices by wave that a person has seen and let pass.
ALTER TABLE rollout ADD COLUMN excused TEXT NOT NULL DEFAULT '{}';

ALTER TABLE wave ADD COLUMN quota BIGINT NOT NULL DEFAULT 0;
-- A wave under way is counted anew; its frontier stays.
UPDATE wave SET state = 'pending' WHERE state IN ('running', 'soaking');

ALTER TABLE deployment ADD COLUMN region TEXT NOT NULL DEFAULT '';
ALTER TABLE deployment ADD COLUMN platform TEXT NOT NULL DEFAULT '';
ALTER TABLE deployment ADD COLUMN model TEXT NOT NULL DEFAULT '';
ALTER TABLE deployment ADD COLUMN took BIGINT NOT NULL DEFAULT 0;
ALTER TABLE deployment ADD COLUMN outcome TEXT NOT NULL DEFAULT '';
ALTER TABLE deployment ADD COLUMN failures TEXT NOT NULL DEFAULT '{}';
UPDATE deployment SET
    region = (SELECT v.region FROM device v WHERE v.id = deployment.device_id),
    platform = (SELECT v.platform FROM device v WHERE v.id = deployment.device_id),
    outcome = CASE
        WHEN state IN ('offered', 'deferred', 'downloading') THEN 'waiting'
        WHEN state IN ('installing', 'verifying') THEN 'taking'
        WHEN state = 'probation' THEN 'probation'
        WHEN state = 'succeeded' THEN 'succeeded'
        WHEN state = 'timed_out' THEN 'unreached'
        WHEN state = 'rolling_back' THEN 'returning'
        WHEN state = 'rolled_back' AND reason = 'rollback_ordered' THEN 'returned'
        WHEN state IN ('failed', 'rolled_back') THEN 'failed'
        ELSE 'called_off'
    END;
-- Silence is counted among those that are on their way or in their window.
CREATE INDEX deployment_by_outcome ON deployment (rollout_id, outcome);

-- How many deployments count as what: kept by whoever changes one, in the same transaction.
CREATE TABLE tally (
    rollout_id TEXT NOT NULL REFERENCES rollout (id),
    wave BIGINT NOT NULL,
    region TEXT NOT NULL,
    platform TEXT NOT NULL,
    model TEXT NOT NULL,
    from_release TEXT NOT NULL,
    outcome TEXT NOT NULL,
    reason TEXT NOT NULL,
    count BIGINT NOT NULL,
    PRIMARY KEY (rollout_id, wave, region, platform, model, from_release, outcome, reason)
);
INSERT INTO tally (rollout_id, wave, region, platform, model, from_release, outcome, reason, count)
SELECT rollout_id, wave, region, platform, model, COALESCE(from_release, ''), outcome,
       CASE WHEN outcome = 'failed' THEN COALESCE(reason, '') ELSE '' END, COUNT(*)
FROM deployment GROUP BY 1, 2, 3, 4, 5, 6, 7, 8;

-- What a rollout has exposed and may expose; an offer that finds no room is refused.
CREATE TABLE progress (
    rollout_id TEXT NOT NULL PRIMARY KEY REFERENCES rollout (id),
    exposed BIGINT NOT NULL,
    granted BIGINT NOT NULL,
    granted_at BIGINT,
    last_offer_at BIGINT,
    done BIGINT NOT NULL,
    done_s BIGINT NOT NULL
);
INSERT INTO progress (rollout_id, exposed, granted, granted_at, last_offer_at, done, done_s)
SELECT r.id, (SELECT COUNT(*) FROM deployment d WHERE d.rollout_id = r.id),
       (SELECT COUNT(*) FROM deployment d WHERE d.rollout_id = r.id), NULL, NULL, 0, 0
FROM rollout r;

-- What the comparison with the old release saw between two looks.
CREATE TABLE stratum (
    rollout_id TEXT NOT NULL REFERENCES rollout (id),
    at BIGINT NOT NULL,
    risk_new BIGINT NOT NULL,
    risk_old BIGINT NOT NULL,
    bad_new BIGINT NOT NULL,
    bad_old BIGINT NOT NULL,
    PRIMARY KEY (rollout_id, at)
);

-- Devices that are kept from a release; version '' is every release.
CREATE TABLE hold (
    id TEXT NOT NULL PRIMARY KEY,
    product TEXT NOT NULL REFERENCES product (name),
    version TEXT NOT NULL,
    selector TEXT NOT NULL,
    reason TEXT NOT NULL,
    link TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    created_by TEXT NOT NULL,
    lifted_at BIGINT,
    lifted_by TEXT
);

-- A release that is being taken back. rollouts holds their ids, separated by commas.
CREATE TABLE incident (
    id TEXT NOT NULL PRIMARY KEY,
    product TEXT NOT NULL REFERENCES product (name),
    version TEXT NOT NULL,
    selector TEXT NOT NULL,
    rollouts TEXT NOT NULL,
    reason TEXT NOT NULL,
    opened_at BIGINT NOT NULL,
    opened_by TEXT NOT NULL,
    closed_at BIGINT
);
CREATE INDEX incident_by_time ON incident (opened_at, id);

-- A widening that was asked for, and what was said to it.
CREATE TABLE change (
    id TEXT NOT NULL PRIMARY KEY,
    rollout_id TEXT NOT NULL REFERENCES rollout (id),
    kind TEXT NOT NULL,
    body TEXT NOT NULL,
    plan_sha256 TEXT NOT NULL,
    asked_by TEXT NOT NULL,
    asked_at BIGINT NOT NULL,
    state TEXT NOT NULL
);
CREATE INDEX change_by_rollout ON change (rollout_id, asked_at);
CREATE TABLE approval (
    change_id TEXT NOT NULL REFERENCES change (id),
    plan_sha256 TEXT NOT NULL,
    given_by TEXT NOT NULL,
    given_at BIGINT NOT NULL,
    PRIMARY KEY (change_id, plan_sha256, given_by)
);
