//! Schedules: what their owners do with them; `fire` is what makes them fire, `ended` what follows from the end of what they fired.
mod ended;
mod fire;
mod start;

use std::{collections::HashMap, time::Duration};

use uuid::Uuid;

use super::{agents, model_configs::Patch, runs::after::After};
use crate::{
    app::App,
    clock::Timestamp,
    config,
    domain::{
        caller::{Caller, Owner, Scope},
        new_id,
        page::{Listed, PageRequest},
        schedule::{CatchUp, FireStatus, Overlap, Reach, Schedule, Spec, Target, TargetKind},
    },
    error::{Error, FieldError, Result},
    store::{
        goals,
        schedules::{self as store, Key, NewFire},
    },
};

pub use crate::store::schedules::Fire;
pub(super) use ended::run_ended;
pub use fire::{retention, tick};

const SORTS: [&str; 4] = ["name", "created_at", "updated_at", "next_fire_time"];
const STATUSES: [&str; 2] = ["enabled", "paused"];
/// Instants that are shown.
const SHOWN: usize = 5;

/// A schedule, with what is to come and what came last.
#[derive(Clone, Debug, PartialEq)]
pub struct Standing {
    pub schedule: Schedule,
    /// As they are in force.
    pub catch_up: (u64, u64),
    pub max_failures: u64,
    /// Five at most; none while it is paused.
    pub next_fire_times: Vec<Timestamp>,
    /// Five at most, latest first.
    pub last_runs: Vec<Fire>,
}

/// What a request says; what it leaves out stays as it is, or has its default in a new one.
#[derive(Clone, Debug, Default)]
pub struct Change {
    /// The version that the caller has seen.
    pub version: Option<i64>,
    pub name: Option<String>,
    pub agent_id: Option<String>,
    pub workflow_id: Option<Uuid>,
    pub goal_id: Option<Uuid>,
    pub cron: Option<String>,
    pub timezone: Option<String>,
    pub input: Option<serde_json::Value>,
    pub enabled: Option<bool>,
    pub starts_at: Patch<Timestamp>,
    pub ends_at: Patch<Timestamp>,
    pub jitter_seconds: Option<u64>,
    /// One of `Overlap::ALL`.
    pub overlap: Option<String>,
    pub catch_up: Option<CatchUp>,
    pub max_failures: Patch<u64>,
}

impl Change {
    fn targets(&self) -> Vec<Target> {
        let target = |kind, id: String| Target { kind, id };
        let agent = self.agent_id.clone().map(|id| target(TargetKind::Agent, id));
        let workflow = self.workflow_id.map(|id| target(TargetKind::Workflow, id.to_string()));
        let goal = self.goal_id.map(|id| target(TargetKind::Goal, id.to_string()));
        [agent, workflow, goal].into_iter().flatten().collect()
    }

    /// What cannot be said of any schedule.
    fn faults(&self, targets: std::ops::RangeInclusive<usize>) -> Vec<FieldError> {
        let mut bad = Vec::new();
        if !targets.contains(&self.targets().len()) {
            let message = "exactly one of agent_id, workflow_id and goal_id is needed".to_owned();
            bad.push(FieldError { field: "agent_id".to_owned(), message });
        }
        if self.overlap.as_ref().is_some_and(|text| Overlap::parse(text).is_none()) {
            let message = format!("one of {}", Overlap::ALL.map(Overlap::as_str).join(", "));
            bad.push(FieldError { field: "overlap".to_owned(), message });
        }
        bad
    }

    fn apply(self, to: &mut Spec) {
        fn set<T>(value: Option<T>, to: &mut T) {
            if let Some(value) = value {
                *to = value;
            }
        }
        set(self.cron.map(|cron| cron.trim().to_owned()), &mut to.cron);
        set(self.timezone, &mut to.timezone);
        set(self.input, &mut to.input);
        set(self.jitter_seconds, &mut to.jitter_seconds);
        set(self.overlap.and_then(|text| Overlap::parse(&text)), &mut to.overlap);
        self.starts_at.apply(&mut to.starts_at);
        self.ends_at.apply(&mut to.ends_at);
        self.max_failures.apply(&mut to.max_failures);
        if let Some(CatchUp { window_seconds, max }) = self.catch_up {
            to.catch_up.window_seconds = window_seconds.or(to.catch_up.window_seconds);
            to.catch_up.max = max.or(to.catch_up.max);
        }
    }
}

fn not_found() -> Error {
    Error::not_found("SCHEDULE_NOT_FOUND", "no such schedule")
}

/// How far back a schedule looks.
fn reach(settings: &config::Schedules, spec: &Spec, at_once: usize) -> Reach {
    let (window, max) = catch_up(settings, spec);
    Reach {
        window: Duration::from_secs(window),
        max: usize::try_from(max).unwrap_or(usize::MAX),
        buffered: usize::try_from(settings.max_buffered).unwrap_or(usize::MAX),
        at_once,
    }
}

fn catch_up(settings: &config::Schedules, spec: &Spec) -> (u64, u64) {
    let window = spec.catch_up.window_seconds.unwrap_or(settings.catch_up_window.as_secs());
    (window, spec.catch_up.max.unwrap_or(u64::from(settings.catch_up_max)))
}

fn max_failures(settings: &config::Schedules, spec: &Spec) -> u64 {
    spec.max_failures.unwrap_or(u64::from(settings.max_failures))
}

/// # Errors
/// `Invalid` naming every bad field; `AGENT_NOT_FOUND`, `GOAL_NOT_FOUND`; `TOO_MANY_SCHEDULES`.
pub async fn create(app: &App, caller: &Caller, new: Change) -> Result<Standing> {
    create_as(app, caller.can(Scope::Write)?, new_id(), new).await
}

/// As `create`, under an id that follows from who asks for it: the same again answers what is there.
pub async fn create_as(app: &App, owner: &Owner, id: Uuid, new: Change) -> Result<Standing> {
    let (now, targets) = (app.clock.now(), new.targets());
    let mut schedule = Schedule {
        id,
        owner: owner.as_str().to_owned(),
        name: new.name.clone().unwrap_or_default().trim().to_owned(),
        target: targets.first().cloned().unwrap_or(Target { kind: TargetKind::Workflow, id: String::new() }),
        spec: Spec { timezone: "UTC".to_owned(), ..Spec::default() },
        enabled: new.enabled.unwrap_or(true),
        paused_reason: None,
        failures: 0,
        fired_until: now,
        next_at: None,
        version: 1,
        created_at: now,
        updated_at: now,
    };
    let bad = new.faults(1..=1);
    new.apply(&mut schedule.spec);
    check(app, &schedule, bad, true, now)?;
    visible(app, owner, &schedule.target).await?;
    schedule.next_at = next_at(&schedule)?;
    if let Some(earlier) = store::owned(&app.db, id, owner).await? {
        return Ok(standing(app, earlier, Vec::new()));
    }
    let most = i64::from(app.config.schedules.max_per_user);
    if !store::insert(&app.db, &schedule, most).await? {
        return Err(Error::conflict(
            "TOO_MANY_SCHEDULES",
            format!("you have {most} schedules, which is as many as there may be"),
        ));
    }
    Ok(standing(app, schedule, Vec::new()))
}

fn check(app: &App, schedule: &Schedule, mut bad: Vec<FieldError>, sets_end: bool, now: Timestamp) -> Result<()> {
    bad.extend(schedule.faults(&app.config.schedules, sets_end, now));
    if bad.is_empty() { Ok(()) } else { Err(Error::invalid_fields(bad)) }
}

/// That the owner may run what is to be started. Whether it can be is asked at each fire; workflows are not known here.
async fn visible(app: &App, owner: &Owner, target: &Target) -> Result<()> {
    match target.kind {
        TargetKind::Workflow => {}
        TargetKind::Agent => match agents::runnable(app, owner, Some(&target.id)).await {
            Err(e) if e.code != "AGENT_STOPPED" => return Err(e),
            _ => {}
        },
        TargetKind::Goal => {
            let id = Uuid::parse_str(&target.id).map_err(Error::internal)?;
            let missing = || Error::not_found("GOAL_NOT_FOUND", "no such goal");
            goals::by_id(&app.db, owner, id).await?.ok_or_else(missing)?;
        }
    }
    Ok(())
}

/// When it has to be looked at.
fn next_at(schedule: &Schedule) -> Result<Option<Timestamp>> {
    if !schedule.enabled {
        return Ok(None);
    }
    Ok(schedule.timetable()?.next_due(schedule.fired_until))
}

fn standing(app: &App, schedule: Schedule, last_runs: Vec<Fire>) -> Standing {
    let settings = &app.config.schedules;
    let from = schedule.fired_until.max(app.clock.now());
    let coming = schedule.timetable().ok().filter(|_| schedule.enabled).map(|table| table.upcoming(from, SHOWN));
    Standing {
        catch_up: catch_up(settings, &schedule.spec),
        max_failures: max_failures(settings, &schedule.spec),
        next_fire_times: coming.unwrap_or_default(),
        last_runs,
        schedule,
    }
}

async fn standings(app: &App, schedules: Vec<Schedule>) -> Result<Vec<Standing>> {
    let ids: Vec<_> = schedules.iter().map(|s| s.id).collect();
    let mut runs: HashMap<Uuid, Vec<Fire>> = HashMap::new();
    if !ids.is_empty() {
        for fire in store::last_runs(&app.db, &ids).await? {
            runs.entry(fire.schedule_id).or_default().push(fire);
        }
    }
    Ok(schedules
        .into_iter()
        .map(|s| (runs.remove(&s.id).unwrap_or_default(), s))
        .map(|(runs, s)| standing(app, s, runs))
        .collect())
}

pub async fn list(app: &App, caller: &Caller, page: &PageRequest) -> Result<Listed<Standing>> {
    let owner = caller.can(Scope::Read)?;
    page.check(&STATUSES, &SORTS)?;
    let found = store::list(&app.db, owner, page).await?;
    Ok(Listed { items: standings(app, found.items).await?, total: found.total })
}

/// # Errors
/// `SCHEDULE_NOT_FOUND`
pub async fn get(app: &App, caller: &Caller, id: Uuid) -> Result<Standing> {
    let found = store::owned(&app.db, id, caller.can(Scope::Read)?).await?.ok_or_else(not_found)?;
    standings(app, vec![found]).await?.pop().ok_or_else(not_found)
}

/// Changes what is given. Enabled again it starts from now, and what it failed at is forgotten.
///
/// # Errors
/// Those of `create`; `SCHEDULE_NOT_FOUND`; `VERSION_CONFLICT` when it was changed since the version that the caller names.
pub async fn update(app: &App, caller: &Caller, id: Uuid, change: Change) -> Result<Standing> {
    let owner = caller.can(Scope::Write)?;
    store::owned(&app.db, id, owner).await?.ok_or_else(not_found)?;
    let targets = change.targets();
    // Before the row is held: what is asked here needs a connection of its own.
    let known = match targets.first() {
        Some(target) if targets.len() == 1 => visible(app, owner, target).await,
        _ => Ok(()),
    };
    let now = app.clock.now();
    let mut tx = app.db.begin().await?;
    let before = store::hold(&mut tx, id, owner).await?.ok_or_else(not_found)?;
    if change.version.is_some_and(|seen| seen != before.version) {
        return Err(Error::conflict("VERSION_CONFLICT", "it was changed meanwhile; read it again"));
    }
    let mut schedule = Schedule { version: before.version + 1, updated_at: now, ..before.clone() };
    let sets_end = matches!(change.ends_at, Patch::Set(_));
    schedule.enabled = change.enabled.unwrap_or(before.enabled);
    if let Some(name) = &change.name {
        schedule.name = name.trim().to_owned();
    }
    if let Some(target) = targets.first() {
        schedule.target = target.clone();
    }
    let bad = change.faults(0..=1);
    change.apply(&mut schedule.spec);
    // What was allowed when it was said does not stand in the way of a pause.
    let is_said = |s: &Schedule| (s.name.clone(), s.target.clone(), s.spec.clone());
    if !bad.is_empty() || is_said(&schedule) != is_said(&before) {
        check(app, &schedule, bad, sets_end, now)?;
    }
    known?;
    take_effect(&before, &mut schedule, now)?;
    if !schedule.enabled || !schedule.spec.overlap.buffers() || schedule.target != before.target {
        store::drop_buffered(&mut tx, id, "the schedule was changed or paused before its turn came").await?;
    }
    store::update(&mut tx, &schedule).await?;
    tx.commit().await?;
    standings(app, vec![schedule]).await?.pop().ok_or_else(not_found)
}

/// A change is no reason to make up for anything: what its new times would have been before is not asked.
fn take_effect(before: &Schedule, schedule: &mut Schedule, now: Timestamp) -> Result<()> {
    let woken = schedule.enabled && !before.enabled;
    let times = |s: &Spec| (s.cron.clone(), s.timezone.clone(), s.starts_at, s.ends_at, s.jitter_seconds);
    if woken {
        (schedule.paused_reason, schedule.failures) = (None, 0);
    }
    if woken || times(&schedule.spec) != times(&before.spec) {
        schedule.fired_until = before.fired_until.max(now);
    }
    schedule.next_at = next_at(schedule)?;
    Ok(())
}

/// With its history; its runs stay.
///
/// # Errors
/// `SCHEDULE_NOT_FOUND`
pub async fn remove(app: &App, caller: &Caller, id: Uuid) -> Result<()> {
    if store::delete(&app.db, id, caller.can(Scope::Write)?).await? { Ok(()) } else { Err(not_found()) }
}

/// The history before an instant, latest first.
///
/// # Errors
/// `SCHEDULE_NOT_FOUND`
pub async fn fires(app: &App, caller: &Caller, id: Uuid, before: Option<Timestamp>, limit: i64) -> Result<Vec<Fire>> {
    let owner = caller.can(Scope::Read)?;
    store::owned(&app.db, id, owner).await?.ok_or_else(not_found)?;
    store::fires(&app.db, id, owner, before.unwrap_or(Timestamp(i64::MAX)), limit).await
}

/// Fires now, whatever else of it is running, and also while it is paused. Answers the run.
///
/// # Errors
/// `SCHEDULE_NOT_FOUND`; what stands in the way of a run: `AGENT_NOT_PUBLISHED`, `WORKFLOWS_UNAVAILABLE`, `GOAL_STATE` …
pub async fn trigger(app: &App, caller: &Caller, id: Uuid) -> Result<Uuid> {
    let owner = caller.can(Scope::Write)?;
    let now = app.clock.now();
    let mut after = After::default();
    let mut tx = app.db.begin().await?;
    let schedule = store::hold(&mut tx, id, owner).await?.ok_or_else(not_found)?;
    let mut at = between_seconds(now);
    let key = |at| Key { schedule_id: id, scheduled_for: at };
    while store::one_fire(&mut tx, key(at)).await?.is_some() {
        at = between_seconds(Timestamp(at.0 + 1));
    }
    let fire = NewFire {
        schedule_id: id,
        scheduled_for: at.0,
        status: FireStatus::Started.as_str(),
        by_hand: true,
        run_id: None,
        detail: None,
    };
    store::fire(&mut tx, &[fire], now).await?;
    let run = start::one(app, &mut tx, &mut after, &schedule, at, now).await?.map_err(Error::from)?;
    store::set_fire(&mut tx, key(at), FireStatus::Started, FireStatus::Started, Some(run), None).await?;
    tx.commit().await?;
    after.apply(app);
    Ok(run)
}

/// Patterns name whole seconds: what is fired by hand is never one of theirs.
fn between_seconds(at: Timestamp) -> Timestamp {
    Timestamp(if at.0 % 1_000_000 == 0 { at.0 + 1 } else { at.0 })
}
