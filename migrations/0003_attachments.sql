CREATE TABLE attachments (
    id UUID NOT NULL PRIMARY KEY,
    owner TEXT NOT NULL,
    thread_id UUID NOT NULL REFERENCES threads (id) ON DELETE CASCADE,
    bucket TEXT NOT NULL,
    path TEXT NOT NULL,
    name TEXT NOT NULL,
    mime_type TEXT NOT NULL,
    size BIGINT NOT NULL,
    sha256 TEXT NOT NULL,
    -- pending: the row is there, the object may not be; stored; gone: the object is to be deleted
    state TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    UNIQUE (bucket, path)
);
CREATE INDEX attachments_owner ON attachments (owner, id);
CREATE INDEX attachments_unsettled ON attachments (state, created_at) WHERE state <> 'stored';
