-- Times are BIGINT microseconds since 1970 UTC, JSON is TEXT, ids are UUIDv7: one text for both databases.

CREATE TABLE threads (
    id UUID NOT NULL PRIMARY KEY,
    owner TEXT NOT NULL,
    -- the client's own name for it
    external_id TEXT NOT NULL,
    -- false for the threads that the engine makes for itself: of child runs and transcriptions
    listed BOOLEAN NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    UNIQUE (owner, external_id)
);
CREATE INDEX threads_latest ON threads (owner, updated_at) WHERE listed;

-- The narrow, hot row of a thread: who may run, and the next numbers of its events, messages and runs.
CREATE TABLE thread_heads (
    thread_id UUID NOT NULL PRIMARY KEY REFERENCES threads (id) ON DELETE CASCADE,
    last_seq BIGINT NOT NULL,
    first_seq BIGINT NOT NULL,
    last_message_seq BIGINT NOT NULL,
    last_order BIGINT NOT NULL,
    head_run_id UUID
);

CREATE TABLE runs (
    id UUID NOT NULL PRIMARY KEY,
    owner TEXT NOT NULL,
    thread_id UUID NOT NULL REFERENCES threads (id) ON DELETE CASCADE,
    -- the client's own name for it
    external_id TEXT NOT NULL,
    kind TEXT NOT NULL,
    lane TEXT NOT NULL,
    state TEXT NOT NULL,
    -- may be claimed: queued, due, and the head of its thread
    ready BOOLEAN NOT NULL,
    -- its place in its thread; NULL until a delayed run is due
    thread_order BIGINT,
    priority BIGINT NOT NULL,
    dispatch_score BIGINT NOT NULL,
    -- when a delayed or backing-off run becomes ready; NULL for all others
    due_at BIGINT,
    hinted_at BIGINT NOT NULL,
    fence BIGINT NOT NULL,
    attempt BIGINT NOT NULL,
    crashes BIGINT NOT NULL,
    wake_seq BIGINT NOT NULL,
    wake_at BIGINT,
    waiting_for TEXT,
    lease_owner UUID,
    queue_deadline BIGINT,
    -- while running: when its time is up; else NULL, and run_left is what remains of it
    run_deadline BIGINT,
    run_left BIGINT NOT NULL,
    policy TEXT NOT NULL,
    parent_run_id UUID,
    root_run_id UUID,
    retry_of UUID,
    agent_id TEXT,
    model TEXT,
    input TEXT NOT NULL,
    input_hash TEXT NOT NULL,
    result TEXT,
    error TEXT,
    usage TEXT,
    trace TEXT,
    created_at BIGINT NOT NULL,
    started_at BIGINT,
    finished_at BIGINT,
    UNIQUE (owner, external_id)
);
CREATE INDEX runs_ready ON runs (lane, dispatch_score) WHERE state = 'queued' AND ready;
CREATE INDEX runs_queued ON runs (lane) WHERE state = 'queued';
CREATE INDEX runs_due ON runs (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX runs_wake ON runs (wake_at) WHERE wake_at IS NOT NULL;
CREATE INDEX runs_thread ON runs (thread_id, thread_order) WHERE state IN ('queued', 'running', 'waiting');
CREATE INDEX runs_lease ON runs (lease_owner) WHERE lease_owner IS NOT NULL;
CREATE INDEX runs_queue_deadline ON runs (queue_deadline) WHERE state = 'queued' AND queue_deadline IS NOT NULL;
CREATE INDEX runs_run_deadline ON runs (run_deadline) WHERE run_deadline IS NOT NULL;
CREATE INDEX runs_parent ON runs (parent_run_id) WHERE parent_run_id IS NOT NULL AND state IN ('queued', 'running', 'waiting');
CREATE INDEX runs_owner ON runs (owner, id);
CREATE INDEX runs_ended ON runs (finished_at) WHERE finished_at IS NOT NULL;

CREATE TABLE idempotency_keys (
    owner TEXT NOT NULL,
    key TEXT NOT NULL,
    body_hash TEXT NOT NULL,
    run_id UUID NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (owner, key)
);
CREATE INDEX idempotency_keys_age ON idempotency_keys (created_at);
CREATE INDEX idempotency_keys_run ON idempotency_keys (run_id);

-- The journal: a step is `started` before its effect and `finished` before its result is used.
CREATE TABLE run_steps (
    run_id UUID NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    key TEXT NOT NULL,
    ordinal BIGINT NOT NULL,
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    status TEXT NOT NULL,
    fence BIGINT NOT NULL,
    intent TEXT NOT NULL,
    result TEXT,
    started_at BIGINT NOT NULL,
    finished_at BIGINT,
    PRIMARY KEY (run_id, key)
);

CREATE TABLE run_events (
    thread_id UUID NOT NULL REFERENCES threads (id) ON DELETE CASCADE,
    seq BIGINT NOT NULL,
    run_id UUID NOT NULL,
    fence BIGINT NOT NULL,
    kind TEXT NOT NULL,
    data TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (thread_id, seq)
);
CREATE INDEX run_events_run ON run_events (run_id, seq);
CREATE INDEX run_events_age ON run_events (created_at);

CREATE TABLE messages (
    thread_id UUID NOT NULL REFERENCES threads (id) ON DELETE CASCADE,
    seq BIGINT NOT NULL,
    -- the client's, or ours for what an agent said; once in a thread
    id TEXT NOT NULL,
    run_id UUID NOT NULL,
    role TEXT NOT NULL,
    body TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (thread_id, seq),
    UNIQUE (thread_id, id)
);
CREATE INDEX messages_day ON messages (thread_id, created_at);
CREATE INDEX messages_run ON messages (run_id);

-- One row a worker process: runs name it as their lease_owner.
CREATE TABLE worker_sessions (
    id UUID NOT NULL PRIMARY KEY,
    name TEXT NOT NULL,
    started_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL
);

-- What one run has to tell another: written in the sender's transaction, applied in one of its own.
CREATE TABLE outbox (
    id UUID NOT NULL PRIMARY KEY,
    run_id UUID NOT NULL,
    kind TEXT NOT NULL,
    reason TEXT NOT NULL,
    created_at BIGINT NOT NULL
);
