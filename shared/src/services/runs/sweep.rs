//! What the reconciler does: finds in the database what a lost hint, a dead worker or a passed time has left behind. Each function
//! does one bounded batch and answers how much it did.
use std::time::Duration;

use uuid::Uuid;

use super::{
    after::{self, After},
    control,
    ending::{self, Outside},
    watch,
};
use crate::{
    app::App,
    domain::{
        Lane,
        run::{RunError, RunState},
    },
    error::Result,
    queue::Hint,
    store::{
        db::Class,
        events,
        outbox::{self, Notice, NoticeKind},
        runs::{moves, sweep},
        sessions,
        threads::{self, Advance},
    },
};

/// A hint this young may still be on its way.
const HINT_AGE: Duration = Duration::from_secs(2);
/// A worker ends its own runs when their time is up; this is for those that did not.
const DEADLINE_GRACE: Duration = Duration::from_secs(5);

/// Applies one notice, if nobody else has. A wake makes a waiting run ready; a cancel ends it.
pub async fn apply_notice(app: &App, notice: &Notice) -> Result<bool> {
    let now = app.clock.now();
    let mut after = After::default();
    let mut tx = app.db.begin_as(Class::Background).await?;
    if !outbox::take(&mut tx, notice.id).await? {
        return Ok(false);
    }
    match notice.kind {
        NoticeKind::Wake => after.ready(moves::wake(&mut tx, notice.run_id, now).await?),
        NoticeKind::Cancel => {
            let how = Outside { state: RunState::Cancelled, reason: &notice.reason, error: None, drop_messages: false };
            ending::from_outside(&mut tx, &mut after, notice.run_id, &how, now).await?;
        }
        NoticeKind::Ended => watch::tell(app, &mut tx, &mut after, notice.run_id, now).await?,
    }
    tx.commit().await?;
    after.apply(app);
    Ok(true)
}

/// Notices whose sender died before it applied them.
pub async fn notices(app: &App) -> Result<usize> {
    let pending = outbox::pending(&app.db, app.config.worker.batch).await?;
    for notice in &pending {
        if let Err(e) = apply_notice(app, notice).await {
            // One that cannot be applied must not hold up those behind it.
            tracing::error!(error = %e, notice = %notice.id, run = %notice.run_id, "a notice cannot be applied");
        }
    }
    Ok(pending.len())
}

/// Ready rows that the queue does not have: after a flush, a failover, a pop that never arrived, or a push that failed.
pub async fn lost_hints(app: &App, lane: Lane) -> Result<usize> {
    let now = app.clock.now();
    // Hints before the queue's first are not in it; an empty queue has none at all.
    let below = app.queue.min_score(lane).await?.unwrap_or(i64::MAX);
    let lost = sweep::lost_hints(&app.db, lane, below, now, now.before(HINT_AGE), app.config.worker.batch).await?;
    after::hint(app, &lost).await;
    Ok(lost.len())
}

/// Pushes what is ready into a queue that has just been made.
pub async fn refill(app: &App, lane: Lane) -> Result<usize> {
    let most = i64::try_from(app.config.runs.max_queued).unwrap_or(i64::MAX);
    let ready = sweep::ready(&app.db, lane, most).await?;
    after::hint(app, &ready).await;
    Ok(ready.len())
}

/// Ready rows in their order, for a worker that cannot reach the queue.
pub async fn ready(app: &App, lane: Lane, limit: usize) -> Result<Vec<Hint>> {
    let rows = sweep::ready(&app.db, lane, i64::try_from(limit).unwrap_or(i64::MAX)).await?;
    Ok(rows.into_iter().map(|r| Hint { run_id: r.id, score: r.score }).collect())
}

/// How many runs wait in a lane, and how long the first of them has.
pub async fn backlog(app: &App, lane: Lane) -> Result<(i64, Duration)> {
    let most = i64::try_from(app.config.runs.max_queued).unwrap_or(i64::MAX);
    let depth = sweep::depth(&app.db, lane, most).await?;
    let oldest = sweep::oldest(&app.db, lane).await?;
    Ok((depth, oldest.map_or(Duration::ZERO, |at| app.clock.now().since(at))))
}

/// Backoffs that are over, timers that went off, and delayed runs that take their place in their thread.
pub async fn due(app: &App) -> Result<usize> {
    let (now, batch) = (app.clock.now(), app.config.worker.batch);
    let mut ready = sweep::backed_off(&app.db, now, batch).await?;
    ready.extend(sweep::timers(&app.db, now, batch).await?);
    after::hint(app, &ready).await;
    let delayed = sweep::delayed(&app.db, now, batch).await?;
    for run in &delayed {
        join_order(app, run).await?;
    }
    Ok(ready.len() + delayed.len())
}

async fn join_order(app: &App, run: &sweep::Delayed) -> Result<()> {
    let now = app.clock.now();
    let mut after = After::default();
    let mut tx = app.db.begin_as(Class::Background).await?;
    let take = Advance { orders: 1, candidate: Some(run.id), ..Advance::default() };
    let head = threads::advance(&mut tx, run.thread_id, take).await?;
    if !moves::join_order(&mut tx, run.id, head.last_order).await? {
        // Cancelled, or done by another reconciler: the head must not be given to it.
        return Ok(());
    }
    if head.run_id == Some(run.id) {
        after.ready(moves::make_ready(&mut tx, &[run.id], now).await?);
    }
    tx.commit().await?;
    after.apply(app);
    Ok(())
}

/// Gives back what dead workers held. `mine` is this worker's session, which only itself may give up.
pub async fn dead_workers(app: &App, mine: Uuid) -> Result<usize> {
    let mut taken = 0;
    for session in sessions::dead_owners(&app.db, app.clock.now(), mine).await? {
        let runs = give_back(app, session).await?;
        tracing::warn!(%session, runs, "a worker died; its runs were given back");
        taken += runs;
    }
    let closed = sessions::close(&app.db, app.clock.now(), mine).await?;
    metrics::counter!("runmill_leases_lost_total").increment(closed.len() as u64);
    Ok(taken)
}

async fn give_back(app: &App, session: Uuid) -> Result<usize> {
    let mut taken = 0;
    loop {
        let orphans = sweep::orphaned(&app.db, session, app.clock.now(), app.config.worker.batch).await?;
        if orphans.is_empty() {
            return Ok(taken);
        }
        taken += orphans.len();
        let (poison, back): (Vec<_>, Vec<_>) = orphans.into_iter().partition(|o| o.is_poison);
        let back: Vec<_> = back.into_iter().map(|o| o.ready).collect();
        after::hint(app, &back).await;
        for run in poison {
            let error = RunError::new("WORKER_LOST", "its worker died too often while it executed the run", false);
            fail(app, run.ready.id, error).await?;
        }
    }
}

/// Fails runs whose time is up.
pub async fn deadlines(app: &App) -> Result<usize> {
    let (now, batch) = (app.clock.now(), app.config.worker.batch);
    let queued = sweep::queued_too_long(&app.db, now, batch).await?;
    for id in &queued {
        fail(app, *id, RunError::new("QUEUE_TIMEOUT", "the run was queued for too long", true)).await?;
    }
    let running = sweep::run_too_long(&app.db, now.before(DEADLINE_GRACE), batch).await?;
    for id in &running {
        fail(app, *id, RunError::new("RUN_TIMEOUT", "the run took too long", false)).await?;
    }
    Ok(queued.len() + running.len())
}

async fn fail(app: &App, id: Uuid, error: RunError) -> Result<()> {
    let mut after = After::default();
    let mut tx = app.db.begin_as(Class::Background).await?;
    let reason = error.message.clone();
    let how = Outside { state: RunState::Failed, reason: &reason, error: Some(error), drop_messages: false };
    ending::from_outside(&mut tx, &mut after, id, &how, app.clock.now()).await?;
    tx.commit().await?;
    after.apply(app);
    Ok(())
}

/// Children whose parent has ended.
pub async fn strays(app: &App) -> Result<usize> {
    let strays = sweep::strays(&app.db, app.config.worker.batch).await?;
    for id in &strays {
        control::end(app, *id, "its parent has ended").await?;
    }
    Ok(strays.len())
}

/// Forgets what is past its retention.
pub async fn retention(app: &App) -> Result<usize> {
    let (now, batch) = (app.clock.now(), app.config.worker.batch);
    let (runs, events) = (&app.config.runs, &app.config.events);
    let mut forgotten = events::forget(&app.db, now.before(events.retention), batch).await?;
    forgotten += sweep::forget_runs(&app.db, now.before(runs.retention), batch).await?;
    forgotten += sweep::forget_keys(&app.db, now.before(runs.idempotency_retention), batch).await?;
    Ok(forgotten)
}
