//! What is due gets its runs. Any number of schedulers may do this at once, late, twice, or with a clock that was set: a schedule's row is
//! held while its instants are computed from how far it has come, an instant is stored under its own name, and its run is accepted in
//! the same transaction.
use std::collections::{HashMap, HashSet};

use uuid::Uuid;

use super::{
    ended::{pause, refuse},
    reach,
    start::{self, Refused, Way},
};
use crate::{
    app::App,
    clock::Timestamp,
    domain::{
        Lane,
        schedule::{Action, COUNTED, FireStatus, Overlap, Previous, Schedule},
    },
    error::{ErrorKind, Result},
    services::runs::{accept, after::After},
    store::{
        db::{Class, Tx},
        outbox::NoticeKind,
        runs::batch::Alone,
        schedules::{self as store, Key, NewFire, Open, Progress},
    },
};

/// Schedules that fire in one transaction, …
const BATCH: usize = 100;
/// … and about how many instants of all of them: what lies behind is made up for in small steps, none of which takes so long that the
/// database takes its transaction for one of a process that is stuck.
const INSTANTS: usize = 300;
/// Transactions of one look, so that it ends; what is left is due at the next.
const BATCHES: usize = 100;

/// Makes fire what is due. Answers how many runs were started.
pub async fn tick(app: &App) -> Result<usize> {
    if !store::is_due(&app.db, app.clock.now()).await? {
        return Ok(0);
    }
    let mut started = 0;
    for (goals, limit) in [(false, BATCH), (true, 1)] {
        for _ in 0..BATCHES {
            let (looked, runs) = batch(app, goals, limit).await?;
            started += runs;
            if looked < limit {
                break;
            }
        }
    }
    Ok(started)
}

/// Forgets fires that are past retention.
pub async fn retention(app: &App) -> Result<usize> {
    store::forget(&app.db, app.clock.now().before(app.config.schedules.retention), app.config.worker.batch).await
}

/// Answers how many schedules were due and how many runs were started.
async fn batch(app: &App, goals: bool, limit: usize) -> Result<(usize, usize)> {
    let now = app.clock.now();
    let mut after = After::default();
    let mut tx = app.db.begin_as(Class::Background).await?;
    let due = store::due(&mut tx, now, goals, i64::try_from(limit).unwrap_or(i64::MAX)).await?;
    let looked = due.len();
    if looked == 0 {
        return Ok((0, 0));
    }
    match accept::check_room(app, &mut tx, if goals { Lane::Plans } else { Lane::Runs }).await {
        // They stay due: what the queue has no room for is made up for, as far as each of them does that.
        Err(e) if e.kind == ErrorKind::Limited => {
            tracing::warn!(schedules = looked, "the queue is full: schedules wait");
            return Ok((0, 0));
        }
        room => room?,
    }
    let mut firing = Firing::plan(app, &mut tx, due, now).await?;
    let started = firing.fire(app, &mut tx, &mut after, now).await?;
    tx.commit().await?;
    after.apply(app);
    metrics::counter!("runmill_schedule_fires_total").increment(started as u64);
    Ok((looked, started))
}

/// What is to be done for the schedules of one transaction.
struct Firing {
    schedules: Vec<Schedule>,
    ways: Vec<Result<Way, Refused>>,
    /// The schedule's place in the list, and the instant.
    starts: Vec<(usize, Timestamp)>,
    fires: Vec<NewFire>,
    /// Runs that a new one takes the place of.
    cancelled: Vec<Uuid>,
}

impl Firing {
    async fn plan(app: &App, tx: &mut Tx, schedules: Vec<Schedule>, now: Timestamp) -> Result<Self> {
        let asked: Vec<_> = schedules.iter().filter(|s| s.spec.overlap != Overlap::Allow).map(|s| s.id).collect();
        let mut open: HashMap<Uuid, Vec<Open>> = HashMap::new();
        for fire in store::open(tx, &asked).await? {
            open.entry(fire.schedule_id).or_default().push(fire);
        }
        let ways = start::ways(app, tx, &schedules).await?;
        let mut this = Self { schedules, ways, starts: Vec::new(), fires: Vec::new(), cancelled: Vec::new() };
        let at_once = INSTANTS.div_ceil(this.schedules.len().max(1));
        for i in 0..this.schedules.len() {
            let open = open.remove(&this.schedules[i].id).unwrap_or_default();
            if let Err(e) = this.plan_one(app, i, &open, at_once, now) {
                // Its pattern was good when it was stored: a time zone may have gone since.
                pause(tx, &mut this.schedules[i], e.message.into_owned(), now).await?;
            }
        }
        Ok(this)
    }

    fn plan_one(&mut self, app: &App, i: usize, open: &[Open], at_once: usize, now: Timestamp) -> Result<()> {
        let schedule = &mut self.schedules[i];
        let table = schedule.timetable()?;
        let running = open.iter().filter(|fire| fire.run_id.is_some()).count();
        let previous = Previous { running, buffered: open.len() - running };
        let actions = table.plan(schedule.fired_until, now, previous, reach(&app.config.schedules, &schedule.spec, at_once));
        if let Some(last) = actions.last() {
            schedule.fired_until = last.until();
        }
        schedule.next_at = table.next_due(schedule.fired_until);
        for action in actions {
            self.note(i, &action, open);
        }
        Ok(())
    }

    fn note(&mut self, i: usize, action: &Action, open: &[Open]) {
        let (at, status, detail) = match action {
            Action::Start { at, cancels } => match &self.ways[i] {
                Err(refused) => (*at, FireStatus::Failed, Some(refused.detail())),
                Ok(_) => {
                    self.starts.push((i, *at));
                    if *cancels {
                        self.cancelled.extend(open.iter().filter_map(|fire| fire.run_id));
                    }
                    (*at, FireStatus::Started, None)
                }
            },
            Action::Buffer { at } => (*at, FireStatus::Buffered, None),
            Action::Skip { at, why } => (*at, FireStatus::Skipped, Some((*why).to_owned())),
            Action::Missed { since, count, .. } => {
                let or_more = if *count == COUNTED { " or more" } else { "" };
                (*since, FireStatus::Missed, Some(format!("{count}{or_more} from here on, while nothing ran")))
            }
        };
        let schedule_id = self.schedules[i].id;
        let fire = NewFire { schedule_id, scheduled_for: at.0, status: status.as_str(), by_hand: false, run_id: None, detail };
        self.fires.push(fire);
    }

    /// Stores the fires, accepts their runs, and says how far the schedules have come.
    async fn fire(&mut self, app: &App, tx: &mut Tx, after: &mut After, now: Timestamp) -> Result<usize> {
        let mut runs = self.agents_runs()?;
        let new: HashSet<Key> = store::fire(tx, &self.fires, now).await?.into_iter().collect();
        let is_new = |s: &Schedule, at: Timestamp| new.contains(&Key { schedule_id: s.id, scheduled_for: at });
        let schedules = &self.schedules;
        self.starts.retain(|(i, at)| is_new(&schedules[*i], *at));
        runs.retain(|(i, at, _)| is_new(&schedules[*i], *at));
        let failed = self.fires.iter().filter(|f| f.status == FireStatus::Failed.as_str());
        let failed: Vec<_> = failed.map(|f| f.schedule_id).collect();
        self.count_refusals(app, tx, &failed, now).await?;
        let (places, runs): (Vec<_>, Vec<_>) = runs.into_iter().map(|(i, at, run)| ((i, at), run)).unzip();
        let accepted: HashSet<_> = start::agents(app, tx, after, &runs, now).await?.into_iter().collect();
        for ((i, at), run) in places.iter().zip(&runs).filter(|(_, run)| !accepted.contains(&run.id)) {
            tracing::warn!(run = run.name, "a fire has no run: the name is taken");
            self.refused(app, tx, *i, *at, &start::taken(), now).await?;
        }
        let goals = self.start_goals(app, tx, after, now).await?;
        after.tell(tx, std::mem::take(&mut self.cancelled), NoticeKind::Cancel, "its schedule has fired again", now).await?;
        let progress: Vec<_> = self.schedules.iter().map(Progress::from).collect();
        store::advance(tx, &progress).await?;
        Ok(accepted.len() + goals)
    }

    /// Their ids go into their fires.
    fn agents_runs(&mut self) -> Result<Vec<(usize, Timestamp, Alone)>> {
        let mut runs = Vec::new();
        for (i, at) in &self.starts {
            if let Ok(Way::Agent(version)) = self.ways[*i] {
                runs.push((*i, *at, start::alone(&self.schedules[*i], *at, version)?));
            }
        }
        let ids: HashMap<_, _> = runs.iter().map(|(i, at, run)| ((self.schedules[*i].id, at.0), run.id)).collect();
        for fire in &mut self.fires {
            fire.run_id = ids.get(&(fire.schedule_id, fire.scheduled_for)).copied();
        }
        Ok(runs)
    }

    async fn count_refusals(&mut self, app: &App, tx: &mut Tx, failed: &[Uuid], now: Timestamp) -> Result<()> {
        for (schedule, way) in self.schedules.iter_mut().zip(&self.ways) {
            let Err(refused) = way else { continue };
            let times = failed.iter().filter(|id| **id == schedule.id).count();
            for _ in 0..times {
                refuse(app, tx, schedule, refused, now).await?;
            }
        }
        Ok(())
    }

    async fn start_goals(&mut self, app: &App, tx: &mut Tx, after: &mut After, now: Timestamp) -> Result<usize> {
        let mut started = 0;
        for (i, at) in std::mem::take(&mut self.starts) {
            if !matches!(self.ways[i], Ok(Way::Goal)) {
                continue;
            }
            match start::goal(app, tx, after, &self.schedules[i], at, now).await? {
                Ok(run) => {
                    let key = Key { schedule_id: self.schedules[i].id, scheduled_for: at };
                    store::set_fire(tx, key, FireStatus::Started, FireStatus::Started, Some(run), None).await?;
                    started += 1;
                }
                Err(refused) => self.refused(app, tx, i, at, &refused, now).await?,
            }
        }
        Ok(started)
    }

    /// A fire that is stored as started, and cannot be.
    async fn refused(
        &mut self,
        app: &App,
        tx: &mut Tx,
        i: usize,
        at: Timestamp,
        refused: &Refused,
        now: Timestamp,
    ) -> Result<()> {
        let key = Key { schedule_id: self.schedules[i].id, scheduled_for: at };
        store::set_fire(tx, key, FireStatus::Started, FireStatus::Failed, None, Some(&refused.detail())).await?;
        refuse(app, tx, &mut self.schedules[i], refused, now).await
    }
}
