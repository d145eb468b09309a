-- Who has to be told when a run ends (a task, a plan, a schedule, its caller), and whether it is to be held at its next checkpoint.
ALTER TABLE runs ADD COLUMN watcher TEXT;
ALTER TABLE runs ADD COLUMN paused BOOLEAN NOT NULL DEFAULT FALSE;
-- Runs of goals are few among an owner's.
CREATE INDEX runs_of_goals ON runs (owner, id) WHERE kind IN ('goal', 'goal_plan', 'task');

-- What somebody wants to have done. Whoever changes a goal or its tasks holds the head of the goal's thread.
CREATE TABLE goals (
    id UUID NOT NULL PRIMARY KEY,
    owner TEXT NOT NULL,
    -- its log, and where its run is
    thread_id UUID NOT NULL REFERENCES threads (id) ON DELETE CASCADE,
    title TEXT NOT NULL,
    description TEXT NOT NULL,
    -- draft, planning, active, paused, completed, failed or cancelled
    status TEXT NOT NULL,
    -- while it is planned: what it was before
    status_before TEXT,
    agent_id TEXT,
    -- plan_only, approve_each or auto
    autonomy TEXT NOT NULL,
    deadline BIGINT,
    -- JSON: domain::goal::Settings
    settings TEXT NOT NULL,
    -- counts plans
    plan_version BIGINT NOT NULL,
    -- the run that makes the next plan, or made the last
    plan_run_id UUID,
    -- the run that executes it
    run_id UUID,
    -- JSON: why it failed, or why it could not be planned
    error TEXT,
    version BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    started_at BIGINT,
    finished_at BIGINT
);
CREATE INDEX goals_owner ON goals (owner, id);
CREATE INDEX goals_run ON goals (run_id) WHERE run_id IS NOT NULL;

CREATE TABLE tasks (
    id UUID NOT NULL PRIMARY KEY,
    owner TEXT NOT NULL,
    goal_id UUID REFERENCES goals (id) ON DELETE CASCADE,
    parent_id UUID REFERENCES tasks (id) ON DELETE CASCADE,
    -- its name in the plan of its goal
    key TEXT NOT NULL,
    title TEXT NOT NULL,
    description TEXT NOT NULL,
    -- pending, ready, claimed, running, in_review, completed, failed, rejected or cancelled: domain::task has the transitions
    status TEXT NOT NULL,
    -- the higher, the earlier
    priority BIGINT NOT NULL,
    -- its place in the plan
    position BIGINT NOT NULL,
    -- agent or user, and who; NULL: the goal's agent
    assignee_kind TEXT,
    assignee_id TEXT,
    requires_approval BOOLEAN NOT NULL,
    -- JSON
    result TEXT,
    error TEXT,
    -- failures so far
    attempt BIGINT NOT NULL,
    max_attempts BIGINT NOT NULL,
    claimed_by TEXT,
    claim_expires_at BIGINT,
    -- the run that executes it, or did so last
    run_id UUID,
    -- JSON: what its runs have used, all of them
    usage TEXT NOT NULL,
    version BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    started_at BIGINT,
    finished_at BIGINT
);
CREATE INDEX tasks_owner ON tasks (owner, id);
CREATE INDEX tasks_goal ON tasks (goal_id, position) WHERE goal_id IS NOT NULL;
-- A new plan may give the key of a task that an earlier one has removed to another.
CREATE UNIQUE INDEX tasks_key ON tasks (goal_id, key) WHERE goal_id IS NOT NULL AND status <> 'cancelled';
CREATE INDEX tasks_available ON tasks (goal_id, priority) WHERE status = 'ready';
CREATE INDEX tasks_parent ON tasks (parent_id) WHERE parent_id IS NOT NULL;
CREATE INDEX tasks_claims ON tasks (claim_expires_at) WHERE claim_expires_at IS NOT NULL;
CREATE INDEX tasks_run ON tasks (run_id) WHERE run_id IS NOT NULL;

CREATE TABLE task_dependencies (
    task_id UUID NOT NULL REFERENCES tasks (id) ON DELETE CASCADE,
    depends_on UUID NOT NULL REFERENCES tasks (id) ON DELETE CASCADE,
    PRIMARY KEY (task_id, depends_on)
);
CREATE INDEX task_dependencies_of ON task_dependencies (depends_on);
