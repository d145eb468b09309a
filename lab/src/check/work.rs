//! Goals, schedules and files: the parts of the check that know what they are.
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use runmill_testkit::ledger::{EventRow, RunRow};
use uuid::Uuid;

use super::{Evidence, RunMove, StatusMove, people};
use crate::history::{Goal, Schedule};

#[derive(Clone, Debug)]
pub struct GoalRow {
    pub id: Uuid,
    pub thread_id: Uuid,
    pub status: String,
}

#[derive(Clone, Debug)]
pub struct TaskRow {
    pub id: Uuid,
    pub goal_id: Option<Uuid>,
    pub status: String,
}

#[derive(Clone, Debug)]
pub struct FireRow {
    pub schedule_id: Uuid,
    /// µs since 1970.
    pub scheduled_for: i64,
    pub status: String,
    pub run_id: Option<Uuid>,
}

#[derive(Clone, Debug)]
pub struct ApprovalRow {
    pub id: Uuid,
    pub run_id: Uuid,
    pub status: String,
}

/// A stored attachment, or an object of the store.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Blob {
    pub path: String,
    pub sha256: String,
}

/// µs by which fires may be late when their schedule is disabled: the rest is not made up for.
const LATE: i64 = 5_000_000;

/// What is in the database and in the store beside runs.
#[derive(Clone, Debug, Default)]
pub struct Work {
    pub goals: Vec<GoalRow>,
    pub tasks: Vec<TaskRow>,
    pub fires: Vec<FireRow>,
    pub approvals: Vec<ApprovalRow>,
    /// Every change of every run's row, in order.
    pub moves: Vec<RunMove>,
    pub statuses: Vec<StatusMove>,
    /// Events and steps that were written by an execution which did not have its run any more.
    pub stale: Vec<String>,
    /// Rows of attachments.
    pub attachments: Vec<Blob>,
    /// Objects in the store.
    pub objects: Vec<Blob>,
}

/// Whether something that was asked for explains the run.
pub fn is_known(evidence: &Evidence<'_>, run: &RunRow) -> bool {
    let work = evidence.work;
    work.fires.iter().any(|f| f.run_id == Some(run.id))
        || run.retry_of.is_some_and(|first| people::failed_first(evidence, first).is_some())
        || run.thread.strip_prefix("goal-").is_some_and(|id| evidence.seen.goals.iter().any(|g| g.id.to_string() == id))
        || matches!(run.kind.as_str(), "delivery" | "memory_extraction" | "transcription")
}

pub fn check(evidence: &Evidence<'_>, wrong: &mut Vec<String>) {
    for goal in &evidence.seen.goals {
        check_goal(evidence, goal, wrong);
    }
    fires(evidence, wrong);
    blobs(evidence, wrong);
}

/// Every task was completed once, after all that it depends on, and progress only grew.
fn check_goal(evidence: &Evidence<'_>, goal: &Goal, wrong: &mut Vec<String>) {
    let Some(row) = evidence.work.goals.iter().find(|g| g.id == goal.id) else {
        wrong.push(format!("the goal {} was created and is not there", goal.id));
        return;
    };
    if !goal.started {
        return;
    }
    if row.status != "completed" {
        wrong.push(format!("the goal {} is {}", goal.id, row.status));
    }
    let tasks: HashMap<_, _> = evidence.work.tasks.iter().filter(|t| t.goal_id == Some(goal.id)).map(|t| (t.id, t)).collect();
    if tasks.keys().copied().collect::<BTreeSet<_>>() != goal.tasks.keys().copied().collect() {
        wrong.push(format!("the goal {} has {} tasks, {} were created", goal.id, tasks.len(), goal.tasks.len()));
    }
    let log: Vec<_> = evidence.ledger.events.iter().filter(|e| e.thread_id == row.thread_id).collect();
    let completed = moved(&log, "completed");
    let running = moved(&log, "running");
    for (id, depends_on) in &goal.tasks {
        let ends = completed.get(id).map_or(&[][..], Vec::as_slice);
        if ends.len() != 1 || tasks.get(id).is_none_or(|t| t.status != "completed") {
            wrong.push(format!("the task {id} was completed {} times and is {:?}", ends.len(), tasks.get(id).map(|t| &t.status)));
        }
        let Some(first) = running.get(id).and_then(|all| all.first()) else {
            wrong.push(format!("the task {id} was never begun"));
            continue;
        };
        for dependency in depends_on {
            if completed.get(dependency).and_then(|all| all.first()).is_none_or(|end| end > first) {
                wrong.push(format!("the task {id} was begun at {first}, before {dependency} was completed"));
            }
        }
    }
    let done: Vec<_> = log.iter().filter_map(|e| e.data["progress"]["done"].as_i64()).collect();
    if !done.is_sorted() {
        wrong.push(format!("the progress of the goal {} went back: {done:?}", goal.id));
    }
}

/// The numbers of the events by which tasks came into a state.
fn moved(log: &[&EventRow], status: &str) -> HashMap<Uuid, Vec<i64>> {
    let mut all: HashMap<_, Vec<_>> = HashMap::new();
    for event in log.iter().filter(|e| e.kind == "task.changed" && e.data["status"] == status) {
        if let Some(id) = event.data["taskId"].as_str().and_then(|id| id.parse().ok()) {
            all.entry(id).or_default().push(event.seq);
        }
    }
    all
}

/// Each instant once, none left out between the first and the last, and each fire's run is its own.
fn fires(evidence: &Evidence<'_>, wrong: &mut Vec<String>) {
    let runs: HashMap<_, _> = evidence.ledger.runs.iter().map(|run| (run.id, run)).collect();
    let mut owners = HashSet::new();
    let mut by_schedule: BTreeMap<Uuid, Vec<i64>> = BTreeMap::new();
    for fire in &evidence.work.fires {
        by_schedule.entry(fire.schedule_id).or_default().push(fire.scheduled_for);
        match fire.run_id {
            Some(run) if !owners.insert(run) => wrong.push(format!("the run {run} was fired twice")),
            // They overlap, may fail, and what was missed is made up for: nothing is skipped.
            Some(run) if fire.status == "succeeded" && runs.get(&run).is_some_and(|run| run.state == "succeeded") => {}
            run => {
                let state = run.and_then(|run| runs.get(&run)).map(|run| &run.state);
                wrong.push(format!("the fire at {} is {}, its run {run:?} is {state:?}", fire.scheduled_for, fire.status));
            }
        }
    }
    for schedule in &evidence.seen.schedules {
        let mut instants = by_schedule.remove(&schedule.id).unwrap_or_default();
        instants.sort_unstable();
        check_schedule(schedule, &instants, wrong);
    }
}

/// From its creation to its end, without a gap.
fn check_schedule(schedule: &Schedule, instants: &[i64], wrong: &mut Vec<String>) {
    let id = schedule.id;
    let every = i64::try_from(schedule.every.as_micros()).unwrap_or(i64::MAX);
    if let Some(two) = instants.windows(2).find(|two| two[1] - two[0] != every) {
        wrong.push(format!("the schedule {id} fired at {} and then at {}", two[0], two[1]));
    }
    let (Some(first), Some(last)) = (instants.first(), instants.last()) else {
        wrong.push(format!("the schedule {id} never fired"));
        return;
    };
    if *first > schedule.created + 2 * every {
        wrong.push(format!("the schedule {id} of {} fired first at {first}", schedule.created));
    }
    match schedule.stopped {
        // What is due in the moment in which it is disabled may come or not, and so may what is late by then.
        Some(stopped) if *last + LATE >= stopped => {}
        stopped => wrong.push(format!("the schedule {id} fired last at {last}, it was stopped at {stopped:?}")),
    }
}

/// What was answered as stored is there as it was sent; rows and objects are the same.
fn blobs(evidence: &Evidence<'_>, wrong: &mut Vec<String>) {
    let work = evidence.work;
    let (rows, objects): (BTreeSet<_>, BTreeSet<_>) = (work.attachments.iter().collect(), work.objects.iter().collect());
    for lost in rows.difference(&objects) {
        wrong.push(format!("the file {} is in the database and not in the store", lost.path));
    }
    for stray in objects.difference(&rows) {
        wrong.push(format!("the object {} is in the store and not in the database", stray.path));
    }
    for upload in &evidence.seen.uploads {
        let Some(path) = &upload.path else { continue };
        let sent = Blob { path: path.clone(), sha256: upload.sha256.clone() };
        if !rows.contains(&sent) {
            wrong.push(format!("the upload {path} was answered and is not there as it was sent"));
        }
    }
}
