//! The SQL and the table of the protocol: every registered statement that writes runs is tried from every form that a run's row can have.
//! What it makes of the row is in the table, and all that is in the table is made by one. The model is compared with the same table.
use std::collections::HashSet;

use runmill_shared::{
    domain::{
        Lane,
        event::NewEvent,
        run::{RetryPolicy, RunError, Waiting, Watcher},
    },
    store::{
        db::Db,
        runs::{Fenced, at_once, batch, moves, sweep},
        statements,
    },
};
use runmill_testkit::protocol::{Change, Counts, Form, Row as TableRow, forms, table};

use super::*;

const LATER: Timestamp = Timestamp(START.0 + 1);
const MANY: i64 = 100_000;

/// The statements that write rows of runs, found by their text: one that is new is driven, or the test fails.
fn writers() -> Vec<Sql> {
    let writes =
        |sql: &Sql| ["UPDATE runs SET", "INTO runs ", "DELETE FROM runs "].iter().any(|write| sql.postgres.contains(write));
    statements().into_iter().filter(writes).collect()
}

fn is_insert(sql: &Sql) -> bool {
    [moves::INSERT, at_once::ACCEPT, batch::ACCEPT].contains(sql)
}

async fn row(db: &Db, id: Uuid) -> Option<TableRow> {
    let text = "SELECT state, ready, lease_owner, paused, waiting_for, fence, wake_seq, attempt, crashes FROM runs WHERE id = $1";
    let row = query(Sql::both(text)).bind(id).optional(db).await.unwrap()?;
    let state = RunState::parse(&row.get::<String>("state").unwrap()).unwrap();
    let count = |name: &str| row.get::<i64>(name).unwrap();
    let waits_for = row.opt_json::<Waiting>("waiting_for").unwrap();
    Some(TableRow {
        form: Form {
            state,
            ready: row.get("ready").unwrap(),
            owned: row.get::<Option<Uuid>>("lease_owner").unwrap().is_some(),
            paused: row.get("paused").unwrap(),
            held: state == RunState::Waiting && matches!(waits_for, Some(Waiting::Paused { .. })),
        },
        counts: Counts {
            fence: count("fence"),
            wake_seq: count("wake_seq"),
            attempt: count("attempt"),
            crashes: count("crashes"),
        },
    })
}

/// A run whose row has this form, as if everything that a sweep looks for had come due; and what its last execution would show.
async fn in_form(w: &World, form: Form, name: &str) -> (Claimed, Uuid) {
    let run = w.started(name, name).await;
    let session = w.session().await;
    let waits = if form.held { r#"{"reason":"paused","until":null}"# } else { r#"{"reason":"children","runs":[],"until":null}"# };
    let (is_waiting, is_ended) = (form.state == RunState::Waiting, form.state.is_ended());
    let when = |condition: bool| condition.then_some(START);
    let mut tx = w.tx().await;
    query(Sql::both(
        "UPDATE runs SET state = $2, ready = $3, lease_owner = $4, paused = $5, waiting_for = $6, run_deadline = $7, due_at = $8,
             wake_at = $9, finished_at = $10, hinted_at = 0 WHERE id = $1",
    ))
    .bind(run.id)
    .bind(form.state.as_str())
    .bind(form.ready)
    .bind(form.owned.then_some(session))
    .bind(form.paused)
    .bind(is_waiting.then(|| waits.to_owned()))
    .bind(when(form.owned))
    .bind(when(form.state == RunState::Queued && !form.ready))
    .bind(when(is_waiting))
    .bind(when(is_ended))
    .execute(&mut tx)
    .await
    .unwrap();
    tx.commit().await.unwrap();
    (run, session)
}

/// One use of a statement for each way in which it is used.
fn ways(sql: Sql) -> usize {
    match sql {
        // Succeeded and failed; failed and cancelled.
        moves::END | moves::END_FROM_OUTSIDE => 2,
        // For something else, and as held.
        moves::PARK => 2,
        _ => 1,
    }
}

async fn drive(w: &World, sql: Sql, way: usize, run: &Claimed, session: Uuid) {
    let (db, error) = (&w.app.db, RunError::new("X", "x", false));
    let end = |state| End { state, result: None, error: None, usage: None };
    let mut tx = match sql {
        moves::CLAIM => {
            let claim = Claim { run: run.id, session: w.session().await };
            return drop(moves::claim(db, &[claim], START).await.unwrap());
        }
        moves::RELEASE => return assert!(moves::release(db, run.id, run.fence, START).await.is_ok()),
        sweep::LOST_HINTS => return drop(sweep::lost_hints(db, Lane::Runs, i64::MAX, START, LATER, MANY).await.unwrap()),
        sweep::BACKED_OFF => return drop(sweep::backed_off(db, START, MANY).await.unwrap()),
        sweep::TIMERS => return drop(sweep::timers(db, START, MANY).await.unwrap()),
        sweep::ORPHANED => return drop(sweep::orphaned(db, session, START, MANY).await.unwrap()),
        sweep::FORGET_RUNS => return assert!(sweep::forget_runs(db, LATER, MANY).await.is_ok()),
        _ => w.tx().await,
    };
    match sql {
        moves::END => {
            let state = [RunState::Succeeded, RunState::Failed][way];
            let held = Fenced { id: run.id, fence: run.fence };
            moves::end(&mut tx, &[(held, &end(state))], START).await.unwrap();
        }
        moves::END_FROM_OUTSIDE => {
            let state = [RunState::Failed, RunState::Cancelled][way];
            moves::end_from_outside(&mut tx, run.id, &end(state), START).await.unwrap();
        }
        moves::PARK => {
            let children = Waiting::Children { runs: vec![], until: None };
            let waiting = [children, Waiting::Paused { until: None }].into_iter().nth(way).unwrap();
            moves::park(&mut tx, run, run.wake_seq, &waiting, START).await.unwrap();
        }
        moves::WAKE => drop(moves::wake(&mut tx, run.id, START).await.unwrap()),
        moves::PAUSE => drop(moves::pause(&mut tx, run.id).await.unwrap()),
        moves::RESUME => drop(moves::resume(&mut tx, run.id, MINUTE, START).await.unwrap()),
        moves::BACK_OFF => assert!(moves::back_off(&mut tx, run, LATER, &error, START).await.is_ok()),
        moves::MAKE_READY => drop(moves::make_ready(&mut tx, &[run.id], START).await.unwrap()),
        moves::JOIN_ORDER => assert!(moves::join_order(&mut tx, run.id, 1).await.is_ok()),
        other => panic!("it writes runs, and nobody tries it: {other:?}"),
    }
    tx.commit().await.unwrap();
}

/// What accepting makes, in all its ways: at the head of a thread, behind another, later, many at once.
async fn accepted(w: &World) -> HashSet<Change> {
    let mut ids = vec![w.accept("accepted", "first").await.id, w.accept("accepted", "second").await.id];
    for (name, run_at) in [("keyed", None), ("later", Some(START.after(MINUTE)))] {
        let keyed = Work { run_at, idempotency_key: Some(name.to_owned()), ..work(name, name) };
        ids.push(accept(&w.app, &owner(), &keyed).await.unwrap().id);
    }
    let queued = NewEvent::queued();
    let alone = batch::Alone {
        id: new_id(),
        thread_id: new_id(),
        owner: owner().as_str().to_owned(),
        name: "alone".into(),
        kind: RunKind::Agent.as_str(),
        lane: Lane::Runs.as_str(),
        agent_id: None,
        input: "{}".into(),
        message_id: "m-alone".into(),
        message: json!(MessageBody::text("hello")).to_string(),
    };
    let terms = batch::Terms {
        queue_deadline: LATER,
        run_left: 1,
        policy: &RetryPolicy::of(&w.app.config.runs),
        watcher: Watcher::Schedule,
        event: (queued.kind, queued.data.to_string()),
    };
    let mut tx = w.tx().await;
    ids.extend(batch::accept(&mut tx, &[alone], terms, START).await.unwrap());
    tx.commit().await.unwrap();
    assert_eq!(ids.len(), 5);
    let mut made = HashSet::new();
    for id in ids {
        made.extend(Change::between(None, row(&w.app.db, id).await.unwrap()));
    }
    made
}

#[tokio::test]
async fn the_sql_makes_the_moves_of_the_protocol_and_no_others() {
    for w in worlds().await {
        let mut made = accepted(&w).await;
        for (n, sql) in writers().into_iter().enumerate().filter(|(_, sql)| !is_insert(sql)) {
            for (m, form) in forms().into_iter().enumerate() {
                for way in 0..ways(sql) {
                    let (run, session) = in_form(&w, form, &format!("{n}-{m}-{way}")).await;
                    let before = row(&w.app.db, run.id).await.unwrap();
                    assert_eq!(before.form, form);
                    drive(&w, sql, way, &run, session).await;
                    match row(&w.app.db, run.id).await {
                        Some(after) => made.extend(Change::between(Some(before), after)),
                        None => assert!(form.state.is_ended(), "{}: {form:?} was deleted by {sql:?}", w.name),
                    }
                }
            }
        }
        let strange: Vec<_> = made.difference(table()).collect();
        assert!(strange.is_empty(), "{}: the SQL does what the protocol does not have: {strange:#?}", w.name);
        let missing: Vec<_> = table().difference(&made).collect();
        assert!(missing.is_empty(), "{}: no statement does what the protocol has: {missing:#?}", w.name);
    }
}
