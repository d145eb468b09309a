//! What a run that a schedule has fired leaves behind: failures in a row are counted, and what waited for it starts.
use super::{max_failures, start, start::Refused};
use crate::{
    app::App,
    clock::Timestamp,
    domain::{
        notification::{NewNotification, NotificationKind},
        run::{Run, RunState},
        schedule::{FireStatus, Schedule},
    },
    error::Result,
    services::runs::after::After,
    store::{
        db::Tx,
        notifications,
        schedules::{self as store, Key, Progress},
    },
};

/// Told of each run once; of one whose schedule is gone nothing follows.
pub async fn run_ended(app: &App, tx: &mut Tx, after: &mut After, run: &Run, now: Timestamp) -> Result<()> {
    let Some(mut schedule) = store::hold_of_run(tx, run.id).await? else { return Ok(()) };
    let status = match run.state {
        RunState::Succeeded => FireStatus::Succeeded,
        RunState::Failed => FireStatus::Failed,
        _ => FireStatus::Cancelled,
    };
    if !store::end_fire(tx, run.id, status).await? {
        return Ok(());
    }
    let before = (schedule.failures, schedule.enabled);
    match status {
        FireStatus::Succeeded => schedule.failures = 0,
        FireStatus::Failed => {
            let why = run.error.as_ref().map_or("RUN_FAILED", |e| e.code.as_str()).to_owned();
            failed(app, tx, &mut schedule, &why, now).await?;
        }
        _ => {}
    }
    if schedule.enabled && schedule.spec.overlap.buffers() {
        start_waiting(app, tx, after, &mut schedule, now).await?;
    }
    if (schedule.failures, schedule.enabled) != before {
        store::advance(tx, &[Progress::from(&schedule)]).await?;
    }
    Ok(())
}

/// The instant that has waited longest gets its run, when there is no other; one that can have none makes room for the next.
async fn start_waiting(app: &App, tx: &mut Tx, after: &mut After, schedule: &mut Schedule, now: Timestamp) -> Result<()> {
    if store::open(tx, &[schedule.id]).await?.iter().any(|fire| fire.run_id.is_some()) {
        return Ok(());
    }
    while schedule.enabled
        && let Some(at) = store::next_buffered(tx, schedule.id).await?
    {
        let key = Key { schedule_id: schedule.id, scheduled_for: at };
        match start::one(app, tx, after, schedule, at, now).await? {
            Ok(run) => {
                store::set_fire(tx, key, FireStatus::Buffered, FireStatus::Started, Some(run), None).await?;
                return Ok(());
            }
            Err(refused) => {
                store::set_fire(tx, key, FireStatus::Buffered, FireStatus::Failed, None, Some(&refused.detail())).await?;
                refuse(app, tx, schedule, &refused, now).await?;
            }
        }
    }
    Ok(())
}

/// A fire without a run.
pub async fn refuse(app: &App, tx: &mut Tx, schedule: &mut Schedule, refused: &Refused, now: Timestamp) -> Result<()> {
    if refused.counts { failed(app, tx, schedule, refused.code, now).await } else { Ok(()) }
}

/// One failure more in a row. After too many it pauses itself; the caller stores how it stands.
async fn failed(app: &App, tx: &mut Tx, schedule: &mut Schedule, why: &str, now: Timestamp) -> Result<()> {
    schedule.failures += 1;
    let most = max_failures(&app.config.schedules, &schedule.spec);
    if schedule.enabled && u64::try_from(schedule.failures).is_ok_and(|n| n >= most) {
        let reason = format!("{} failures in a row, the last: {why}", schedule.failures);
        pause(tx, schedule, reason, now).await?;
    }
    Ok(())
}

/// Its owner is told; what waits is done without.
pub async fn pause(tx: &mut Tx, schedule: &mut Schedule, reason: String, now: Timestamp) -> Result<()> {
    let (id, title) = (schedule.id.to_string(), format!("The schedule {} is paused", schedule.name));
    let about = NewNotification::about(&schedule.owner, NotificationKind::SchedulePaused, "schedule", &id, title);
    // It may pause itself again, once it has been enabled again.
    let dedupe_key = format!("{}:{}", about.dedupe_key, now.0);
    notifications::insert(tx, &NewNotification { dedupe_key, ..about }.saying(&reason), now).await?;
    store::drop_buffered(tx, schedule.id, "the schedule has paused itself").await?;
    (schedule.enabled, schedule.next_at, schedule.paused_reason) = (false, None, Some(reason));
    tracing::warn!(schedule = %schedule.id, reason = schedule.paused_reason, "a schedule has paused itself");
    Ok(())
}
