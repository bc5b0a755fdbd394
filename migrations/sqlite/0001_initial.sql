-- Times are microseconds since 1970-01-01 UTC. Booleans are 0 or 1.
-- The two dialects differ in BYTEA/BLOB alone; a test compares the files.

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
    created_at BIGINT NOT NULL
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
    PRIMARY KEY (to_sha256, from_sha256, encoding)
);

-- Signed files, every version, byte for byte.
CREATE TABLE metadata (
    role TEXT NOT NULL,
    version BIGINT NOT NULL,
    sha256 TEXT NOT NULL,
    body BLOB NOT NULL,
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
    flushed_at BIGINT NOT NULL
);
CREATE INDEX device_by_region ON device (product, region, ring);
CREATE INDEX device_by_flush ON device (flushed_at);

CREATE TABLE rollout (
    id TEXT NOT NULL PRIMARY KEY,
    product TEXT NOT NULL,
    version TEXT NOT NULL,
    state TEXT NOT NULL,
    reason TEXT NOT NULL,
    generation BIGINT NOT NULL,
    revision BIGINT NOT NULL,
    salt BIGINT NOT NULL,
    max_failure_bp BIGINT NOT NULL,
    min_failures BIGINT NOT NULL,
    min_success_bp BIGINT NOT NULL,
    soak_s BIGINT NOT NULL,
    on_breach TEXT NOT NULL,
    pace_start BIGINT NOT NULL,
    window_s BIGINT NOT NULL,
    max_attempts BIGINT NOT NULL,
    timeout_s BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    created_by TEXT NOT NULL,
    started_at BIGINT,
    halted_at BIGINT,
    ended_at BIGINT,
    FOREIGN KEY (product, version) REFERENCES release (product, version)
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
    UNIQUE (rollout_id, device_id)
);
-- A device is in one deployment at a time.
CREATE UNIQUE INDEX deployment_active ON deployment (device_id) WHERE active = 1;
CREATE INDEX deployment_by_state ON deployment (rollout_id, state);
CREATE INDEX deployment_by_time ON deployment (rollout_id, updated_at, id);

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
    kind TEXT NOT NULL,
    origin TEXT NOT NULL,
    actor TEXT NOT NULL,
    product TEXT,
    rollout_id TEXT,
    device_id TEXT,
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
