//! A goal at work. What is to be done next is a function of how the goal and its tasks stand (`domain::board`); the driver here does it,
//! journals what must not be done twice (a task started, a person asked, a plan ordered), and lets the run be parked until something
//! changes. So a crash anywhere forgets nothing, and a goal that waits holds no worker.
mod approvals;
mod plans;

use std::sync::Arc;

use runmill_shared::{
    App,
    domain::{
        board::{self, Act, Board, Decision},
        event::{NewEvent, kind},
        goal::{Goal, GoalStatus},
        run::{Claimed, RunError, Waiting},
        step::StepKind,
        task::Task,
    },
    jobs::GoalRun,
    services::{
        goals::drive,
        runs::execution::{End, Parked},
        tasks,
    },
};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    Failure, Left,
    journal::Journal,
    recorder::{Recorder, writes},
};

const BEGIN: &str = "begin";

/// One goal's run in the hands of this worker.
struct Driver<'a> {
    app: &'a App,
    journal: Journal,
    goal_id: Uuid,
    wake_seq: i64,
}

/// Executes a goal's run until it ends or has to wait.
pub async fn execute(app: &App, recorder: &Recorder, run: Arc<Claimed>) -> Result<Left, Failure> {
    let input: GoalRun =
        serde_json::from_value(run.input.clone()).map_err(|e| Failure::run("INPUT_UNREADABLE", e.to_string(), false))?;
    let wake_seq = run.wake_seq;
    let journal = Journal::open(app, run, recorder.clone()).await?;
    let mut driver = Driver { app, journal, goal_id: input.goal_id, wake_seq };
    driver.begin(&input).await?;
    driver.drive().await
}

impl Driver<'_> {
    /// Once, however often the run is taken up: it is woken many times.
    async fn begin(&mut self, input: &GoalRun) -> Result<(), Failure> {
        if self.journal.finished(BEGIN).is_some() {
            return Ok(());
        }
        let run = self.journal.run.clone();
        let started =
            json!({ "attempt": run.attempt + 1, "agentId": Value::Null, "model": Value::Null, "goalId": input.goal_id });
        self.journal.emit(NewEvent::new(kind::RUN_STARTED, started));
        let steps = [
            self.journal.starting(BEGIN, StepKind::Decision, BEGIN, json!({ "goalId": input.goal_id, "fresh": input.fresh })),
            self.journal.finishing(BEGIN, json!({})),
        ];
        Ok(drive::begin(self.app, &run, input, &steps).await?)
    }

    async fn drive(mut self) -> Result<Left, Failure> {
        loop {
            let gone = || Failure::run("GOAL_NOT_FOUND", "the goal was deleted", false);
            let (goal, tasks) = drive::look(self.app, self.goal_id).await?.ok_or_else(gone)?;
            let (asked, plan) = (self.asked(&goal).await?, self.planned().await?);
            let board = Board {
                goal: &goal,
                tasks: &tasks,
                asked: &asked,
                plan: plan.as_ref(),
                replans: self.replans(),
                max_replans: self.app.config.goals.max_replans,
                is_held: self.journal.run.paused,
            };
            match board::next(&board, self.app.clock.now()) {
                Decision::End(end) => return self.end(end, &tasks).await,
                Decision::Plan { anew } => self.plan(&goal, anew).await?,
                Decision::Act(acts) => self.act(&goal, &tasks, acts).await?,
                Decision::Wait(waiting) => {
                    if self.park(&waiting).await? {
                        return Ok(Left::Parked);
                    }
                }
            }
        }
    }

    async fn act(&mut self, goal: &Goal, tasks: &[Task], acts: Vec<Act>) -> Result<(), Failure> {
        let find = |id: Uuid| tasks.iter().find(|t| t.id == id);
        let mut ask = Vec::new();
        for act in acts {
            match act {
                Act::Ask(id) => ask.extend(find(id)),
                Act::Refuse(id, why) => self.refuse(goal, id, &why).await?,
                Act::Start(id) => {
                    if let Some(task) = find(id) {
                        self.start(goal, task, tasks).await?;
                    }
                }
            }
        }
        self.ask(goal, &ask).await
    }

    /// In the transaction that journals it: whoever takes this run over finds the task running.
    async fn start(&mut self, goal: &Goal, task: &Task, all: &[Task]) -> Result<(), Failure> {
        let run = self.journal.run.clone();
        let child = tasks::child(self.app, &run.external_id, goal, task, all).await?;
        // It may be started again: after a failure, or when somebody stopped its run.
        let key = self.next_key("task", task.id);
        let intent = json!({ "childRunId": child.id, "taskId": task.id, "agentId": child.agent_id, "attempt": task.attempt + 1 });
        let steps = [
            self.journal.starting(&key, StepKind::Child, &task.key, intent),
            self.journal.finishing(&key, json!({ "childRunId": child.id })),
        ];
        if !drive::start(self.app, &run, goal.id, task.id, &child, &steps).await? {
            // Never written.
            self.journal.abandoning(&key);
        }
        Ok(())
    }

    /// The key of the next step of that name about a task or the plan.
    fn next_key(&self, name: &str, about: Uuid) -> String {
        let before = format!("{name}:{about}:");
        format!("{before}{}", self.journal.steps().filter(|s| s.key.starts_with(&before)).count())
    }

    /// `false`: something happened meanwhile, look again.
    async fn park(&mut self, waiting: &Waiting) -> Result<bool, Failure> {
        match self.journal.park(self.app, self.wake_seq, waiting).await? {
            Parked::Yes => Ok(true),
            Parked::Woken(seq) => {
                self.wake_seq = seq;
                Ok(false)
            }
        }
    }

    /// Ends the run, and the goal with it.
    async fn end(self, end: board::End, tasks: &[Task]) -> Result<Left, Failure> {
        let usage = board::usage(tasks);
        let result = drive::result(GoalStatus::Completed, tasks);
        let failed = |error: &RunError| NewEvent::failed(error, false).with_usage(Some(usage));
        let (end, last) = match &end {
            board::End::Completed => {
                let finished = NewEvent::finished(&result, usage, &[]);
                (End::succeeded(result), finished)
            }
            board::End::Failed(error) => (End::failed(error.clone()), failed(error)),
            board::End::Cancelled => {
                let cancelled = NewEvent::cancelled("the goal was cancelled").with_usage(Some(usage));
                (End::cancelled(), cancelled)
            }
        };
        self.journal.recorder.end(&self.journal.run, end.using(usage), writes(vec![last], Vec::new(), Vec::new())).await?;
        Ok(Left::Ended)
    }
}
