//! From a notification to its deliveries: one run for each channel that wants it, in the transaction that marks it as sent.
use std::time::Duration;

use crate::{
    app::App,
    clock::Timestamp,
    config::Secret,
    domain::{
        caller::Owner,
        event::NewEvent,
        new_id,
        notification::{Notification, NotificationKind},
        run::{Priority, RetryPolicy, RunKind},
    },
    error::{Error, Result},
    jobs::Delivery,
    services::runs::{
        accept::Accepted,
        after::{After, Source},
    },
    store::{
        db::{Class, Tx},
        notification_channels::{self as channels, ChannelRow},
        notifications as store,
        runs::{Ready, moves, view},
        threads::{self, Advance},
    },
};

/// Notifications of one transaction; and how many transactions one call makes at most.
const BATCH: i64 = 50;
const BATCHES: usize = 10;

/// Starts the deliveries of what has to be sent. Answers how many notifications that were.
pub async fn dispatch(app: &App) -> Result<usize> {
    let mut all = 0;
    for _ in 0..BATCHES {
        if !store::any_unsent(&app.db).await? {
            break;
        }
        match batch(app).await? {
            // Another process has them.
            0 => break,
            n => all += n,
        }
    }
    Ok(all)
}

async fn batch(app: &App) -> Result<usize> {
    let now = app.clock.now();
    let mut after = After::default();
    let mut tx = app.db.begin_as(Class::Background).await?;
    let unsent = store::unsent(&mut tx, BATCH).await?;
    if unsent.is_empty() {
        return Ok(0);
    }
    let mut owners: Vec<_> = unsent.iter().map(|n| n.owner.as_str()).collect();
    owners.sort_unstable();
    owners.dedup();
    let channels = channels::enabled_of(&mut tx, &owners).await?;
    for notification in &unsent {
        for channel in channels.iter().filter(|c| wants(c, notification)) {
            let delivery = Delivery { notification_id: notification.id, channel_id: channel.id };
            let attempts = app.config.notifications.attempts;
            start(app, &mut tx, &mut after, Wanted { owner: &notification.owner, delivery, attempts }, now).await?;
        }
    }
    let ids: Vec<_> = unsent.iter().map(|n| n.id).collect();
    store::sent(&mut tx, &ids).await?;
    tx.commit().await?;
    after.apply(app);
    Ok(unsent.len())
}

fn wants(channel: &ChannelRow, notification: &Notification) -> bool {
    let kind = notification.kind.as_str();
    channel.owner == notification.owner && channel.kinds.as_ref().is_none_or(|kinds| kinds.iter().any(|k| k == kind))
}

/// A delivery that is about to be started.
pub struct Wanted<'a> {
    pub owner: &'a str,
    pub delivery: Delivery,
    pub attempts: u32,
}

/// Starts a delivery in a thread of its own. Its name follows from what it delivers: there is one of it. The thread is new, so that
/// taking its head's lock after others waits for nobody.
pub async fn start(app: &App, tx: &mut Tx, after: &mut After, wanted: Wanted<'_>, now: Timestamp) -> Result<Accepted> {
    let Wanted { owner, delivery, attempts } = wanted;
    let owner = Owner::of_row(owner);
    let name = format!("delivery-{}-{}", delivery.notification_id, delivery.channel_id);
    if let Some(earlier) = view::by_external_id(&mut *tx, &owner, &name).await? {
        return Ok(earlier.into());
    }
    let (id, lane) = (new_id(), RunKind::Delivery.lane());
    let thread_id = threads::ensure(tx, new_id(), &owner, &name, false, now).await?;
    let take = Advance { events: 1, messages: 0, orders: 1, candidate: Some(id) };
    let head = threads::advance(tx, thread_id, take).await?;
    let (score, ready) = (Priority::score(0, now), head.run_id == Some(id));
    let new = moves::NewRun {
        id,
        owner: owner.as_str().to_owned(),
        thread_id,
        external_id: name.clone(),
        kind: RunKind::Delivery,
        lane,
        ready,
        thread_order: Some(head.last_order),
        priority: 0,
        dispatch_score: score,
        due_at: None,
        queue_deadline: now.after(app.config.runs.queue_timeout),
        run_left: i64::try_from(app.config.runs.run_timeout.as_micros()).map_err(Error::internal)?,
        policy: policy(app, attempts),
        parent_run_id: None,
        root_run_id: None,
        retry_of: None,
        watcher: None,
        agent_id: None,
        model: None,
        input: serde_json::to_string(&delivery)?,
        input_hash: name.clone(),
        trace: None,
        created_at: now,
    };
    moves::insert(tx, new).await?;
    let source = Source { thread_id, run_id: id, run: &name, fence: 0 };
    after.append_numbered(tx, source, vec![NewEvent::queued()], head.last_seq, now).await?;
    after.ready(ready.then_some(Ready { id, lane, score }));
    Ok(Accepted { id, thread: name.clone(), run: name, created_at: now, replayed: false })
}

fn policy(app: &App, attempts: u32) -> RetryPolicy {
    let ms = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
    let (settings, runs) = (&app.config.notifications, RetryPolicy::of(&app.config.runs));
    let max_attempts = i64::from(attempts.max(1));
    RetryPolicy { max_attempts, backoff_ms: ms(settings.backoff), max_backoff_ms: ms(settings.max_backoff), ..runs }
}

/// What a worker delivers, and where.
pub struct Parcel {
    pub notification: Notification,
    pub channel: ChannelRow,
    /// What signs a webhook.
    pub secret: Option<Secret>,
}

/// # Errors
/// `NOTIFICATION_NOT_FOUND` and `CHANNEL_NOT_FOUND` when their owner has deleted them meanwhile, `CHANNEL_DISABLED`,
/// `SECRET_UNREADABLE`.
pub async fn parcel(app: &App, owner: &Owner, delivery: &Delivery) -> Result<Parcel> {
    let notification = store::by_id(&app.db, delivery.notification_id, owner).await?.ok_or_else(super::not_found)?;
    let channel = channels::owned(&app.db, delivery.channel_id, owner).await?;
    let channel = channel.ok_or_else(|| Error::not_found("CHANNEL_NOT_FOUND", "no such channel"))?;
    if !channel.enabled && notification.kind != NotificationKind::Test {
        return Err(Error::conflict("CHANNEL_DISABLED", "the channel is disabled"));
    }
    let secret = channel.sealed_secret.as_deref().map(|sealed| app.vault.unseal(owner.as_str(), sealed)).transpose()?;
    Ok(Parcel { notification, channel, secret })
}
