-- Agents that users define. What an agent is and does stands in its versions; this row is how it stands now.
CREATE TABLE agents (
    id UUID NOT NULL PRIMARY KEY,
    owner TEXT NOT NULL,
    name TEXT NOT NULL,
    description TEXT NOT NULL,
    -- draft, published or stopped
    status TEXT NOT NULL,
    version BIGINT NOT NULL,
    is_main BOOLEAN NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);
CREATE INDEX agents_owner ON agents (owner, id);
CREATE UNIQUE INDEX agents_main ON agents (owner) WHERE is_main;
CREATE INDEX agents_published ON agents (id) WHERE status <> 'draft';

CREATE TABLE agent_versions (
    agent_id UUID NOT NULL REFERENCES agents (id) ON DELETE CASCADE,
    version BIGINT NOT NULL,
    -- JSON: domain::agent::Definition
    definition TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (agent_id, version)
);

CREATE TABLE model_configs (
    id UUID NOT NULL PRIMARY KEY,
    owner TEXT NOT NULL,
    name TEXT NOT NULL,
    provider TEXT NOT NULL,
    model_name TEXT NOT NULL,
    base_url TEXT,
    -- sealed; see services/vault.rs
    api_key TEXT,
    -- JSON: temperature, max_tokens, prices
    settings TEXT NOT NULL,
    version BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    UNIQUE (owner, name)
);

-- What tools may use and nobody may read again.
CREATE TABLE secrets (
    id UUID NOT NULL PRIMARY KEY,
    owner TEXT NOT NULL,
    name TEXT NOT NULL,
    sealed TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    UNIQUE (owner, name)
);

CREATE TABLE plugins (
    id UUID NOT NULL PRIMARY KEY,
    owner TEXT NOT NULL,
    name TEXT NOT NULL,
    description TEXT NOT NULL,
    -- JSON: where its tools come from
    source TEXT NOT NULL,
    -- sealed JSON: headers that its server wants
    credentials TEXT,
    -- whether others may install it
    is_public BOOLEAN NOT NULL,
    version BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    UNIQUE (owner, name)
);
CREATE INDEX plugins_public ON plugins (id) WHERE is_public;

CREATE TABLE plugin_installs (
    plugin_id UUID NOT NULL REFERENCES plugins (id) ON DELETE CASCADE,
    owner TEXT NOT NULL,
    enabled BOOLEAN NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (plugin_id, owner)
);
CREATE INDEX plugin_installs_owner ON plugin_installs (owner);

-- Tools that users define, and those that plugins bring.
CREATE TABLE tools (
    id UUID NOT NULL PRIMARY KEY,
    owner TEXT NOT NULL,
    plugin_id UUID REFERENCES plugins (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    description TEXT NOT NULL,
    -- http, code, mcp or openapi
    type TEXT NOT NULL,
    category TEXT NOT NULL,
    -- JSON
    input_schema TEXT NOT NULL,
    output_schema TEXT,
    config TEXT NOT NULL,
    version BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    UNIQUE (owner, name)
);
CREATE INDEX tools_plugin ON tools (plugin_id) WHERE plugin_id IS NOT NULL;

-- A decision that a run waits for. Written in the transaction that journals the wait.
CREATE TABLE approvals (
    id UUID NOT NULL PRIMARY KEY,
    owner TEXT NOT NULL,
    run_id UUID NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    -- tool: a call that has to be approved; question: a person is asked
    kind TEXT NOT NULL,
    -- pending, approved, rejected, expired, or cancelled: its run has ended
    status TEXT NOT NULL,
    reason TEXT NOT NULL,
    -- JSON: what is decided on
    subject TEXT NOT NULL,
    comment TEXT,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    resolved_at BIGINT
);
CREATE INDEX approvals_owner ON approvals (owner, id);
CREATE INDEX approvals_run ON approvals (run_id);

-- What an agent remembers of a user, across threads.
CREATE TABLE memories (
    id UUID NOT NULL PRIMARY KEY,
    owner TEXT NOT NULL,
    text TEXT NOT NULL,
    -- JSON list of words
    topics TEXT NOT NULL,
    -- the run that it was learned in
    run_id UUID,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);
CREATE INDEX memories_owner ON memories (owner, id);

-- What a long thread's older messages come to: those up to and with `upto_seq`.
CREATE TABLE thread_summaries (
    thread_id UUID NOT NULL REFERENCES threads (id) ON DELETE CASCADE,
    upto_seq BIGINT NOT NULL,
    summary TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (thread_id, upto_seq)
);

-- A fork reads its ancestors' messages up to a point; one row for each ancestor, so that reading needs no recursion.
CREATE TABLE thread_ancestors (
    thread_id UUID NOT NULL REFERENCES threads (id) ON DELETE CASCADE,
    ancestor_id UUID NOT NULL REFERENCES threads (id) ON DELETE CASCADE,
    -- 0 is the oldest
    depth BIGINT NOT NULL,
    -- the message of the fork: the place of its run in the ancestor, and its number
    upto_order BIGINT NOT NULL,
    upto_seq BIGINT NOT NULL,
    PRIMARY KEY (thread_id, ancestor_id)
);
CREATE INDEX thread_ancestors_of ON thread_ancestors (ancestor_id);

CREATE TABLE branches (
    id UUID NOT NULL PRIMARY KEY,
    owner TEXT NOT NULL,
    thread_id UUID NOT NULL UNIQUE REFERENCES threads (id) ON DELETE CASCADE,
    parent_thread_id UUID NOT NULL REFERENCES threads (id) ON DELETE CASCADE,
    message_id TEXT NOT NULL,
    name TEXT NOT NULL,
    agent_id TEXT,
    created_at BIGINT NOT NULL
);
CREATE INDEX branches_owner ON branches (owner, id);
CREATE INDEX branches_parent ON branches (parent_thread_id);

CREATE TABLE feedback (
    id UUID NOT NULL PRIMARY KEY,
    owner TEXT NOT NULL,
    run_id UUID NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    agent_id TEXT,
    -- empty: the answer as a whole
    message_id TEXT NOT NULL,
    -- 1 good, -1 bad
    rating BIGINT NOT NULL,
    comment TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    UNIQUE (owner, run_id, message_id)
);
CREATE INDEX feedback_owner ON feedback (owner, id);
