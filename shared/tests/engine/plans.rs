//! The statements that run all the time read an index that holds little more than what they look for.
use runmill_shared::store::{
    agents,
    db::{Tx, Value},
    events, executions, messages, outbox,
    runs::{moves, sweep},
    schedules, sessions, steps, threads,
};

use super::*;

struct Plan {
    name: &'static str,
    statement: Sql,
    values: Vec<Value>,
    /// Indexes that the plan must read.
    sqlite: &'static [&'static str],
    postgres: &'static [&'static str],
}

/// A thread's own messages, and one look at whether it has ancestors.
const LINEAGE: (&[&str], &[&str]) = (&["sqlite_autoindex_thread_ancestors_1"], &["thread_ancestors_pkey"]);

fn hot() -> Vec<Plan> {
    let (id, lane, n) = (Value::from(new_id()), Value::from("runs"), Value::from(START));
    let (local, few) = (Value::from("local"), Value::from(20_i64));
    let (any, any_id, any_n) = (Value::from(None::<String>), Value::from(None::<Uuid>), Value::from(None::<i64>));
    let (no, ids) = (Value::from(false), Value::from(format!("[\"{}\"]", new_id().simple())));
    let list = Value::from(json!([{ "id": new_id().simple().to_string() }]).to_string());
    let plan = |name, statement, values: &[&Value], sqlite, postgres| Plan {
        name,
        statement,
        values: values.iter().map(|v| (*v).clone()).collect(),
        sqlite,
        postgres,
    };
    vec![
        plan("claim", moves::CLAIM, &[&list, &n], &["sqlite_autoindex_runs_1"], &["runs_pkey"]),
        plan("hold many", moves::HOLD_MANY, &[&list], &["sqlite_autoindex_runs_1"], &["runs_pkey"]),
        plan("end", moves::END, &[&list, &n], &["sqlite_autoindex_runs_1"], &["runs_pkey"]),
        plan("finish", steps::FINISH, &[&list, &n], &["sqlite_autoindex_run_steps_1"], &["run_steps_pkey"]),
        plan("hold", moves::HOLD, &[&id, &n], &["sqlite_autoindex_runs_1"], &["runs_pkey"]),
        plan("wake", moves::WAKE, &[&id, &n], &["sqlite_autoindex_runs_1"], &["runs_pkey"]),
        plan("release", moves::RELEASE, &[&id, &n, &n], &["sqlite_autoindex_runs_1"], &["runs_pkey"]),
        plan("make ready", moves::MAKE_READY, &[&ids, &n], &["sqlite_autoindex_runs_1"], &["runs_pkey"]),
        plan("lost hints", sweep::LOST_HINTS, &[&lane, &n, &n, &n, &n], &["runs_ready"], &["runs_ready"]),
        plan("ready", sweep::READY, &[&lane, &n], &["runs_ready"], &["runs_ready"]),
        plan("backed off", sweep::BACKED_OFF, &[&n, &n], &["runs_due"], &["runs_due"]),
        plan("delayed", sweep::DELAYED, &[&n, &n], &["runs_due"], &["runs_due"]),
        plan("timers", sweep::TIMERS, &[&n, &n], &["runs_wake"], &["runs_wake"]),
        plan("orphaned", sweep::ORPHANED, &[&id, &n, &n], &["runs_lease"], &["runs_lease"]),
        plan("still mine", sweep::STILL_MINE, &[&id], &["runs_lease"], &["runs_lease"]),
        plan("queued too long", sweep::QUEUED_TOO_LONG, &[&n, &n], &["runs_queue_deadline"], &["runs_queue_deadline"]),
        plan("run too long", sweep::RUN_TOO_LONG, &[&n, &n], &["runs_run_deadline"], &["runs_run_deadline"]),
        plan("strays", sweep::STRAYS, &[&n], &["runs_parent"], &["runs_parent"]),
        plan("depth", sweep::DEPTH, &[&lane, &n], &["runs_queued"], &["runs_queued"]),
        plan("oldest", sweep::OLDEST, &[&lane], &["runs_ready"], &["runs_ready"]),
        plan("forget runs", sweep::FORGET_RUNS, &[&n, &n], &["runs_ended"], &["runs_ended"]),
        plan("hand on", threads::HAND_ON, &[&list], &["runs_thread"], &["runs_thread"]),
        plan("children", outbox::CHILDREN, &[&ids], &["runs_parent"], &["runs_parent"]),
        plan("dead owners", sessions::DEAD_OWNERS, &[&n, &id], &["runs_lease"], &["runs_lease"]),
        plan("close", sessions::CLOSE, &[&n, &id], &["runs_lease"], &["runs_lease"]),
        plan("page", events::PAGE, &[&id, &n, &n], &["sqlite_autoindex_run_events_1"], &["run_events_pkey"]),
        plan("extent", events::EXTENT, &[&id], &["runs_thread"], &["runs_thread"]),
        plan(
            "first of active",
            events::FIRST_OF_ACTIVE,
            &[&id],
            &["runs_thread", "run_events_run"],
            &["runs_thread", "run_events_run"],
        ),
        plan("newest message", messages::NEWEST, &[&id, &n], LINEAGE.0, LINEAGE.1),
        plan("context", messages::CONTEXT, &[&id, &id], LINEAGE.0, LINEAGE.1),
        plan("history", messages::BETWEEN, &[&id, &n, &n], LINEAGE.0, LINEAGE.1),
        plan("busy agent", agents::BUSY, &[&lane], &["runs_thread"], &["runs_thread"]),
        plan(
            "executions",
            executions::LIST,
            &[&local, &any, &any, &any, &any_id, &any_n, &any_n, &any_id, &few, &few],
            &["runs_owner"],
            &["runs_owner"],
        ),
        plan(
            "executions of a goal",
            executions::LIST_OF_GOAL,
            &[&local, &any, &any, &any, &any_id, &any_n, &any_n, &id, &any_id, &few, &few],
            &["runs_of_goals"],
            &["runs_of_goals"],
        ),
        plan("aged", events::AGED, &[&n, &n], &["run_events_age"], &["run_events_age"]),
        plan("is due", schedules::IS_DUE, &[&n], &["schedules_due"], &["schedules_due"]),
        plan("due", schedules::DUE, &[&n, &no, &n], &["schedules_due"], &["schedules_due"]),
        plan("open fires", schedules::OPEN, &[&ids], &["schedule_fires_open"], &["schedule_fires_open"]),
        plan("next buffered", schedules::NEXT_BUFFERED, &[&id], &["schedule_fires_open"], &["schedule_fires_open"]),
        plan("last runs", schedules::LAST_RUNS, &[&ids], &["schedule_fires_latest"], &["schedule_fires_latest"]),
        plan("of a run", schedules::HOLD_OF_RUN, &[&id], &["schedule_fires_run"], &["schedule_fires_run"]),
        plan("end of a fire", schedules::END_FIRE, &[&id, &lane], &["schedule_fires_run"], &["schedule_fires_run"]),
        plan("forget fires", schedules::FORGET, &[&n, &n], &["schedule_fires_age"], &["schedule_fires_age"]),
    ]
}

struct Line(String);

impl FromRow for Line {
    fn from_row(row: &Row) -> runmill_shared::Result<Self> {
        row.get("detail").or_else(|_| row.get("QUERY PLAN")).map(Self)
    }
}

async fn explain(tx: &mut Tx, plan: &Plan) -> Vec<String> {
    let (postgres, sqlite) =
        (format!("EXPLAIN {}", plan.statement.postgres), format!("EXPLAIN QUERY PLAN {}", plan.statement.sqlite));
    let statement = Sql::each(Box::leak(postgres.into_boxed_str()), Box::leak(sqlite.into_boxed_str()));
    let asked = plan.values.iter().fold(query(statement), |q, value| q.bind(value.clone()));
    asked.all::<Line>(tx).await.unwrap_or_else(|e| panic!("{}: {e}", plan.name)).into_iter().map(|l| l.0).collect()
}

/// Rows enough for a planner to see what a scan would cost, in every state.
async fn fill(w: &World) {
    let id = if w.app.db.is_postgres() { "gen_random_uuid()" } else { "randomblob(16)" };
    let numbers = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 4000)";
    w.accept("t", "a").await;
    let thread = "(SELECT id FROM threads WHERE external_id = 't')";
    w.execute(&format!(
        "INSERT INTO runs (id, owner, thread_id, external_id, kind, lane, state, ready, thread_order, priority, dispatch_score, due_at,
             hinted_at, fence, attempt, crashes, wake_seq, wake_at, lease_owner, queue_deadline, run_deadline, run_left, policy,
             parent_run_id, input, input_hash, created_at, finished_at)
         {numbers} SELECT {id}, CASE WHEN i % 20 = 3 THEN 'local' ELSE 'owner ' || i % 20 END, {thread}, 'r' || i, 'agent', 'runs',
             CASE i % 40 WHEN 0 THEN 'queued' WHEN 1 THEN 'running' WHEN 2 THEN 'waiting' ELSE 'succeeded' END, i % 80 = 0, i, 0, i,
             CASE WHEN i % 400 = 0 THEN i END, 0, 0, 0, 0, 0, CASE WHEN i % 40 = 2 THEN i END, CASE WHEN i % 40 = 1 THEN {id} END,
             CASE WHEN i % 40 = 0 THEN i END, CASE WHEN i % 40 = 1 THEN i END, 0, '{{}}', CASE WHEN i % 100 = 1 THEN {id} END, '', '', i,
             CASE WHEN i % 40 > 2 THEN i END FROM n"
    ))
    .await;
    w.execute(&format!(
        "INSERT INTO run_events (thread_id, seq, run_id, fence, kind, data, created_at)
         {numbers} SELECT {thread}, i + 1, {id}, 0, 'text.delta', '', i FROM n"
    ))
    .await;
    w.execute(&format!(
        "INSERT INTO threads (id, owner, external_id, listed, created_at, updated_at)
         {numbers} SELECT {id}, 'local', 't' || i, TRUE, i, i FROM n"
    ))
    .await;
    let message = "id, 1, 'm', id, 'user', '{}', created_at";
    w.execute(&format!("INSERT INTO messages (thread_id, seq, id, run_id, role, body, created_at) SELECT {message} FROM threads WHERE external_id <> 't'")).await;
    w.execute(&format!(
        "INSERT INTO thread_ancestors (thread_id, ancestor_id, depth, upto_order, upto_seq)
         SELECT id, {thread}, 0, 0, 1 FROM threads WHERE created_at % 2 = 0"
    ))
    .await;
    w.execute(&format!(
        "INSERT INTO schedules (id, owner, name, target_kind, target_id, spec, enabled, failures, fired_until, next_at, version, created_at,
             updated_at)
         {numbers} SELECT {id}, 'local', 'n', 'agent', 'demo', '{{}}', i % 10 = 0, 0, 0, i, 1, i, i FROM n WHERE i <= 500"
    ))
    .await;
    w.execute(&format!(
        "INSERT INTO schedule_fires (schedule_id, scheduled_for, status, by_hand, run_id, fired_at)
         SELECT s.id, n.i, CASE WHEN n.i = 20 THEN 'started' ELSE 'succeeded' END, FALSE, CASE WHEN n.i % 2 = 0 THEN {id} END, n.i
         FROM schedules s, ({numbers} SELECT i FROM n WHERE i <= 20) AS n"
    ))
    .await;
    w.execute("ANALYZE").await;
}

#[tokio::test]
async fn hot_statements_use_their_indexes() {
    for w in worlds().await {
        for filled in [false, true] {
            if filled {
                fill(&w).await;
            } else if w.app.db.is_postgres() {
                continue; // An empty table is scanned, and rightly.
            }
            let mut tx = w.tx().await;
            if w.app.db.is_postgres() {
                query(sql("SET LOCAL enable_seqscan = off".into())).execute(&mut tx).await.unwrap();
            }
            let mut wrong = Vec::new();
            for plan in hot() {
                let lines = explain(&mut tx, &plan).await;
                let expected = if w.app.db.is_postgres() { plan.postgres } else { plan.sqlite };
                let is_used = expected.iter().all(|index| lines.iter().any(|l| l.contains(index)));
                if !is_used || lines.iter().any(|l| is_scan(l)) {
                    wrong.push((plan.name, expected, lines));
                }
            }
            assert!(wrong.is_empty(), "{}: {wrong:#?}", w.name);
        }
    }
}

/// Whether a line reads a whole table of runs, events or messages, where no index limits it to what it looks for.
fn is_scan(line: &str) -> bool {
    // `e` is also what AGED calls the rows that it has found.
    let sqlite = ["SCAN runs", "SCAN r", "SCAN c", "SCAN run_events", "SCAN messages", "SCAN m", "SCAN a"];
    let whole = sqlite.contains(&line)
        || ["run", "messages", "thread_ancestors"].iter().any(|table| line.contains(&format!("Seq Scan on {table}")));
    whole && !line.contains("USING")
}
