-- The schema, one text for both engines: {bytes} is BLOB on SQLite and BYTEA on PostgreSQL.
-- Times are microseconds since 1970-01-01 UTC. Booleans are 0 or 1.

-- Numbers that must rise without gaps and in commit order; a row lock serialises their users.
CREATE TABLE counter (
    name TEXT NOT NULL PRIMARY KEY,
    value BIGINT NOT NULL
);
INSERT INTO counter (name, value) VALUES ('event', 0), ('trust', 0);

-- Secrets that all replicas share: the key of session tickets, the online signing keys.
CREATE TABLE secret (
    name TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL,
    created_at BIGINT NOT NULL
);

CREATE TABLE operator_token (
    id TEXT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL,
    role TEXT NOT NULL,
    secret_sha256 TEXT NOT NULL UNIQUE,
    created_at BIGINT NOT NULL,
    expires_at BIGINT,
    revoked BIGINT NOT NULL DEFAULT 0
);

CREATE TABLE product (
    name TEXT NOT NULL PRIMARY KEY,
    created_at BIGINT NOT NULL,
    settings TEXT NOT NULL DEFAULT '{}'
);

CREATE TABLE release (
    product TEXT NOT NULL REFERENCES product (name),
    version TEXT NOT NULL,
    stage TEXT NOT NULL,
    notes TEXT NOT NULL,
    reason TEXT,
    revision BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    created_by TEXT NOT NULL,
    eol_at BIGINT,
    eol_notice TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (product, version)
);

CREATE TABLE artifact (
    product TEXT NOT NULL,
    version TEXT NOT NULL,
    platform TEXT NOT NULL,
    sha256 TEXT NOT NULL,
    length BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (product, version, platform),
    FOREIGN KEY (product, version) REFERENCES release (product, version)
);
CREATE INDEX artifact_by_image ON artifact (sha256);

-- Blobs that were uploaded and verified; the manifest of the raw payload is made on the way.
CREATE TABLE blob (
    sha256 TEXT NOT NULL PRIMARY KEY,
    length BIGINT NOT NULL,
    created_at BIGINT NOT NULL
);

-- One way to transport an image. from_sha256 is '' for full payloads.
CREATE TABLE payload (
    to_sha256 TEXT NOT NULL,
    from_sha256 TEXT NOT NULL,
    encoding TEXT NOT NULL,
    manifest_sha256 TEXT NOT NULL,
    manifest_length BIGINT NOT NULL,
    bytes BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    -- What decoding a payload takes: memory in bytes, and bits that models decode.
    memory BIGINT NOT NULL DEFAULT 0,
    work BIGINT NOT NULL DEFAULT 0,
    PRIMARY KEY (to_sha256, from_sha256, encoding)
);

-- Signed files, every version, byte for byte.
CREATE TABLE metadata (
    role TEXT NOT NULL,
    version BIGINT NOT NULL,
    sha256 TEXT NOT NULL,
    body {bytes} NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (role, version)
);

CREATE TABLE join_token (
    id TEXT NOT NULL PRIMARY KEY,
    secret_sha256 TEXT NOT NULL,
    root_sha256 TEXT NOT NULL,
    product TEXT NOT NULL REFERENCES product (name),
    region TEXT,
    channel TEXT,
    labels TEXT NOT NULL,
    uses_left BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    created_by TEXT NOT NULL
);

CREATE TABLE device (
    id TEXT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL,
    product TEXT NOT NULL REFERENCES product (name),
    platform TEXT NOT NULL,
    region TEXT NOT NULL,
    channel TEXT NOT NULL,
    labels TEXT NOT NULL,
    ring BIGINT NOT NULL,
    public_key TEXT NOT NULL UNIQUE,
    active BIGINT NOT NULL,
    release TEXT,
    image TEXT,
    agent_version TEXT NOT NULL,
    battery_percent BIGINT,
    power TEXT NOT NULL,
    report_seq BIGINT NOT NULL,
    enrolled_at BIGINT NOT NULL,
    last_seen BIGINT NOT NULL,
    flushed_at BIGINT NOT NULL,
    metered BIGINT NOT NULL DEFAULT 0,
    low_since BIGINT,
    unhealthy_at BIGINT,
    -- Why a device is kept from everything but the way back; '' when it is not.
    isolated TEXT NOT NULL DEFAULT '',
    -- The number and the nonce of the newest signed request.
    requests BIGINT NOT NULL DEFAULT 0,
    -- Whether it is to make itself a new key.
    new_key BIGINT NOT NULL DEFAULT 0,
    -- The last signed requests of a device, `number:end of its nonce`, the highest first: what comes late
    -- is told from what comes twice.
    recent_requests TEXT NOT NULL DEFAULT '',
    -- Releases that a person lets the device have again though they failed there, with spaces between.
    lifted TEXT NOT NULL DEFAULT ''
);
CREATE INDEX device_by_region ON device (product, region, ring);
CREATE INDEX device_by_flush ON device (flushed_at);
CREATE INDEX device_by_ring ON device (product, ring);
CREATE INDEX device_by_unhealthy ON device (product, unhealthy_at) WHERE unhealthy_at IS NOT NULL;

CREATE TABLE rollout (
    id TEXT NOT NULL PRIMARY KEY,
    product TEXT NOT NULL,
    release TEXT NOT NULL,
    state TEXT NOT NULL,
    reason TEXT NOT NULL,
    generation BIGINT NOT NULL,
    revision BIGINT NOT NULL,
    salt BIGINT NOT NULL,
    rollback_window_s BIGINT NOT NULL,
    max_attempts BIGINT NOT NULL,
    timeout_s BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    created_by TEXT NOT NULL,
    started_at BIGINT,
    halted_at BIGINT,
    ended_at BIGINT,
    policy TEXT NOT NULL,
    released BIGINT NOT NULL DEFAULT 0,
    extended_s BIGINT NOT NULL DEFAULT 0,
    frozen BIGINT NOT NULL DEFAULT 0,
    starts_at BIGINT,
    -- Failed and silent devices by wave that a person has seen and let pass.
    excused TEXT NOT NULL DEFAULT '{}',
    FOREIGN KEY (product, release) REFERENCES release (product, version)
);
CREATE INDEX rollout_by_time ON rollout (created_at, id);

CREATE TABLE wave (
    rollout_id TEXT NOT NULL REFERENCES rollout (id),
    idx BIGINT NOT NULL,
    name TEXT NOT NULL,
    selector TEXT NOT NULL,
    size TEXT NOT NULL,
    state TEXT NOT NULL,
    frontier BIGINT NOT NULL,
    started_at BIGINT,
    soak_started_at BIGINT,
    ended_at BIGINT,
    quota BIGINT NOT NULL DEFAULT 0,
    PRIMARY KEY (rollout_id, idx)
);

CREATE TABLE deployment (
    id TEXT NOT NULL PRIMARY KEY,
    rollout_id TEXT NOT NULL REFERENCES rollout (id),
    device_id TEXT NOT NULL REFERENCES device (id),
    wave BIGINT NOT NULL,
    state TEXT NOT NULL,
    active BIGINT NOT NULL,
    from_release TEXT,
    leg TEXT NOT NULL,
    reason TEXT,
    detail TEXT NOT NULL,
    attempts BIGINT NOT NULL,
    generation BIGINT NOT NULL,
    bytes_downloaded BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    region TEXT NOT NULL DEFAULT '',
    platform TEXT NOT NULL DEFAULT '',
    model TEXT NOT NULL DEFAULT '',
    took BIGINT NOT NULL DEFAULT 0,
    outcome TEXT NOT NULL DEFAULT '',
    failures TEXT NOT NULL DEFAULT '{}',
    -- The newest report of the device on it, as the device signed it.
    statement TEXT NOT NULL DEFAULT '',
    -- For how long a device stood still because of a deployment, in milliseconds; NULL where nobody knows.
    downtime_ms BIGINT,
    UNIQUE (rollout_id, device_id)
);
-- A device is in one deployment at a time.
CREATE UNIQUE INDEX deployment_active ON deployment (device_id) WHERE active = 1;
CREATE INDEX deployment_by_state ON deployment (rollout_id, state);
CREATE INDEX deployment_by_time ON deployment (rollout_id, updated_at, id);
-- Silence is counted among those that are on their way or in their window.
CREATE INDEX deployment_by_outcome ON deployment (rollout_id, outcome);
-- A device's deployments are read with each of its changes.
CREATE INDEX deployment_by_device ON deployment (device_id);

CREATE TABLE quarantine (
    device_id TEXT NOT NULL REFERENCES device (id),
    version TEXT NOT NULL,
    reason TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (device_id, version)
);

-- What happened, in commit order: the truth that replicas follow and people read.
CREATE TABLE event (
    seq BIGINT NOT NULL PRIMARY KEY,
    at BIGINT NOT NULL,
    origin TEXT NOT NULL,
    topic TEXT NOT NULL,
    kind TEXT NOT NULL,
    version BIGINT NOT NULL,
    actor_kind TEXT NOT NULL,
    actor_id TEXT,
    actor TEXT NOT NULL,
    product TEXT,
    rollout_id TEXT,
    device_id TEXT,
    -- Ids, numbers and closed words as JSON with sorted keys; free text and names apart.
    body TEXT NOT NULL,
    said TEXT NOT NULL,
    text TEXT NOT NULL
);
CREATE INDEX event_by_rollout ON event (rollout_id, seq);
CREATE INDEX event_by_device ON event (device_id, seq);

-- Who leads; taken over when it lapses.
CREATE TABLE lease (
    name TEXT NOT NULL PRIMARY KEY,
    owner TEXT NOT NULL,
    until BIGINT NOT NULL,
    epoch BIGINT NOT NULL
);

CREATE TABLE job (
    id TEXT NOT NULL PRIMARY KEY,
    kind TEXT NOT NULL,
    subject TEXT NOT NULL,
    payload TEXT NOT NULL,
    state TEXT NOT NULL,
    run_at BIGINT NOT NULL,
    lease_until BIGINT NOT NULL,
    owner TEXT NOT NULL,
    attempts BIGINT NOT NULL,
    error TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    UNIQUE (kind, subject)
);
CREATE INDEX job_ready ON job (state, run_at);

-- Answers to creates, so that a repeated request has the same effect as one.
CREATE TABLE idempotency (
    key TEXT NOT NULL PRIMARY KEY,
    request_sha256 TEXT NOT NULL,
    response TEXT NOT NULL,
    created_at BIGINT NOT NULL
);

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
    release TEXT NOT NULL,
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

-- The newest draft of each role; gone when it is complete.
CREATE TABLE metadata_draft (
    role TEXT NOT NULL PRIMARY KEY,
    version BIGINT NOT NULL,
    body {bytes} NOT NULL,
    purpose TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    created_by TEXT NOT NULL
);
