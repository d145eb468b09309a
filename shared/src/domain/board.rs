//! What a goal's run sees when it is taken up, and what it does then. The same board gives the same decision, so that nothing has to be
//! remembered but what must not be done twice.
use std::collections::HashMap;

use uuid::Uuid;

use super::{
    agent::Budget,
    goal::{Autonomy, Goal, GoalStatus, OnFailure},
    run::{RunError, RunUsage, Waiting},
    task::{Assignee, STARVED, Task, TaskStatus},
};
use crate::clock::Timestamp;

/// So many of the tasks that failed are named.
const NAMED: usize = 3;

pub struct Board<'a> {
    pub goal: &'a Goal,
    /// All of the goal's.
    pub tasks: &'a [Task],
    /// What became of the approvals that the run has asked for last, by task.
    pub asked: &'a HashMap<Uuid, Asked>,
    /// What became of the plan that the run has asked for last.
    pub plan: Option<&'a Planned>,
    /// How often the run has had the goal planned anew, and may.
    pub replans: u32,
    pub max_replans: u32,
    /// Somebody holds the run itself.
    pub is_held: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Asked {
    Open { approval: Uuid, until: Timestamp },
    Approved,
    Refused(RunError),
}

#[derive(Clone, Debug, PartialEq)]
pub enum Planned {
    /// By this run, which has not ended.
    UnderWay(Uuid),
    Failed(RunError),
}

#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// Its tasks are to be found first, or, those that are not done, anew.
    Plan {
        anew: bool,
    },
    Act(Vec<Act>),
    End(End),
    Wait(Waiting),
}

/// Something that is done to one task.
#[derive(Clone, Debug, PartialEq)]
pub enum Act {
    Start(Uuid),
    /// A person is asked whether it may be executed.
    Ask(Uuid),
    /// A person does not want it.
    Refuse(Uuid, RunError),
}

#[derive(Clone, Debug, PartialEq)]
pub enum End {
    Completed,
    Failed(RunError),
    Cancelled,
}

/// What is to be done now.
pub fn next(board: &Board<'_>, now: Timestamp) -> Decision {
    let goal = board.goal;
    if let Some(end) = ended(goal) {
        return Decision::End(end);
    }
    let open = board.tasks.iter().filter(|t| !t.status.is_ended()).count();
    if is_done(board.tasks) {
        return Decision::End(End::Completed);
    }
    if let Some(error) = limit(board, now) {
        return Decision::End(End::Failed(error));
    }
    match board.plan {
        Some(Planned::Failed(error)) => return Decision::End(End::Failed(error.clone())),
        Some(Planned::UnderWay(run)) => {
            return Decision::Wait(Waiting::Children { runs: vec![*run], until: until(board) });
        }
        // By somebody else's.
        None if goal.status == GoalStatus::Planning => return Decision::Wait(Waiting::Tasks { until: until(board) }),
        None => {}
    }
    if board.is_held || goal.status == GoalStatus::Paused {
        return Decision::Wait(Waiting::Paused { until: until(board) });
    }
    if board.tasks.is_empty() {
        return Decision::Plan { anew: false };
    }
    let acts = acts(board);
    if !acts.is_empty() {
        return Decision::Act(acts);
    }
    if may_replan(board) {
        return Decision::Plan { anew: true };
    }
    if open == 0 { Decision::End(End::Failed(failure(board.tasks))) } else { Decision::Wait(waiting(board)) }
}

/// Somebody has ended the goal; its run follows.
fn ended(goal: &Goal) -> Option<End> {
    match goal.status {
        GoalStatus::Completed => Some(End::Completed),
        GoalStatus::Cancelled => Some(End::Cancelled),
        GoalStatus::Failed => {
            let unknown = || RunError::new("GOAL_FAILED", "the goal has failed", false);
            Some(End::Failed(goal.error.clone().unwrap_or_else(unknown)))
        }
        _ => None,
    }
}

/// Of what has not been cancelled, and there is something.
fn is_done(tasks: &[Task]) -> bool {
    let mut counted = tasks.iter().filter(|t| t.status != TaskStatus::Cancelled).peekable();
    counted.peek().is_some() && counted.all(|t| t.status == TaskStatus::Completed)
}

/// The limit that has been reached.
fn limit(board: &Board<'_>, now: Timestamp) -> Option<RunError> {
    if board.goal.deadline.is_some_and(|at| at <= now) {
        return Some(RunError::new("DEADLINE_EXCEEDED", "the goal's deadline has passed", false));
    }
    let exhausted = |what: &str| RunError::new("BUDGET_EXHAUSTED", format!("the goal has used its budget of {what}"), false);
    let Budget { max_tokens, max_cost_micros, .. } = board.goal.settings.budget;
    let used = usage(board.tasks);
    if max_tokens.is_some_and(|most| used.input_tokens + used.output_tokens >= most) {
        return Some(exhausted("tokens"));
    }
    if max_cost_micros.is_some_and(|most| used.cost_micros >= most) {
        return Some(exhausted("cost"));
    }
    out_of_time(board.goal).is_some_and(|at| at <= now).then(|| exhausted("time"))
}

/// What the runs of these tasks have used together.
pub fn usage(tasks: &[Task]) -> RunUsage {
    tasks.iter().fold(RunUsage::default(), |mut sum, task| {
        sum.input_tokens += task.usage.input_tokens;
        sum.output_tokens += task.usage.output_tokens;
        sum.cached_input_tokens += task.usage.cached_input_tokens;
        sum.cost_micros += task.usage.cost_micros;
        sum
    })
}

/// When its budget of time is used up.
fn out_of_time(goal: &Goal) -> Option<Timestamp> {
    let most = std::time::Duration::from_secs(goal.settings.budget.max_seconds?);
    Some(goal.started_at?.after(most))
}

/// When the goal has to be looked at whatever happens.
fn until(board: &Board<'_>) -> Option<Timestamp> {
    [board.goal.deadline, out_of_time(board.goal)].into_iter().flatten().min()
}

/// What can be done with those that are ready: the most urgent first, then as planned.
fn acts(board: &Board<'_>) -> Vec<Act> {
    if board.goal.autonomy == Autonomy::PlanOnly {
        return Vec::new();
    }
    let mut ready: Vec<_> = board.tasks.iter().filter(|t| t.status == TaskStatus::Ready && is_agents(t)).collect();
    ready.sort_by_key(|t| (-t.priority, t.position, t.id));
    let mut room = room(board);
    let mut acts = Vec::new();
    for task in ready {
        let asked = if board.goal.autonomy == Autonomy::Auto { Some(&Asked::Approved) } else { board.asked.get(&task.id) };
        match asked {
            None => acts.push(Act::Ask(task.id)),
            Some(Asked::Open { .. }) => {}
            Some(Asked::Refused(why)) => acts.push(Act::Refuse(task.id, why.clone())),
            Some(Asked::Approved) if room > 0 => {
                room -= 1;
                acts.push(Act::Start(task.id));
            }
            Some(Asked::Approved) => {}
        }
    }
    acts
}

/// Not a person's.
fn is_agents(task: &Task) -> bool {
    !matches!(task.assignee, Some(Assignee::User(_)))
}

/// How many more may run at once.
fn room(board: &Board<'_>) -> usize {
    usize::try_from(board.goal.settings.max_parallel).unwrap_or(usize::MAX).saturating_sub(running(board.tasks))
}

fn running(tasks: &[Task]) -> usize {
    tasks.iter().filter(|t| t.status == TaskStatus::Running).count()
}

fn has_failed(task: &Task) -> bool {
    matches!(task.status, TaskStatus::Failed | TaskStatus::Rejected)
}

/// What goes on by itself is let to its end first: one plan takes up all that failed meanwhile.
fn may_replan(board: &Board<'_>) -> bool {
    board.goal.settings.on_failure == OnFailure::Replan
        && board.replans < board.max_replans
        && running(board.tasks) == 0
        && board.tasks.iter().any(has_failed)
}

fn failure(tasks: &[Task]) -> RunError {
    let counted = tasks.iter().filter(|t| t.status != TaskStatus::Cancelled).count();
    let failed: Vec<_> = tasks.iter().filter(|t| has_failed(t)).collect();
    if failed.is_empty() {
        return RunError::new("NOTHING_LEFT", "all tasks of the goal have been cancelled", false);
    }
    let is_starved = |t: &Task| t.error.as_ref().is_some_and(|e| e.code == STARVED);
    let told = failed.iter().filter(|t| !is_starved(t)).take(NAMED).map(|t| match &t.error {
        Some(error) => format!("{} ({})", t.title, error.message),
        None => t.title.clone(),
    });
    let told: Vec<_> = told.collect();
    let message = format!("{} of {counted} tasks were not completed: {}", failed.len(), told.join("; "));
    RunError::new("TASKS_FAILED", message, false)
}

/// Until a task changes; a person is waited for where one was asked.
fn waiting(board: &Board<'_>) -> Waiting {
    let ready = board.tasks.iter().filter(|t| t.status == TaskStatus::Ready);
    let open = ready.filter_map(|t| match board.asked.get(&t.id) {
        Some(Asked::Open { approval, until }) => Some((*approval, *until)),
        _ => None,
    });
    let (approvals, expiries): (Vec<_>, Vec<_>) = open.unzip();
    let until = expiries.into_iter().chain(until(board)).min();
    if approvals.is_empty() { Waiting::Tasks { until } } else { Waiting::Approval { approvals, until } }
}

#[cfg(test)]
mod tests;
