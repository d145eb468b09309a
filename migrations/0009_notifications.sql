CREATE TABLE notifications (
    id UUID NOT NULL PRIMARY KEY,
    owner TEXT NOT NULL,
    -- domain::notification::Kind
    kind TEXT NOT NULL,
    title TEXT NOT NULL,
    body TEXT NOT NULL,
    -- JSON: {"type", "id"} of what it is about
    subject TEXT NOT NULL,
    -- one thing is told once
    dedupe_key TEXT NOT NULL,
    read_at BIGINT,
    -- false: it has to be sent through the owner's channels still
    sent BOOLEAN NOT NULL,
    created_at BIGINT NOT NULL,
    UNIQUE (owner, dedupe_key)
);
CREATE INDEX notifications_owner ON notifications (owner, id);
CREATE INDEX notifications_unread ON notifications (owner) WHERE read_at IS NULL;
CREATE INDEX notifications_unsent ON notifications (id) WHERE NOT sent;
CREATE INDEX notifications_age ON notifications (created_at);

-- Where else an owner wants to be told.
CREATE TABLE notification_channels (
    id UUID NOT NULL PRIMARY KEY,
    owner TEXT NOT NULL,
    name TEXT NOT NULL,
    -- email or webhook
    kind TEXT NOT NULL,
    -- an address, or a URL
    target TEXT NOT NULL,
    -- sealed: what signs a webhook
    secret TEXT,
    -- JSON list of kinds; NULL: all
    kinds TEXT,
    enabled BOOLEAN NOT NULL,
    version BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    UNIQUE (owner, name)
);

-- When somebody else is told that nobody decides; NULL once they have been, or never.
ALTER TABLE approvals ADD COLUMN escalate_at BIGINT;
ALTER TABLE approvals ADD COLUMN escalated_at BIGINT;
-- who decided: the owner, or an administrator that it was escalated to
ALTER TABLE approvals ADD COLUMN resolved_by TEXT;
CREATE INDEX approvals_escalate ON approvals (escalate_at) WHERE escalate_at IS NOT NULL AND status = 'pending';
CREATE INDEX approvals_escalated ON approvals (id) WHERE escalated_at IS NOT NULL;
CREATE INDEX approvals_expiring ON approvals (expires_at) WHERE status = 'pending';
