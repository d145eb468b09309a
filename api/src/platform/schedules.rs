//! `/agent-schedules`: what is started at the times that a cron pattern names.
use chrono::{DateTime, Utc};
use poem::web::Data;
use poem_openapi::{
    ApiResponse, Enum, Object, OpenApi,
    param::{Path, Query},
    payload::Json,
    types::{MaybeUndefined, ParseFromJSON, Type},
};
use runmill_shared::{
    App, Error, FieldError, Result,
    clock::Timestamp,
    domain::{
        run::RunState,
        schedule::{CatchUp, FireStatus, Overlap, TargetKind},
    },
    services::{
        model_configs::Patch,
        schedules::{self, Change, Fire, Standing},
    },
};
use serde_json::Value;
use uuid::Uuid;

use super::{
    Reply,
    executions::Status,
    page::{Page, Paging},
};
use crate::http::{
    auth::Auth,
    body::Body,
    reply::{Created, NoContent},
};

const DEFAULT_LIMIT: i64 = 50;
const MAX_LIMIT: i64 = 200;

/// Which of the times that nobody was there for are made up for.
#[derive(Object)]
struct ScheduleCatchUp {
    /// those that are not older than this
    window_seconds: Option<u64>,
    /// the latest, so many
    max: Option<u64>,
}

#[derive(Object)]
struct NewSchedule {
    /// required
    name: Option<String>,
    /// exactly one of agent_id, workflow_id and goal_id
    agent_id: Option<String>,
    workflow_id: Option<Uuid>,
    goal_id: Option<Uuid>,
    /// required: five fields, six with the seconds first, or @hourly, @daily, @weekly, @monthly, @yearly
    cron: Option<String>,
    /// an IANA name, as Europe/Vienna; UTC when left out
    timezone: Option<String>,
    /// for an agent the message: text; anything else is given to it as JSON
    input: Option<Value>,
    /// true when left out
    enabled: Option<bool>,
    starts_at: Option<DateTime<Utc>>,
    ends_at: Option<DateTime<Utc>>,
    /// a run starts so much later at most: always the same for one time, and less than the pause between two
    jitter_seconds: Option<u64>,
    /// while a run has not ended: skip (default), buffer_one (the first that comes waits), buffer_all, cancel_previous, allow
    overlap: Option<String>,
    catch_up: Option<ScheduleCatchUp>,
    /// in a row: then it pauses itself
    max_failures: Option<u64>,
}

/// What is left out stays as it is; null removes.
#[derive(Object)]
struct ScheduleChange {
    /// the version that was read: when it is not the latest any more the answer is 409
    version: Option<i64>,
    name: Option<String>,
    /// one of these takes the place of what it starts now
    agent_id: Option<String>,
    workflow_id: Option<Uuid>,
    goal_id: Option<Uuid>,
    cron: Option<String>,
    timezone: Option<String>,
    input: Option<Value>,
    /// true, where it was paused: it starts from now, and its failures are forgotten
    enabled: Option<bool>,
    starts_at: MaybeUndefined<DateTime<Utc>>,
    ends_at: MaybeUndefined<DateTime<Utc>>,
    jitter_seconds: Option<u64>,
    overlap: Option<String>,
    catch_up: Option<ScheduleCatchUp>,
    max_failures: MaybeUndefined<u64>,
}

impl From<ScheduleCatchUp> for CatchUp {
    fn from(c: ScheduleCatchUp) -> Self {
        Self { window_seconds: c.window_seconds, max: c.max }
    }
}

fn given<T>(value: Option<T>) -> Patch<T> {
    value.map_or(Patch::Keep, Patch::Set)
}

fn patch<T: Type + ParseFromJSON, U>(value: MaybeUndefined<T>, convert: impl Fn(T) -> U) -> Patch<U> {
    match value {
        MaybeUndefined::Undefined => Patch::Keep,
        MaybeUndefined::Null => Patch::Remove,
        MaybeUndefined::Value(value) => Patch::Set(convert(value)),
    }
}

impl From<NewSchedule> for Change {
    fn from(new: NewSchedule) -> Self {
        Self {
            version: None,
            name: new.name,
            agent_id: new.agent_id,
            workflow_id: new.workflow_id,
            goal_id: new.goal_id,
            cron: new.cron,
            timezone: new.timezone,
            input: new.input,
            enabled: new.enabled,
            starts_at: given(new.starts_at.map(Timestamp::from)),
            ends_at: given(new.ends_at.map(Timestamp::from)),
            jitter_seconds: new.jitter_seconds,
            overlap: new.overlap,
            catch_up: new.catch_up.map(CatchUp::from),
            max_failures: given(new.max_failures),
        }
    }
}

impl From<ScheduleChange> for Change {
    fn from(change: ScheduleChange) -> Self {
        Self {
            version: change.version,
            name: change.name,
            agent_id: change.agent_id,
            workflow_id: change.workflow_id,
            goal_id: change.goal_id,
            cron: change.cron,
            timezone: change.timezone,
            input: change.input,
            enabled: change.enabled,
            starts_at: patch(change.starts_at, Timestamp::from),
            ends_at: patch(change.ends_at, Timestamp::from),
            jitter_seconds: change.jitter_seconds,
            overlap: change.overlap,
            catch_up: change.catch_up.map(CatchUp::from),
            max_failures: patch(change.max_failures, |n| n),
        }
    }
}

#[derive(Enum, Clone, Copy)]
#[oai(rename_all = "snake_case")]
enum ScheduleOverlap {
    Skip,
    BufferOne,
    BufferAll,
    CancelPrevious,
    Allow,
}

impl From<Overlap> for ScheduleOverlap {
    fn from(o: Overlap) -> Self {
        match o {
            Overlap::Skip => Self::Skip,
            Overlap::BufferOne => Self::BufferOne,
            Overlap::BufferAll => Self::BufferAll,
            Overlap::CancelPrevious => Self::CancelPrevious,
            Overlap::Allow => Self::Allow,
        }
    }
}

#[derive(Object)]
struct ScheduleRun {
    execution_id: Uuid,
    scheduled_for: DateTime<Utc>,
    status: Status,
}

/// How a fire's run stands; `None`: it has none.
fn run_status(fire: &Fire) -> Option<Status> {
    let told = match fire.status {
        FireStatus::Succeeded => Some(RunState::Succeeded),
        FireStatus::Failed if fire.run_id.is_some() => Some(RunState::Failed),
        FireStatus::Started | FireStatus::Cancelled => Some(RunState::Cancelled),
        _ => None,
    };
    fire.run_state.or(told).map(Status::from)
}

fn last_run(fire: &Fire) -> Option<ScheduleRun> {
    let (execution_id, status) = (fire.run_id?, run_status(fire)?);
    Some(ScheduleRun { execution_id, scheduled_for: fire.scheduled_for.utc(), status })
}

#[derive(Object)]
struct ScheduleBody {
    id: Uuid,
    name: String,
    agent_id: Option<String>,
    workflow_id: Option<String>,
    goal_id: Option<String>,
    cron: String,
    timezone: String,
    input: Option<Value>,
    enabled: bool,
    /// why it paused itself
    paused_reason: Option<String>,
    /// in a row
    failures: u64,
    starts_at: Option<DateTime<Utc>>,
    ends_at: Option<DateTime<Utc>>,
    jitter_seconds: u64,
    overlap: ScheduleOverlap,
    catch_up: ScheduleCatchUp,
    max_failures: u64,
    /// five at most; none while it is paused
    next_fire_times: Vec<DateTime<Utc>>,
    /// five at most, latest first
    last_runs: Vec<ScheduleRun>,
    version: i64,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

impl From<Standing> for ScheduleBody {
    fn from(standing: Standing) -> Self {
        let (s, (window, max)) = (standing.schedule, standing.catch_up);
        let target = |kind| (s.target.kind == kind).then(|| s.target.id.clone());
        Self {
            id: s.id,
            agent_id: target(TargetKind::Agent),
            workflow_id: target(TargetKind::Workflow),
            goal_id: target(TargetKind::Goal),
            name: s.name,
            cron: s.spec.cron,
            timezone: s.spec.timezone,
            input: Some(s.spec.input).filter(|input| !input.is_null()),
            enabled: s.enabled,
            paused_reason: s.paused_reason,
            failures: s.failures.unsigned_abs(),
            starts_at: s.spec.starts_at.map(Timestamp::utc),
            ends_at: s.spec.ends_at.map(Timestamp::utc),
            jitter_seconds: s.spec.jitter_seconds,
            overlap: s.spec.overlap.into(),
            catch_up: ScheduleCatchUp { window_seconds: Some(window), max: Some(max) },
            max_failures: standing.max_failures,
            next_fire_times: standing.next_fire_times.into_iter().map(Timestamp::utc).collect(),
            last_runs: standing.last_runs.iter().filter_map(last_run).collect(),
            version: s.version,
            created_at: s.created_at.utc(),
            updated_at: s.updated_at.utc(),
        }
    }
}

#[derive(Enum, Clone, Copy)]
#[oai(rename_all = "lowercase")]
enum ScheduleFireStatus {
    /// it has a run; `execution_status` says how that stands
    Started,
    /// it waits for the run before it
    Buffered,
    /// it could have no run; `detail` says why
    Failed,
    /// another run was in its way
    Skipped,
    /// nobody was there when it came, nor soon enough afterwards
    Missed,
}

#[derive(Object)]
#[oai(skip_serializing_if_is_none)]
struct ScheduleFire {
    /// the time that the pattern names; of one by hand when it was asked for
    scheduled_for: DateTime<Utc>,
    status: ScheduleFireStatus,
    by_hand: bool,
    execution_id: Option<Uuid>,
    execution_status: Option<Status>,
    /// why there is no run; of missed ones how many there are from this one on
    detail: Option<String>,
    fired_at: DateTime<Utc>,
}

impl From<Fire> for ScheduleFire {
    fn from(f: Fire) -> Self {
        let status = match f.status {
            FireStatus::Buffered => ScheduleFireStatus::Buffered,
            FireStatus::Skipped => ScheduleFireStatus::Skipped,
            FireStatus::Missed => ScheduleFireStatus::Missed,
            FireStatus::Failed if f.run_id.is_none() => ScheduleFireStatus::Failed,
            _ => ScheduleFireStatus::Started,
        };
        let execution_status = f.run_id.and_then(|_| run_status(&f));
        Self {
            scheduled_for: f.scheduled_for.utc(),
            status,
            by_hand: f.by_hand,
            execution_id: f.run_id,
            execution_status,
            detail: f.detail,
            fired_at: f.fired_at.utc(),
        }
    }
}

#[derive(Object)]
#[oai(skip_serializing_if_is_none)]
struct ScheduleFires {
    /// latest first
    items: Vec<ScheduleFire>,
    /// where the next page begins; not there: this is the last
    next_cursor: Option<String>,
}

/// The last of a full page says where the next begins.
fn history(fires: Vec<Fire>, limit: i64) -> ScheduleFires {
    let full = i64::try_from(fires.len()).is_ok_and(|n| n >= limit);
    let next_cursor = fires.last().filter(|_| full).map(|fire| fire.scheduled_for.0.to_string());
    ScheduleFires { items: fires.into_iter().map(Into::into).collect(), next_cursor }
}

fn bounds(cursor: Option<&str>, limit: Option<&str>) -> Result<(Option<Timestamp>, i64)> {
    let mut bad = Vec::new();
    let mut fail = |field: &str, message: String| bad.push(FieldError { field: field.to_owned(), message });
    let before = cursor.map(str::parse).transpose().unwrap_or_else(|_| {
        fail("cursor", "must be the next_cursor of a page before".to_owned());
        None
    });
    let limit = limit.map_or(Some(DEFAULT_LIMIT), |text| text.parse().ok().filter(|n| (1..=MAX_LIMIT).contains(n)));
    if limit.is_none() {
        fail("limit", format!("1 to {MAX_LIMIT}"));
    }
    if bad.is_empty() { Ok((before.map(Timestamp), limit.unwrap_or(DEFAULT_LIMIT))) } else { Err(Error::invalid_fields(bad)) }
}

#[derive(Object)]
struct ScheduleTriggered {
    execution_id: Uuid,
    /// the same
    task_id: Uuid,
    status: Status,
}

#[derive(ApiResponse)]
enum Triggered {
    /// It goes on in the background; `GET /executions/{execution_id}` tells what came of it.
    #[oai(status = 202)]
    Accepted(Json<ScheduleTriggered>),
}

pub struct SchedulesApi;

#[OpenApi(prefix_path = "/api/v1/agent-schedules")]
impl SchedulesApi {
    /// The caller's schedules, newest first; `status` is enabled or paused, `sort` name, created_at, updated_at or next_fire_time.
    #[oai(path = "/", method = "get", operation_id = "listSchedules")]
    async fn list(&self, app: Data<&App>, caller: Auth, paging: Paging) -> Reply<Json<Page<ScheduleBody>>> {
        let found = schedules::list(&app, &caller.0, &paging.0).await?;
        Ok(Json(paging.of(found)))
    }

    /// Starts an agent, a goal or a workflow at the times that a cron pattern names. One time is one run.
    #[oai(path = "/", method = "post", operation_id = "createSchedule")]
    async fn create(&self, app: Data<&App>, caller: Auth, body: Body<NewSchedule>) -> Reply<Created<ScheduleBody>> {
        let made = schedules::create(&app, &caller.0, body.0.into()).await?;
        Ok(Created::New(Json(made.into())))
    }

    /// One of the caller's.
    #[oai(path = "/:id", method = "get", operation_id = "getSchedule")]
    async fn get(&self, app: Data<&App>, caller: Auth, id: Path<Uuid>) -> Reply<Json<ScheduleBody>> {
        Ok(Json(schedules::get(&app, &caller.0, id.0).await?.into()))
    }

    /// Changes what is given; `enabled` pauses it, and lets it go on from now.
    #[oai(path = "/:id", method = "put", operation_id = "updateSchedule")]
    async fn update(
        &self,
        app: Data<&App>,
        caller: Auth,
        id: Path<Uuid>,
        body: Body<ScheduleChange>,
    ) -> Reply<Json<ScheduleBody>> {
        Ok(Json(schedules::update(&app, &caller.0, id.0, body.0.into()).await?.into()))
    }

    /// Deletes it and its history; its runs stay.
    #[oai(path = "/:id", method = "delete", operation_id = "deleteSchedule")]
    async fn remove(&self, app: Data<&App>, caller: Auth, id: Path<Uuid>) -> Reply<NoContent> {
        schedules::remove(&app, &caller.0, id.0).await?;
        Ok(NoContent::Done)
    }

    /// What became of each of its times, latest first.
    #[oai(path = "/:id/fires", method = "get", operation_id = "listScheduleFires")]
    async fn fires(
        &self,
        app: Data<&App>,
        caller: Auth,
        id: Path<Uuid>,
        cursor: Query<Option<String>>,
        limit: Query<Option<String>>,
    ) -> Reply<Json<ScheduleFires>> {
        let (before, limit) = bounds(cursor.0.as_deref(), limit.0.as_deref())?;
        let fires = schedules::fires(&app, &caller.0, id.0, before, limit).await?;
        Ok(Json(history(fires, limit)))
    }

    /// Fires now, whatever else of it is running, and also while it is paused.
    #[oai(path = "/:id/trigger", method = "post", operation_id = "triggerSchedule")]
    async fn trigger(&self, app: Data<&App>, caller: Auth, id: Path<Uuid>) -> Reply<Triggered> {
        let run = schedules::trigger(&app, &caller.0, id.0).await?;
        Ok(Triggered::Accepted(Json(ScheduleTriggered { execution_id: run, task_id: run, status: Status::Queued })))
    }
}
