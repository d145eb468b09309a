//! The transition table of the domain and the SQL say the same.
use runmill_shared::{
    domain::run::{RunError, Transition, Waiting, next},
    store::runs::{moves, sweep},
};

use super::*;

fn end(state: RunState, error: Option<&RunError>) -> End {
    End { state, result: None, error: error.cloned(), usage: None }
}

/// Tries the move from whatever state the run is in; whether it was made.
async fn attempt(w: &World, run: &Claimed, by: Transition) -> bool {
    let (session, error) = (w.session().await, RunError::new("X", "x", false));
    let mut tx = w.tx().await;
    let made = match by {
        Transition::Claim => {
            drop(tx);
            return moves::claim(&w.app.db, &[Claim { run: run.id, session }], START).await.unwrap().pop().is_some();
        }
        Transition::Release => {
            drop(tx);
            return moves::release(&w.app.db, run.id, run.fence, START).await.unwrap().is_some();
        }
        Transition::Park => moves::park(&mut tx, run, 0, &Waiting::Children { runs: vec![], until: None }, START).await.unwrap(),
        Transition::Pause => moves::pause(&mut tx, run.id).await.unwrap().is_some(),
        Transition::Resume => {
            // As one that was held: a run that waits does so for that.
            let mark = "UPDATE runs SET paused = TRUE, waiting_for = '{\"reason\":\"paused\",\"until\":null}' WHERE id = $1";
            query(sql(mark.into())).bind(run.id).execute(&mut tx).await.unwrap();
            moves::resume(&mut tx, run.id, MINUTE, START).await.unwrap().is_some()
        }
        Transition::Wake => moves::wake(&mut tx, run.id, START).await.unwrap().is_some(),
        Transition::Backoff => moves::back_off(&mut tx, run, START, &error, START).await.unwrap(),
        Transition::Succeed => {
            let held = execution::Fenced { id: run.id, fence: run.fence };
            let ended = moves::end(&mut tx, &[(held, &end(RunState::Succeeded, None))], START).await.unwrap();
            !ended.is_empty()
        }
        Transition::Fail => moves::end_from_outside(&mut tx, run.id, &end(RunState::Failed, Some(&error)), START).await.unwrap(),
        Transition::Cancel => moves::end_from_outside(&mut tx, run.id, &end(RunState::Cancelled, None), START).await.unwrap(),
    };
    tx.commit().await.unwrap();
    made
}

/// A run in that state, and what an execution that had claimed it would show for it.
async fn in_state(w: &World, name: &str, state: RunState) -> Claimed {
    let run = w.started(name, name).await;
    let by = match state {
        RunState::Running => return run,
        RunState::Queued => Transition::Release,
        RunState::Waiting => Transition::Park,
        RunState::Succeeded => Transition::Succeed,
        RunState::Failed => Transition::Fail,
        RunState::Cancelled => Transition::Cancel,
    };
    assert!(attempt(w, &run, by).await);
    let fence = w.column(run.id, "fence").await.unwrap();
    Claimed { fence, ..run }
}

#[tokio::test]
async fn the_sql_makes_the_moves_of_the_table_and_no_others() {
    for w in worlds().await {
        for state in RunState::ALL {
            for by in Transition::ALL {
                let run = in_state(&w, &format!("{state:?}{by:?}"), state).await;
                let made = attempt(&w, &run, by).await;
                let after = w.state(run.id).await;
                // A wake of a queued and ready run only says again that it is ready.
                let repeated = state == RunState::Queued && by == Transition::Wake;
                assert_eq!(made && !repeated, next(state, by).is_some(), "{}: {state:?} {by:?}", w.name);
                assert_eq!(after, next(state, by).unwrap_or(state), "{}: {state:?} {by:?}", w.name);
            }
        }
    }
}

#[tokio::test]
async fn every_move_that_leaves_running_raises_the_fence() {
    for w in worlds().await {
        for by in Transition::ALL {
            let run = in_state(&w, &format!("{by:?}"), RunState::Running).await;
            let made = attempt(&w, &run, by).await;
            let mut tx = w.tx().await;
            let held = moves::hold(&mut tx, run.id, run.fence).await.unwrap();
            let leaves = next(RunState::Running, by).is_some_and(|state| state != RunState::Running);
            assert_eq!(held, !leaves, "{}: {by:?} {made}", w.name);
            drop(tx);
            assert_eq!(w.column(run.id, "fence").await, Some(run.fence + i64::from(leaves)), "{}: {by:?}", w.name);
        }
    }
}

#[tokio::test]
async fn the_reconcilers_moves_are_those_of_the_table() {
    for w in worlds().await {
        for state in RunState::ALL {
            let run = in_state(&w, &format!("{state:?}"), state).await;
            w.execute(&format!("UPDATE runs SET wake_at = {} WHERE external_id = '{state:?}'", START.0)).await;
            let woken = sweep::timers(&w.app.db, START, 10).await.unwrap();
            assert_eq!(woken.iter().any(|r| r.id == run.id), next(state, Transition::Wake).is_some(), "{}: {state:?}", w.name);
            let lease = new_id();
            w.execute("UPDATE runs SET wake_at = NULL").await;
            let mut tx = w.tx().await;
            query(sql("UPDATE runs SET lease_owner = $1 WHERE id = $2".into()))
                .bind(lease)
                .bind(run.id)
                .execute(&mut tx)
                .await
                .unwrap();
            tx.commit().await.unwrap();
            let orphans = sweep::orphaned(&w.app.db, lease, START, 10).await.unwrap();
            assert_eq!(!orphans.is_empty(), next(state, Transition::Release).is_some(), "{}: {state:?}", w.name);
        }
    }
}
