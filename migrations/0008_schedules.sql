CREATE TABLE schedules (
    id UUID NOT NULL PRIMARY KEY,
    owner TEXT NOT NULL,
    name TEXT NOT NULL,
    -- agent, workflow or goal, and which
    target_kind TEXT NOT NULL,
    target_id TEXT NOT NULL,
    -- JSON: domain::schedule::Spec: cron, time zone, input, start, end, jitter, overlap, catch-up, max_failures
    spec TEXT NOT NULL,
    enabled BOOLEAN NOT NULL,
    -- why it does not fire, when it paused itself
    paused_reason TEXT,
    -- failures in a row
    failures BIGINT NOT NULL,
    -- all instants up to this one have been dealt with
    fired_until BIGINT NOT NULL,
    -- the next instant, jitter added: follows from spec and fired_until, and is here to be found by; NULL: never
    next_at BIGINT,
    version BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);
CREATE INDEX schedules_owner ON schedules (owner, id);
CREATE INDEX schedules_due ON schedules (next_at) WHERE enabled AND next_at IS NOT NULL;

-- One fire is one run, whoever makes it fire: the identity is the key.
CREATE TABLE schedule_fires (
    schedule_id UUID NOT NULL REFERENCES schedules (id) ON DELETE CASCADE,
    -- the instant that the pattern names, in µs; of a fire by hand the time it was asked for
    scheduled_for BIGINT NOT NULL,
    -- started, buffered, succeeded, failed, cancelled, skipped or missed
    status TEXT NOT NULL,
    by_hand BOOLEAN NOT NULL,
    run_id UUID,
    -- why there is no run; of `missed`: how many instants it stands for
    detail TEXT,
    fired_at BIGINT NOT NULL,
    PRIMARY KEY (schedule_id, scheduled_for)
);
CREATE INDEX schedule_fires_run ON schedule_fires (run_id) WHERE run_id IS NOT NULL;
CREATE INDEX schedule_fires_latest ON schedule_fires (schedule_id, scheduled_for) WHERE run_id IS NOT NULL;
CREATE INDEX schedule_fires_open ON schedule_fires (schedule_id, scheduled_for) WHERE status IN ('started', 'buffered');
CREATE INDEX schedule_fires_age ON schedule_fires (fired_at);
